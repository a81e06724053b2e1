"""VAEs in files and folders of their own: told apart by their layers, or by their configs.

Key names after diffusers (loaders/single_file_utils.py) and ComfyUI (comfy/sd.py).
"""

import re
from pathlib import Path
from typing import Any

from picowatch.catalog.configs import read_config, read_json
from picowatch.catalog.families import ONLY
from picowatch.catalog.folder_files import check_files, check_weights
from picowatch.catalog.headers import Header
from picowatch.catalog.models import Recognised
from picowatch.catalog.pipelines import check_numbers
from picowatch.errors import ModelRefused
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
from picowatch.recipe.messages.problems import shown

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
_TINY_CHANNELS = dict(zip((4, 16), _TINY, strict=True))
_TINY_FIRST, _TINY_LAST = "encoder.layers.0.weight", "decoder.layers.0.weight"
# What a file may have before the names of its tensors.
_PREFIXES = ("", "first_stage_model.", "vae.")
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
    """The number of latent channels of a tiny VAE."""
    return next(channels for channels, name in _TINY_CHANNELS.items() if name == variant)


def is_vae(header: Header) -> bool:
    """Whether a file has the first layer of a VAE's encoder or decoder."""
    if _is_tiny(header):
        return True
    return any(
        header.has(f"{prefix}{part}.{layer}.")
        for prefix in _PREFIXES
        for part in ("encoder", "decoder")
        for layer in ("conv_in", "conv1", "project_in")
    )


def _is_tiny(header: Header) -> bool:
    return header.inputs(_TINY_FIRST) == _COLOURS and _TINY_LAST in header.shapes


def recognise_vae(header: Header) -> Recognised:
    """A VAE in a file; ModelRefused for those of no family that is rendered."""
    prefix = "first_stage_model." if header.has("first_stage_model.") else ""
    unknown = ModelRefused(f"is a VAE of an unknown kind: {ONLY}")
    if _is_tiny(header):
        return _tiny(header.inputs(_TINY_LAST))
    if any(len(header.shapes.get(name, ())) == 5 for name in _FRAMES):
        if max(map(header.inputs, _FRAMES)) != _COLOURS:
            raise unknown
        return Recognised("vae", "", variant=QWEN_VAE)
    if header.has("encoder.stages."):
        raise ModelRefused(
            "is a VAE of Sana in the names of its authors: not supported. Get it in diffusers' "
            "names."
        )
    if header.has("encoder.down_blocks.0.0."):
        return Recognised("vae", "", variant=SANA_VAE)
    if header.has("bn.running_mean"):
        return Recognised("vae", "", variant=FLUX2_VAE)
    first = f"{prefix}decoder.conv_in.weight"
    channels = header.inputs(first)
    if channels == 16:
        wide = header.shapes[first][0] == _COGVIEW4_WIDTH
        return Recognised("vae", "", variant=COGVIEW4_VAE if wide else SIXTEEN)
    if channels != 4 or not header.has(f"{prefix}post_quant_conv."):
        raise unknown
    return Recognised("vae", "")


def _tiny(channels: int) -> Recognised:
    if channels not in _TINY_CHANNELS:
        raise ModelRefused(f"is a tiny VAE with {shown(str(channels))} latent channels: {ONLY}")
    return Recognised("vae", "", variant=_TINY_CHANNELS[channels])


def recognise_vae_folder(folder: Path) -> Recognised:
    """A VAE in diffusers' layout."""
    check_files(folder)
    config = read_json(folder / "config.json")
    class_name = str(config.get("_class_name"))
    if class_name == TINY_CLASS:
        check_numbers("config.json", config)
        check_weights(folder)
        return _tiny(config.get("latent_channels", 4))
    if class_name not in ("AutoencoderKL", *_CLASSES):
        raise ModelRefused(
            f"is a diffusers folder, but not of a supported VAE: its class is {shown(class_name)}."
        )
    variant = _CLASSES.get(class_name) or _variant(config)
    if variant:
        check_numbers("config.json", config)
    else:
        read_config(folder / "config.json")
    check_weights(folder)
    return Recognised("vae", "", variant=variant)


def _variant(config: dict[str, Any]) -> str:
    """Tell the variant of an AutoencoderKL by its latents."""
    channels, scale = config.get("latent_channels", 4), config.get("scaling_factor")
    if channels == 4:
        return ""
    known = _SCALED_BY.get(scale) if isinstance(scale, int | float) else None
    if channels != 16 or known is None:
        raise ModelRefused(
            f"is a VAE with {shown(str(channels))} latent channels, scaled by "
            f"{shown(str(scale))}: {ONLY}"
        )
    return known
