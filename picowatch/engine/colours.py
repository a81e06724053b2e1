"""Pictures as numbers: colours of 8 and 16 bits, as light, and in other sizes. Imports no torch.

Colours of 16 bits are two pictures: their higher and their lower bytes. The format of an ICC
profile, whose curves tell the light of a number, is ICC.1:2022; its tags `curv` and `para` are in
10.6 and 10.18.
"""

import struct
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from picowatch.files.colours import SRGB_PRIMARIES
from picowatch.files.decoding import Original
from picowatch.recipe.parts import TRANSPARENT, ResizeTo

Colours = npt.NDArray[Any]  # of 8 or 16 bits
Floats = npt.NDArray[np.float32]
_Light = npt.NDArray[np.float64]
Size = tuple[int, int]
Box = tuple[float, float, float, float]

MOST = 65_535  # of numbers of 16 bits
LANCZOS_REACH = 3  # pixels of the smaller picture, from the middle of Pillow's filter
_BAND_PIXELS = 1_000_000  # each of which takes 30 bytes meanwhile
_WHITE = "#ffffff"
# IEC 61966-2-1.
_LOW, _SLOPE = 0.04045, 12.92
_AT, _ROW_BYTES, _MOST_TAGS = 128, 12, 100  # of the list of tags
# The parameters of a curve of each type, as in the general formula: (aX + b)^g + e, below d cX + f.
_PARAMETERS = {0: "g", 1: "gab", 2: "gabe", 3: "gabcd", 4: "gabcdef"}
_DAMAGED = (struct.error, ValueError, IndexError, KeyError, ZeroDivisionError, OverflowError)


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


def resampled(colours: Colours, size: Size, box: Box | None = None) -> Colours:
    """Return a picture or a part of it in another size, by Lanczos' filter."""
    if colours.dtype == np.uint8:
        return np.asarray(Image.fromarray(colours).resize(size, Image.Resampling.LANCZOS, box))
    planes = [_filtered(colours[..., at].astype(np.float32), size, box) for at in range(3)]
    deep: Colours = np.rint(np.stack(planes, axis=-1).clip(0, MOST)).astype(np.uint16)
    return deep


def _filtered(values: Floats, size: Size, box: Box | None) -> Floats:
    return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.LANCZOS, box))


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


def light_of(numbers: _Light) -> _Light:
    """Return the light of numbers from 0 to 1 in sRGB."""
    return np.where(numbers <= _LOW, numbers / _SLOPE, ((numbers + 0.055) / 1.055) ** 2.4)


def numbers_of(light: _Light) -> _Light:
    """Return the numbers from 0 to 1 of light in sRGB."""
    low = light <= _LOW / _SLOPE
    return np.where(low, light * _SLOPE, 1.055 * light ** (1 / 2.4) - 0.055)


@lru_cache(maxsize=8)
def curve_of(profile: bytes, colour: bytes = b"r") -> Floats:
    """Return the light of each number of 16 bits, by a profile; by sRGB where it says none.

    The curves of red, green and blue are the same in photos' profiles.
    """
    numbers = np.arange(MOST + 1) / MOST
    found = light_of(numbers)
    with suppress(*_DAMAGED):
        theirs = _curve(_tags(profile)[colour + b"TRC"], numbers)
        if (np.diff(theirs) >= 0).all() and theirs[-1] > 0:
            found = theirs
    curve: Floats = (found / found[-1]).astype(np.float32)
    return curve


def deep_in_srgb(original: Original) -> Image.Image | None:
    """Return a picture of 16 bits in sRGB with 8; None if its profile has other means than curves.

    LittleCMS reads 8 bits here, of which too few are left of dark colours.
    """
    picture, _, profile = original
    try:
        tags = _tags(profile)
        found = [struct.unpack_from(">3i", tags[name], 8) for name in (b"rXYZ", b"gXYZ", b"bXYZ")]
        ours = np.array(SRGB_PRIMARIES).T
        matrix = (np.linalg.inv(ours) @ np.array(found).T / 65536).astype(np.float32)
    except _DAMAGED:
        return None
    if b"A2B0" in tags:
        return None
    curves = [curve_of(profile, colour) for colour in (b"r", b"g", b"b")]
    result = picture.copy()
    for top, bottom in bands(*picture.size):
        box = 0, top, picture.width, bottom
        colours = joined(original.crop(box))
        light = np.stack([curve.take(colours[..., at]) for at, curve in enumerate(curves)], -1)
        linear = (light @ matrix.T).clip(0, 1)
        band = Image.fromarray(np.rint(255 * numbers_of(linear)).astype(np.uint8))
        if picture.mode == "RGBA":
            band.putalpha(picture.crop(box).getchannel("A"))
        result.paste(band, box[:2])
    return result


def _tags(profile: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">I", profile, _AT)
    rows = (
        struct.unpack_from(">4sII", profile, _AT + 4 + _ROW_BYTES * row)
        for row in range(min(count, _MOST_TAGS))
    )
    return {name: profile[at : at + length] for name, at, length in rows}


def _curve(tag: bytes, numbers: _Light) -> _Light:
    if tag[:4] == b"curv":
        (length,) = struct.unpack_from(">I", tag, 8)
        if length == 0:
            return numbers
        table = np.frombuffer(tag, ">u2", length, 12).astype(np.float64)
        if length == 1:
            return np.asarray(numbers ** (table[0] / 256))
        return np.interp(numbers, np.linspace(0, 1, length), table / MOST)
    if tag[:4] != b"para":
        raise ValueError("no curve")
    (form,) = struct.unpack_from(">H", tag, 8)
    names = _PARAMETERS[form]
    given = (number / 65536 for number in struct.unpack_from(f">{len(names)}i", tag, 12))
    of: dict[str, float] = dict.fromkeys("bcdef", 0.0) | {"a": 1.0}
    of |= zip(names, given, strict=True)
    if "c" not in names:  # what is below the power curve is its end
        of |= {"d": -of["b"] / of["a"], "f": of["e"]}
    power = np.clip(of["a"] * numbers + of["b"], 0, None) ** of["g"] + of["e"]
    return np.where(numbers >= of["d"], power, of["c"] * numbers + of["f"])


def resized(given: Original, wanted: ResizeTo) -> Original:
    """Return a picture in the wanted size, on its ground."""
    box, inner, size = wanted.placed(*given.picture.size)
    if inner != given.picture.size or box != (0, 0, *given.picture.size):
        given = by_light(given, inner, box)
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


def by_light(given: Original, size: Size, box: Box) -> Original:
    """Return a part of a picture in another size, made band by band.

    Light adds up, and the numbers of a picture do not: sRGB stores about its root. So pixels are
    added up as light, as ImageMagick does with `-colorspace RGB -resize`: thin lines and lights
    keep their brightness. Otherwise fine patterns become darker.
    """
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
        band = _band_by_light(given.crop((0, first, width, last)), (size[0], bottom - top), part)
        result.paste(band, (0, top))
    return result


def _band_by_light(given: Original, size: Size, box: Box) -> Original:
    """Return a part of a picture in another size, each pixel by its light and its opacity."""
    colours, is_deep = joined(given), given.low is not None
    curve = curve_of(given.profile)[:: 1 if is_deep else 257]
    planes = [curve.take(colours[..., at], mode="clip") for at in range(3)]
    opaque: Floats | None = None
    if given.picture.mode == "RGBA":
        alpha: Floats = np.asarray(np.asarray(given.picture.getchannel("A")) / 255, np.float32)
        opaque = _filtered(alpha, size, box).clip(0, 1)
        planes = [_filtered(plane * alpha, size, box) / opaque.clip(1 / 1024) for plane in planes]
    else:
        planes = [_filtered(plane, size, box) for plane in planes]
    numbers: list[Colours]
    if is_deep:
        light, most = curve_of(given.profile), np.arange(MOST + 1)
        numbers = [np.rint(np.interp(plane, light, most)).astype(np.uint16) for plane in planes]
    else:
        table = _numbers_by(given.profile)
        steps = (np.rint(np.sqrt(plane.clip(0, 1)) * MOST).astype(np.uint16) for plane in planes)
        numbers = [table.take(plane) for plane in steps]
    made = parted(np.stack(numbers, axis=-1))
    if opaque is not None:
        made.picture.putalpha(Image.fromarray(np.rint(255 * opaque).astype(np.uint8)))
    return made


@lru_cache(maxsize=8)
def _numbers_by(profile: bytes) -> Colours:
    """Return the number of 8 bits of each light, in steps of its root.

    In equal steps of the light itself, the darkest numbers of a power curve would share one.
    """
    shares = np.arange(MOST + 1) / MOST
    return np.rint(np.interp(shares**2, curve_of(profile), 255 * shares)).astype(np.uint8)
