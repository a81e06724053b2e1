"""Keeps checkpoints in memory, and loads others when they are requested."""

import gc
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch

from picowatch.engine.drawing.control import load_controlnet
from picowatch.engine.model.devices import Target
from picowatch.engine.model.load import bytes_of_parts, load_part, load_vae
from picowatch.engine.model.loaded import Loaded
from picowatch.engine.model.measures import free_bytes
from picowatch.engine.model.memory import WORKING_BYTES, Place, Weights
from picowatch.engine.model.tensors import bytes_in
from picowatch.engine.model.verify import Verified
from picowatch.families import FAMILIES
from picowatch.recipe.fields import BAKED
from picowatch.recipe.request import ControlUse, ImageRequest


class Checkpoints:
    """The checkpoints in memory by names and hashes: the last one, and more while they fit.

    One file may be several checkpoints: the name can tell the variant of its family.
    """

    def __init__(self, verified: Verified, target: Target) -> None:
        self._verified = verified
        self._target = target
        self._kept: OrderedDict[tuple[str, ...], Loaded] = OrderedDict()  # the last used last
        self._weights = cache(self._weights_of)
        self._controlnet_bytes = cache(self._bytes_of_controlnet)

    def weights(self, request: ImageRequest) -> Weights:
        """Return the size of this image's checkpoint in memory; ControlNets count as denoiser."""
        weights = self._weights(*_key(request))
        controlnets = _controlnets(request).items()
        size = sum(self._controlnet_bytes(use.model, hash_) for hash_, use in controlnets)
        return replace(weights, denoiser=weights.denoiser + size)

    def _weights_of(self, name: str, sha256: str, quantize: str) -> Weights:
        with self._verified("checkpoint", name, sha256) as model:
            row = FAMILIES[model.family]
            takes_turns = row.kind == "flow" and not row.short
            return replace(
                bytes_of_parts(model, self._target, quantize),
                takes_turns=takes_turns,
                references=row.variant(model.variant).references,
            )

    def _bytes_of_controlnet(self, name: str, sha256: str) -> int:
        with self._verified("controlnet", name, sha256) as model:
            return bytes_in(model.path, self._target.dtype)

    def held(self, request: ImageRequest, place: Place) -> Loaded | None:
        """Return the image's checkpoint if it is in memory at this place with all it needs."""
        loaded = self._kept.get(_key(request))
        if loaded is None:
            return None
        weights = loaded.weights
        if (weights.place, weights.vae_file) != (place, _vae(request)):
            return None
        if _controlnets(request).keys() - weights.controlnets.keys():
            return None
        self._kept.move_to_end(_key(request))
        return loaded

    def load(self, request: ImageRequest, place: Place) -> Loaded:
        """Load the image's checkpoint, after releasing others to make room.

        If not all weights are to be on the device, memory is short and nothing else is kept.
        """
        loaded, needed = self._kept.pop(_key(request), None), {"vae"}
        if place != "device":
            self._kept.clear()
        if loaded is None or loaded.weights.place != place:
            loaded = None  # its memory is free before the next is read
            self._make_room(self.weights(request).total + WORKING_BYTES)
            with self._verified("checkpoint", request.checkpoint, request.checkpoint_hash) as model:
                loaded = Loaded(model, self._verified, self._target.device, place)
            # Where parts take turns, the denoiser comes when it is needed.
            needed = {*loaded.weights.parts} - ({"transformer"} if place == "turns" else set())
        weights = loaded.weights
        weights.read = partial(self._read, request, place)
        if weights.vae_file != _vae(request):
            weights.drop(["vae"])
            weights.vae_file = _vae(request)
        weights.restore(needed)
        self._read_controlnets(request, loaded)
        weights.set_up()
        self._kept[_key(request)] = loaded
        return loaded

    def forget_others(self, request: ImageRequest) -> bool:
        """Release all but this image's checkpoint and ControlNets; return whether any was."""
        others = [one for one in self._kept if one != _key(request)]
        for one in others:
            del self._kept[one]
        kept = self._kept.get(_key(request))
        held = kept.weights.controlnets if kept else {}
        unused = held.keys() - _controlnets(request).keys()
        for name in unused:
            del held[name]
        return bool(others or unused)

    def give_memory_back(self) -> None:
        """Give the memory of graphs and of released checkpoints back to the device."""
        for loaded in self._kept.values():
            loaded.forget_graphs()
        gc.collect()
        if self._target.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self._target.device.type in ("mps", "xpu"):
            getattr(torch, self._target.device.type).empty_cache()

    def _make_room(self, needed: int) -> None:
        """Release the least recently used checkpoints until so many bytes are free."""
        self.give_memory_back()
        while self._kept and free_bytes(self._target.device) < needed:
            self._kept.popitem(last=False)
            self.give_memory_back()

    def _read_to(self, place: Place, name: str) -> torch.device:
        """Return the CPU for a part that is moved to the device when it computes."""
        moved = place in ("models", "layers") or (
            place == "encoders" and name.startswith("text_encoder")
        )
        return torch.device("cpu") if moved else self._target.device

    def _read(self, request: ImageRequest, place: Place, names: Iterable[str]) -> dict[str, Any]:
        """Read parts of an image's checkpoint from verified files."""
        found = {}
        with self._verified("checkpoint", request.checkpoint, request.checkpoint_hash) as model:
            for name in names:
                device = self._read_to(place, name)
                if name != "vae" or request.vae == BAKED:
                    found[name] = load_part(model, self._target, device, name, request.quantize)
                    continue
                with self._verified("vae", request.vae, request.vae_hash) as vae:
                    found[name] = load_vae(model, vae, self._target, device)
        return found

    def _read_controlnets(self, request: ImageRequest, loaded: Loaded) -> None:
        """Read an image's missing ControlNets, after releasing those it does not use."""
        wanted, held = _controlnets(request), loaded.weights.controlnets
        missing = wanted.keys() - held.keys()
        if not missing:
            return
        for name in held.keys() - wanted.keys():
            del held[name]
        self.give_memory_back()
        target = self._target.for_unet(loaded.native_size)
        device = self._read_to(loaded.weights.place, "controlnet")
        for name in missing:
            with self._verified("controlnet", wanted[name].model, name) as model:
                held[name] = load_controlnet(model, loaded.denoiser, target, device)


def _key(request: ImageRequest) -> tuple[str, str, str]:
    return request.checkpoint, request.checkpoint_hash, request.quantize


def _vae(request: ImageRequest) -> tuple[str, str]:
    return request.vae, request.vae_hash


def _controlnets(request: ImageRequest) -> dict[str, ControlUse]:
    """Return the ControlNets by their hashes: several entries may use one."""
    return {use.model_hash: use for use in request.control}
