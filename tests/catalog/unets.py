"""The UNets, VAEs and text encoders of Stable Diffusion in the original layout, at full size.

checkpoints.json.xz has the name and the shape of each of their weights.
"""

import json
import lzma
from functools import partial
from pathlib import Path

Shapes = dict[str, tuple[int, ...]]
UNET = "model.diffusion_model."
VAE = "first_stage_model."
CLIP_L = "conditioner.embedders.0.transformer.text_model."
OPEN_CLIP_G = "conditioner.embedders.1.model."
OPEN_CLIP_H = "cond_stage_model.model."
LISTED = Path(__file__).with_name("checkpoints.json.xz")


def _checkpoint(name: str) -> Shapes:
    """A whole checkpoint."""
    listed = json.loads(lzma.decompress(LISTED.read_bytes()))
    return {tensor: tuple(shape) for tensor, shape in listed[name].items()}


sd15_shapes, sd2_shapes, sdxl_shapes = (partial(_checkpoint, n) for n in ("sd15", "sd2", "sdxl"))
