"""Reads text encoders and VAEs of flow families from files of their own.

Their configs are the package's: no header says what a VAE's latents are scaled by, for example.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers.loaders.single_file_utils import (
    convert_ldm_vae_checkpoint,
    convert_wan_vae_to_diffusers,
)

from picowatch.catalog.configs import read_json
from picowatch.catalog.headers import read_header
from picowatch.catalog.models import Part
from picowatch.engine.devices import Target
from picowatch.engine.models.parts import read_single_vae, text_encoder_names
from picowatch.engine.models.weights import Tensors, empty, fill, read_tensors
from picowatch.engine.pipelines.transformer import read_widened


def read_part_file(part: Part, dtype: torch.dtype, device: torch.device) -> Any:
    """A text encoder or a VAE, its weights on `device` in the type `dtype`."""
    assert part.weights
    target = Target(device, dtype, dtype, dtype, "")
    if part.name == "vae":
        config = read_json(part.folder / "config.json")
        tensors = _VAES[part.class_name](part.weights, config, target)
        vae = empty(getattr(diffusers, part.class_name), config)
        return fill(vae, tensors, f"VAE {part.weights.name!r}", target)
    kind = getattr(transformers, part.class_name)
    encoder = empty(kind, kind.config_class.from_pretrained(part.folder, local_files_only=True))
    tensors = _encoder(encoder, part.class_name, part.weights, dtype)
    return fill(encoder, tensors, f"text encoder {part.weights.name!r}", target)


def _encoder(encoder: Any, class_name: str, file: Path, dtype: torch.dtype) -> Tensors:
    """The weights of a text encoder, in the names that transformers has for them."""
    tensors = read_widened(file, read_header(file), "", dtype)
    if class_name.startswith("CLIP"):
        return text_encoder_names(encoder, tensors)
    if class_name.startswith("T5"):
        return {"encoder.embed_tokens.weight": tensors["shared.weight"], **tensors}
    return {name.removeprefix("model."): tensor for name, tensor in tensors.items()}


# FLUX.2's authors count these layers among its encoder's and decoder's.
_INNER = {"encoder.quant_conv.": "quant_conv.", "decoder.post_quant_conv.": "post_quant_conv."}


def _flux2_vae(file: Path, config: dict[str, Any], target: Target) -> Tensors:
    """What its latents are normalised with is among the weights; how often it was counted is not
    in all files, and changes nothing.
    """
    tensors = read_tensors([file], target)
    counted = {"bn.num_batches_tracked": torch.zeros((), dtype=torch.long)}
    if "decoder.up_blocks.0.resnets.0.conv1.weight" in tensors:
        return counted | tensors
    for inner, outer in _INNER.items():
        tensors = {name.replace(inner, outer): tensor for name, tensor in tensors.items()}
    normalising = {name: one for name, one in tensors.items() if name.startswith("bn.")}
    converted: Tensors = convert_ldm_vae_checkpoint(tensors, config)  # type: ignore[no-untyped-call]
    return counted | normalising | converted


def _qwen_image_vae(file: Path, _: dict[str, Any], target: Target) -> Tensors:
    """In the names of Wan's authors, or diffusers'."""
    tensors = read_tensors([file], target)
    if "decoder.conv_in.weight" in tensors:
        return tensors
    converted: Tensors = convert_wan_vae_to_diffusers(tensors)  # type: ignore[no-untyped-call]
    return converted


def _same_names(file: Path, _: dict[str, Any], target: Target) -> Tensors:
    return read_tensors([file], target)


_VAES: dict[str, Callable[[Path, dict[str, Any], Target], Tensors]] = {
    "AutoencoderKL": read_single_vae,
    "AutoencoderKLFlux2": _flux2_vae,
    "AutoencoderKLQwenImage": _qwen_image_vae,
    "AutoencoderDC": _same_names,
}
