"""Colours of 16 bits, as two pictures: their higher and their lower bytes. Imports no torch."""

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from picowatch.files.pictures import Original

Colours = npt.NDArray[Any]  # of 8 or 16 bits
_BAND_PIXELS = 1_000_000


def joined(high: Image.Image, low: Image.Image | None) -> Colours:
    """Return the colours of a picture, without its transparency."""
    pixels = np.asarray(high)[..., :3]
    return pixels if low is None else pixels.astype(np.uint16) << 8 | np.asarray(low)


def parted(colours: Colours) -> tuple[Image.Image, Image.Image | None]:
    """Return colours as an RGB picture, and another of their lower bytes if they have 16 bits."""
    if colours.dtype == np.uint8:
        return Image.fromarray(colours), None
    high, low = (colours >> 8).astype(np.uint8), (colours & 255).astype(np.uint8)
    return Image.fromarray(high), Image.fromarray(low)


def resampled(
    colours: Colours, size: tuple[int, int], box: tuple[float, float, float, float]
) -> Colours:
    """Return a part of a picture in another size, by Lanczos' filter."""
    if colours.dtype == np.uint8:
        picture = Image.fromarray(colours).resize(size, Image.Resampling.LANCZOS, box)
        return np.asarray(picture)
    planes = [
        Image.fromarray(colours[..., at].astype(np.float32)).resize(
            size, Image.Resampling.LANCZOS, box
        )
        for at in range(3)
    ]
    found = np.stack([np.asarray(plane) for plane in planes], axis=-1)
    deep: Colours = np.rint(found.clip(0, 65_535)).astype(np.uint16)
    return deep


def over(top: Original, ground: Image.Image) -> Original:
    """Return a picture on a ground of the same size, both RGBA.

    Colours of 16 bits keep them; each of the ground has 8. It is computed band by band.
    """
    picture, low, profile = top
    result = Image.alpha_composite(ground, picture)
    if not low:
        return Original(result, None, profile)
    low, rows = low.copy(), max(1, _BAND_PIXELS // picture.width)
    for first in range(0, picture.height, rows):
        box = 0, first, picture.width, min(picture.height, first + rows)
        own, behind = (np.asarray(each.crop(box)) for each in (picture, ground))
        opaque = own[..., 3:].astype(np.float32) / 255
        left = behind[..., 3:] * (1 - opaque) / 255
        colours = joined(picture.crop(box), low.crop(box)) * opaque
        colours += behind[..., :3] * np.float32(257) * left
        colours /= (opaque + left).clip(1 / 65_535)
        high, lower = parted(np.rint(colours).astype(np.uint16))
        assert lower
        high.putalpha(result.crop(box).getchannel("A"))
        result.paste(high, box)
        low.paste(lower, box)
    return Original(result, low, profile)
