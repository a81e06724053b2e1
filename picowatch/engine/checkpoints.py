"""Keeps checkpoints in memory, and loads others when they are requested."""

import gc
from collections import OrderedDict
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from picowatch.catalog import Catalog, Kind
from picowatch.engine.control_nets import load_controlnet
from picowatch.engine.devices import Target
from picowatch.engine.load import Components, load, load_part, load_vae
from picowatch.engine.memory.ladder import WORKING_BYTES, Weights
from picowatch.engine.memory.usage import free_bytes
from picowatch.engine.sizes import bytes_of_parts, controlnet_bytes
from picowatch.engine.verify import find_model, unchanged
from picowatch.recipe.fields import BAKED
from picowatch.recipe.request import ControlUse, ImageRequest


class _Kept(NamedTuple):
    """A checkpoint in memory, where it was read to, and the name and hash of its VAE."""

    components: Components
    device: torch.device
    vae: tuple[str, str]


class Checkpoints:
    """The checkpoints in memory by their hashes: the last one, more while they fit.

    Weights are read to the target's device, or to another one from which they are brought there.
    """

    def __init__(self, catalog: Catalog, target: Target) -> None:
        self._find = partial(find_model, catalog)
        self._verified = partial(unchanged, self._find)
        self._target = target
        self._kept: OrderedDict[str, _Kept] = OrderedDict()  # the last used last
        self._weights: dict[str, Weights] = {}
        self._controlnet_bytes: dict[str, int] = {}

    def weights(self, request: ImageRequest) -> Weights:
        """How large this image's checkpoint is in memory; its ControlNets count as denoiser."""
        wanted = request.checkpoint_hash
        if wanted not in self._weights:
            with self._verified("checkpoint", request.checkpoint, wanted) as model:
                encoders, denoiser, vae = bytes_of_parts(model, self._target).values()
                self._weights[wanted] = Weights(encoders, denoiser, vae)
        for use in request.control:
            if use.model_hash not in self._controlnet_bytes:
                with self._verified("controlnet", use.model, use.model_hash) as model:
                    size = controlnet_bytes(model, self._target.dtype)
                    self._controlnet_bytes[use.model_hash] = size
        size = sum(self._controlnet_bytes[hash_] for hash_ in _controlnets(request))
        weights = self._weights[wanted]
        return replace(weights, denoiser=weights.denoiser + size)

    def held(self, request: ImageRequest, device: torch.device | None = None) -> Components | None:
        """The parts this image needs, if all are in memory, and were read to that device."""
        kept = self._kept.get(request.checkpoint_hash)
        if kept is None or kept.vae != (request.vae, request.vae_hash):
            return None
        if kept.device != (device or self._target.device):
            return None
        if _controlnets(request).keys() - kept.components.controlnets.keys():
            return None
        self._kept.move_to_end(request.checkpoint_hash)
        return kept.components

    def components(
        self,
        request: ImageRequest,
        device: torch.device | None = None,
        later: Collection[str] = (),
    ) -> Components:
        """The parts this image needs; what does not fit beside them is released first.

        Parts in `later` are read only when they are restored.
        """
        device = device or self._target.device
        kept = self._kept.pop(request.checkpoint_hash, None)
        if kept and kept.device != device:
            kept = None
            self.give_memory_back()
        components = kept.components if kept else self._read(request, device, later)
        vae = (request.vae, request.vae_hash)
        components.read = partial(self._read_part, request, device)
        if kept is None or kept.vae != vae:
            components.drop(["vae"])
            components.restore(["vae"])
        self._read_controlnets(request, components, device)
        self._kept[request.checkpoint_hash] = _Kept(components, device, vae)
        return components

    def file(self, kind: Kind, name: str, expected_hash: str) -> Path:
        """The file or folder of a model that an image requests."""
        return self._find(kind, name, expected_hash).path

    def forget_others(self, request: ImageRequest) -> bool:
        """Hold this image's checkpoint and ControlNets alone; False if nothing else was there."""
        others = [name for name in self._kept if name != request.checkpoint_hash]
        for name in others:
            del self._kept[name]
        kept = self._kept.get(request.checkpoint_hash)
        held = kept.components.controlnets if kept else {}
        unused = held.keys() - _controlnets(request).keys()
        for name in unused:
            del held[name]
        return bool(others or unused)

    def give_memory_back(self) -> None:
        """Return the memory of what was released to the device."""
        gc.collect()
        if self._target.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self._target.device.type == "mps":
            torch.mps.empty_cache()

    def _read(
        self, request: ImageRequest, device: torch.device, later: Collection[str]
    ) -> Components:
        """All of a checkpoint but its VAE; those that were used longest ago make room for it."""
        weights = self.weights(request)
        needed = weights.encoders + weights.denoiser + weights.vae + WORKING_BYTES
        while self._kept and free_bytes(device) < needed:
            self._kept.popitem(last=False)
            self.give_memory_back()
        with self._verified("checkpoint", request.checkpoint, request.checkpoint_hash) as model:
            return load(model, self._target, device, later={"vae", *later})

    def _read_part(self, request: ImageRequest, device: torch.device, name: str) -> Any:
        """A part of an image's checkpoint, from verified files."""
        with ExitStack() as verified:
            checkpoint = verified.enter_context(
                self._verified("checkpoint", request.checkpoint, request.checkpoint_hash)
            )
            if name != "vae" or request.vae == BAKED:
                return load_part(checkpoint, self._target, device, name)
            vae = verified.enter_context(self._verified("vae", request.vae, request.vae_hash))
            return load_vae(checkpoint, vae, self._target, device)

    def _read_controlnets(
        self, request: ImageRequest, components: Components, device: torch.device
    ) -> None:
        """This image's ControlNets; those of others make room for them."""
        wanted, held = _controlnets(request), components.controlnets
        missing = wanted.keys() - held.keys()
        if not missing:
            return
        for name in held.keys() - wanted.keys():
            del held[name]
        self.give_memory_back()
        target = self._target.for_unet(components.native_size)
        for name in missing:
            with self._verified("controlnet", wanted[name].model, name) as model:
                held[name] = load_controlnet(model, components.denoiser, target, device)


def _controlnets(request: ImageRequest) -> dict[str, ControlUse]:
    """By their hashes: several entries may use one."""
    return {use.model_hash: use for use in request.control}
