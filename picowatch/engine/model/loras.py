"""LoRAs, loaded by the loaders of diffusers' pipelines and added to layers by peft.

No weight of the checkpoint changes: peft wraps each layer in one that adds the LoRA's share to the
output. When no LoRA is in use, all layers are unwrapped again.
"""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.hooks.group_offloading import _maybe_remove_and_reapply_group_offloading

from picowatch.engine.model.lora_files import File, read_lora
from picowatch.engine.model.part_files import Tensors
from picowatch.engine.model.verify import Verified
from picowatch.recipe.request import LoraUse

_NAMED_KEYS = 3


class Loras:
    """The LoRAs of one checkpoint, whose parts in memory are those of `pipeline`.

    `applied` are those in use, `warnings` say which parts of their files have no effect.
    `of_texts` are hashes and weights of those that change what text encoders make of a prompt.
    """

    def __init__(self, pipeline: Callable[[], Any], family: str, verified: Verified) -> None:
        self._pipeline = pipeline
        self._family = family
        self._verified = verified
        self._files: dict[str, File] = {}  # by hash
        self.applied: tuple[LoraUse, ...] = ()
        self.warnings: tuple[str, ...] = ()
        self.of_texts: tuple[tuple[str, float], ...] = ()

    def apply(self, uses: Sequence[LoraUse]) -> None:
        """Use exactly these LoRAs. If one cannot be used, RenderFailed is raised, and none is."""
        wanted = tuple(uses)
        if wanted == self.applied:
            return
        weights: dict[str, float] = {}
        for use in wanted:
            weights[use.hash] = weights.get(use.hash, 0) + use.weight
        weights = {sha256: weight for sha256, weight in weights.items() if weight}
        names = {use.hash: use.name for use in wanted if use.hash in weights}
        pipeline = self._pipeline()
        if names.keys() != self._files.keys():
            self._unload(pipeline)
            try:
                for sha256, name in names.items():
                    with self._verified("lora", name, sha256) as model:
                        self._files[sha256] = self._load(name, sha256, model.path, pipeline)
            except BaseException:
                self._unload(pipeline)
                raise
        # Parts that are not in memory have no layers of a LoRA.
        here = {sha256: weight for sha256, weight in weights.items() if self._files[sha256].tensors}
        if here:
            pipeline.set_adapters([*map(_adapter, here)], [*here.values()])
        self.applied = wanted
        unused = ((name, self._files[sha256].unused) for sha256, name in names.items())
        self.warnings = tuple(_does_nothing(name, keys) for name, keys in unused if keys)
        self.of_texts = tuple(one for one in weights.items() if self._files[one[0]].of_texts)

    def _load(self, name: str, sha256: str, path: Path, pipeline: Any) -> File:
        """Let diffusers wrap the layers of a file."""
        file = read_lora(name, path, pipeline, self._family)
        by_part: dict[str, Tensors] = {}
        for key, tensor in file.tensors.items():
            by_part.setdefault(key.partition(".")[0], {})[key] = tensor
        options = {"adapter_name": _adapter(sha256), "_pipeline": pipeline}
        with warnings.catch_warnings():
            # Several LoRAs in one model are intended.
            warnings.filterwarnings("ignore", "Already found a `peft_config` attribute")
            for part, tensors in by_part.items():
                model = getattr(pipeline, part)
                if part.startswith("text_encoder"):
                    pipeline.load_lora_into_text_encoder(tensors, None, model, part, **options)
                else:
                    model.load_lora_adapter(tensors, prefix=part, **options)
        return file._replace(tensors=dict.fromkeys(file.tensors, torch.empty(0)))

    def _unload(self, pipeline: Any) -> None:
        """Unwrap every layer."""
        self._files.clear()
        self.applied = self.warnings = self.of_texts = ()
        pipeline.unload_lora_weights()
        for name, part in pipeline.components.items():
            if name.startswith("text_encoder") and part is not None:
                # Otherwise group offloading still has the layers of the unloaded LoRA: diffusers
                # renews the groups of its own models, but those of text encoders only when a LoRA
                # is loaded.
                _maybe_remove_and_reapply_group_offloading(part)


def _adapter(sha256: str) -> str:
    """Return diffusers' name for a LoRA."""
    return f"lora_{sha256[:16]}"


def _does_nothing(name: str, keys: Sequence[str]) -> str:
    named = ", ".join(key[:80] for key in keys[:_NAMED_KEYS])
    more = f" and {len(keys) - _NAMED_KEYS} more" if len(keys) > _NAMED_KEYS else ""
    return f"The LoRA {name!r} has parts that do nothing with this checkpoint: {named}{more}."
