"""Enlarges pictures by upscalers: between the passes of hires, and for the field `upscale`.

Pictures are enlarged in tiles, which limits the memory for any size. Each tile includes some pixels
beyond its edges, whose results are cut off. If the network sees no further than that, the result
equals that of the whole picture. ESRGAN sees some hundred pixels, so its seams differ slightly
(benchmarks/RESULTS.md).
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from picowatch.engine.upscale_networks import Network
from picowatch.recipe.fields import MAX_UPSCALED_PIXELS

# Sides of a tile: A1111's on a CPU, larger ones to fill a GPU. ESRGAN needs 1.5 GB for 256.
_TILE = {"cuda": 256}
_USUAL_TILE = 192
MOST_OVERLAP = 36
# An upscaler of a smaller scale enlarges several times, as A1111's do (modules/upscaler.py).
_MOST_TIMES = 3

Pixels = NDArray[np.uint8]
Size = tuple[int, int]
OnTile = Callable[[], None]


def input_sizes(scale: int, before: Size, size: Size) -> list[Size]:
    """Return the sizes of the pictures that go through an upscaler of this scale in turn.

    Each is the result of the one before, reduced if its own result would exceed the limit.
    """
    passes: list[Size] = []
    while len(passes) < (1 if scale == 1 else _MOST_TIMES):
        if before[0] * before[1] * scale**2 > MAX_UPSCALED_PIXELS:
            before = min(before, (-(-size[0] // scale), -(-size[1] // scale)))
        passes.append(before)
        before = before[0] * scale, before[1] * scale
        if before[0] >= size[0] and before[1] >= size[1]:
            break
    return passes


def spans(side: int, tile: int) -> list[tuple[int, int]]:
    """Divide a side into tiles of nearly equal length, each beginning at a multiple of 4."""
    count = -(-side // tile)
    length = -(-side // (count * 4)) * 4
    return [(begin, min(begin + length, side)) for begin in range(0, side, length)]


def enlarged(
    network: Network, picture: Image.Image, size: Size, before_tile: OnTile
) -> Image.Image:
    """Return an RGB picture in another size, by as many passes of an upscaler as needed.

    A result that is too large is reduced by Lanczos, as in A1111. `before_tile` may raise.
    """
    tile = _TILE.get(next(network.parameters()).device.type, _USUAL_TILE)
    for before in input_sizes(network.scale, picture.size, size):
        pixels = np.asarray(_resized(picture, before))
        picture = Image.fromarray(enlarged_once(network, pixels, tile, before_tile))
    return _resized(picture, size)


@torch.inference_mode()
def enlarged_once(network: Network, picture: Pixels, tile: int, before_tile: OnTile) -> Pixels:
    """Return the picture, `network.scale` times as large; `before_tile` may raise.

    Tiles overlap as far as the network sees, up to a limit. There is no margin at the picture's own
    edges, as in training.
    """
    height, width = picture.shape[:2]
    scale, overlap = network.scale, -(-min(network.reach, MOST_OVERLAP) // 4) * 4
    larger: Pixels = np.empty((height * scale, width * scale, 3), np.uint8)
    for top, bottom in spans(height, tile):
        for left, right in spans(width, tile):
            before_tile()
            above, before = max(0, top - overlap), max(0, left - overlap)
            made = _through(network, picture[above : bottom + overlap, before : right + overlap])
            made = made[(top - above) * scale :, (left - before) * scale :]
            own = (bottom - top) * scale, (right - left) * scale
            place = larger[top * scale : bottom * scale, left * scale : right * scale]
            place[:] = made[: own[0], : own[1]]
    return larger


def _through(network: Network, seen: Pixels) -> Pixels:
    pixels = torch.from_numpy(np.array(seen)).to(next(network.parameters()).device)
    pixels = pixels.permute(2, 0, 1)[None].float() / 255
    height, width = pixels.shape[2:]
    beyond = (0, -width % network.multiple, 0, -height % network.multiple)
    if any(beyond):
        pixels = functional.pad(pixels, beyond, mode="replicate")
    made = network(pixels)[0, :, : height * network.scale, : width * network.scale]
    array: Pixels = (made * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return array.transpose(1, 2, 0)


def _resized(picture: Image.Image, size: Size) -> Image.Image:
    return picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)
