"""Reads the configs of diffusers folders, each number within its limit.

They are strangers' files: a single large number is gigabytes or minutes before the first weight is
read. What libraries would make of any other key is theirs to say, so schedulers and depth models
get the known ones alone.
"""

import os
import re
from pathlib import Path
from typing import Any

from picowatch.catalog.headers import small_json
from picowatch.errors import ModelRefused
from picowatch.files.inside import open_regular
from picowatch.recipe.messages.problems import shown

_MAX_BYTES = 1_000_000
_MOST_LAYERS = 200
_MOST_ENTRIES = 1_000  # of a list
_MOST_STEPS = 10_000
_MOST = 100_000_000
_DEPTHS = ("layers", "blocks", "depth")

# What diffusers' schedulers know of the model that they are for.
_OF_THE_MODEL = """
    num_train_timesteps beta_start beta_end beta_schedule trained_betas prediction_type
    clip_sample clip_sample_range set_alpha_to_one skip_prk_steps steps_offset timestep_spacing
    rescale_betas_zero_snr thresholding dynamic_thresholding_ratio sample_max_value
"""
# Depth Anything's config in transformers' layout, and its backbone's.
_DEPTH_ANYTHING = """
    patch_size reassemble_hidden_size reassemble_factors neck_hidden_sizes fusion_hidden_size
    head_in_index head_hidden_size depth_estimation_type max_depth
"""
_DINO_V2 = """
    hidden_size num_hidden_layers num_attention_heads mlp_ratio hidden_act layer_norm_eps
    image_size patch_size num_channels qkv_bias layerscale_value use_swiglu_ffn out_features
    out_indices apply_layernorm reshape_hidden_states use_mask_token
"""
# In Stability's configs, such as v2-inference-v.yaml.
_VELOCITY = re.compile(
    rb"""^[ \t]*parameterization[ \t]*:[ \t]*["']?v["']?[ \t]*(#.*)?\r?$""", re.MULTILINE
)


def read_config(path: Path) -> dict[str, Any]:
    """A config; ModelRefused says what is missing, damaged or beyond measure."""
    config = read_json(path)
    _check_numbers(f"{path.parent.name}/{path.name}", config)
    return config


def read_schedule(folder: Path) -> dict[str, Any]:
    """The config of a scheduler, as far as it is about the model; see `read_config`."""
    name = "scheduler_config.json"
    return _known(f"{folder.name}/{name}", read_json(folder / name), _OF_THE_MODEL)


def _known(name: str, values: dict[str, Any], keys: str) -> dict[str, Any]:
    known = {key: values[key] for key in keys.split() if key in values}
    _check_numbers(name, known)
    return known


def depth_config(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The known values of Depth Anything's config, and of that of its backbone."""
    values = read_json(folder / "config.json")
    backbone = values.get("backbone_config")
    kinds = values.get("model_type"), isinstance(backbone, dict) and backbone.get("model_type")
    if not isinstance(backbone, dict) or kinds != ("depth_anything", "dinov2"):
        raise ModelRefused(
            "is not a folder of Depth Anything with the backbone DINOv2, which alone guesses depth."
        )
    return (
        _known("config.json", values, _DEPTH_ANYTHING),
        _known("its backbone_config", backbone, _DINO_V2),
    )


def config_beside(checkpoint: Path) -> Path:
    """The config of a checkpoint's file, as A1111 finds it: model.yaml for model.safetensors."""
    return checkpoint.with_suffix(".yaml")


def says_velocity(checkpoint: Path) -> bool:
    """Whether the config beside a checkpoint's file says that its UNet predicts velocity."""
    try:
        with os.fdopen(open_regular(config_beside(checkpoint)), "rb") as file:
            return bool(_VELOCITY.search(file.read(_MAX_BYTES)))
    except OSError:
        return False


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object in a small file. diffusers writes -Infinity into schedulers' configs."""
    name = f"{path.parent.name}/{path.name}"
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise ValueError(f"it is too large; the limit is {_MAX_BYTES:,} bytes")
        values = small_json(content, infinite=True)
        if not isinstance(values, dict):
            raise ValueError("it does not contain a JSON object")
    except FileNotFoundError as error:
        raise ModelRefused(f"is incomplete: {name} is missing.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelRefused(f"is damaged: {name} cannot be read ({error}).") from error
    return values


def _check_numbers(where: str, value: Any, key: str = "") -> None:
    """Refuse a config with which making the model takes too much memory or time."""
    says = f"cannot be used: {where} says {shown(key)}"
    if isinstance(value, dict):
        for name, part in value.items():
            _check_numbers(where, part, str(name))
    elif isinstance(value, list):
        if len(value) > _MOST_ENTRIES:
            raise ModelRefused(
                f"{says} with {len(value):,} entries; the limit is {_MOST_ENTRIES:,}."
            )
        for part in value:
            _check_numbers(where, part, key)
    elif isinstance(value, int | float):
        most = _MOST_STEPS if key == "num_train_timesteps" else _MOST
        most = _MOST_LAYERS if any(word in key for word in _DEPTHS) else most
        if not -most <= value <= most:
            raise ModelRefused(f"{says}: {shown(str(value))}; the limit is {most:,}.")
    if key == "quantization_config" and value:
        raise ModelRefused("is quantised (quantization_config): not supported. Get it in bfloat16.")
