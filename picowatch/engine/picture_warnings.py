"""Masks and sketches that probably do something else than their user expects. Imports no torch."""

import re
from collections.abc import Callable
from functools import lru_cache
from io import BytesIO
from pathlib import Path

from PIL import Image

from picowatch.engine.canvas import WHITE, decoded
from picowatch.files.pictures import decode_mask, decode_picture, picture_size
from picowatch.recipe.request import ControlUse, ImageRequest

# What follows light lines on black, by the names that such ControlNets are shared under.
_FOLLOWS_LINES = re.compile(r"canny|lineart|scribble|sketch|soft_?edge|hed|mlsd|\bedges", re.I)
_LIGHT_GROUND = 0.8  # the share of light pixels from which on lines are dark on a light ground
_ROUNDING = 0.02  # between the shapes of a picture and of a mask that was drawn on it


def picture_warnings(folder: Path | None, request: ImageRequest) -> list[str]:
    """What a user should look at again; `folder` keeps the pictures under their hashes.

    Raises RenderFailed if one is missing or damaged.
    """
    found = _mask_warnings(folder, request) if request.mask else []
    for use in filter(_follows_lines_as_drawn, request.control):
        if _light_share(folder, use.image_hash, use.image, decode_picture) >= _LIGHT_GROUND:
            found.append(
                f"'{use.image}' has dark lines on a light ground, and '{use.model}' follows light "
                "lines on black. Write preprocess: invert."
            )
    return found


def _follows_lines_as_drawn(use: ControlUse) -> bool:
    is_drawn = use.preprocess == "none" and bool(use.image_hash)
    return is_drawn and bool(_FOLLOWS_LINES.search(use.kind or use.model))


def _mask_warnings(folder: Path | None, request: ImageRequest) -> list[str]:
    white = _light_share(folder, request.mask_hash, request.mask, decode_mask)
    if white == (1 if request.mask_invert else 0):
        colour = "black" if request.mask_invert else "white"
        return [f"The mask '{request.mask}' has no {colour}, so nothing was redrawn."]
    mask = _size(folder, request.mask_hash, request.mask)
    picture = _size(folder, request.image_hash, request.image)
    apart = (mask[0] * picture[1]) / (mask[1] * picture[0])
    if request.resize == "stretch" or abs(apart - 1) <= _ROUNDING:
        return []
    return [
        f"The mask '{request.mask}' ({_shown(mask)}) has another shape than '{request.image}' "
        f"({_shown(picture)}), so it may cover something else. Draw it on a copy of the picture."
    ]


@lru_cache(maxsize=64)
def _light_share(
    folder: Path | None, digest: str, path: str, decode: Callable[[bytes], Image.Image]
) -> float:
    """The share of pixels that would count as white in a mask."""
    counts = decoded(decode, folder, digest, path).convert("L").histogram()
    return sum(counts[WHITE:]) / sum(counts)


@lru_cache(maxsize=64)
def _size(folder: Path | None, digest: str, path: str) -> tuple[int, int]:
    return decoded(lambda content: picture_size(BytesIO(content)), folder, digest, path)


def _shown(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
