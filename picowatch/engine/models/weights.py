"""Weights from safetensors files to the names diffusers and transformers use.

Tensors are copied: safetensors maps files into memory, and a file that is overwritten in place
would change the model under our hands, or end the process (SIGBUS).
"""

import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights  # type: ignore[import-untyped]
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)
from safetensors import safe_open

from picowatch.engine.devices import Target
from picowatch.errors import RenderFailed

Tensors = dict[str, torch.Tensor]

_UNET = "model.diffusion_model."
_TEXT = "cond_stage_model.transformer."
_VAE = "first_stage_model."
_VAE_PARTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
# diffusers renamed the VAE's attention in 0.15; files from before have the old names.
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def read_tensors(
    files: Iterable[Path], target: Target, wanted: Callable[[str], bool] = lambda name: True
) -> Tensors:
    """Copies of the wanted tensors on the target's device; numbers in the target's type."""
    tensors: Tensors = {}
    for path in files:
        # Copying and converting takes a processor longer than the disk's cache gives it: all cores.
        with safe_open(path, framework="pt") as file, ThreadPoolExecutor() as pool:
            names = list(filter(wanted, file.keys()))
            found = [file.get_tensor(name) for name in names]
            tensors |= zip(names, pool.map(partial(_copied, target=target), found), strict=True)
    return tensors


def _copied(tensor: torch.Tensor, target: Target) -> torch.Tensor:
    """A copy where and as the target wants it."""
    dtype = target.dtype if tensor.is_floating_point() else tensor.dtype
    form = target.memory_format if tensor.ndim == 4 else torch.contiguous_format
    return tensor.to(target.device, dtype, copy=True, memory_format=form)


def read_unet(file: Path, config: dict[str, Any], target: Target) -> Tensors:
    """The UNet of a single file; its EMA copy (`model_ema.`) is left where it is."""
    tensors = read_tensors([file], target, lambda name: name.startswith(_UNET))
    converted: Tensors = convert_ldm_unet_checkpoint(tensors, config)  # type: ignore[no-untyped-call]
    return converted


def read_text_encoder(file: Path, target: Target) -> Tensors:
    """The text encoder of a single file."""
    tensors = read_tensors([file], target, lambda name: name.startswith(_TEXT))
    return {name.removeprefix(_TEXT): tensor for name, tensor in tensors.items()}


def read_vae(file: Path, config: dict[str, Any], target: Target) -> Tensors:
    """The VAE in a checkpoint, or a VAE file in the original's or in diffusers' names."""
    tensors = read_tensors([file], target, lambda name: name.startswith((_VAE, *_VAE_PARTS)))
    tensors = {name.removeprefix(_VAE): tensor for name, tensor in tensors.items()}
    if "decoder.up_blocks.0.resnets.0.conv1.weight" in tensors:
        return modern_vae_names(tensors)
    converted: Tensors = convert_ldm_vae_checkpoint(tensors, config)  # type: ignore[no-untyped-call]
    return converted


def modern_vae_names(tensors: Tensors) -> Tensors:
    """diffusers' names of today; attention weights as matrices, not 1x1 convolutions."""
    renamed = {}
    for name, tensor in tensors.items():
        for old, new in _OLD_ATTENTION.items():
            name = re.sub(rf"(attentions\.\d+)\.{old}\.", rf"\1.{new}.", name)
        flat = ".attentions." in name and tensor.ndim == 4
        renamed[name] = tensor[:, :, 0, 0] if flat else tensor
    return renamed


def text_encoder_names(model: Any, tensors: Tensors) -> Tensors:
    """Names as this transformers has them: without `text_model.` since 5.6, with it before."""
    bare = {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
    prefix = "text_model." if hasattr(model, "text_model") else ""
    return {f"{prefix}{name}": tensor for name, tensor in bare.items()}


def empty(model: Any, config: Any) -> Any:
    """A model without weights; buffers, which no file holds, are real.

    diffusers builds from a dict, transformers from a config object.
    """
    with init_empty_weights(include_buffers=False):
        return model.from_config(config) if isinstance(config, dict) else model(config)


def fill(model: Any, tensors: Tensors, what: str, target: Target) -> Any:
    """Put the tensors into an empty model; each of its weights must be there, in its shape."""
    try:
        missing = model.load_state_dict(tensors, strict=False, assign=True).missing_keys
    except RuntimeError as error:
        raise RenderFailed(
            f"The {what} does not fit Stable Diffusion 1.x: some weights have other shapes.",
            trace=str(error),
        ) from error
    if missing:
        raise RenderFailed(
            f"The {what} is incomplete: {len(missing)} weights are missing, starting with "
            f"{missing[0]}.",
            "Get the file again, or another one.",
        )
    model = model.to(target.device).eval().requires_grad_(False)
    return model.to(memory_format=target.memory_format)
