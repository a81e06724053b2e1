"""Pictures enlarged by upscalers: between the passes of hires, and as the field `upscale` says.

They go through an upscaler in tiles, which bounds the memory, whatever the picture's size. Each
sees some pixels beyond its edges, and what it made of those is cut off. If the network sees no
further than that, the result is the one of the whole picture. ESRGAN sees some hundred pixels:
there a seam differs by what these faint relations amount to (benchmarks/RESULTS.md).
"""

from collections.abc import Callable
from functools import lru_cache, partial
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from picowatch.catalog import Catalog
from picowatch.catalog.headers import read_header
from picowatch.catalog.upscalers import layout_of
from picowatch.engine.failures import out_of_memory
from picowatch.engine.load import read_tensors
from picowatch.engine.part_files import filled
from picowatch.engine.upscale_networks import Network, network_of, weights_of
from picowatch.engine.verify import find_model, unchanged
from picowatch.errors import RenderFailed
from picowatch.recipe.fields import MAX_UPSCALED_PIXELS

_KEPT = 2
# Sides of a tile: A1111's on a CPU; a GPU is not filled by it.
_TILE = {"cuda": 512}
_USUAL_TILE = 192
_SMALLEST_TILE = 32
MOST_OVERLAP = 36
# An upscaler of a smaller scale enlarges several times, as A1111's do (modules/upscaler.py).
_MOST_TIMES = 3

Pixels = NDArray[np.uint8]
Size = tuple[int, int]
OnTile = Callable[[], None]


def passes_of(scale: int, before: Size, size: Size) -> list[Size]:
    """The sizes of the pictures that go through an upscaler of this scale, one after the other.

    Each as it came out of the last, unless memory should not hold what becomes of it: then it is
    reduced before.
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
    """A side cut into tiles of nearly equal length, each at a multiple of 4."""
    count = -(-side // tile)
    length = -(-side // (count * 4)) * 4
    return [(begin, min(begin + length, side)) for begin in range(0, side, length)]


@torch.inference_mode()
def enlarged(network: Network, picture: Pixels, tile: int, before_tile: OnTile) -> Pixels:
    """The picture, `network.scale` times as large; `before_tile` may raise.

    Tiles overlap as far as the network sees, up to a limit. At the picture's own edges there is no
    overlap: the network ends there as in training.
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
    """One tile."""
    pixels = torch.from_numpy(np.array(seen)).to(next(network.parameters()).device)
    pixels = pixels.permute(2, 0, 1)[None].float() / 255
    height, width = pixels.shape[2:]
    beyond = (0, -width % network.multiple, 0, -height % network.multiple)
    if any(beyond):
        pixels = functional.pad(pixels, beyond, mode="replicate")
    made = network(pixels)[0, :, : height * network.scale, : width * network.scale]
    array: Pixels = (made * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return array.transpose(1, 2, 0)


class Upscalers:
    """The last used upscalers by their hashes. They compute in float32: narrower types show."""

    def __init__(self, catalog: Catalog, device: torch.device) -> None:
        self._catalog = catalog
        self._device = device
        self._kept = lru_cache(_KEPT)(self._read)
        self._lock = Lock()  # parts of a batch are drawn in threads
        self._tile = _TILE.get(device.type, _USUAL_TILE)

    def tiles(self, name: str, hash_: str, before: Size, size: Size) -> int:
        """Count the tiles that enlarging from one size to another takes."""
        return sum(
            len(spans(width, self._tile)) * len(spans(height, self._tile))
            for width, height in passes_of(self._network(name, hash_).scale, before, size)
        )

    def enlarged(
        self, picture: Image.Image, name: str, hash_: str, size: Size, before_tile: OnTile
    ) -> Image.Image:
        """The RGB picture in another size, by an upscaler as often as it needs.

        What is too large then is reduced by Lanczos, as A1111 does. What `before_tile` raises ends
        it.
        """
        network = self._network(name, hash_)
        for before in passes_of(network.scale, picture.size, size):
            pixels = np.asarray(_resized(picture, before))
            picture = Image.fromarray(self._enlarged_once(network, pixels, before_tile))
        return _resized(picture, size)

    def _enlarged_once(self, network: Network, pixels: Pixels, before_tile: OnTile) -> Pixels:
        """Enlarge it, in smaller tiles where memory runs out; they stay so."""
        while True:
            try:
                return enlarged(network, pixels, self._tile, before_tile)
            # Which classes mean that memory ran out differs by device and version of torch.
            except Exception as error:
                failure = out_of_memory(error)
                if not failure:
                    raise
            if self._tile // 2 < _SMALLEST_TILE:
                raise RenderFailed(
                    f"{failure} Even tiles of {self._tile} pixels were too large for the upscaler.",
                    "Use a smaller upscaler, or close other programs.",
                )
            self._tile //= 2
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def _network(self, name: str, hash_: str) -> Network:
        """The upscaler, read if it is not in memory."""
        with self._lock:
            return self._kept(name, hash_)

    def _read(self, name: str, hash_: str) -> Network:
        find = partial(find_model, self._catalog)
        with unchanged(find, "upscaler", name, hash_) as model:
            layout = layout_of(read_header(model.path).shapes)
            assert layout  # the catalog has seen to it
            tensors = read_tensors(model.path, lambda _: torch.float32, torch.device("cpu"))
            with torch.device("meta"):
                network = network_of(layout)
            loaded: Network = filled(network, weights_of(layout, tensors), f"upscaler {name!r}")
            return loaded.to(self._device)


def _resized(picture: Image.Image, size: Size) -> Image.Image:
    return picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)
