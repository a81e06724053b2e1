"""Upscalers: kept in memory; pictures, drawn or given, enlarged as the field `upscale` says."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from PIL import Image

from picowatch.catalog import Catalog
from picowatch.catalog.headers import read_header
from picowatch.catalog.upscalers import layout_of
from picowatch.engine.canvas import decoded
from picowatch.engine.devices import Target
from picowatch.engine.failures import out_of_memory
from picowatch.engine.gguf_fp8 import read_tensors
from picowatch.engine.job import Drawn, Enlarge, Interrupted, Picture
from picowatch.engine.part_files import filled, laid_out
from picowatch.engine.protocol import OnStep
from picowatch.engine.upscale_networks import Network, network_of, weights_of
from picowatch.engine.upscale_tiles import (
    MOST_OVERLAP,
    SMALLEST_TILE,
    Pixels,
    enlarged,
    tile_count,
)
from picowatch.engine.verify import find_model, unchanged
from picowatch.errors import EngineStopped, RenderFailed
from picowatch.files.pictures import decode_with_alpha
from picowatch.recipe.fields import MAX_UPSCALED_PIXELS
from picowatch.recipe.request import ImageRequest

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


class TileSteps:
    """Counts the steps of a batch together with the tiles that its pictures are enlarged in.

    Between two tiles it looks whether the batch is to end.
    """

    def __init__(
        self,
        upscalers: Upscalers,
        batch: Sequence[ImageRequest],
        on_step: OnStep,
        interrupted: Interrupted,
    ) -> None:
        self._tiles = sum(_tiles(upscalers, request) for request in batch)
        self._on_step = on_step
        self._interrupted = interrupted
        self._done, self._total = 0, self._tiles

    def drawn(self, done: int, total: int) -> None:
        """After a step of drawing."""
        self._done, self._total = done, total + self._tiles
        self._on_step(self._done, self._total)

    def before_tile(self) -> None:
        """Before a tile for the second pass of hires: a sign of life."""
        self._on_step(self._done, self._total)
        if self._interrupted():
            raise EngineStopped("The batch was interrupted.")

    def before_last_tile(self) -> None:
        """Before a tile of a finished picture."""
        self.before_tile()
        self._done = min(self._done + 1, self._total)


def _tiles(upscalers: Upscalers, request: ImageRequest) -> int:
    if request.upscale is None:
        return 0
    before = request.size_before_upscale
    model, hash_ = request.upscale.model, request.upscaler_hash
    return upscalers.tiles(model, hash_, before, request.published_size)


def enlarged_pictures(
    upscalers: Upscalers,
    batch: Sequence[ImageRequest],
    pictures: Sequence[Drawn],
    steps: TileSteps,
) -> list[Drawn]:
    """What was drawn, enlarged if the batch says so: its images agree in that.

    A picture that repeats is enlarged with a margin that continues at the opposite edge.
    """
    upscale = batch[0].upscale
    if upscale is None:
        return list(pictures)
    margin = MOST_OVERLAP if batch[0].tiling else 0
    edge = round(margin * (upscale.scale or 1))
    found = []
    for request, drawn in zip(batch, pictures, strict=True):
        one = drawn.picture
        array = np.frombuffer(one.pixels, np.uint8).reshape(one.height, one.width, 3)
        image = Image.fromarray(np.pad(array, [(margin,) * 2, (margin,) * 2, (0, 0)], "wrap"))
        large = upscalers.enlarged(
            image,
            upscale.model,
            request.upscaler_hash,
            upscale.size_of(*image.size),
            steps.before_last_tile,
        )
        size = upscale.size_of(one.width, one.height)
        large = large.crop((edge, edge, edge + size[0], edge + size[1]))
        found.append(drawn._replace(picture=Picture(*size, large.tobytes(), one.control_maps)))
    return found


def enlarged_given(
    upscalers: Upscalers, request: ImageRequest, start_images: Path | None, steps: TileSteps
) -> Drawn:
    """A start image, enlarged and not drawn."""
    assert request.upscale
    image, alpha = decoded(decode_with_alpha, start_images, request.image_hash, request.image)
    size: Size = request.upscale.size_of(*image.size)
    model, hash_ = request.upscale.model, request.upscaler_hash

    def enlarged(picture: Image.Image) -> Image.Image:
        return upscalers.enlarged(picture, model, hash_, size, steps.before_last_tile)

    transparency = _edges(alpha, enlarged, size) if alpha else b""
    picture = Picture(*size, enlarged(image).tobytes(), alpha=transparency)
    return Drawn(picture, chunks=0, batch_size=1)


def _edges(alpha: Image.Image, enlarged: Enlarge, size: Size) -> bytes:
    """Transparency, whose edges the network sharpens as those of a grey picture.

    What is wholly opaque or transparent stays so: a network is a little off.
    """
    plain = np.asarray(alpha.resize(size, Image.Resampling.LANCZOS))
    grey = np.asarray(enlarged(Image.merge("RGB", [alpha] * 3)).convert("L"))
    return np.where((plain > 0) & (plain < 255), grey, plain).astype(np.uint8).tobytes()
