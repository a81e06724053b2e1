"""Reads and keeps the networks that do not draw: upscalers, cutouts, finders and depth models."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

import torch

from picowatch.catalog import Kind, Model
from picowatch.catalog.headers import Header, read_header
from picowatch.engine.failures import out_of_memory
from picowatch.engine.model.cache import Cache
from picowatch.engine.model.devices import Target
from picowatch.engine.model.memory import WORKING_BYTES
from picowatch.engine.model.part_files import Tensors, filled
from picowatch.engine.model.tensors import bytes_in, read_tensors
from picowatch.engine.model.verify import Verified
from picowatch.engine.networks import cutout, find, upscale
from picowatch.engine.networks.preprocess import Pixels, guess_depth, load_depth
from picowatch.errors import RenderFailed
from picowatch.recipe.request import ControlUse

T = TypeVar("T")

# The functions that create a network from a file's header, and its weights from the tensors.
_NETWORKS: dict[Kind, tuple[Callable[[Header], Any], Callable[[Any, Tensors], Tensors]]] = {
    "upscaler": (upscale.network_in, upscale.weights_of),
    "cutout": (cutout.network_in, cutout.weights_of),
}
_LOADERS: dict[Kind, Callable[[Model, Target], Any]] = {
    "depth": load_depth,
    "segmentation": find.load_finder,
}
_HALVINGS = 2  # of a tile's or picture's sides, when memory runs out


def read_network(verified: Verified, target: Target, kind: Kind, name: str, sha256: str) -> Any:
    """Read a network; upscalers and cutouts compute in float32, because 16-bit rounding shows."""
    with verified(kind, name, sha256) as model:
        if kind in _LOADERS:
            return _LOADERS[kind](model, target)
        create, renamed = _NETWORKS[kind]
        network = create(read_header(model.path))
        tensors = read_tensors(model.path, lambda _: torch.float32, torch.device("cpu"))
        return filled(network, renamed(network, tensors), f"{kind} {name!r}").to(target.device)


class Networks:
    """The networks that do not draw, kept while memory has room."""

    def __init__(self, verified: Verified, target: Target, kept: Cache) -> None:
        self._verified, self._target, self._kept = verified, target, kept
        self._host = replace(target, device=torch.device("cpu"), flow_dtype=torch.float32)
        self.bytes_of = cache(self._bytes_of)
        self.finders_beside = True  # on the device, beside a checkpoint; otherwise in main memory

    def place_finders(self, beside: bool) -> None:
        """Keep finders on the device from now on, or in main memory."""
        if beside != self.finders_beside:
            for key in self._kept.keys("segmentation"):
                self._kept.drop(key)
            self._kept.give_back()
        self.finders_beside = beside

    def use(self, kind: Kind, name: str, sha256: str, compute: Callable[[Any, int], T]) -> T:
        """Return what `compute` gives with a network, and how often it is to halve its sides.

        When memory runs out it is called again: with smaller tiles or pictures, without other
        models on the device, then in main memory.
        """
        failure = ""
        for target, halvings in self._ways(kind, name, sha256):
            try:
                return compute(self._network(target, kind, name, sha256), halvings)
            except Exception as error:  # out-of-memory errors differ by device and torch's version
                failure = out_of_memory(error)
                if not failure:
                    raise
            # Only here are the tensors free that the traceback kept.
            self._kept.give_back()
        raise RenderFailed(
            failure.replace("this image", f"{name!r}"),
            "Close other programs, or use a smaller picture or model.",
        )

    def depth_of(self, picture: Pixels, use: ControlUse) -> Pixels:
        """Return the depth of an RGB picture, in grey."""
        sha256 = use.depth_hash
        return self.use("depth", use.depth, sha256, lambda model, _: guess_depth(model, picture))

    def _ways(self, kind: Kind, name: str, sha256: str) -> Iterator[tuple[Target, int]]:
        """Yield where to compute, and in how much smaller parts."""
        if kind == "segmentation" and not self.finders_beside:
            yield self._host, 0
            yield self._host, _HALVINGS
            return
        yield self._target, 0
        if kind != "cutout":  # which sees a square of its own size
            yield self._target, _HALVINGS
        if self._kept.keep_only({(kind, name, sha256)}):
            yield self._target, 0
        if self._target.device.type != "cpu":
            self._kept.drop((kind, name, sha256))
            yield self._host, 0

    def _network(self, target: Target, kind: Kind, name: str, sha256: str) -> Any:
        """Return a network, read unless it is kept, on this device."""
        key = kind, name, sha256
        place, network = self._kept.get(key) or (None, None)
        is_kept, (weights, computing) = place == target.device, self.bytes_of(kind, name, sha256)
        needed, on_host = computing + (0 if is_kept else weights), target is self._host
        self._kept.make_room(0 if on_host else needed, needed if on_host else 0, {key})
        if not is_kept:
            self._kept.drop(key)
            network = read_network(self._verified, target, kind, name, sha256)
            sizes = (0, weights) if on_host else (weights, 0)
            self._kept.put(key, (target.device, network), *sizes)
        return network

    def _bytes_of(self, kind: Kind, name: str, sha256: str) -> tuple[int, int]:
        """Return what a network's weights take in memory, and what computing needs besides."""
        with self._verified(kind, name, sha256) as model:
            if kind == "segmentation":
                return find.bytes_of(model, self._target), WORKING_BYTES
            weights = bytes_in(model.path, torch.float32)
            if kind == "depth":
                return weights, WORKING_BYTES
            with torch.device("meta"):
                network = _NETWORKS[kind][0](read_header(model.path))
            if kind == "cutout":
                return weights, int(network.computing_bytes())
            return weights, upscale.computing_bytes(network, self._target.device.type)
