"""Reads LoRA files: the two halves of each layer, by the names of the checkpoint's modules.

Trainers join a layer's name with dots or underscores, after many prefixes: compared as flat text,
these are the modules' names. The authors of models name layers otherwise, and compute several of
diffusers' in one; such names diffusers converts. It is asked layer by layer, because it refuses a
whole file for one name that it does not know.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft.utils.other import get_pattern_key
from safetensors import safe_open
from torch import nn
from torch.nn import functional

from picowatch.errors import RenderFailed

Tensors = dict[str, torch.Tensor]
# diffusers' `lora_state_dict` of a pipeline: a file's tensors, with its own names.
Convert = Callable[[Tensors], Tensors]


class LayerId(NamedTuple):
    """A part of the pipeline by diffusers' name, and a module in it."""

    part: str
    module: str


class Halves(NamedTuple):
    """What a LoRA adds to a layer is up(down(x)); alpha is in `up`."""

    down: torch.Tensor
    up: torch.Tensor


@dataclass(frozen=True, slots=True)
class LoraFile:
    """The halves of each layer, and the keys that do nothing with this checkpoint."""

    layers: dict[LayerId, Halves]
    unused: tuple[str, ...]


_ROLE = re.compile(
    r"\.lora_(?P<role>down|up|mid|A|B)(?:\.\w+)?\.weight$"
    # diffusers before it used peft: `to_q_lora.down`, `to_q.lora.down`, `lora_linear_layer.down`;
    # and XLabs', where the number is part of the layer's name: `qkv_lora1.down`.
    r"|(?:_lora|\.lora|\.lora_linear_layer|(?<=_lora[12]))\.(?P<old>down|up)\.weight$"
    r"|(?:_lora|\.lora|\.lora_linear_layer)?\.(?P<alpha>alpha)$"
)
_PEFT_ROLES = {"A": "down", "B": "up"}
_DIFFERENCE = re.compile(r"\.diff(_b)?$")
# What is no product of two halves, by its tensors' names.
_OTHER_KINDS = {
    "a LoHa": re.compile(r"\.hada_"),
    "a LoKr": re.compile(r"\.lokr_"),
    "a DoRA": re.compile(r"\.dora_scale$|\.lora_magnitude_vector\b"),
    "a file of whole differences": _DIFFERENCE,
    "an OFT": re.compile(r"\.b?oft_"),
    "a LoRA with biases": re.compile(r"\.lora_B(\.\w+)?\.bias$"),
}
_DENOISER = re.compile(
    r"^(?:base_model\.model\.|(?:lora_unet|lora_transformer|lycoris)_"
    r"|(?:model\.diffusion_model|diffusion_model|transformer|unet)\.)+"
)
_ENCODERS = {
    "text_encoder": r"lora_te1?_|text_encoder\.|text_encoders\.clip_[lh]\.transformer\.",
    "text_encoder_2": r"lora_te2_|text_encoder_2\.|text_encoders\.clip_g\.transformer\.",
    "text_encoder_3": r"lora_te3_|text_encoder_3\.|text_encoders\.t5xxl\.transformer\.",
}
_ENCODER = re.compile(
    r"^(?:base_model\.model\.)?(?:"
    + "|".join(f"(?P<{part}>{prefix})" for part, prefix in _ENCODERS.items())
    + ")"
)
# The UNet's first layer, and its inputs where it sees nothing but latents.
_FIRST, _LATENTS = "conv_in", 4


class Modules:
    """The linear layers and convolutions of a pipeline's denoiser and text encoders."""

    def __init__(self, denoiser: str, models: Mapping[str, nn.Module]) -> None:
        self.denoiser = denoiser
        self._encoders = sorted(models.keys() - {denoiser})
        self.by_id: dict[LayerId, nn.Linear | nn.Conv2d] = {
            LayerId(part, name): module
            for part, model in models.items()
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear)
            or (isinstance(module, nn.Conv2d) and module.groups == 1)
        }
        self._by_flat_name = {(part, _flat(name)): (part, name) for part, name in self.by_id}

    def find(self, name: str) -> LayerId | None:
        """The layer that a file calls so, whatever joins its name."""
        encoder = _ENCODER.match(name)
        if encoder is None:
            part, flat = self.denoiser, _flat(_DENOISER.sub("", name))
        else:
            # diffusers 0.16 called CLIP's layers as it calls the UNet's.
            flat = re.sub(r"attn_to_(q|k|v|out)$", r"attn_\1_proj", _flat(name[encoder.end() :]))
            part = str(encoder.lastgroup)
            # kohya and ComfyUI count T5 as the third, as in Stable Diffusion 3: it is the last.
            if part == "text_encoder_3" and self._encoders:
                part = self._encoders[-1]
        found = self._by_flat_name.get((part, flat)) or self._by_flat_name.get((part, f"{flat}_0"))
        return LayerId(*found) if found else None


def _flat(name: str) -> str:
    """Without what differs from version to version: `text_model` and attention's `processor`."""
    flat = name.replace(".", "_").replace("_processor_", "_")
    return flat.removeprefix("text_model_")


@dataclass(slots=True)
class _Named:
    """A layer as the file has it: its tensors by role, and their keys."""

    tensors: Tensors = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LoraReader:
    """Reads a file for one pipeline; RenderFailed says why it cannot be used."""

    name: str
    modules: Modules
    convert: Convert

    def read(self, path: Path) -> LoraFile:
        """The layers in float32, or in the file's own type."""
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            settings = self._peft_settings(file.metadata() or {})
        self._refuse_other_kinds(tensors, settings)
        named, unused = _by_layer(tensors)
        halves = {
            layer: self._halves(layer, one.tensors, settings)
            for layer, one in named.items()
            if one.tensors.keys() & {"down", "up"}
        }
        found = {layer: self.modules.find(layer) for layer in halves}
        # Some files have a fused layer and its parts, which say the same: the parts win.
        foreign = {layer: named[layer] for layer, known in found.items() if known is None}
        layers, converted = self._converted(foreign, halves)
        layers |= {known: halves[layer] for layer, known in found.items() if known}
        for layer, one in named.items():
            if layer not in halves or (found[layer] is None and layer not in converted):
                unused += one.keys.values()
        if not layers:
            raise RenderFailed(
                f"The LoRA {self.name!r} is for another kind of model: no layer of this checkpoint "
                f"has a name like {next(iter(tensors), '')[:80]!r}.",
                "Use a LoRA for this checkpoint's kind of model.",
            )
        fitting = {layer: self._fitting(layer, pair) for layer, pair in layers.items()}
        return LoraFile(fitting, tuple(sorted(unused)))

    def _refuse_other_kinds(self, tensors: Tensors, settings: Mapping[str, Any]) -> None:
        """Whole differences that are zero, as ComfyUI extracts them, are left out."""
        for key in [
            key for key in tensors if _OTHER_KINDS["a file of whole differences"].search(key)
        ]:
            if not tensors[key].any():
                del tensors[key]
        found = {kind for kind, its in _OTHER_KINDS.items() if any(map(its.search, tensors))}
        found |= {
            kind
            for setting, kind in (("use_dora", "a DoRA"), ("lora_bias", "a LoRA with biases"))
            if any(value for key, value in settings.items() if key.endswith(f".{setting}"))
        }
        if found:
            raise RenderFailed(
                f"The LoRA {self.name!r} is {min(found)}, which picowatch does not render.",
                "Use a plain LoRA: LyCORIS and ComfyUI can extract one from a model or a file.",
            )

    def _halves(self, layer: str, tensors: Tensors, settings: Mapping[str, Any]) -> Halves:
        """Both halves, with alpha in `up` and a kernel of its own (LoCon's `mid`) in `down`."""
        try:
            down, up = tensors["down"], tensors["up"]
        except KeyError as error:
            raise RenderFailed(
                f"The LoRA {self.name!r} is incomplete: {layer} has only one half.",
                "Get the file again, or another one.",
            ) from error
        scale = self._scale(layer, len(down), tensors.get("alpha"), settings)
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
        encoder = _ENCODER.match(layer)
        part = encoder.lastgroup if encoder else self.modules.denoiser
        own = {
            key.removeprefix(f"{part}."): value
            for key, value in settings.items()
            if key.startswith(f"{part}.")
        }
        module = layer[encoder.end() :] if encoder else _DENOISER.sub("", layer)
        patterns = own.get("alpha_pattern") or {}
        alpha_of = patterns.get(get_pattern_key(patterns, module), own.get("lora_alpha") or rank)
        return float(alpha_of) / (math.sqrt(rank) if own.get("use_rslora") else rank)

    def _converted(
        self, named: Mapping[str, _Named], halves: Mapping[str, Halves]
    ) -> tuple[dict[LayerId, Halves], set[str]]:
        """What diffusers makes of layers with other names, and which of them it knows."""
        layers: dict[LayerId, Halves] = {}
        known: set[str] = set()
        for layer in named:
            found = self._asked([layer], named, halves)
            if found:
                layers |= found
                known.add(layer)
        # Lumina 2's are converted by whole blocks.
        rest = [layer for layer in named if layer not in known]
        if rest and (found := self._asked(rest, named, halves)):
            return layers | found, {*named}
        return layers, known

    def _asked(
        self, layers: list[str], named: Mapping[str, _Named], halves: Mapping[str, Halves]
    ) -> dict[LayerId, Halves]:
        """The modules that these layers stand for; {} if diffusers knows none, or the checkpoint.

        diffusers converts kohya's names for some families, ComfyUI's for others, and of XLabs' only
        the file's own.
        """
        for spell in (_kohya, _comfyui, _own):
            tensors = {
                key: half
                for layer in layers
                for key, half in zip(spell(layer, named[layer].keys), halves[layer], strict=True)
            }
            try:
                converted = self.convert(tensors)
            # Its converters raise whatever comes of names and shapes that they do not expect.
            except Exception:
                continue
            found, _ = _by_layer(converted)
            targets = [self.modules.find(layer) for layer in found]
            if targets and None not in targets:
                return {
                    target: Halves(one.tensors["down"], one.tensors["up"])
                    for target, one in zip(targets, found.values(), strict=True)
                    if target
                }
        return {}

    def _fitting(self, layer_id: LayerId, halves: Halves) -> Halves:
        """The halves in the shapes of the module, after a check of their sides."""
        module = self.modules.by_id[layer_id]
        if isinstance(module, nn.Linear):
            sides, kernel = (module.in_features, module.out_features), ()
        else:
            sides, kernel = (module.in_channels, module.out_channels), module.kernel_size
        # Stable Diffusion 1.x's `proj_in` is a convolution; some files have it as a matrix.
        down, up = (_with_sides(half, 2 + len(kernel)) for half in halves)
        if layer_id.module == _FIRST and down.shape[1] == _LATENTS < sides[0]:
            # An inpainting checkpoint also looks at a mask and what that leaves, as A1111 has it.
            down = functional.pad(down, (0, 0, 0, 0, 0, sides[0] - _LATENTS))
        of_this_size = (down.shape[1], up.shape[0], *down.shape[2:]) == (*sides, *kernel)
        if not of_this_size or len(down) != up.shape[1]:
            raise RenderFailed(
                f"The LoRA {self.name!r} is for a model of another size: its {layer_id.module} "
                f"leads from {down.shape[1]} to {up.shape[0]} values, this checkpoint's from "
                f"{sides[0]} to {sides[1]}.",
                "Use it with a checkpoint of the kind it was trained for, or remove it.",
            )
        return Halves(down, up)

    def _peft_settings(self, metadata: Mapping[str, str]) -> dict[str, Any]:
        """peft's LoraConfig, which diffusers writes beside peft's names, by part and setting.

        https://github.com/huggingface/diffusers/pull/11324
        """
        try:
            return dict(json.loads(metadata.get("lora_adapter_metadata", "{}")))
        except (TypeError, ValueError, RecursionError) as error:
            raise RenderFailed(
                f"The LoRA {self.name!r} is damaged: its lora_adapter_metadata cannot be read.",
                "Save it again with the program that trained it.",
            ) from error


def _by_layer(tensors: Tensors) -> tuple[dict[str, _Named], list[str]]:
    """The tensors of each layer, and the keys that are no LoRA's."""
    named: dict[str, _Named] = {}
    others = []
    for key, tensor in tensors.items():
        match = _ROLE.search(key)
        if match is None:
            others.append(key)
            continue
        written = next(filter(None, match.groups()))
        role = _PEFT_ROLES.get(written, written)
        layer = named.setdefault(key[: match.start()], _Named())
        layer.tensors[role], layer.keys[role] = tensor, key
    return named, others


def _kohya(layer: str, _: Mapping[str, str]) -> Iterable[str]:
    flat = f"lora_unet_{_DENOISER.sub('', layer).replace('.', '_')}"
    return f"{flat}.lora_down.weight", f"{flat}.lora_up.weight"


def _comfyui(layer: str, _: Mapping[str, str]) -> Iterable[str]:
    name = f"diffusion_model.{_DENOISER.sub('', layer)}"
    return f"{name}.lora_A.weight", f"{name}.lora_B.weight"


def _own(_: str, keys: Mapping[str, str]) -> Iterable[str]:
    return keys["down"], keys["up"]


def _with_sides(half: torch.Tensor, count: int) -> torch.Tensor:
    """A matrix as a kernel of one position, or the reverse."""
    if half.ndim == 2 < count:
        return half[..., None, None]
    return half.flatten(1) if half.ndim > count and half.shape[2:].numel() == 1 else half
