"""LoRAs: what they change is added to a layer's output, or to a copy of its weights.

A layer's output h becomes h + weight * scale * change(x). No weight of the checkpoint changes:
where many steps follow, a layer gets a copy with the change added, and its own weights back after
that. So removing a LoRA restores the plain checkpoint, bit by bit.
"""

from collections import OrderedDict
from collections.abc import Callable, Container, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from picowatch.catalog.lora_layers import LayerId, Part
from picowatch.engine.models.model_files import FindFile, unchanged
from picowatch.engine.unet.changes import Change
from picowatch.engine.unet.lora_files import LoraFile, LoraReader
from picowatch.recipe.request import LoraUse

# Files kept in memory beside those that act; a LoRA has 2 to 200 MB for Stable Diffusion 1.x, over
# 1 GB for flow families, and whole differences as much as a checkpoint.
_KEPT_FILES = 8
_KEPT_BYTES = 2 * 2**30
_NAMED_KEYS = 3

# A layer sees an eighth of the latents' positions in the mean, and copying a weight costs as much
# as 16 multiplications of it: it is widened, added and written. So says the demo model with the
# tests' pixel-art on one core: 6 ms for the copies of 60 layers, and as much for their hooks in an
# evaluation of one image of 128x128 with guidance.
_POSITIONS_SEEN = 1 / 8
_READ_AND_WRITTEN = 16


class Loras:
    """The LoRAs of one loaded checkpoint: read once, applied by hooks, removed again.

    The denoiser is a UNet or a transformer. `applied` are those that act, `warnings` say what of
    their files could not be used.
    """

    def __init__(
        self,
        family: str,
        denoiser: Any,
        text_encoders: Sequence[Any],
        find: FindFile,
        device: torch.device,
    ) -> None:
        self._family = family
        self._denoiser = denoiser
        self._modules = modules_by_layer(denoiser, *text_encoders)
        self._find = find
        self._device = device
        self._files: OrderedDict[str, LoraFile] = OrderedDict()
        self.applied: tuple[LoraUse, ...] = ()
        self._acting: dict[LayerId, list[tuple[Change, float]]] = {}
        self._biases: dict[LayerId, torch.Tensor] = {}  # what is added to them
        self._handles: list[RemovableHandle] = []
        self._plain: dict[nn.Module, nn.Parameter] = {}  # weights of layers that have copies
        self.warnings: tuple[str, ...] = ()

    def apply(self, uses: Sequence[LoraUse]) -> bool:
        """Apply exactly these LoRAs; True if text encoders give other embeddings from now on.

        If one of them cannot be used, RenderFailed says why, and those that were applied stay:
        what was encoded with them remains valid.
        """
        wanted = tuple(uses)
        if wanted == self.applied:
            return False
        acting: dict[LayerId, list[tuple[Change, float]]] = {}
        biases: dict[LayerId, torch.Tensor] = {}
        warnings: list[str] = []
        for use in wanted:
            file = self._file(use)
            if file.unexpected:
                warnings.append(_unexpected(use.name, file.unexpected))
            for layer_id, layer in file.layers.items():
                acting.setdefault(layer_id, []).append((layer, use.weight * layer.scale))
            for layer_id, bias in file.biases.items():
                acting.setdefault(layer_id, [])
                biases[layer_id] = biases.get(layer_id, 0) + use.weight * bias
        encoders_change = any(one.part != "denoiser" for one in (*self._acting, *acting))
        self._remove()
        self._biases = biases
        for layer_id, layers in acting.items():
            self._acting[layer_id] = [(layer, weight) for layer, weight in layers if weight]
            hook = _hook_of(self._acting[layer_id], biases.get(layer_id), self._plain)
            self._handles.append(self._modules[layer_id].register_forward_hook(hook))
        self.applied, self.warnings = wanted, tuple(warnings)
        return encoders_change

    def merged(self) -> dict[str, torch.Tensor]:
        """The adapted weights and biases by name, with the LoRAs added: for a compiled UNet.

        Nothing moves: another UNet may compute with the copies that are there.
        """
        names = self._weight_names()
        weights = {
            names[module]: module.weight if module in self._plain else _merged(module, layers)
            for module, layers in self._acting_on_denoiser()
        }
        changed = {self._modules[one]: added for one, added in self._biases.items()}
        biases = {
            f"{name}.bias": (module.bias.float() + changed[module].flatten()).to(module.bias.dtype)
            for name, module in self._denoiser.named_modules()
            if module in changed
        }
        return weights | biases

    def plain(self) -> dict[str, torch.Tensor]:
        """The checkpoint's own weights by name, of the layers that compute with copies."""
        names = self._weight_names()
        return {names[module]: weight for module, weight in self._plain.items()}

    def merge(self) -> None:
        """Let the denoiser's layers compute with copies of their weights, instead of by hooks."""
        for module, layers in self._acting_on_denoiser():
            if module not in self._plain:
                weight: Any = module.weight
                copy = nn.Parameter(_merged(module, layers), requires_grad=False)
                self._plain[module], module.weight = weight, copy

    def unmerge(self) -> None:
        """Give the layers their own weights back; hooks act again."""
        while self._plain:
            module, weight = self._plain.popitem()
            module.weight = weight

    def is_worth_merging(self, evaluations: int, positions: int) -> bool:
        """Whether copies take less than hooks for one image, of so many positions in its latents.

        Counted in multiplications: hooks multiply by both matrices at each position of each layer,
        a copy the matrices by each other, once. More images would be worth it sooner; but what
        decides must not depend on a picture's neighbours.
        """
        seen = evaluations * positions * _POSITIONS_SEEN
        hooks = copies = 0.0
        for module, layers in self._acting_on_denoiser():
            for layer, _ in layers:
                by_hook, once = layer.multiplications(module.weight.numel())
                hooks += by_hook * seen
                copies += once
            copies += _READ_AND_WRITTEN * module.weight.numel()
        return hooks > copies

    def merged_bytes(self) -> int:
        """What copies take."""
        return sum(module.weight.nbytes for module, _ in self._acting_on_denoiser())

    def _weight_names(self) -> dict[nn.Module, str]:
        return {module: f"{name}.weight" for name, module in self._denoiser.named_modules()}

    def _acting_on_denoiser(self) -> list[tuple[Any, list[tuple[Change, float]]]]:
        return [
            (self._modules[layer_id], layers)
            for layer_id, layers in self._acting.items()
            if layer_id.part == "denoiser" and layers
        ]

    def _remove(self) -> None:
        self.unmerge()
        for handle in self._handles:
            handle.remove()
        self._handles, self.applied, self.warnings = [], (), ()
        self._acting, self._biases = {}, {}

    def _file(self, use: LoraUse) -> LoraFile:
        """The file's layers, from memory if they were read before."""
        if use.hash not in self._files:
            with unchanged(self._find, "lora", use.name, use.hash) as path:
                self._forget_old_files()
                reader = LoraReader(use.name, self._family, self._modules, self._device)
                file = reader.read(path)
            self._files[use.hash] = file
        self._files.move_to_end(use.hash)
        return self._files[use.hash]

    def _forget_old_files(self) -> None:
        while len(self._files) >= _KEPT_FILES or (
            sum(file.bytes for file in self._files.values()) > _KEPT_BYTES
        ):
            self._files.popitem(last=False)


def _hook_of(
    layers: list[tuple[Change, float]], bias: torch.Tensor | None, merged: Container[nn.Module]
) -> Callable[[nn.Module, Any, Any], torch.Tensor]:
    """A forward hook that adds the layers in their order, unless the weights have them.

    What changes the bias is not in the weights.
    """

    def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: Any) -> torch.Tensor:
        total: torch.Tensor = output
        for layer, weight in [] if module in merged else layers:
            total = total + (weight * layer.added(module, inputs[0])).to(total.dtype)
        return total if bias is None else total + bias.to(total.dtype)

    return hook


def _merged(module: Any, layers: list[tuple[Change, float]]) -> torch.Tensor:
    """The module's weight with the layers added, in its type and order of dimensions."""
    total = module.weight.float()
    for layer, weight in layers:
        total = total + weight * layer.change_of(module.weight)
    return torch.empty_like(module.weight).copy_(total)


def _unexpected(name: str, keys: tuple[str, ...]) -> str:
    named = ", ".join(key[:80] for key in keys[:_NAMED_KEYS])
    more = f" and {len(keys) - _NAMED_KEYS} more" if len(keys) > _NAMED_KEYS else ""
    return f"The LoRA {name!r} has parts that do nothing with this checkpoint: {named}{more}."


def modules_by_layer(denoiser: Any, *text_encoders: Any) -> dict[LayerId, nn.Module]:
    """The layers a LoRA may add to: linear ones and convolutions."""
    names: tuple[Part, ...] = ("text_encoder", "text_encoder_2", "text_encoder_3")
    parts: list[tuple[Part, Any]] = [("denoiser", denoiser)]
    parts += zip(names, text_encoders, strict=False)
    return {
        LayerId(part, name.replace(".", "_").removeprefix("text_model_")): module
        for part, model in parts
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }
