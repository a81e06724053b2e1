"""Keeps checkpoints in memory, and loads others when they are requested."""

import gc
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch

from picowatch.catalog import Catalog, Kind, Model
from picowatch.engine.control.loading import read_controlnet
from picowatch.engine.devices import Target
from picowatch.engine.memory.ladder import FULL, WORKING_BYTES, Rung, Weights
from picowatch.engine.memory.usage import free_bytes
from picowatch.engine.models.loaded import undo_rung
from picowatch.engine.models.model_files import find_model, unchanged
from picowatch.engine.models.parts import load_vae
from picowatch.engine.models.sizes import numbers_in, weights_of
from picowatch.engine.models.unets import CONFIGS, load
from picowatch.families import FLOWS
from picowatch.recipe.fields import BAKED
from picowatch.recipe.request import ControlUse, ImageRequest

# Files usually hold float16, which float32 doubles.
_WEIGHTS_GROW = 2


class _Kept(NamedTuple):
    """A checkpoint in memory, and the name and hash of the VAE in it."""

    loaded: Any
    vae: tuple[str, str]


class Checkpoints:
    """The checkpoints in memory by their hashes: the last one, more while they fit.

    `configs` has the folder that describes single files, for each family.
    """

    def __init__(
        self, catalog: Catalog, target: Target, configs: Mapping[str, Path] = CONFIGS
    ) -> None:
        self._catalog = catalog
        self._find = partial(find_model, catalog)
        self._verified = partial(unchanged, self._find)
        self._target = target
        self._configs = configs
        self._kept: OrderedDict[str, _Kept] = OrderedDict()  # the last used last
        self._weights: dict[str, Weights] = {}
        self._controlnet_bytes: dict[str, int] = {}

    def weights(self, request: ImageRequest) -> Weights:
        """How large this image's checkpoint is in memory."""
        wanted = request.checkpoint_hash
        if wanted not in self._weights:
            with self._verified("checkpoint", request.checkpoint, wanted) as model:
                dtype = self._target.flow_dtype if model.family in FLOWS else self._target.dtype
                self._weights[wanted] = weights_of(model, dtype.itemsize)
        weights = self._weights[wanted]
        for use in request.control:
            if use.model_hash not in self._controlnet_bytes:
                with self._verified("controlnet", use.model, use.model_hash) as model:
                    size = numbers_in(model) * self._target.dtype.itemsize
                    self._controlnet_bytes[use.model_hash] = size
        size = sum(self._controlnet_bytes[hash_] for hash_ in _controlnets(request))
        return replace(weights, denoiser=weights.denoiser + size) if size else weights

    def held(self, request: ImageRequest, rung: Rung = FULL) -> Any:
        """The parts this image needs, if they are in memory and suit the rung; see `load`."""
        kept = self._kept.get(request.checkpoint_hash)
        if kept is None or kept.vae != (request.vae, request.vae_hash):
            return None
        if not kept.loaded.suits(rung):
            return None
        self._kept.move_to_end(request.checkpoint_hash)
        return kept.loaded

    def load(self, request: ImageRequest, rung: Rung = FULL) -> Any:
        """The parts this image needs; what does not fit beside them is released first.

        A Loaded, or a LoadedPipeline where diffusers' pipelines render the family.

        Weights are read to where the rung begins with them. If it offloads any, memory is short,
        and nothing else is kept.
        """
        kept = self._kept.pop(request.checkpoint_hash, None)
        if kept and not kept.loaded.suits(rung):
            kept = None
            self.give_memory_back()
        read_to = self._target
        if rung.offload:
            self._kept.clear()
            self.give_memory_back()
            # "meta" is torch's word for weights that are nowhere yet.
            place = "meta" if rung.offload == "disk" else "cpu"
            read_to = replace(read_to, device=torch.device(place))
        loaded = kept.loaded if kept else self._load_checkpoint(request, read_to)
        undo_rung(loaded)
        loaded.vae = None
        with ExitStack() as verified:
            checkpoint = verified.enter_context(
                self._verified("checkpoint", request.checkpoint, request.checkpoint_hash)
            )
            vae = checkpoint
            if request.vae != BAKED:
                vae = verified.enter_context(self._verified("vae", request.vae, request.vae_hash))
            loaded.vae = self._load_vae(checkpoint, vae, read_to)
        self._kept[request.checkpoint_hash] = _Kept(loaded, (request.vae, request.vae_hash))
        return loaded

    def lacks_controlnets(self, loaded: Any, request: ImageRequest) -> bool:
        """Whether any of this image's ControlNets is still to be read."""
        return any(name not in loaded.controlnets for name in _controlnets(request))

    def load_controlnets(self, loaded: Any, request: ImageRequest, rung: Rung) -> None:
        """Read this image's ControlNets for its checkpoint; those of others make room for them."""
        wanted = _controlnets(request)
        undo_rung(loaded)  # where weights are is decided anew for all
        loaded.controlnets = {h: c for h, c in loaded.controlnets.items() if h in wanted}
        self.give_memory_back()
        target = self._target.for_unet(loaded.native_size)
        read_to = replace(target, device=torch.device("cpu")) if rung.offload else target
        for name, use in wanted.items():
            if name not in loaded.controlnets:
                with self._verified("controlnet", use.model, name) as model:
                    loaded.controlnets[name] = read_controlnet(
                        model.path, use.model, loaded.unet, target, read_to
                    )

    def file(self, kind: Kind, name: str, expected_hash: str) -> Path:
        """The file or folder of a model that an image requests."""
        return self._find(kind, name, expected_hash).path

    def forget_others(self, request: ImageRequest) -> bool:
        """Hold this image's checkpoint and ControlNets alone; False if nothing else was there."""
        others = [name for name in self._kept if name != request.checkpoint_hash]
        for name in others:
            del self._kept[name]
        kept = self._kept.get(request.checkpoint_hash)
        unused = kept and _unused_controlnets(kept.loaded, request)
        if kept and unused:
            undo_rung(kept.loaded)
            for name in unused:
                del kept.loaded.controlnets[name]
        return bool(others or unused)

    def give_memory_back(self) -> None:
        """Before more is taken."""
        gc.collect()
        if self._target.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self._target.device.type == "mps":
            torch.mps.empty_cache()

    def _load_vae(self, checkpoint: Model, vae: Model, read_to: Target) -> Any:
        """The VAE of a checkpoint, or another one for it."""
        if checkpoint.family in FLOWS:
            return _pipelines().load_vae(checkpoint, vae, self._target, read_to)
        return load_vae(vae, self._configs[checkpoint.family], self._target, read_to)

    def _load_checkpoint(self, request: ImageRequest, read_to: Target) -> Any:
        """All of a checkpoint but its VAE; those that were used longest ago make room for it."""
        name, expected_hash = request.checkpoint, request.checkpoint_hash
        found = self._find("checkpoint", name, expected_hash)
        needed = self._catalog.size(found) * _WEIGHTS_GROW
        while self._kept and free_bytes(self._target.device) < needed + WORKING_BYTES:
            self._kept.popitem(last=False)
            self.give_memory_back()
        with self._verified("checkpoint", name, expected_hash) as model:
            if model.family in FLOWS:
                again = partial(self._verified, "checkpoint", name, expected_hash)
                return _pipelines().load(model, self._target, read_to, self.file, again)
            return load(model, self._configs[model.family], self._target, read_to, self.file)


def _controlnets(request: ImageRequest) -> dict[str, ControlUse]:
    """By their hashes: several entries may use one."""
    return {use.model_hash: use for use in request.control}


def _unused_controlnets(loaded: Any, request: ImageRequest) -> set[str]:
    return set(getattr(loaded, "controlnets", ())) - set(_controlnets(request))


def _pipelines() -> ModuleType:
    """Imported when it is needed: diffusers' pipelines take a second."""
    from picowatch.engine.pipelines import loading

    return loading
