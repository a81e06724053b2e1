"""Turns pictures into the maps that ControlNets were trained on.

The maps are those of A1111's extension (https://github.com/Mikubill/sd-webui-controlnet,
scripts/preprocessor), computed at the size of the picture that is rendered ("pixel perfect").
Depth is estimated in find.py.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from picowatch.engine.colours import light_of
from picowatch.recipe.request import ControlUse

Pixels = NDArray[np.uint8]
_Numbers = NDArray[np.int32]


def preprocess(picture: Pixels, use: ControlUse) -> Pixels:
    """Return the map of an RGB picture of the right size, as RGB."""
    return _BY_NAME[use.preprocess](picture, use)


def _luminance(picture: Pixels, _: ControlUse) -> Pixels:
    """Return CIELAB's lightness, scaled from 0..100 to 0..255."""
    light = light_of(picture.astype(np.float64) / 255) @ np.array([0.2126, 0.7152, 0.0722])
    lightness = np.where(light > (6 / 29) ** 3, 116 * np.cbrt(light) - 16, light * (29 / 3) ** 3)
    return _grey((lightness * 2.55).round())


def _lineart(picture: Pixels, _: ControlUse) -> Pixels:
    """Return dark lines on light paper as white on black (A1111's lineart_standard)."""
    darker = _blurred(picture, 6.0).astype(np.float64) - picture  # than the paper
    strength = darker.min(axis=2).clip(0, 255)
    lines = strength[strength > 8]  # from here on a pixel counts as a line
    usual = max(16, float(np.median(lines))) if len(lines) else 16
    return _grey((strength / usual * 127).clip(0, 255))


def _blurred(picture: Pixels, radius: float) -> Pixels:
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius)))


def _grey(values: np.ndarray) -> Pixels:
    return np.repeat(values.astype(np.uint8)[:, :, None], 3, axis=2)


_BY_NAME: dict[str, Callable[[Pixels, ControlUse], Pixels]] = {
    "none": lambda picture, _: picture,
    "tile": lambda picture, _: picture,
    "canny": lambda picture, use: _grey(canny(picture, use.low, use.high)),
    "invert": lambda picture, _: 255 - picture,
    "threshold": lambda picture, use: _grey((picture.min(axis=2) > use.threshold) * 255),
    "blur": lambda picture, use: _blurred(picture, use.radius),
    "luminance": _luminance,
    "lineart": _lineart,
}


def canny(picture: Pixels, low: float, high: float) -> Pixels:
    """Return the edges of an RGB picture as OpenCV computes them: 255 on edges, 0 elsewhere.

    An edge is at least as strong as `low`, and connected to a part that is stronger than `high`.
    J. Canny, "A Computational Approach to Edge Detection", 1986; the arithmetic is that of
    `cv2.Canny` (modules/imgproc/src/canny.cpp) with its defaults: a Sobel kernel of 3 and the sum
    of both derivatives' sizes as the strength of an edge. ControlNets are trained on its maps.
    """
    low, high = sorted((low, high))
    across, down = _derivatives(picture)
    strength = np.abs(across) + np.abs(down)
    ridge = _is_ridge(strength, across, down) & (strength > int(low))
    return connected(ridge, ridge & (strength > int(high))).astype(np.uint8) * np.uint8(255)


def _derivatives(picture: Pixels) -> tuple[_Numbers, _Numbers]:
    """Return Sobel's derivatives for each pixel, in the channel where they are largest."""
    padded = np.pad(picture.astype(np.int32), ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    columns = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    across, down = rows[:, 2:] - rows[:, :-2], columns[2:] - columns[:-2]
    channel = (np.abs(across) + np.abs(down)).argmax(axis=2)[:, :, None]
    return tuple(np.take_along_axis(side, channel, axis=2)[:, :, 0] for side in (across, down))  # type: ignore[return-value]


def _is_ridge(strength: _Numbers, across: _Numbers, down: _Numbers) -> NDArray[np.bool_]:
    """Return the pixels that have no stronger neighbour in the direction of the slope."""
    padded = np.pad(strength, 1)

    def neighbour(rows: int, columns: int) -> _Numbers:
        height, width = strength.shape
        return padded[1 + rows : 1 + rows + height, 1 + columns : 1 + columns + width]

    tangent, bits = 13573, 15  # that of 22.5 degrees, times 2 ** bits
    steep, flat = np.abs(down).astype(np.int64) << bits, np.abs(across).astype(np.int64)
    level = steep < flat * tangent
    upright = steep > flat * tangent + (flat << (bits + 1))
    beside = (strength > neighbour(0, -1)) & (strength >= neighbour(0, 1))
    above = (strength > neighbour(-1, 0)) & (strength >= neighbour(1, 0))
    falling = (strength > neighbour(-1, -1)) & (strength > neighbour(1, 1))
    rising = (strength > neighbour(-1, 1)) & (strength > neighbour(1, -1))
    slanted = np.where((across ^ down) < 0, rising, falling)
    return np.where(level, beside, np.where(upright, above, slanted))


def connected(pixels: NDArray[np.bool_], some: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return some pixels and those connected to them, directly or through others, or at corners."""
    waiting, found = (np.pad(each, 1) for each in (pixels & ~some, some))
    width = waiting.shape[1]
    around = np.array([row + column for row in (-width, 0, width) for column in (-1, 0, 1)])
    waiting, found = waiting.ravel(), found.ravel()
    front = np.flatnonzero(found)
    while len(front):
        near = np.unique((front[:, None] + around).ravel())
        front = near[waiting[near]]
        waiting[front], found[front] = False, True
    return found.reshape(-1, width)[1:-1, 1:-1]
