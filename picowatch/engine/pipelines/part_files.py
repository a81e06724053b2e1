"""Reads text encoders and VAEs of flow families from files of their own.

Their configs are the package's: no header says what a VAE's latents are scaled by, for example.
"""

from pathlib import Path
from typing import Any

import torch
import transformers
from diffusers import AutoencoderKL

from picowatch.catalog.configs import read_config
from picowatch.catalog.headers import read_header
from picowatch.catalog.models import Part
from picowatch.engine.devices import Target
from picowatch.engine.models.parts import read_single_vae, text_encoder_names
from picowatch.engine.models.weights import Tensors, empty, fill
from picowatch.engine.pipelines.transformer import read_widened


def read_part_file(part: Part, dtype: torch.dtype, device: torch.device) -> Any:
    """A text encoder or a VAE, its weights on `device` in the type `dtype`."""
    assert part.weights
    target = Target(device, dtype, dtype, dtype, "")
    if part.name == "vae":
        config = read_config(part.folder / "config.json")
        tensors = read_single_vae(part.weights, config, target)
        return fill(empty(AutoencoderKL, config), tensors, f"VAE {part.weights.name!r}", target)
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
