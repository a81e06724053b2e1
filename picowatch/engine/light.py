"""Numbers of pictures as light, by the curves of their ICC profile. Imports no torch.

The profile's format is ICC.1:2022; its tags `curv` and `para` are in 10.6 and 10.18.
"""

import struct
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from picowatch.engine.bits import bands, joined
from picowatch.files.colours import SRGB_PRIMARIES
from picowatch.files.decoding import Original

Floats = npt.NDArray[np.float32]
_Light = npt.NDArray[np.float64]

MOST = 65_535  # of numbers of 16 bits
# IEC 61966-2-1.
_LOW, _SLOPE = 0.04045, 12.92
_AT, _ROW_BYTES, _MOST_TAGS = 128, 12, 100  # of the list of tags
# The parameters of a curve of each type, as in the general formula: (aX + b)^g + e, below d cX + f.
_PARAMETERS = {0: "g", 1: "gab", 2: "gabe", 3: "gabcd", 4: "gabcdef"}
_DAMAGED = (struct.error, ValueError, IndexError, KeyError, ZeroDivisionError, OverflowError)


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
    try:
        found = _curve(_tags(profile)[colour + b"TRC"], numbers)
    except _DAMAGED:
        found = None
    if found is None or not (np.diff(found) >= 0).all() or not found[-1] > 0:
        found = light_of(numbers)
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


def _curve(tag: bytes, numbers: _Light) -> _Light | None:
    kind = tag[:4]
    if kind == b"curv":
        (length,) = struct.unpack_from(">I", tag, 8)
        if length == 0:
            return numbers
        table = np.frombuffer(tag, ">u2", length, 12).astype(np.float64)
        if length == 1:
            return np.asarray(numbers ** (table[0] / 256))
        return np.interp(numbers, np.linspace(0, 1, length), table / MOST)
    if kind == b"para":
        (form,) = struct.unpack_from(">H", tag, 8)
        names = _PARAMETERS[form]
        given = (number / 65536 for number in struct.unpack_from(f">{len(names)}i", tag, 12))
        of: dict[str, float] = dict.fromkeys("bcdef", 0.0) | {"a": 1.0}
        of |= zip(names, given, strict=True)
        if "c" not in names:  # what is below the power curve is its end
            of |= {"d": -of["b"] / of["a"], "f": of["e"]}
        power = np.clip(of["a"] * numbers + of["b"], 0, None) ** of["g"] + of["e"]
        return np.where(numbers >= of["d"], power, of["c"] * numbers + of["f"])
    return None
