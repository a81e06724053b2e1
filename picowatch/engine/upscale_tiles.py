"""A picture through a network in tiles, so that its memory does not grow with the picture.

Each tile sees `overlap` pixels beyond its edges, and what it made of those is cut off. If the
network sees no further than that, the result is the one of the whole picture. ESRGAN sees some
hundred pixels: there a seam differs by what these faint relations amount to
(benchmarks/RESULTS.md).
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from picowatch.engine.upscale_networks import Network

Pixels = NDArray[np.uint8]
MOST_OVERLAP = 36
SMALLEST_TILE = 32


class Span(NamedTuple):
    """One side of a tile: what it gives, and what it sees."""

    begin: int
    end: int
    seen_from: int
    seen_to: int


def spans(side: int, tile: int, overlap: int) -> list[Span]:
    """A side cut into tiles of nearly equal length, each at a multiple of 4.

    Without overlap at the picture's own edges: the network ends there as in training.
    """
    count = -(-side // tile)
    length = -(-side // (count * 4)) * 4
    ends = [(begin, min(begin + length, side)) for begin in range(0, side, length)]
    return [
        Span(begin, end, max(0, begin - overlap), min(side, end + overlap)) for begin, end in ends
    ]


def tile_count(width: int, height: int, tile: int) -> int:
    """How many tiles a picture has."""
    return len(spans(width, tile, 0)) * len(spans(height, tile, 0))


def overlap_of(network: Network) -> int:
    """How far tiles overlap: as far as the network sees, up to a limit, at multiples of 4."""
    return -(-min(network.reach, MOST_OVERLAP) // 4) * 4


@torch.inference_mode()
def enlarged(
    network: Network, picture: Pixels, tile: int, before_tile: Callable[[], None]
) -> Pixels:
    """The picture, `network.scale` times as large; `before_tile` may raise."""
    height, width = picture.shape[:2]
    scale, overlap = network.scale, overlap_of(network)
    larger: Pixels = np.empty((height * scale, width * scale, 3), np.uint8)
    for rows, columns in _tiles(width, height, tile, overlap):
        before_tile()
        seen = picture[rows.seen_from : rows.seen_to, columns.seen_from : columns.seen_to]
        made = _through(network, seen)
        top = (rows.begin - rows.seen_from) * scale
        left = (columns.begin - columns.seen_from) * scale
        bottom = top + (rows.end - rows.begin) * scale
        right = left + (columns.end - columns.begin) * scale
        larger[
            rows.begin * scale : rows.end * scale, columns.begin * scale : columns.end * scale
        ] = made[top:bottom, left:right]
    return larger


def _tiles(width: int, height: int, tile: int, overlap: int) -> Iterator[tuple[Span, Span]]:
    for rows in spans(height, tile, overlap):
        for columns in spans(width, tile, overlap):
            yield rows, columns


def _through(network: Network, seen: Pixels) -> Pixels:
    """One tile."""
    weight = next(network.parameters())
    pixels = torch.from_numpy(np.array(seen)).to(weight.device)
    pixels = pixels.permute(2, 0, 1)[None].float() / 255
    height, width = pixels.shape[2:]
    multiple = network.multiple
    beyond = (0, -width % multiple, 0, -height % multiple)
    if any(beyond):
        pixels = functional.pad(pixels, beyond, mode="replicate")
    made = _finite(network, pixels)[:, :, : height * network.scale, : width * network.scale]
    made = (made * 255).round().clamp(0, 255).to(torch.uint8)
    array: Pixels = made[0].permute(1, 2, 0).contiguous().cpu().numpy()
    return array


def _finite(network: Network, pixels: torch.Tensor) -> torch.Tensor:
    """What the network makes of them, in float32.

    Some ESRGANs overflow in float16. Such a tile is computed again in float32, and the network is
    changed back: the next one must not depend on this one.
    """
    narrow = next(network.parameters()).dtype
    made: torch.Tensor = network(pixels.to(narrow)).float()
    if narrow != torch.float32 and not bool(torch.isfinite(made).all()):
        try:
            made = network.float()(pixels)
        finally:
            network.to(narrow)
    return torch.nan_to_num(made)
