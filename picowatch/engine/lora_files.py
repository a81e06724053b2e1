"""Reads LoRA files: the two halves of each layer, whatever names and scales they have.

The authors of models name layers otherwise than diffusers, and compute several of its layers in
one; such names diffusers converts. It is asked layer by layer, because it refuses a whole file for
one name that it does not know.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft.utils.other import get_pattern_key
from safetensors import safe_open
from torch import nn
from torch.nn import functional

from picowatch.engine.lora_names import (
    DENOISER,
    DIFFERENCE,
    OTHER_KINDS,
    PEFT_ROLES,
    ROLE,
    Layer,
    LayerId,
    Modules,
)
from picowatch.engine.lycoris import halves_of, has_factors
from picowatch.errors import RenderFailed

Tensors = dict[str, torch.Tensor]
# diffusers' `lora_state_dict` of a pipeline: a file's tensors, with its own names.
Convert = Callable[[Tensors], Tensors]

# What a LoHa or LoKr may have as a LoRA: 2 GiB in 16 bits.
_MOST_NUMBERS = 2**30
# The UNet's first layer, and its inputs where it sees nothing but latents.
_FIRST, _LATENTS = "conv_in", 4


class Halves(NamedTuple):
    """What a LoRA adds to a layer is up(down(x)); alpha is in `up`."""

    down: torch.Tensor
    up: torch.Tensor


Layers = dict[LayerId, Halves]


@dataclass(frozen=True, slots=True)
class LoraFile:
    """The halves of each layer, and the keys that do nothing with this checkpoint."""

    layers: Layers
    unused: tuple[str, ...]


@dataclass(slots=True)
class _Named:
    """A layer as the file has it: its tensors by role, and their keys."""

    tensors: Tensors = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        return has_factors(self.tensors) or self.tensors.keys() >= {"down", "up"}


@dataclass(frozen=True, slots=True)
class LoraReader:
    """Reads a file for one pipeline; RenderFailed says why it cannot be used."""

    name: str
    modules: Modules
    convert: Convert

    def read(self, path: Path) -> LoraFile:
        """The layers, in the file's type or in float32."""
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            settings = self._peft_settings(file.metadata() or {})
        for key in list(filter(DIFFERENCE.search, tensors)):
            if not tensors[key].any():  # ComfyUI extracts many that are zero
                del tensors[key]
        self._refuse_other_kinds(tensors, settings)
        named, unused = _by_layer(tensors)
        layers, known = self._layers(named, settings)
        unused += [
            key for layer, one in named.items() if layer not in known for key in one.keys.values()
        ]
        if not layers:
            raise RenderFailed(
                f"The LoRA {self.name!r} is for another kind of model: no layer of this checkpoint "
                f"has a name like {next(iter(tensors), '')[:80]!r}.",
                "Use a LoRA for this checkpoint's kind of model; if this is one, convert its names "
                "to those of diffusers.",
            )
        return LoraFile(layers, tuple(sorted(unused)))

    def _refuse_other_kinds(self, tensors: Tensors, settings: Mapping[str, Any]) -> None:
        found = {kind for kind, its in OTHER_KINDS.items() if any(map(its.search, tensors))}
        found |= {
            kind
            for setting, kind in (("use_dora", "a DoRA"), ("lora_bias", "a LoRA with biases"))
            if any(value for key, value in settings.items() if key.endswith(f".{setting}"))
        }
        if found:
            raise self._of_another_kind(min(found))

    def _of_another_kind(self, kind: str) -> RenderFailed:
        return RenderFailed(
            f"The LoRA {self.name!r} is {kind}, which picowatch does not render.",
            "Use a plain LoRA, or a LoHa or LoKr of low rank. ComfyUI can extract a LoRA from a "
            "model that this file was merged into.",
        )

    def _layers(
        self, named: Mapping[str, _Named], settings: Mapping[str, Any]
    ) -> tuple[Layers, set[str]]:
        """The halves of each module, and which of the file's layers they are from.

        Some files have a fused layer and its parts, which say the same: the parts win.
        """
        whole: Layers = {}
        parts: Layers = {}
        known, numbers = set(), 0
        for layer, one in named.items():
            targets = self.modules.find(layer)
            if not (one.is_complete or targets) or one.tensors.keys() == {"alpha"}:
                continue
            halves = self._halves(layer, one.tensors, settings)
            numbers += sum(half.numel() for half in halves) * has_factors(one.tensors)
            if numbers > _MOST_NUMBERS:
                raise self._of_another_kind("a LoKr with large whole matrices")
            if targets and self.modules.shift_is_first(layer, targets[0]):
                halves = Halves(halves.down, torch.cat(halves.up.chunk(2)[::-1]))
            found = (
                self._fitting(targets, halves) if targets else self._converted(layer, one, halves)
            )
            if found:
                known.add(layer)
                (parts if len(found) == 1 else whole).update(found)
        return whole | parts, known

    def _halves(self, layer: str, tensors: Tensors, settings: Mapping[str, Any]) -> Halves:
        """Both halves, with alpha in `up` and a kernel of its own (LoCon's `mid`) in `down`."""
        try:
            if has_factors(tensors):
                down, up, rank = halves_of(tensors)
            else:
                down, up, rank = tensors["down"], tensors["up"], len(tensors["down"])
        except KeyError as error:
            raise RenderFailed(
                f"The LoRA {self.name!r} is incomplete: {layer} lacks its {error.args[0]!r}.",
                "Get the file again, or another one.",
            ) from error
        scale = self._scale(layer, rank, tensors.get("alpha"), settings) if rank else 1
        if scale != 1:
            up = up.float() * scale
        if "mid" in tensors:
            mid = tensors["mid"].float()
            down = torch.einsum("rskl,si->rikl", mid, down.float().flatten(1))
        return Halves(down, up)

    def _scale(
        self, layer: str, rank: int, alpha: torch.Tensor | None, settings: Mapping[str, Any]
    ) -> float:
        """alpha / rank, or alpha / sqrt(rank) for rsLoRA, https://arxiv.org/abs/2312.03732."""
        if alpha is not None:
            return float(alpha) / rank
        part, module = self.modules.split(layer)
        own = {
            key.removeprefix(f"{part}."): value
            for key, value in settings.items()
            if key.startswith(f"{part}.")
        }
        patterns = own.get("alpha_pattern") or {}
        try:
            pattern = get_pattern_key([*patterns], module)
        except re.error as error:
            raise self._damaged() from error
        alpha_of = patterns.get(pattern, own.get("lora_alpha") or rank)
        return float(alpha_of) / (math.sqrt(rank) if own.get("use_rslora") else rank)

    def _converted(self, layer: str, one: _Named, halves: Halves) -> Layers:
        """What diffusers makes of a layer with another name; {} if it or the checkpoint has none.

        diffusers converts kohya's names for some families, ComfyUI's for others, and of XLabs' only
        the file's own.
        """
        own = (one.keys.get("down", ""), one.keys.get("up", ""))
        for keys in (_kohya(layer), _comfyui(layer), own):
            try:
                converted = self.convert(dict(zip(keys, halves, strict=True)))
            # Its converters raise whatever comes of names and shapes that they do not expect.
            except Exception:
                continue
            found, _ = _by_layer(converted)
            targets = [self.modules.find(each) for each in found]
            if targets and all(targets):
                layers: Layers = {}
                for target, each in zip(targets, found.values(), strict=True):
                    layers |= self._fitting(
                        target, Halves(each.tensors["down"], each.tensors["up"])
                    )
                return layers
        return {}

    def _fitting(self, targets: tuple[LayerId, ...], halves: Halves) -> Layers:
        """The halves in the modules' shapes, after a check of their sides; each has its rows."""
        modules = [self.modules.by_id[target] for target in targets]
        inputs, kernel = _inputs(modules[0])
        outputs = [_outputs(module) for module in modules]
        # Stable Diffusion 1.x's `proj_in` is a convolution; some files have it as a matrix.
        down = _with_sides(halves.down, kernel)
        up = _with_sides(halves.up, tuple(1 for _ in kernel))
        if targets[0].module == _FIRST and down.shape[1] == _LATENTS < inputs:
            # An inpainting checkpoint also looks at a mask and what that leaves, as A1111 has it.
            down = functional.pad(down, (0, 0, 0, 0, 0, inputs - _LATENTS))
        sides = (down.shape[1], up.shape[0], *down.shape[2:])
        if sides != (inputs, sum(outputs), *kernel) or len(down) != up.shape[1]:
            raise RenderFailed(
                f"The LoRA {self.name!r} is for a model of another size: its {targets[0].module} "
                f"leads from {down.shape[1]} to {up.shape[0]} values, this checkpoint's from "
                f"{inputs} to {sum(outputs)}.",
                "Use it with a checkpoint of the kind it was trained for, or remove it.",
            )
        shares = torch.split(up, outputs)
        return {one: Halves(down, share) for one, share in zip(targets, shares, strict=True)}

    def _peft_settings(self, metadata: Mapping[str, str]) -> dict[str, Any]:
        """peft's LoraConfig, which diffusers writes beside peft's names, by part and setting.

        https://github.com/huggingface/diffusers/pull/11324
        """
        try:
            return dict(json.loads(metadata.get("lora_adapter_metadata", "{}")))
        except (TypeError, ValueError, RecursionError) as error:
            raise self._damaged() from error

    def _damaged(self) -> RenderFailed:
        return RenderFailed(
            f"The LoRA {self.name!r} is damaged: its lora_adapter_metadata cannot be read.",
            "Save it again with the program that trained it.",
        )


def _by_layer(tensors: Tensors) -> tuple[dict[str, _Named], list[str]]:
    """The tensors of each layer, and the keys that are no LoRA's."""
    named: dict[str, _Named] = {}
    others = []
    for key, tensor in tensors.items():
        match = ROLE.search(key)
        if match is None:
            others.append(key)
            continue
        written = next(filter(None, match.groups()))
        role = PEFT_ROLES.get(written, written)
        layer = named.setdefault(key[: match.start()], _Named())
        layer.tensors[role], layer.keys[role] = tensor, key
    return named, others


def _kohya(layer: str) -> tuple[str, str]:
    flat = f"lora_unet_{DENOISER.sub('', layer).replace('.', '_')}"
    return f"{flat}.lora_down.weight", f"{flat}.lora_up.weight"


def _comfyui(layer: str) -> tuple[str, str]:
    name = f"diffusion_model.{DENOISER.sub('', layer)}"
    return f"{name}.lora_A.weight", f"{name}.lora_B.weight"


def _inputs(module: Layer) -> tuple[int, tuple[int, ...]]:
    """A layer's inputs and its kernel. Quantised weights have another shape than their layer."""
    if isinstance(module, nn.Linear):
        return module.in_features, ()
    return module.in_channels, module.kernel_size


def _outputs(module: Layer) -> int:
    return module.out_features if isinstance(module, nn.Linear) else module.out_channels


def _with_sides(half: torch.Tensor, kernel: tuple[int, ...]) -> torch.Tensor:
    """A matrix with its kernel apart, or without one of a single position."""
    if half.ndim == 2 and kernel and half.shape[1] % math.prod(kernel) == 0:
        return half.reshape(len(half), -1, *kernel)
    return half.flatten(1) if not kernel and half.shape[2:].numel() == 1 else half
