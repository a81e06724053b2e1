"""Colours of 16 bits, as two pictures: their higher and their lower bytes. Imports no torch."""

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Colours = npt.NDArray[Any]  # of 8 or 16 bits


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
