"""Reads and keeps models: checkpoints, and networks that do not draw."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache, partial
from typing import Any, TypeVar

import torch

from picowatch.catalog import Kind, Model
from picowatch.catalog.headers import Header, read_header
from picowatch.engine.drawing.control import load_controlnet
from picowatch.engine.drawing.work import timed
from picowatch.engine.failures import out_of_memory
from picowatch.engine.model.cache import Cache
from picowatch.engine.model.devices import Target
from picowatch.engine.model.load import bytes_of_parts, load_part, load_vae
from picowatch.engine.model.loaded import Loaded
from picowatch.engine.model.memory import WORKING_BYTES, Rung, Sizes, WeightLocation
from picowatch.engine.model.part_files import filled
from picowatch.engine.model.tensors import bytes_in, read_tensors
from picowatch.engine.model.verify import Verified
from picowatch.engine.networks import cutout, find, upscale
from picowatch.engine.networks.preprocess import Pixels
from picowatch.errors import RenderFailed
from picowatch.recipe.fields import BAKED
from picowatch.recipe.request import ControlUse, ImageRequest

T = TypeVar("T")


class Checkpoints:
    """The checkpoints in memory, by names and hashes: the name can tell the variant of a file."""

    def __init__(self, verified: Verified, target: Target, kept: Cache) -> None:
        self._verified, self._target, self._kept = verified, target, kept
        self._sizes = cache(self._sizes_of)
        self._controlnet_bytes = cache(self._bytes_of_controlnet)

    def sizes(self, request: ImageRequest) -> Sizes:
        """Return the size of this image's checkpoint in memory; ControlNets count as denoiser."""
        sizes = self._sizes(*key_of(request)[1:])
        size = sum(self._controlnet_bytes(*file) for file in _controlnets(request))
        return replace(sizes, denoiser=sizes.denoiser + size)

    def _sizes_of(self, name: str, sha256: str, quantize: str) -> Sizes:
        with self._verified("checkpoint", name, sha256) as model:
            return bytes_of_parts(model, self._target, quantize)

    def _bytes_of_controlnet(self, name: str, sha256: str) -> int:
        with self._verified("controlnet", name, sha256) as model:
            return bytes_in(model.path, self._target.dtype)

    def ready(self, request: ImageRequest, rung: Rung, timings: dict[str, float]) -> Loaded:
        """Return the checkpoint with this image's VAE and ControlNets, and exactly its LoRAs."""
        loaded = self.held(request, rung.place)
        if loaded is None:
            with timed(timings, "load"):
                loaded = self.load(request, rung.place)
        loaded.use_loras(request.loras)
        loaded.vae.enable_slicing()  # sixteen large pictures at once fit no card
        # Tiles of a VAE cannot continue at the opposite edge.
        loaded.vae.seamless = request.tiling
        tiled = rung.tiled and not request.tiling
        (loaded.vae.enable_tiling if tiled else loaded.vae.disable_tiling)()
        return loaded

    def held(self, request: ImageRequest, place: WeightLocation) -> Loaded | None:
        """Return the image's checkpoint if it is in memory at this place with all it needs."""
        loaded: Loaded | None = self._kept.get(key_of(request))
        if loaded is None:
            return None
        parts = loaded.parts
        is_here = (parts.place, *parts.vae_file) == (place, request.vae, request.vae_hash)
        has_all = _controlnets(request) <= parts.controlnets.keys()
        return loaded if is_here and has_all else None

    def load(self, request: ImageRequest, place: WeightLocation) -> Loaded:
        """Load the image's checkpoint, after releasing others to make room."""
        loaded: Loaded | None = self._kept.drop(key_of(request))
        needed = {"vae"}
        if place != "device":  # memory is short
            self._kept.keep_only(())
        if loaded is None or loaded.parts.place != place:
            loaded = None  # its memory is free before the next is read
            self._kept.give_back()
            self._kept.make_room(self.sizes(request).total + WORKING_BYTES)
            with self._verified("checkpoint", request.checkpoint, request.checkpoint_hash) as model:
                device = self._target.device
                loaded = Loaded(model, self._verified, device, place, self._kept, key_of(request))
            # Where parts take turns, the denoiser comes when it is needed.
            later = loaded.parts.denoiser_names if place == "turns" else ()
            needed = {*loaded.parts.by_name}.difference(later)
        parts, vae = loaded.parts, (request.vae, request.vae_hash)
        parts.read = partial(self._read, request, place)
        if parts.vae_file != vae:
            parts.drop(["vae"])
            parts.vae_file = vae
        parts.restore(needed)
        self._read_controlnets(request, loaded)
        parts.set_up()
        sizes, rung = self.sizes(request), Rung(place=place)
        self._kept.put(key_of(request), loaded, sizes.on_device(rung) or 1, sizes.in_main(rung))
        return loaded

    def make_room(self, request: ImageRequest, peak: int) -> None:
        """Release what is used least until a batch has room for its peak on the device."""
        loaded: Loaded | None = self._kept.get(key_of(request))
        held = self.sizes(request).total if loaded and loaded.parts.place == "device" else 0
        self._kept.make_room(peak - held, keep={key_of(request)})

    def forget_others(self, request: ImageRequest) -> bool:
        """Release all but this image's checkpoint and ControlNets; return whether any was."""
        others = self._kept.keep_only({key_of(request)})
        kept: Loaded | None = self._kept.get(key_of(request))
        held = kept.parts.controlnets if kept else {}
        unused = held.keys() - _controlnets(request)
        for file in unused:
            del held[file]
        return bool(others or unused)

    def _read_to(self, place: WeightLocation, name: str) -> torch.device:
        """Return the CPU for a part that is moved to the device when it computes."""
        moved = place in ("models", "layers") or (
            place == "encoders" and name.startswith("text_encoder")
        )
        return torch.device("cpu") if moved else self._target.device

    def _read(
        self, request: ImageRequest, place: WeightLocation, names: Iterable[str]
    ) -> dict[str, Any]:
        """Read parts of an image's checkpoint from verified files."""
        found = {}
        with self._verified("checkpoint", request.checkpoint, request.checkpoint_hash) as model:
            for name in names:
                device = self._read_to(place, name)
                if name == "vae" and request.vae != BAKED:
                    with self._verified("vae", request.vae, request.vae_hash) as vae:
                        found[name] = load_vae(model, vae, self._target, device)
                else:
                    found[name] = load_part(model, self._target, device, name, request.quantize)
        return found

    def _read_controlnets(self, request: ImageRequest, loaded: Loaded) -> None:
        """Read an image's missing ControlNets, after releasing those it does not use."""
        wanted, held = _controlnets(request), loaded.parts.controlnets
        missing = wanted - held.keys()
        if not missing:
            return
        for file in held.keys() - wanted:
            del held[file]
        self._kept.give_back()
        target = self._target.for_unet(loaded.native_size)
        device = self._read_to(loaded.parts.place, "controlnet")
        for file in missing:
            with self._verified("controlnet", *file) as model:
                held[file] = load_controlnet(model, loaded.denoiser, target, device)


def key_of(request: ImageRequest) -> tuple[str, str, str, str]:
    """Return the key under which an image's checkpoint is kept."""
    return "checkpoint", request.checkpoint, request.checkpoint_hash, request.quantize


def _controlnets(request: ImageRequest) -> set[tuple[str, str]]:
    """Return the ControlNets by names and hashes: the name can tell how a map is read."""
    return {(use.model, use.model_hash) for use in request.control}


# The functions that create a network from a file's header.
_NETWORKS: dict[Kind, Callable[[Header], upscale.Network | cutout.Network]] = {
    "upscaler": upscale.network_in,
    "cutout": cutout.network_in,
}
_LOADERS: dict[Kind, Callable[[Model, Target], Any]] = {
    "depth": find.load_depth,
    "segmentation": find.load_finder,
}
_HALVINGS = 2  # of a tile's or picture's sides, when memory runs out


def read_network(verified: Verified, target: Target, kind: Kind, name: str, sha256: str) -> Any:
    """Read a network; upscalers and cutouts compute in float32, because 16-bit rounding shows."""
    with verified(kind, name, sha256) as model:
        if kind in _LOADERS:
            return _LOADERS[kind](model, target)
        network = _NETWORKS[kind](read_header(model.path))
        tensors = read_tensors(model.path, lambda _: torch.float32, torch.device("cpu"))
        return filled(network, network.weights_of(tensors), f"{kind} {name!r}").to(target.device)


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
        name, sha256 = use.depth, use.depth_hash
        return self.use("depth", name, sha256, lambda model, _: find.guess_depth(model, picture))

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
            if kind in _LOADERS:
                return find.bytes_of(model, self._target), WORKING_BYTES
            with torch.device("meta"):
                network = _NETWORKS[kind](read_header(model.path))
            weights = bytes_in(model.path, torch.float32)
            return weights, network.computing_bytes(self._target.device.type)
