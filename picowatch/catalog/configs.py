"""Reads the configs of diffusers folders: the keys that are known, each within its limit.

They are strangers' files. What libraries would make of any other key is theirs to say
(`_attn_implementation` ends in the advice to install a package), and a single large number is
gigabytes or minutes before the first weight is read.
"""

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from picowatch.catalog.headers import small_json
from picowatch.errors import ModelRefused
from picowatch.files.inside import open_regular
from picowatch.recipe.messages.problems import shown

_MAX_BYTES = 1_000_000
_MOST = 10_000  # of any number that has no limit of its own
_MOST_ENTRIES = 16  # of a list
_MOST_LETTERS = 100
_FEW_LAYERS = 16
_WORDS_OF_A_VOCABULARY = 100_000

# diffusers' UNet2DConditionModel, ControlNetModel and AutoencoderKL, transformers' CLIPTextConfig,
# and what diffusers' schedulers know of the model they are for.
_KNOWN = """
    sample_size in_channels out_channels center_input_sample flip_sin_to_cos freq_shift
    down_block_types mid_block_type up_block_types only_cross_attention block_out_channels
    layers_per_block downsample_padding mid_block_scale_factor dropout act_fn norm_num_groups
    norm_eps cross_attention_dim transformer_layers_per_block
    reverse_transformer_layers_per_block encoder_hid_dim encoder_hid_dim_type attention_head_dim
    num_attention_heads dual_cross_attention use_linear_projection class_embed_type
    addition_embed_type addition_time_embed_dim num_class_embeds upcast_attention
    resnet_time_scale_shift resnet_skip_time_act resnet_out_scale_factor time_embedding_type
    time_embedding_dim time_embedding_act_fn timestep_post_act time_cond_proj_dim conv_in_kernel
    conv_out_kernel projection_class_embeddings_input_dim attention_type class_embeddings_concat
    mid_block_only_cross_attention cross_attention_norm addition_embed_type_num_heads
    global_pool_conditions controlnet_conditioning_channel_order

    latent_channels scaling_factor shift_factor latents_mean latents_std force_upcast
    use_quant_conv use_post_quant_conv mid_block_add_attention

    vocab_size hidden_size intermediate_size projection_dim num_hidden_layers
    max_position_embeddings hidden_act layer_norm_eps attention_dropout initializer_range
    initializer_factor pad_token_id bos_token_id eos_token_id

    num_train_timesteps beta_start beta_end beta_schedule trained_betas prediction_type
    clip_sample clip_sample_range set_alpha_to_one skip_prk_steps steps_offset timestep_spacing
    rescale_betas_zero_snr thresholding dynamic_thresholding_ratio sample_max_value
    _class_name
"""
KNOWN = frozenset(_KNOWN.split())
_LIMITS = dict.fromkeys(("vocab_size", "pad_token_id", "bos_token_id", "eos_token_id"),
                        _WORDS_OF_A_VOCABULARY) | {
    "layers_per_block": _FEW_LAYERS,
    "transformer_layers_per_block": _FEW_LAYERS,
    "reverse_transformer_layers_per_block": _FEW_LAYERS,
    "num_hidden_layers": 100,
}  # fmt: skip
_ENTRIES = {"trained_betas": _MOST}
# In Stability's configs, such as v2-inference-v.yaml.
_VELOCITY = re.compile(
    rb"""^[ \t]*parameterization[ \t]*:[ \t]*["']?v["']?[ \t]*(#.*)?\r?$""", re.MULTILINE
)


def read_config(path: Path) -> dict[str, Any]:
    """The known keys of a config; ModelRefused says what is missing, damaged or beyond measure."""
    return known_values(f"{path.parent.name}/{path.name}", read_json(path), KNOWN)


def known_values(name: str, values: dict[str, Any], keys: Collection[str]) -> dict[str, Any]:
    """Those under known `keys` of the config `name`; ModelRefused for one beyond measure."""
    known = {key: value for key, value in values.items() if key in keys}
    for key, value in known.items():
        _check(f"{name} says {key}", value, _LIMITS.get(key, _MOST), _ENTRIES.get(key))
    return known


def config_beside(checkpoint: Path) -> Path:
    """Where A1111 looks for the config of a checkpoint's file: model.yaml for model.safetensors."""
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
            raise ModelRefused(
                f"is damaged: {name} is too large; the limit is {_MAX_BYTES:,} bytes."
            )
        values = small_json(content, infinite=True)
    except FileNotFoundError as error:
        raise ModelRefused(f"is incomplete: {name} is missing.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelRefused(f"is damaged: {name} cannot be read ({error}).") from error
    if not isinstance(values, dict):
        raise ModelRefused(f"is damaged: {name} does not contain a JSON object.")
    return values


def _check(where: str, value: Any, most: int, entries: int | None = None) -> None:
    """Refuse a value with which making the model takes too much memory or time."""
    refuse_beyond(where, value, most, entries or _MOST_ENTRIES)
    if isinstance(value, list):
        for entry in value:
            _check(where, entry, most)
    elif isinstance(value, dict) or (isinstance(value, str) and len(value) > _MOST_LETTERS):
        raise ModelRefused(f"cannot be used: {where} with something that is not a short value.")


def refuse_beyond(where: str, value: Any, most: int, entries: int) -> None:
    """Refuse a number beyond `most`, and a list with more than so many `entries`."""
    if isinstance(value, list) and len(value) > entries:
        raise ModelRefused(
            f"cannot be used: {where} with {len(value):,} entries; the limit is {entries:,}."
        )
    if isinstance(value, int | float) and not -most <= value <= most:
        raise ModelRefused(f"cannot be used: {where}: {shown(str(value))}; the limit is {most:,}.")
