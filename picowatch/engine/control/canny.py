"""Canny's edge detector, as OpenCV computes it. Imports no torch.

J. Canny, "A Computational Approach to Edge Detection", 1986; the arithmetic is that of `cv2.Canny`
(modules/imgproc/src/canny.cpp) with its defaults: a Sobel kernel of 3 and the sum of both
derivatives' sizes as the strength of an edge. ControlNets are trained on its maps.
"""

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
_Numbers = NDArray[np.int32]

# The tangent of 22.5 degrees, times 2 ** _BITS.
_TANGENT, _BITS = 13573, 15


def canny(picture: Pixels, low: float, high: float) -> Pixels:
    """255 on edges and 0 elsewhere, of an RGB picture.

    An edge is at least as strong as `low`, and leads to a part of it that is stronger than `high`.
    """
    low, high = sorted((low, high))
    across, down = _derivatives(picture)
    strength = np.abs(across) + np.abs(down)
    ridge = _is_ridge(strength, across, down) & (strength > int(low))
    edges: Pixels = np.where(_connected(ridge, ridge & (strength > int(high))), 255, 0).astype(
        np.uint8
    )
    return edges


def _derivatives(picture: Pixels) -> tuple[_Numbers, _Numbers]:
    """Sobel's derivatives, of each pixel's channel in which they are largest."""
    padded = np.pad(picture.astype(np.int32), ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    columns = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    across, down = rows[:, 2:] - rows[:, :-2], columns[2:] - columns[:-2]
    channel = (np.abs(across) + np.abs(down)).argmax(axis=2)[:, :, None]
    return tuple(np.take_along_axis(one, channel, axis=2)[:, :, 0] for one in (across, down))  # type: ignore[return-value]


def _is_ridge(strength: _Numbers, across: _Numbers, down: _Numbers) -> NDArray[np.bool_]:
    """Where neither neighbour in the direction of the slope is stronger."""
    padded = np.pad(strength, 1)

    def neighbour(rows: int, columns: int) -> _Numbers:
        height, width = strength.shape
        return padded[1 + rows : 1 + rows + height, 1 + columns : 1 + columns + width]

    steep, flat = np.abs(down).astype(np.int64) << _BITS, np.abs(across).astype(np.int64)
    level = steep < flat * _TANGENT
    upright = steep > flat * _TANGENT + (flat << (_BITS + 1))
    beside = (strength > neighbour(0, -1)) & (strength >= neighbour(0, 1))
    above = (strength > neighbour(-1, 0)) & (strength >= neighbour(1, 0))
    falling = (strength > neighbour(-1, -1)) & (strength > neighbour(1, 1))
    rising = (strength > neighbour(-1, 1)) & (strength > neighbour(1, -1))
    slanted = np.where((across ^ down) < 0, rising, falling)
    return np.where(level, beside, np.where(upright, above, slanted))


def _connected(ridge: NDArray[np.bool_], strong: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The ridges that touch a strong one, themselves or through others, corners included."""
    waiting, found = (np.pad(one, 1) for one in (ridge & ~strong, strong))
    width = waiting.shape[1]
    around = np.array([row + column for row in (-width, 0, width) for column in (-1, 0, 1)])
    waiting, found = waiting.ravel(), found.ravel()
    front = np.flatnonzero(found)
    while len(front):
        near = np.unique((front[:, None] + around).ravel())
        front = near[waiting[near]]
        waiting[front], found[front] = False, True
    return found.reshape(-1, width)[1:-1, 1:-1]
