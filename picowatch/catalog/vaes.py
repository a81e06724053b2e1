"""VAEs: told apart by their layers in files, and by their configs in folders.

Key names after diffusers (loaders/single_file_utils.py) and ComfyUI (comfy/sd.py).
"""

import re
from collections.abc import Mapping
from typing import Any

from picowatch.catalog.headers import Header
from picowatch.families import (
    COGVIEW4_VAE,
    FAMILIES,
    FLUX2_VAE,
    FLUX_VAE,
    QWEN_VAE,
    SANA_VAE,
    SD3_VAE,
    SD_VAE,
    SIXTEEN,
)

# Files of Stable Diffusion 1.x, 2.x and XL look alike, and so do those of FLUX.1 and of Stable
# Diffusion 3.x; folders say what latents are scaled by.
_SCALED_BY = {0.3611: FLUX_VAE, 1.5305: SD3_VAE, 1.0: COGVIEW4_VAE}
_CLASSES = {
    "AutoencoderKLQwenImage": QWEN_VAE,
    "AutoencoderKLFlux2": FLUX2_VAE,
    "AutoencoderDC": SANA_VAE,
}
# diffusers' AutoencoderTiny (TAESD and its relatives) decodes latents as they are scaled. It is for
# the families of the VAE that it stands for: headers tell only the number of channels.
TINY_CLASS = "AutoencoderTiny"
_TINY = {"tiny": SD_VAE, "tiny, 16 latent channels": SIXTEEN}
_TINY_OF_CHANNELS = dict(zip((4, 16), _TINY, strict=True))
_TINY_FIRST, _TINY_LAST = "encoder.layers.0.weight", "decoder.layers.0.weight"
# The first layers of Wan's and Qwen-Image's encoders, in their authors' names and diffusers'.
_FRAMES = ("encoder.conv1.weight", "encoder.conv_in.weight")
_COGVIEW4_WIDTH = 1024  # of the last level; FLUX.1's has 512
_COLOURS = 3
# Headers do not tell the VAE of Stable Diffusion 3 from that of FLUX.1.
_SD3 = re.compile(r"sd[ ._-]?3|stable[ ._-]?diffusion[ ._-]?3", re.IGNORECASE)


def vae_by_name(variant: str, name: str) -> str:
    """The variant of a VAE, where its file's name alone tells it from another; else `variant`."""
    return SD3_VAE if variant == SIXTEEN and _SD3.search(name) else variant


def families_of(variant: str) -> tuple[str, ...]:
    """The names of the families that a VAE of this variant is for."""
    return tuple(row.name for key, row in FAMILIES.items() if serves(variant, key))


def serves(variant: str, family: str) -> bool:
    """Whether a VAE of this variant is for that family."""
    return _TINY.get(variant, variant) in FAMILIES[family].vaes


def is_tiny(variant: str) -> bool:
    """Whether a VAE of this variant only approximates pictures: it completes no checkpoint."""
    return variant in _TINY


def tiny_channels(variant: str) -> int:
    """The latent channels of a tiny VAE of this variant."""
    return next(number for number, name in _TINY_OF_CHANNELS.items() if name == variant)


def vae_of_header(header: Header) -> str | None:
    """The variant of the VAE in a file; None for anything else, as a whole checkpoint."""
    if header.has("model.diffusion_model."):
        return None
    if header.inputs(_TINY_FIRST) == _COLOURS:
        return _TINY_OF_CHANNELS.get(header.inputs(_TINY_LAST))
    if any(len(header.shapes.get(name, ())) == 5 for name in _FRAMES):
        return QWEN_VAE if max(map(header.inputs, _FRAMES)) == _COLOURS else None
    if header.has("encoder.down_blocks.0.0."):
        return SANA_VAE
    if header.has("bn.running_mean"):
        return FLUX2_VAE
    prefix = "first_stage_model." if header.has("first_stage_model.") else ""
    first = header.shapes.get(f"{prefix}decoder.conv_in.weight", ())
    if first[1:2] == (16,):
        return COGVIEW4_VAE if first[0] == _COGVIEW4_WIDTH else SIXTEEN
    of_sd = first[1:2] == (4,) and header.has(f"{prefix}post_quant_conv.")
    return SD_VAE if of_sd else None


def vae_of_config(config: Mapping[str, Any]) -> str | None:
    """The variant of the VAE with this config in diffusers' layout; None for any other."""
    class_name, channels = config.get("_class_name"), config.get("latent_channels", 4)
    if class_name == TINY_CLASS:
        return _TINY_OF_CHANNELS.get(channels) if isinstance(channels, int) else None
    if class_name != "AutoencoderKL":
        return _CLASSES.get(str(class_name))
    if channels == 4:
        return SD_VAE
    scale = config.get("scaling_factor")
    return _SCALED_BY.get(scale) if channels == 16 and isinstance(scale, int | float) else None
