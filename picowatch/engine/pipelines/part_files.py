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
from picowatch.engine.models.parts import text_encoder_names, vae_names
from picowatch.engine.models.weights import Tensors, empty, fill
from picowatch.engine.pipelines.transformer import read_widened


def read_part_file(part: Part, dtype: torch.dtype, device: torch.device) -> Any:
    """A text encoder or a VAE, its weights on `device` in the type `dtype`."""
    assert part.weights
    target = Target(device, dtype, dtype, dtype, "")
    tensors = read_widened(part.weights, read_header(part.weights), part.prefix, dtype)
    if part.name == "vae":
        config = read_json(part.folder / "config.json")
        vae = empty(getattr(diffusers, part.class_name), config)
        tensors = _VAES[part.class_name](tensors, config)
        return fill(vae, tensors, f"VAE {part.weights.name!r}", target)
    kind = getattr(transformers, part.class_name)
    encoder = empty(kind, _config(kind, part.folder))
    tensors = _encoder_names(encoder, part, tensors)
    return fill(encoder, tensors, f"text encoder {part.weights.name!r}", target)


def _config(kind: Any, folder: Path) -> Any:
    """Of the language model alone, where the folder has one that sees pictures, too."""
    if kind is transformers.Qwen2_5_VLTextModel:
        whole: Any = transformers.Qwen2_5_VLConfig
        return whole.from_pretrained(folder, local_files_only=True).text_config
    return kind.config_class.from_pretrained(folder, local_files_only=True)


def _encoder_names(encoder: Any, part: Part, tensors: Tensors) -> Tensors:
    """The weights of a text encoder, in the names that transformers has for them."""
    if part.class_name.startswith("CLIP"):
        return text_encoder_names(encoder, _with_projection(part, tensors))
    if "T5" in part.class_name:
        return {"encoder.embed_tokens.weight": tensors["shared.weight"], **tensors}
    return {name.removeprefix("model."): tensor for name, tensor in tensors.items()}


_PROJECTION = "text_projection.weight"


def _with_projection(part: Part, tensors: Tensors) -> Tensors:
    """Stable Diffusion 3 reads the pooled output of CLIP L as it is, and that of G projected.

    So its folders have a unit matrix for L, whatever a file says (sd3_infer.py of
    https://github.com/Stability-AI/sd3-ref: return_projected_pooled=False). OpenCLIP's own
    projection, which old files have, is transposed.
    """
    if not part.class_name.endswith("WithProjection"):
        return tensors
    if part.name == "text_encoder":
        embedding = tensors["text_model.embeddings.token_embedding.weight"]
        return tensors | {_PROJECTION: torch.eye(embedding.shape[1], dtype=embedding.dtype)}
    old = tensors.get("text_projection")
    return tensors if old is None else tensors | {_PROJECTION: old.T}


def _kl_vae(tensors: Tensors, config: dict[str, Any]) -> Tensors:
    bare = {name.removeprefix("first_stage_model."): one for name, one in tensors.items()}
    return vae_names(bare, config)


# FLUX.2's authors count these layers among its encoder's and decoder's.
_INNER = {"encoder.quant_conv.": "quant_conv.", "decoder.post_quant_conv.": "post_quant_conv."}


def _flux2_vae(tensors: Tensors, config: dict[str, Any]) -> Tensors:
    """What its latents are normalised with is among the weights; how often it was counted is not
    in all files, and changes nothing.
    """
    counted = {"bn.num_batches_tracked": torch.zeros((), dtype=torch.long)}
    if "decoder.up_blocks.0.resnets.0.conv1.weight" in tensors:
        return counted | tensors
    for inner, outer in _INNER.items():
        tensors = {name.replace(inner, outer): tensor for name, tensor in tensors.items()}
    normalising = {name: one for name, one in tensors.items() if name.startswith("bn.")}
    converted: Tensors = convert_ldm_vae_checkpoint(tensors, config)
    return counted | normalising | converted


def _qwen_image_vae(tensors: Tensors, _: dict[str, Any]) -> Tensors:
    """In the names of Wan's authors, or diffusers'."""
    if "decoder.conv_in.weight" in tensors:
        return tensors
    converted: Tensors = convert_wan_vae_to_diffusers(tensors)
    return converted


def _same_names(tensors: Tensors, _: dict[str, Any]) -> Tensors:
    return tensors


_VAES: dict[str, Callable[[Tensors, dict[str, Any]], Tensors]] = {
    "AutoencoderKL": _kl_vae,
    "AutoencoderKLFlux2": _flux2_vae,
    "AutoencoderKLQwenImage": _qwen_image_vae,
    "AutoencoderDC": _same_names,
}
