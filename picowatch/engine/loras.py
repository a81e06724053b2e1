"""LoRAs by diffusers' loaders of a pipeline and peft, which add them to its layers.

No weight of the checkpoint changes: peft wraps a layer in one that adds the LoRA's share to its
output. With no LoRA in use every layer is unwrapped, so that the checkpoint computes as it did.
"""

import traceback
import warnings
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.hooks.group_offloading import _maybe_remove_and_reapply_group_offloading
from diffusers.utils import logging
from torch import nn

from picowatch.engine.failures import out_of_memory
from picowatch.engine.lora_files import Layer, Target, found_modules, read_layers
from picowatch.engine.verify import FindFile, unchanged
from picowatch.errors import RenderFailed
from picowatch.recipe.request import LoraUse

# With those in use; a LoRA has 2 to 200 MB for Stable Diffusion 1.x, over 1 GB for FLUX.
_KEPT = 3
_NAMED_KEYS = 3
# It logs a line for each part that a LoRA does not change, and the names that it does not know.
logging.set_verbosity_error()


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A LoRA whose layers are in the models, in use or not."""

    changes_encoders: bool
    unused: tuple[str, ...]


class Loras:
    """The LoRAs of one checkpoint in memory, which `pipeline` is made of.

    `applied` are those in use, `warnings` say what of their files does nothing.
    """

    def __init__(self, pipeline: Any, find: FindFile) -> None:
        self._pipeline = pipeline
        self._find = find
        self._loaded: OrderedDict[str, _Loaded] = OrderedDict()
        self._weights: dict[str, float] = {}  # of those in use, by hash
        self.applied: tuple[LoraUse, ...] = ()
        self.warnings: tuple[str, ...] = ()

    def apply(self, uses: Sequence[LoraUse]) -> bool:
        """Use exactly these LoRAs; True if text encoders give other embeddings from now on.

        If one of them cannot be used, RenderFailed says why, and those that were in use stay.
        """
        wanted = tuple(uses)
        if wanted == self.applied:
            return False
        if not hasattr(self._pipeline, "load_lora_weights"):
            raise RenderFailed(
                f"The LoRA {wanted[0].name!r} cannot be used: diffusers loads none for this kind.",
                "Remove it from the recipe, or use a checkpoint of another kind.",
            )
        weights: dict[str, float] = {}
        for use in wanted:
            weights[use.hash] = weights.get(use.hash, 0) + use.weight
        weights = {sha256: weight for sha256, weight in weights.items() if weight}
        before = self._encoders_weights()
        try:
            for use in wanted:
                if use.hash in weights:
                    self._load(use, keep={*weights, *self._weights})
        except BaseException:
            self._use(self._weights)
            self._take_out({use.hash for use in wanted} - self._loaded.keys())
            raise
        self._use(weights)
        self._forget(weights)
        self.applied = wanted
        unused = {use.name: self._loaded[use.hash].unused for use in wanted if use.hash in weights}
        self.warnings = tuple(_does_nothing(name, keys) for name, keys in unused.items() if keys)
        return before != self._encoders_weights()

    def _encoders_weights(self) -> dict[str, float]:
        """The LoRAs in use that change text encoders."""
        return {
            sha256: weight
            for sha256, weight in self._weights.items()
            if self._loaded[sha256].changes_encoders
        }

    def _load(self, use: LoraUse, keep: Collection[str]) -> None:
        if use.hash not in self._loaded:
            adapter = _adapter(use.hash)
            self._forget(keep)
            with unchanged(self._find, "lora", use.name, use.hash) as path:
                layers, others = read_layers(use.name, path)
            modules = found_modules(use.name, layers, self._pipeline)
            self._add(use, modules)
            used = {
                key
                for (part, name), layer in modules.items()
                if adapter
                in getattr(getattr(self._pipeline, part).get_submodule(name), "lora_A", ())
                for key in layer.keys.values()
            }
            keys = {key for layer in layers.values() for key in layer.keys.values()}
            encoders = any(one.part.startswith("text_encoder") for one in modules)
            self._loaded[use.hash] = _Loaded(encoders, (*sorted([*others, *(keys - used)]),))
        self._loaded.move_to_end(use.hash)

    def _add(self, use: LoraUse, modules: Mapping[Target, Layer]) -> None:
        """Let diffusers wrap the modules; if it fails, the models are as before."""
        tensors: dict[str, torch.Tensor] = {}
        for (part, module), layer in modules.items():
            tensors[f"{part}.{module}.lora_A.weight"] = layer.down
            tensors[f"{part}.{module}.lora_B.weight"] = layer.up
        try:
            with warnings.catch_warnings():
                # A second LoRA in the same model is meant.
                warnings.filterwarnings("ignore", "Already found a `peft_config` attribute")
                self._pipeline.load_lora_weights(tensors, adapter_name=_adapter(use.hash))
        except (LookupError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            if out_of_memory(error):
                raise
            raise RenderFailed(
                f"The LoRA {use.name!r} cannot be used: diffusers refuses it ({error!s:.200}).",
                "Get the file again, or another one.",
                traceback.format_exc(),
            ) from error

    def _use(self, weights: Mapping[str, float]) -> None:
        """Let these LoRAs act, and no other; without any, every layer is as it was loaded."""
        self._weights = dict(weights)
        if weights:
            names = [_adapter(sha256) for sha256 in weights]
            self._pipeline.set_adapters(names, list(weights.values()))
        else:
            self._pipeline.unload_lora_weights()
            self._group_encoders_again()
            self._loaded.clear()

    def _forget(self, keep: Collection[str]) -> None:
        """Take out those that were not used for longest, if there are too many."""
        unused = [one for one in self._loaded if one not in keep]
        self._take_out(unused[: max(0, len(self._loaded) - _KEPT)])

    def _take_out(self, hashes: Collection[str]) -> None:
        for sha256 in hashes:
            self._loaded.pop(sha256, None)
            self._pipeline.delete_adapters(_adapter(sha256))
            self._group_encoders_again()

    def _group_encoders_again(self) -> None:
        """Let groups of layers that come to the device have no layers of a LoRA that is gone.

        diffusers does it for its own models, but for text encoders only when a LoRA comes.
        """
        for name, part in self._pipeline.components.items():
            if name.startswith("text_encoder") and isinstance(part, nn.Module):
                _maybe_remove_and_reapply_group_offloading(part)


def _adapter(sha256: str) -> str:
    """What diffusers calls a LoRA."""
    return f"lora_{sha256[:16]}"


def _does_nothing(name: str, keys: Sequence[str]) -> str:
    named = ", ".join(key[:80] for key in keys[:_NAMED_KEYS])
    more = f" and {len(keys) - _NAMED_KEYS} more" if len(keys) > _NAMED_KEYS else ""
    return f"The LoRA {name!r} has parts that do nothing with this checkpoint: {named}{more}."
