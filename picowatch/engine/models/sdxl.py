"""Stable Diffusion XL: two text encoders, a pooled prompt and the picture's size for its UNet.

"SDXL: Improving Latent Diffusion Models", https://arxiv.org/abs/2307.01952.
"""

from pathlib import Path
from typing import Any

from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from picowatch.catalog import Model
from picowatch.engine.devices import Target
from picowatch.engine.models.loaded import Loaded
from picowatch.engine.models.parts import ASSETS, FindFile
from picowatch.engine.models.sd1 import TextPart, load_with_texts
from picowatch.engine.models.weights import Tensors, read_tensors

# Configs, which single files leave out.
SDXL = ASSETS / "sdxl"

_FIRST = "conditioner.embedders.0.transformer."
_SECOND = "conditioner.embedders.1.model."
_PROJECTION = "text_projection.weight"
# Both encoders are read at their last layer but one, without its norm: clip_skip 2 is the least.
_LEAST_SKIP = 2
# OpenCLIP pads with the token 0, "!".
_PADDING = 0


def load(
    model: Model, configs: Path, target: Target, read_to: Target, find_file: FindFile
) -> Loaded:
    """All of a checkpoint but its VAE; see `sd1.load`.

    Empty negative prompts are zeros, as in A1111 and in diffusers without one.
    """
    return load_with_texts(
        model,
        configs,
        target,
        read_to,
        find_file,
        [
            TextPart(
                "text_encoder", CLIPTextModel, _read_first, least_skip=_LEAST_SKIP, normed=False
            ),
            TextPart(
                "text_encoder_2",
                CLIPTextModelWithProjection,
                _read_second,
                "clip_g",
                _PADDING,
                _LEAST_SKIP,
                normed=False,
            ),
        ],
        zeros_for_empty_negative=True,
    )


def _read_first(_: Any, file: Path, target: Target) -> Tensors:
    """CLIP ViT-L of a single file."""
    tensors = read_tensors([file], target, lambda name: name.startswith(_FIRST))
    return {name.removeprefix(_FIRST): tensor for name, tensor in tensors.items()}


def _read_second(encoder: Any, file: Path, target: Target) -> Tensors:
    """OpenCLIP ViT-bigG of a single file, in transformers' names."""
    tensors = read_tensors([file], target, lambda name: name.startswith(_SECOND))
    converted: Tensors = convert_open_clip_checkpoint(encoder, tensors, _SECOND)
    # diffusers' script for single files left its name and order as transformers has them, once.
    own = tensors.get(f"{_SECOND}{_PROJECTION}")
    return converted if own is None else converted | {_PROJECTION: own}
