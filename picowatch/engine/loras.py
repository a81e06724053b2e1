"""LoRAs: peft adds them to the layers of the denoiser and the text encoders.

No weight of the checkpoint changes: peft wraps a layer in one that adds the LoRA's share to its
output. With no LoRA in use every layer is unwrapped, so that the checkpoint computes as it did.
"""

import warnings
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffusers.hooks.group_offloading import _maybe_remove_and_reapply_group_offloading
from diffusers.utils import delete_adapter_layers
from diffusers.utils.peft_utils import recurse_remove_peft_layers
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from picowatch.engine.lora_files import Layers, LoraFile, LoraReader, Tensors
from picowatch.engine.lora_names import Modules
from picowatch.engine.verify import FindFile, unchanged
from picowatch.recipe.request import LoraUse

# Kept beside those in use; a LoRA has 2 to 200 MB for Stable Diffusion 1.x, over 1 GB for FLUX.
_KEPT_FILES = 4
_KEPT_BYTES = 2**30
_NAMED_KEYS = 3


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A LoRA whose layers are in the models, in use or not."""

    bytes: int
    changes_encoders: bool
    unused: tuple[str, ...]


class Loras:
    """The LoRAs of one checkpoint in memory, which `pipeline` is made of.

    `applied` are those in use, `warnings` say what of their files does nothing.
    """

    def __init__(self, pipeline: Any, find: FindFile) -> None:
        self._pipeline = pipeline
        self._find = find
        parts = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")
        self._models: dict[str, Any] = {
            part: model
            for part in parts
            if isinstance(model := getattr(pipeline, part, None), nn.Module)
        }
        self._denoiser = next(iter(self._models))
        self._modules: Modules | None = None
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
            self._forget(keep)
            if self._modules is None:
                self._modules = Modules(self._denoiser, self._models)
            with unchanged(self._find, "lora", use.name, use.hash) as path:
                file = LoraReader(use.name, self._modules, self._convert).read(path)
            try:
                self._loaded[use.hash] = self._inject(use.hash, file)
            except BaseException:
                self._use(self._weights)
                self._take_out(use.hash)
                raise
        self._loaded.move_to_end(use.hash)

    def _convert(self, tensors: Tensors) -> Tensors:
        """What diffusers makes of a file's names for this family."""
        unet = {"unet_config": self._pipeline.unet.config} if self._denoiser == "unet" else {}
        found = self._pipeline.lora_state_dict(tensors, **unet)
        return found if isinstance(found, dict) else found[0]

    def _inject(self, sha256: str, file: LoraFile) -> _Loaded:
        """Wrap the file's layers and give them its halves.

        peft is told a rank and an alpha of 1: ranks by pattern take it seconds, and alpha is in the
        halves. They compute in the model's type, since weights may be stored in one that nothing
        computes in, as fp8.
        """
        by_part: dict[str, Layers] = {}
        for layer, halves in file.layers.items():
            by_part.setdefault(layer.part, {})[layer] = halves
        size = 0
        for part, layers in by_part.items():
            model, dtype = self._models[part], self._models[part].dtype
            names = [layer.module for layer in layers]
            config = LoraConfig(r=1, lora_alpha=1, target_modules=names, inference_mode=True)
            keys: Any = {f"{name}.lora_A.weight": None for name in names}
            with warnings.catch_warnings():
                # A second LoRA in the same model is meant.
                warnings.filterwarnings("ignore", "Already found a `peft_config` attribute")
                inject_adapter_in_model(
                    config, model, sha256, low_cpu_mem_usage=True, state_dict=keys
                )
            for layer, halves in layers.items():
                wrapped: Any = model.get_submodule(layer.module)
                device = wrapped.base_layer.weight.device
                for adapter, half in zip((wrapped.lora_A, wrapped.lora_B), halves, strict=True):
                    weight = half.to(device, dtype).contiguous()
                    adapter[sha256].weight = nn.Parameter(weight, requires_grad=False)
                    size += weight.nbytes
            _maybe_remove_and_reapply_group_offloading(model)
        return _Loaded(size, any(part != self._denoiser for part in by_part), file.unused)

    def _use(self, weights: Mapping[str, float]) -> None:
        """Let these LoRAs act, and no other; without any, every layer is as it was loaded."""
        self._weights = dict(weights)
        for model in self._models.values():
            if not hasattr(model, "peft_config"):
                continue
            if weights:
                for layer in filter(_is_wrapped, model.modules()):
                    layer.set_adapter(list(weights), inference_mode=True)  # without gradients
                    for sha256, weight in weights.items():
                        layer.set_scale(sha256, weight)
            else:
                recurse_remove_peft_layers(model)
                del model.peft_config
                _maybe_remove_and_reapply_group_offloading(model)
        if not weights:
            self._loaded.clear()

    def _forget(self, keep: Collection[str]) -> None:
        """Take the LoRAs out that were not used for longest, if there are too many."""
        for sha256 in [one for one in self._loaded if one not in keep]:
            size = sum(one.bytes for one in self._loaded.values())
            if len(self._loaded) <= _KEPT_FILES and size <= _KEPT_BYTES:
                return
            del self._loaded[sha256]
            self._take_out(sha256)

    def _take_out(self, sha256: str) -> None:
        for model in self._models.values():
            if sha256 in getattr(model, "peft_config", {}):
                delete_adapter_layers(model, sha256)
                del model.peft_config[sha256]
                _maybe_remove_and_reapply_group_offloading(model)


def _is_wrapped(module: nn.Module) -> bool:
    return isinstance(module, BaseTunerLayer)


def _does_nothing(name: str, keys: Sequence[str]) -> str:
    named = ", ".join(key[:80] for key in keys[:_NAMED_KEYS])
    more = f" and {len(keys) - _NAMED_KEYS} more" if len(keys) > _NAMED_KEYS else ""
    return f"The LoRA {name!r} has parts that do nothing with this checkpoint: {named}{more}."
