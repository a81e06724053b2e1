"""Resamples pictures for `resize_to`. Imports no torch.

Light adds up, and the numbers of a picture do not: sRGB stores about its root. So pixels are added
up as light, as ImageMagick does with `-colorspace RGB -resize`: thin lines and lights keep their
brightness. Otherwise fine patterns become darker.
"""

from math import ceil
from typing import Any

import numpy as np
from PIL import Image

from picowatch.engine.bits import LANCZOS_REACH, bands, joined, on_ground, parted
from picowatch.engine.light import MOST, Floats, curve_of, light_of, numbers_of
from picowatch.files.decoding import Original
from picowatch.recipe.resize_to import TRANSPARENT, ResizeTo

_WHITE = "#ffffff"
_STEPS = 65_535  # of light, for numbers of 8 bits in sRGB: the darkest are a 3,295th apart

Size = tuple[int, int]
Box = tuple[float, float, float, float]

_LIGHT: Floats = light_of(np.arange(256) / 255).astype(np.float32)
_NUMBERS = np.rint(255 * numbers_of(np.arange(_STEPS + 1) / _STEPS)).astype(np.uint8)


def resized(given: Original, wanted: ResizeTo) -> Original:
    """Return a picture in the wanted size, on its ground."""
    box, inner, size = wanted.placed(*given.picture.size)
    if inner != given.picture.size or box != (0, 0, *given.picture.size):
        given = resampled(given, inner, box)
    ground, was_clear = wanted.background, given.picture.mode == "RGBA"
    if given.picture.size == size and (not ground or ground == TRANSPARENT):
        return given
    is_clear = wanted.is_transparent(was_clear)
    if is_clear or was_clear:
        canvas = given.blank("RGBA", size)
    else:
        canvas = given.blank("RGB", size, given.colour(ground or _WHITE))
    canvas.paste(given, ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))
    return canvas if is_clear or not was_clear else on_ground(canvas, ground or _WHITE)


def resampled(given: Original, size: Size, box: Box) -> Original:
    """Return a part of a picture in another size by its light, made band by band."""
    width, height = given.picture.size
    left, upper, right, lower = box
    scale = (lower - upper) / size[1]
    # The filter of each band sees the rows around it, so the bands join without a seam.
    around = ceil(LANCZOS_REACH * max(1, scale)) + 1
    result = given.blank(given.picture.mode, size)
    for top, bottom in bands(max(width * scale, size[0]), size[1]):
        begin, end = upper + top * scale, min(lower, upper + bottom * scale)
        first, last = max(0, int(begin) - around), min(height, ceil(end) + around)
        part = left, begin - first, right, end - first
        band = _by_light(given.crop((0, first, width, last)), (size[0], bottom - top), part)
        result.paste(band, (0, top))
    return result


def _by_light(given: Original, size: Size, box: Box) -> Original:
    """Return a part of a picture in another size, each pixel by its light and its opacity."""

    def filtered(values: Floats) -> Floats:
        return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.LANCZOS, box))

    colours, profile, is_deep = joined(given), given.profile, given.low is not None
    is_usual = not is_deep and not profile
    curve = _LIGHT if is_usual else curve_of(profile) if is_deep else curve_of(profile)[::257]
    planes = [curve.take(colours[..., at], mode="clip") for at in range(3)]
    opaque: Floats | None = None
    if given.picture.mode == "RGBA":
        alpha: Floats = np.asarray(np.asarray(given.picture.getchannel("A")) / 255, np.float32)
        opaque = filtered(alpha).clip(0, 1)
        planes = [filtered(plane * alpha) / opaque.clip(1 / 1024) for plane in planes]
    else:
        planes = [filtered(plane) for plane in planes]
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
    made = parted(np.stack(numbers, axis=-1))
    if opaque is not None:
        made.picture.putalpha(Image.fromarray(np.rint(255 * opaque).astype(np.uint8)))
    return made
