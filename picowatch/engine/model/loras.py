"""LoRAs, loaded by the loaders of diffusers' pipelines and added to layers by peft.

No weight of the checkpoint changes: peft wraps layers in others that add the LoRA's share to the
output. When no LoRA is in use, all layers are unwrapped again.
"""

import logging
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from picowatch.engine.model.cache import Cache
from picowatch.engine.model.lora_files import File, read_lora
from picowatch.engine.model.part_files import Tensors
from picowatch.engine.model.verify import Verified
from picowatch.engine.private import renew_group_offloading, renewing_offloading
from picowatch.recipe.request import LoraUse

log = logging.getLogger("picowatch.engine")

_NAMED_KEYS = 3


@dataclass(eq=False)
class Loras:
    """The LoRAs of a checkpoint, whose parts in memory are those of `_pipeline`."""

    _pipeline: Callable[[], Any]
    _family: str
    _verified: Verified
    _kept: Cache
    _checkpoint: Path
    _files: dict[str, File] = field(default_factory=dict)  # by hash
    applied: tuple[LoraUse, ...] = ()
    warnings: tuple[str, ...] = ()  # about parts of their files that have no effect
    # Hashes and weights of those that change what text encoders make of a prompt.
    of_texts: tuple[tuple[str, float], ...] = ()

    def apply(self, uses: Sequence[LoraUse]) -> None:
        """Use exactly these LoRAs. RenderFailed if a LoRA cannot be used: then none is."""
        wanted = tuple(uses)
        weights: dict[str, float] = {}
        for use in wanted:
            weights[use.hash] = weights.get(use.hash, 0) + use.weight
        weights = {sha256: weight for sha256, weight in weights.items() if weight}
        names = {use.hash: use.name for use in wanted if use.hash in weights}
        pipeline = self._pipeline()
        if names.keys() != self._files.keys():
            self._unload(pipeline)
            in_memory = tuple(
                (part, str(module.dtype))
                for part, module in pipeline.components.items()
                if isinstance(module, torch.nn.Module)
            )
            try:
                for sha256, name in names.items():
                    key = "lora", sha256, self._checkpoint, in_memory
                    with self._verified("lora", name, sha256) as model:
                        size = model.path.stat().st_size
                        file: File | None = self._kept.get(key)
                        if file is None:
                            self._kept.make_room(main=size)
                            file = read_lora(name, model.path, pipeline, self._family)
                        use = LoraUse(name, sha256, weights[sha256])
                        self._files[sha256] = self._load(use, file, pipeline)
                    self._kept.put(key, file, main=size)  # it was not swapped while it was read
            except BaseException:
                self._unload(pipeline)
                raise
        # Parts that are not in memory have no layers of a LoRA.
        here = {sha256: weight for sha256, weight in weights.items() if self._files[sha256].halves}
        if here:
            pipeline.set_adapters([*map(_adapter, here)], [*here.values()])
        self.applied = wanted
        unused = ((name, self._files[sha256].unused) for sha256, name in names.items())
        self.warnings = tuple(_does_nothing(name, keys) for name, keys in unused if keys)
        self.of_texts = tuple(use for use in weights.items() if self._files[use[0]].of_texts)

    def _load(self, use: LoraUse, file: File, pipeline: Any) -> File:
        """Let diffusers wrap the layers of a file."""
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s", _described(use, file, pipeline))
        by_part: dict[str, Tensors] = {}
        for (part, module), halves in file.halves.items():
            names = (f"{part}.{module}.lora_{half}.weight" for half in "AB")
            by_part.setdefault(part, {}).update(zip(names, halves, strict=True))
        options = {"adapter_name": _adapter(use.hash), **renewing_offloading(pipeline)}
        with warnings.catch_warnings():
            # Several LoRAs in a model are intended.
            warnings.filterwarnings("ignore", "Already found a `peft_config` attribute")
            for part, tensors in by_part.items():
                model = getattr(pipeline, part)
                if part.startswith("text_encoder"):
                    pipeline.load_lora_into_text_encoder(tensors, None, model, part, **options)
                else:
                    model.load_lora_adapter(tensors, prefix=part, **options)
        return file._replace(halves=dict.fromkeys(file.halves, ()))

    def _unload(self, pipeline: Any) -> None:
        """Unwrap every layer."""
        self._files.clear()
        self.applied = self.warnings = self.of_texts = ()
        pipeline.unload_lora_weights()
        for name, part in pipeline.components.items():
            if name.startswith("text_encoder") and part is not None:
                # Otherwise group offloading still has the layers of the unloaded LoRA: for text
                # encoders, diffusers renews the groups only when a LoRA is loaded.
                renew_group_offloading(part)


def _adapter(sha256: str) -> str:
    """Return diffusers' name for a LoRA."""
    return f"lora_{sha256[:16]}"


@torch.inference_mode()
def _described(use: LoraUse, file: File, pipeline: Any) -> str:
    """Describe a LoRA: its layers, ranks and alphas, and its largest change of a layer's weights.

    The change is ||up down|| * weight / ||W|| with Frobenius norms. ||up down||^2 is the sum of
    (up^T up) * (down down^T), which are as small as the rank. Quantised weights have no norm here.
    """
    ranks, changes = set[int](), list[float]()
    for (part, module), halves in file.halves.items():
        down, up = (half.flatten(1).float() for half in halves)
        ranks.add(len(down))
        layer = getattr(pipeline, part).get_submodule(module)
        weight = getattr(layer, "base_layer", layer).weight
        if weight.is_floating_point() and (norm := torch.linalg.vector_norm(weight.float())):
            square = ((up.T @ up) * (down @ down.T)).sum().clamp(min=0)
            changes.append(abs(use.weight) * square.sqrt().item() / norm.item())
    words = f"LoRA {use.name!r} at {use.weight:g}: {len(file.halves)} layers, rank {_range(ranks)}"
    change = f", largest change {max(changes):.1%} of a layer's weights" if changes else ""
    return f"{words}, alpha {_range(file.alphas)}{change}"


def _range(numbers: Collection[float]) -> str:
    """Return the least and the largest number, or the only number."""
    ends = sorted({min(numbers), max(numbers)}) if numbers else ()
    return " to ".join(f"{number:g}" for number in ends) or "none"


def _does_nothing(name: str, keys: Sequence[str]) -> str:
    named = ", ".join(key[:80] for key in keys[:_NAMED_KEYS])
    more = f" and {len(keys) - _NAMED_KEYS} more" if len(keys) > _NAMED_KEYS else ""
    return f"The LoRA {name!r} has parts that do nothing with this checkpoint: {named}{more}."
