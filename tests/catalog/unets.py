"""The UNets, VAEs and text encoders of Stable Diffusion in the original layout, at full size.

checkpoints.json.xz has the name and the shape of each of their weights.
"""

import json
import lzma
from pathlib import Path

Shapes = dict[str, tuple[int, ...]]
UNET = "model.diffusion_model."
VAE = "first_stage_model."
CLIP_L = "conditioner.embedders.0.transformer.text_model."
OPEN_CLIP_G = "conditioner.embedders.1.model."
OPEN_CLIP_H = "cond_stage_model.model."
LISTED = Path(__file__).with_name("checkpoints.json.xz")


def sd15_shapes() -> Shapes:
    """A whole checkpoint of Stable Diffusion 1.5."""
    return _checkpoint("sd15")


def sd2_shapes() -> Shapes:
    """A whole checkpoint of Stable Diffusion 2.x."""
    return _checkpoint("sd2")


def sdxl_shapes() -> Shapes:
    """A whole checkpoint of Stable Diffusion XL."""
    return _checkpoint("sdxl")


def _checkpoint(name: str) -> Shapes:
    listed = json.loads(lzma.decompress(LISTED.read_bytes()))
    return {tensor: tuple(shape) for tensor, shape in listed[name].items()}
