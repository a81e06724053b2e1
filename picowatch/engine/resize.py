"""Resamples pictures for `resize_to`. Imports no torch.

Light adds up, and the numbers of a picture do not: sRGB stores about its root. So pixels are added
up as light, as ImageMagick does with `-colorspace RGB -resize`: thin lines and lights keep their
brightness. Otherwise fine patterns become darker.
"""

from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from picowatch.engine.bits import Colours, joined, over, parted
from picowatch.engine.light import MOST, Floats, curve_of, light_of, numbers_of
from picowatch.files.pictures import Original
from picowatch.recipe.resize_to import TRANSPARENT, ResizeTo

_WHITE = "#ffffff"
_REACH = 3  # pixels of the smaller picture, from the middle of Pillow's Lanczos filter
_BAND_PIXELS = 1_000_000  # of the larger picture, each of which takes 30 bytes meanwhile
_STEPS = 65_535  # of light, for numbers of 8 bits in sRGB: the darkest are a 3,295th apart

Size = tuple[int, int]
Box = tuple[float, float, float, float]

_LIGHT: Floats = light_of(np.arange(256) / 255).astype(np.float32)
_NUMBERS = np.rint(255 * numbers_of(np.arange(_STEPS + 1) / _STEPS)).astype(np.uint8)


def resized(given: Original, wanted: ResizeTo) -> Original:
    """Return a picture in the wanted size, on its ground."""
    picture, low, profile = given
    box, inner, size = wanted.placed(*picture.size)
    if inner != picture.size or box != (0, 0, *picture.size):
        picture, low, _ = resampled(given, inner, box)
    ground = wanted.background
    if picture.size == size and (not ground or ground == TRANSPARENT):
        return Original(picture, low, profile)
    is_clear = ground == TRANSPARENT or (picture.mode == "RGBA" and not ground)
    place = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    is_cut = picture.mode == "RGBA" and not is_clear
    colour = (0, 0, 0) if is_clear or is_cut else ground or _WHITE
    canvas = Image.new("RGBA", size) if is_clear or is_cut else Image.new("RGB", size, colour)
    canvas.paste(picture, place)
    if low:
        lower = Image.new("RGB", size, colour)
        lower.paste(low, place)
        low = lower
    if is_cut:
        canvas, low, _ = over(Original(canvas, low), Image.new("RGBA", size, ground or _WHITE))
    canvas = canvas if wanted.is_transparent(picture.mode == "RGBA") else canvas.convert("RGB")
    return Original(canvas, low, profile)


def resampled(given: Original, size: Size, box: Box) -> Original:
    """Return a part of a picture in another size by its light, made band by band.

    The filter of each band sees the rows around it, so the bands join without a seam.
    """
    picture, deep, profile = given
    left, upper, right, lower = box
    scale = (lower - upper) / size[1]
    around = ceil(_REACH * max(1, scale)) + 1
    rows = max(1, int(_BAND_PIXELS / max(picture.width * scale, size[0])))
    result, low = Image.new(picture.mode, size), Image.new("RGB", size) if deep else None
    for top in range(0, size[1], rows):
        bottom = min(size[1], top + rows)
        begin, end = upper + top * scale, min(lower, upper + bottom * scale)
        first, last = max(0, int(begin) - around), min(picture.height, ceil(end) + around)
        whole = 0, first, picture.width, last
        band = picture.crop(whole)
        colours = joined(band, deep and deep.crop(whole))
        alpha = np.asarray(band.getchannel("A")) if band.mode == "RGBA" else None
        part = left, begin - first, right, end - first
        made, opaque = _by_light(colours, alpha, profile, (size[0], bottom - top), part)
        high, lower_bytes = parted(made)
        if opaque is not None:
            high.putalpha(Image.fromarray(opaque))
        result.paste(high, (0, top))
        if low and lower_bytes:
            low.paste(lower_bytes, (0, top))
    return Original(result, low, profile)


def _by_light(
    colours: Colours, alpha: npt.NDArray[np.uint8] | None, profile: bytes, size: Size, box: Box
) -> tuple[Colours, npt.NDArray[np.uint8] | None]:
    """Return a part of a picture in another size, each pixel by its light and its opacity."""

    def filtered(values: Floats) -> Floats:
        plane = Image.fromarray(values).resize(size, Image.Resampling.LANCZOS, box)
        return np.asarray(plane)

    is_deep = colours.dtype == np.uint16
    is_usual = not is_deep and not profile
    curve = _LIGHT if is_usual else curve_of(profile) if is_deep else curve_of(profile)[::257]
    light = [curve.take(colours[..., at], mode="clip") for at in range(3)]
    opaque: Floats | None = None
    if alpha is not None:
        opaque = np.asarray(alpha / 255, np.float32)
        planes = [filtered(plane * opaque) for plane in light]
        opaque = filtered(opaque).clip(0, 1)
        divisor = opaque.clip(1 / 1024)
        planes = [plane / divisor for plane in planes]
    else:
        planes = [filtered(plane) for plane in light]
    numbers: list[Any]
    if is_usual:
        steps = [np.rint(plane.clip(0, 1) * _STEPS).astype(np.uint16) for plane in planes]
        numbers = [_NUMBERS.take(plane) for plane in steps]
    else:
        most, kind = (MOST, np.uint16) if is_deep else (255, np.uint8)
        shares = np.linspace(0, most, MOST + 1)
        numbers = [
            np.rint(np.interp(plane, curve_of(profile), shares)).astype(kind) for plane in planes
        ]
    made: Colours = np.stack(numbers, axis=-1)
    return made, None if opaque is None else np.rint(255 * opaque).astype(np.uint8)
