"""LoRAs by diffusers' loaders of a pipeline and peft, which add them to its layers.

No weight of the checkpoint changes: peft wraps a layer in one that adds the LoRA's share to its
output. With no LoRA in use every layer is unwrapped, so that the checkpoint computes as it did.
"""

import traceback
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers.hooks.group_offloading import _maybe_remove_and_reapply_group_offloading
from diffusers.utils import logging
from torch import nn

from picowatch.engine.failures import one_line, out_of_memory
from picowatch.engine.lora_files import read_lora
from picowatch.engine.verify import FindFile, unchanged
from picowatch.errors import RenderFailed
from picowatch.recipe.request import LoraUse

_NAMED_KEYS = 3
# It logs a line for each part that a LoRA does not change, and the names that it does not know.
logging.set_verbosity_error()


class Loras:
    """The LoRAs that act on one checkpoint, which `pipeline` is made of.

    `applied` are those in use, `warnings` say what of their files does nothing.
    """

    def __init__(self, pipeline: Any, find: FindFile) -> None:
        self._pipeline = pipeline
        self._find = find
        self._unused: dict[str, list[str]] = {}  # by hash: the keys that do nothing
        self.applied: tuple[LoraUse, ...] = ()
        self.warnings: tuple[str, ...] = ()

    @property
    def adapts_encoders(self) -> bool:
        """Whether text encoders give other embeddings than the checkpoint's own."""
        return any(getattr(part, "peft_config", None) for part in self._encoders())

    def apply(self, uses: Sequence[LoraUse]) -> None:
        """Use exactly these LoRAs; none is in use if RenderFailed says why one cannot be."""
        wanted = tuple(uses)
        if wanted == self.applied:
            return
        weights: dict[str, float] = {}
        for use in wanted:
            weights[use.hash] = weights.get(use.hash, 0) + use.weight
        weights = {sha256: weight for sha256, weight in weights.items() if weight}
        names = {use.hash: use.name for use in wanted if use.hash in weights}
        if names.keys() != self._unused.keys():
            self._unload()
            try:
                for sha256, name in names.items():
                    self._load(name, sha256)
            except BaseException:
                self._unload()
                raise
        if weights:
            self._pipeline.set_adapters([*map(_adapter, weights)], [*weights.values()])
        self.applied = wanted
        unused = ((name, self._unused[sha256]) for sha256, name in names.items())
        self.warnings = tuple(_does_nothing(name, keys) for name, keys in unused if keys)

    def _load(self, name: str, sha256: str) -> None:
        """Let diffusers wrap the layers that it is for."""
        with unchanged(self._find, "lora", name, sha256) as path:
            tensors, self._unused[sha256] = read_lora(name, path, self._pipeline)
            self._add(name, sha256, tensors)

    def _add(self, name: str, sha256: str, tensors: Mapping[str, torch.Tensor]) -> None:
        try:
            with warnings.catch_warnings():
                # A second LoRA in the same model is meant.
                warnings.filterwarnings("ignore", "Already found a `peft_config` attribute")
                self._pipeline.load_lora_weights(tensors, adapter_name=_adapter(sha256))
        except (LookupError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            if out_of_memory(error):
                raise
            raise RenderFailed(
                f"The LoRA {name!r} cannot be used: diffusers refuses it ({one_line(error)}).",
                "Get the file again, or another one.",
                traceback.format_exc(),
            ) from error

    def _unload(self) -> None:
        """Unwrap every layer, so that it is as it was loaded."""
        self._unused.clear()
        self.applied = self.warnings = ()
        self._pipeline.unload_lora_weights()
        for part in self._encoders():
            # Else groups of layers that come to the device have layers of a LoRA that is gone:
            # diffusers groups its own models again, but text encoders only when a LoRA comes.
            _maybe_remove_and_reapply_group_offloading(part)

    def _encoders(self) -> list[nn.Module]:
        parts = self._pipeline.components.items()
        return [one for name, one in parts if name.startswith("text_encoder") and one is not None]


def _adapter(sha256: str) -> str:
    """What diffusers calls a LoRA."""
    return f"lora_{sha256[:16]}"


def _does_nothing(name: str, keys: Sequence[str]) -> str:
    named = ", ".join(key[:80] for key in keys[:_NAMED_KEYS])
    more = f" and {len(keys) - _NAMED_KEYS} more" if len(keys) > _NAMED_KEYS else ""
    return f"The LoRA {name!r} has parts that do nothing with this checkpoint: {named}{more}."
