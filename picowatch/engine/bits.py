"""Colours of 16 bits, as two pictures: their higher and their lower bytes. Imports no torch."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from picowatch.files.decoding import Original

Colours = npt.NDArray[Any]  # of 8 or 16 bits
LANCZOS_REACH = 3  # pixels of the smaller picture, from the middle of Pillow's filter
_BAND_PIXELS = 1_000_000  # each of which takes 30 bytes meanwhile


def bands(width: float, height: int) -> Iterator[tuple[int, int]]:
    """Yield the first row of each band of a picture, and the row after its last."""
    rows = max(1, int(_BAND_PIXELS / width))
    for top in range(0, height, rows):
        yield top, min(height, top + rows)


def joined(original: Original) -> Colours:
    """Return the colours of a picture, without its transparency."""
    pixels, low = np.asarray(original.picture)[..., :3], original.low
    return pixels if low is None else pixels.astype(np.uint16) << 8 | np.asarray(low)


def parted(colours: Colours, profile: bytes = b"") -> Original:
    """Return colours as an RGB picture."""
    if colours.dtype == np.uint8:
        return Original(Image.fromarray(colours), None, profile)
    high, low = (colours >> 8).astype(np.uint8), (colours & 255).astype(np.uint8)
    return Original(Image.fromarray(high), Image.fromarray(low), profile)


def resampled(
    colours: Colours, size: tuple[int, int], box: tuple[float, float, float, float]
) -> Colours:
    """Return a part of a picture in another size, by Lanczos' filter."""
    if colours.dtype == np.uint8:
        return np.asarray(Image.fromarray(colours).resize(size, Image.Resampling.LANCZOS, box))
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
    """Return a picture with its 8 or 16 bits on a ground of the same size with 8, both RGBA."""
    result = top._replace(picture=Image.alpha_composite(ground, top.picture))
    if not top.low:
        return result
    result = result._replace(low=top.low.copy())
    for first, end in bands(*ground.size):
        box = 0, first, ground.width, end
        band = top.crop(box)
        own, behind = (np.asarray(each) for each in (band.picture, ground.crop(box)))
        opaque = own[..., 3:].astype(np.float32) / 255
        left = behind[..., 3:] * (1 - opaque) / 255
        colours = joined(band) * opaque
        colours += behind[..., :3] * np.float32(257) * left
        colours /= (opaque + left).clip(1 / 65_535)
        made = parted(np.rint(colours).astype(np.uint16))
        made.picture.putalpha(result.picture.crop(box).getchannel("A"))
        result.paste(made, (0, first))
    return result


def on_ground(top: Original, colour: str) -> Original:
    """Return an RGBA picture on a ground in a colour of sRGB, as an opaque RGB picture."""
    made = over(top, Image.new("RGBA", top.picture.size, top.colour(colour)))
    return made._replace(picture=made.picture.convert("RGB"))
