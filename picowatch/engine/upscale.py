"""Upscalers, kept in memory."""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from threading import Lock

import numpy as np
import torch
from PIL import Image

from picowatch.catalog import Catalog
from picowatch.catalog.headers import read_header
from picowatch.catalog.upscalers import layout_of
from picowatch.engine.devices import Target
from picowatch.engine.failures import out_of_memory
from picowatch.engine.gguf_fp8 import read_tensors
from picowatch.engine.part_files import filled, laid_out
from picowatch.engine.upscale_networks import Network, network_of, weights_of
from picowatch.engine.upscale_tiles import (
    SMALLEST_TILE,
    Pixels,
    enlarged,
    tile_count,
)
from picowatch.engine.verify import find_model, unchanged
from picowatch.errors import RenderFailed
from picowatch.recipe.fields import MAX_UPSCALED_PIXELS

_KEPT = 2
# Sides of a tile: A1111's on a CPU; a GPU is not filled by it.
_TILE = {"cuda": 512}
_USUAL_TILE = 192
# An upscaler of a smaller scale enlarges several times, as A1111's do (modules/upscaler.py).
_MOST_TIMES = 3

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


def _resized(picture: Image.Image, size: Size) -> Image.Image:
    return picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)


class Upscalers:
    """The last used upscalers by their hashes."""

    def __init__(self, catalog: Catalog, target: Target) -> None:
        self._catalog = catalog
        self._target = target
        self._kept: OrderedDict[str, Network] = OrderedDict()
        self._lock = Lock()  # parts of a batch are drawn in threads
        self._tile = _TILE.get(target.device.type, _USUAL_TILE)

    @property
    def dtype(self) -> torch.dtype:
        """The type that they compute in."""
        return self._target.dtype

    def tiles(self, name: str, hash_: str, before: Size, size: Size) -> int:
        """How many tiles enlarging from one size to another takes."""
        passes = passes_of(self._network(name, hash_).scale, before, size)
        return sum(tile_count(*one, self._tile) for one in passes)

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
            picture = Image.fromarray(self._through(network, pixels, before_tile))
        return _resized(picture, size)

    def _through(self, network: Network, pixels: Pixels, before_tile: OnTile) -> Pixels:
        """In smaller tiles where memory runs out; they stay so."""
        failure = ""
        while self._tile >= SMALLEST_TILE:
            try:
                return enlarged(network, pixels, self._tile, before_tile)
            # Which classes mean that memory ran out differs by device and version of torch.
            except Exception as error:
                failure = out_of_memory(error)
                if not failure:
                    raise
            self._tile //= 2
            if self._target.device.type == "cuda":
                torch.cuda.empty_cache()
        self._tile = SMALLEST_TILE
        raise RenderFailed(
            f"{failure} Even tiles of {SMALLEST_TILE} pixels were too large for the upscaler.",
            "Use a smaller upscaler, or close other programs.",
        )

    def _network(self, name: str, hash_: str) -> Network:
        """The upscaler, read if it is not in memory."""
        with self._lock:
            if hash_ not in self._kept:
                while len(self._kept) >= _KEPT:
                    self._kept.popitem(last=False)
                self._kept[hash_] = self._read(name, hash_)
            self._kept.move_to_end(hash_)
            return self._kept[hash_]

    def _read(self, name: str, hash_: str) -> Network:
        find = partial(find_model, self._catalog)
        with unchanged(find, "upscaler", name, hash_) as model:
            layout = layout_of(read_header(model.path).shapes)
            assert layout  # the catalog has seen to it
            # In float32 first: SPAN's convolutions are merged.
            tensors = read_tensors(model.path, lambda _: torch.float32, torch.device("cpu"))
            with torch.device("meta"):
                network = network_of(layout)
            loaded: Network = filled(network, weights_of(layout, tensors), f"upscaler {name!r}")
            found: Network = laid_out(loaded.to(self._target.device, self._target.dtype))
            return found
