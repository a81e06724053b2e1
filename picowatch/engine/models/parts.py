"""The parts of a checkpoint with a UNet, from a single file or a diffusers folder.

Which text encoders a family has, and how they are read, is in unets.py. What a UNet is shown
besides latents is in `Encoded` (unet/conditions.py); prediction type and betas are the scheduler's
config, `Loaded.schedule`.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)
from transformers import CLIPTextConfig, CLIPTokenizer

from picowatch.catalog import Model, read_config, weight_files
from picowatch.catalog.transformer_files import ASSETS
from picowatch.engine.devices import Target
from picowatch.engine.models.weights import Tensors, empty, fill, read_tensors
from picowatch.engine.unet.blocks import use_quick_blocks
from picowatch.engine.unet.kept import keep_between_steps
from picowatch.engine.unet.onednn import onednn_is_faster, use_onednn

SD15 = ASSETS / "sd15"
# The vocabulary of every CLIP that Stable Diffusion 1.x, 2.x and XL use; single files have none.
CLIP_TOKENIZER = SD15 / "tokenizer"

# In single files; the UNet's EMA copy (`model_ema.`) is not read.
_UNET = "model.diffusion_model."
# What embeds the guidance of distilled checkpoints (LCM), in single files and in diffusers' names.
_SINGLE_GUIDANCE, _GUIDANCE = "time_embed.cond_proj.weight", "time_embedding.cond_proj.weight"
_VAE = "first_stage_model."
_VAE_PARTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
# diffusers renamed the VAE's attention in 0.15; files from before have the old names.
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

# Reads one text encoder of a single file, for an empty model of it, in that model's names.
ReadText = Callable[[Any, Path, Target], Tensors]


def load_vae(model: Model, configs: Path, target: Target, read_to: Target) -> Any:
    """The VAE of a checkpoint, or one that is a file or folder of its own; see `load_unet`.

    `configs` are those of the checkpoint's family: files do not say which one a VAE is for.
    """
    folder = model.path / "vae" if model.kind == "checkpoint" else model.path
    single = model.layout == "file"
    config = read_config((configs / "vae" if single else folder) / "config.json")
    read_to = _without_overflow(config, read_to)
    if single:
        tensors = read_single_vae(model.path, config, read_to)
    else:
        tensors = _modern_vae_names(read_tensors(weight_files(folder), read_to))
    vae = fill(empty(AutoencoderKL, config), tensors, f"VAE of {model.name!r}", read_to)
    _use_quick_layers(vae, target)
    return vae


def _use_quick_layers(model: Any, target: Target) -> None:
    """Those of the device it computes on: another may hold it until the memory ladder moves it."""
    if onednn_is_faster(target.device, model.dtype):
        use_onednn(model)
    use_quick_blocks(model)


def _without_overflow(config: dict[str, Any], target: Target) -> Target:
    """SDXL's VAE overflows in float16, as its config says: such a VAE computes in float32."""
    if config.get("force_upcast") and target.dtype == torch.float16:
        return replace(target, dtype=torch.float32)
    return target


def load_unet(model: Model, configs: Path, target: Target, read_to: Target) -> Any:
    """The UNet, its weights on `read_to`, to compute on `target`."""
    unet = _unet(model, configs, read_to.for_unet(model.native_size))
    _use_quick_layers(unet, target)
    keep_between_steps(unet)
    return unet


def _unet(model: Model, configs: Path, target: Target) -> Any:
    config = read_config(configs / "unet" / "config.json")
    config["in_channels"] = model.in_channels
    if model.layout == "file":
        tensors = read_single_unet(model.path, config, target)
    else:
        tensors = read_tensors(weight_files(model.path / "unet"), target)
    if _GUIDANCE in tensors:
        config["time_cond_proj_dim"] = tensors[_GUIDANCE].shape[1]
    return fill(empty(UNet2DConditionModel, config), tensors, f"UNet of {model.name!r}", target)


def load_text_encoder(
    model: Model, configs: Path, target: Target, part: str, kind: Any, read_single: ReadText
) -> Any:
    """The text encoder in the folder `part`; `kind` is its class in transformers."""
    encoder = empty(kind, CLIPTextConfig(**read_config(configs / part / "config.json")))
    if model.layout == "file":
        tensors = read_single(encoder, model.path, target)
    else:
        tensors = read_tensors(weight_files(model.path / part), target)
    tensors = text_encoder_names(encoder, tensors)
    return fill(encoder, tensors, f"text encoder of {model.name!r}", target)


def load_tokenizer(model: Model, configs: Path) -> Any:
    """That of a diffusers folder; for a single file the one in `configs`, else CLIP's."""
    if model.layout == "folder":
        return _tokenizer(model.path / "tokenizer")
    own = configs / "tokenizer"
    # Single files all share one, which takes a third of a second to read.
    return _kept_tokenizer(own if own.is_dir() else CLIP_TOKENIZER)


def _tokenizer(folder: Path) -> Any:
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


_kept_tokenizer = cache(_tokenizer)


def schedule_of(model: Model, configs: Path) -> dict[str, Any]:
    """The scheduler's config, with what the checkpoint's own header says of its training."""
    config = read_config(configs / "scheduler" / "scheduler_config.json")
    if model.prediction:
        config["prediction_type"] = model.prediction
    if model.zero_snr:
        config |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return config


def read_single_unet(file: Path, config: dict[str, Any], target: Target) -> Tensors:
    """The UNet of a single file."""
    tensors = read_tensors([file], target, lambda name: name.startswith(_UNET))
    converted: Tensors = convert_ldm_unet_checkpoint(tensors, config)
    guidance = tensors.get(f"{_UNET}{_SINGLE_GUIDANCE}")
    return converted if guidance is None else converted | {_GUIDANCE: guidance}


def read_single_vae(file: Path, config: dict[str, Any], target: Target) -> Tensors:
    """The VAE in a checkpoint, or a VAE file in the original's or in diffusers' names."""
    tensors = read_tensors([file], target, lambda name: name.startswith((_VAE, *_VAE_PARTS)))
    return vae_names({name.removeprefix(_VAE): one for name, one in tensors.items()}, config)


def vae_names(tensors: Tensors, config: dict[str, Any]) -> Tensors:
    """The weights of a VAE in diffusers' names of today, of the original's or older ones."""
    if "decoder.up_blocks.0.resnets.0.conv1.weight" in tensors:
        return _modern_vae_names(tensors)
    converted: Tensors = convert_ldm_vae_checkpoint(tensors, config)
    return converted


def _modern_vae_names(tensors: Tensors) -> Tensors:
    """diffusers' names of today; attention weights as matrices, not 1x1 convolutions."""
    renamed = {}
    for name, tensor in tensors.items():
        for old, new in _OLD_ATTENTION.items():
            name = re.sub(rf"(attentions\.\d+)\.{old}\.", rf"\1.{new}.", name)
        flat = ".attentions." in name and tensor.ndim == 4
        renamed[name] = tensor[:, :, 0, 0] if flat else tensor
    return renamed


def text_encoder_names(model: Any, tensors: Tensors) -> Tensors:
    """Names as this transformers has them: a CLIPTextModel is flat since 5.6.

    A CLIPTextModelWithProjection has its CLIPTextModel below `text_model.`, beside its projection.
    """
    bare = {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
    prefix = "text_model." if hasattr(model, "text_model") else ""
    projection = "text_projection."
    return {
        name if name.startswith(projection) else f"{prefix}{name}": tensor
        for name, tensor in bare.items()
    }
