"""Reads LoRA files: which of their tensors change which layer, and how."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from torch.nn import functional

from picowatch.catalog.lora_keys import Role, layer_of
from picowatch.catalog.lora_layers import Adapted, LayerId, Part, adapted
from picowatch.engine.models.weights import with_sides
from picowatch.engine.unet.changes import Change, Decomposed, LowRank, Product, makes, rank_of
from picowatch.errors import RenderFailed

# What the roles of LoHa's and LoKr's tensors begin with, and those of whole differences.
_FACTORS = ("hada_", "lokr_", "diff")
# The roles of a DoRA's lengths: LyCORIS' and peft's.
_LENGTHS = ("dora_scale", "lora_magnitude_vector")
# The UNet's first layer, and its inputs where it sees nothing but latents.
_FIRST, _LATENTS = LayerId("denoiser", "conv_in"), 4
# In peft's names: what follows a layer's, what precedes it, and a pattern without wildcards.
_LORA_A = re.compile(r"\.lora_A(?:\.\w+)?\.weight$")
_PART = re.compile(r"^(?:base_model\.model\.)?(?:(?:unet|transformer|text_encoder(?:_[23])?)\.)?")
_PLAIN_PATTERN = re.compile(r"\^?[\w.]+")
# Types that layers compute in. Weights of others, as fp8, are converted for each computation.
_COMPUTED_IN = (torch.float32, torch.bfloat16, torch.float16)

Roles = dict[Role, torch.Tensor]


@dataclass(frozen=True, slots=True)
class _PeftSettings:
    """peft's LoraConfig for one part of the checkpoint, beyond the tensors' shapes.

    `alphas` is its `alpha_pattern`: the alpha of single layers. `rank_stabilised` is its
    `use_rslora`: the scale is alpha / sqrt(rank), https://arxiv.org/abs/2312.03732.
    https://huggingface.co/docs/peft/package_reference/lora
    """

    alpha: float | None = None
    alphas: dict[str, float] = field(default_factory=dict)
    rank_stabilised: bool = False

    def alpha_of(self, layer: str, rank: int) -> float:
        """peft uses the first pattern that is the layer's name, or its end after a dot."""
        for pattern, alpha in self.alphas.items():
            ending = "." + pattern.removeprefix("^")
            whole = "." + _PART.sub("", layer)
            if whole == ending or (whole.endswith(ending) and not pattern.startswith("^")):
                return alpha
        return rank if self.alpha is None else self.alpha


@dataclass(frozen=True, slots=True)
class LoraFile:
    """What a file changes in layers, what it adds to biases, the keys that match none, its size."""

    layers: dict[LayerId, Change]
    biases: dict[LayerId, torch.Tensor]
    unexpected: tuple[str, ...]
    bytes: int


@dataclass(frozen=True, slots=True)
class LoraReader:
    """Reads a file's layers to the device, in the type of the modules they belong to."""

    name: str
    family: str
    modules: dict[LayerId, nn.Module]
    device: torch.device

    def read(self, path: Path) -> LoraFile:
        """The file; RenderFailed if it is for another model, or damaged."""
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            settings = _peft_settings(file.metadata() or {}, self.name)
        found, written, unexpected = self._by_layer(tensors)
        if not found:
            raise RenderFailed(
                f"The LoRA {self.name!r} is for another kind of model: no layer of this checkpoint "
                f"has a name like {unexpected[0][:80]!r}.",
                "Use a LoRA for this checkpoint's kind of model.",
            )
        layers: dict[LayerId, Change] = {}
        biases: dict[LayerId, torch.Tensor] = {}
        # Some files have a fused layer and its parts, which say the same: the parts are last.
        for target in sorted(found, key=lambda target: -len(target.layers)):
            roles = found[target]
            if "bias" in roles:
                biases |= self._biases(target, roles.pop("bias"))
            if any(role.startswith(_FACTORS) for role in roles):
                layers |= self._decomposed(target, roles, self._products(target, roles))
            elif roles:
                own = settings.get(target.layers[0].part, _PeftSettings())
                low_rank = {
                    layer_id: self._layer(layer_id, each, own, written.get(target, ""))
                    for layer_id, each in self._of_each(target, roles).items()
                }
                layers |= self._decomposed(target, roles, low_rank)
        size = sum(tensor.nbytes for tensor in tensors.values())
        return LoraFile(layers, biases, tuple(sorted(unexpected)), size)

    def _by_layer(
        self, tensors: dict[str, torch.Tensor]
    ) -> tuple[dict[Adapted, Roles], dict[Adapted, str], list[str]]:
        """The tensors of each layer, the layers' names as the file has them, and other keys."""
        found: dict[Adapted, Roles] = {}
        written: dict[Adapted, str] = {}
        unexpected = []
        for key, tensor in tensors.items():
            known = layer_of(key)
            target = adapted(known[0], self.family) if known else None
            if known is None or target is None or not self._has(target, known[1]):
                unexpected.append(key)
            else:
                found.setdefault(target, {})[known[1]] = tensor
                if known[1] == "down":
                    written[target] = _LORA_A.sub("", key)
        return found, written, unexpected

    def _has(self, target: Adapted, role: Role) -> bool:
        """Whether the checkpoint has these layers, and there what this role changes."""
        modules: list[Any] = [self.modules.get(layer_id) for layer_id in target.layers]
        if None in modules:
            return False
        if role == "bias":
            return all(module.bias is not None for module in modules)
        # An inpainting checkpoint's first layer has a mask in its lengths, which no DoRA saw.
        return (
            role not in _LENGTHS
            or _FIRST not in target.layers
            or (_sides(modules[0])[1] == _LATENTS)
        )

    def _biases(self, target: Adapted, added: torch.Tensor) -> dict[LayerId, torch.Tensor]:
        """What is added to each layer's output; a convolution's has a height and a width."""
        shares = self._shares(target, added.to(self.device, torch.float32))
        return {
            one: share[:, None, None] if isinstance(self.modules[one], nn.Conv2d) else share
            for one, share in shares.items()
        }

    def _decomposed(
        self, target: Adapted, roles: Roles, changes: Mapping[LayerId, LowRank | Product]
    ) -> dict[LayerId, Change]:
        """The changes, with the lengths of a DoRA if the file has them.

        LyCORIS measures over a layer's inputs or its outputs, peft always over the inputs.
        """
        lengths = next((roles[role] for role in _LENGTHS if role in roles), None)
        if lengths is None:
            return {**changes}
        lengths = lengths.to(self.device, torch.float32)
        inputs = _sides(self.modules[target.layers[0]])[1]
        by_input = "dora_scale" in roles and lengths.shape[:2] == (1, inputs)
        if by_input and len(changes) == 1:
            shares = dict.fromkeys(changes, lengths.reshape(1, -1))
        else:
            shares = {one: share[:, None] for one, share in self._shares(target, lengths).items()}
        return {
            one: Decomposed(change, with_sides(shares[one], self._ndim(one)))
            for one, change in changes.items()
        }

    def _shares(self, target: Adapted, values: torch.Tensor) -> dict[LayerId, torch.Tensor]:
        """The values of each layer's outputs, of those of a layer that stands for several."""
        values = values.flatten()
        rows = [_sides(self.modules[one])[0] for one in target.layers]
        if sum(rows) != len(values):
            what = f"{target.layers[0].module} has {len(values)} outputs"
            raise self._of_another_size(what, f"{sum(rows)}")
        if self._is_swapped(target):
            values = torch.cat(values.chunk(2)[::-1])
        return dict(zip(target.layers, torch.split(values, rows), strict=True))

    def _products(self, target: Adapted, roles: Roles) -> dict[LayerId, Product]:
        """What one layer of a LoHa or LoKr, or a whole difference, changes in each layer."""
        factors = {role: one for role, one in roles.items() if role.startswith(_FACTORS)}
        module = target.layers[0].module
        first: Any = self.modules[target.layers[0]]
        rows = [_sides(self.modules[one])[0] for one in target.layers]
        kernel = first.weight.shape[2:] if isinstance(first, nn.Conv2d) else ()
        shape = (sum(rows), _sides(first)[1], *kernel)
        try:
            fits = makes(factors, shape)
        except (KeyError, RuntimeError) as error:
            raise RenderFailed(
                f"The LoRA {self.name!r} is incomplete: {module} lacks a factor, or has one of "
                "another size.",
                "Get the file again, or another one.",
            ) from error
        if not fits:
            raise self._of_another_size(f"{module} is of another shape", "x".join(map(str, shape)))
        rank = rank_of(factors)
        scale = float(roles["alpha"]) / rank if rank and "alpha" in roles else 1.0
        dtype = _computed_in(first.weight, *factors.values())
        factors = {role: one.to(self.device, dtype, copy=True) for role, one in factors.items()}
        ends, swapped = list(accumulate(rows)), self._is_swapped(target)
        return {
            layer_id: Product(factors, shape, slice(end - count, end), swapped, scale)
            for layer_id, count, end in zip(target.layers, rows, ends, strict=True)
        }

    def _of_each(self, target: Adapted, roles: Roles) -> dict[LayerId, Roles]:
        """The tensors of each layer that one layer of the file adapts: rows of `up` are shared."""
        up = roles.get("up")
        if up is not None and self._is_swapped(target):
            up = torch.cat(up.chunk(2)[::-1])
        if up is None or len(target.layers) == 1:
            return {one: roles | ({} if up is None else {"up": up}) for one in target.layers}
        rows = [_sides(self.modules[one])[0] for one in target.layers]
        if sum(rows) != len(up):
            what = f"{target.layers[0].module} and its neighbours have {len(up)} outputs"
            raise self._of_another_size(what, f"{sum(rows)}")
        parts = zip(target.layers, torch.split(up, rows), strict=True)
        return {one: roles | {"up": part} for one, part in parts}

    def _ndim(self, layer_id: LayerId) -> int:
        """How many sides its weight has."""
        return 4 if isinstance(self.modules[layer_id], nn.Conv2d) else 2

    def _is_swapped(self, target: Adapted) -> bool:
        """Whether the halves of its outputs are in another order than the file has them."""
        outputs, inputs = _sides(self.modules[target.layers[0]])
        return target.swapped or (target.swapped_alone and outputs == 2 * inputs)

    def _layer(
        self,
        layer_id: LayerId,
        roles: Roles,
        settings: _PeftSettings,
        written: str,
    ) -> LowRank:
        """The tensors of one layer, after checking that they fit its module."""
        module: Any = self.modules[layer_id]
        if "down" not in roles or "up" not in roles:
            raise RenderFailed(
                f"The LoRA {self.name!r} is incomplete: {layer_id.module} has only one half."
            )
        # Stable Diffusion 1.x's `proj_in` is a convolution; some files contain it as a matrix.
        ndim = self._ndim(layer_id)
        down, up = (with_sides(roles[role], ndim) for role in ("down", "up"))
        mid = with_sides(roles["mid"], ndim) if "mid" in roles else None
        outputs, inputs = _sides(module)
        if layer_id == _FIRST and down.shape[1] == _LATENTS < inputs:
            # An inpainting checkpoint also looks at a mask and what that leaves, as A1111 has it.
            down = functional.pad(down, (0, 0, 0, 0, 0, inputs - _LATENTS))
        kernel = (down if mid is None else mid).shape[2:]
        expected = () if isinstance(module, nn.Linear) else module.weight.shape[2:]
        if (down.shape[1], up.shape[0]) != (inputs, outputs) or kernel != expected:
            what = f"{layer_id.module} leads from {down.shape[1]} to {up.shape[0]} values"
            raise self._of_another_size(what, f"from {inputs} to {outputs}")
        rank = down.shape[0]
        if up.shape[1] != rank:
            raise RenderFailed(
                f"The LoRA {self.name!r} is damaged: {layer_id.module} has two ranks."
            )
        alpha = float(roles["alpha"]) if "alpha" in roles else settings.alpha_of(written, rank)
        scale = alpha / (math.sqrt(rank) if settings.rank_stabilised else rank)
        dtype = _computed_in(module.weight, down)

        def prepared(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.to(self.device, dtype, copy=True)

        return LowRank(prepared(down), prepared(up), None if mid is None else prepared(mid), scale)

    def _of_another_size(self, what: str, ours: str) -> RenderFailed:
        return RenderFailed(
            f"The LoRA {self.name!r} is for a model of another size: its {what}, this "
            f"checkpoint's {ours}.",
            "Use it with a checkpoint of the kind it was trained for, or remove it.",
        )


def _computed_in(*tensors: torch.Tensor) -> torch.dtype:
    """The type of the first that layers compute in."""
    return next((one.dtype for one in tensors if one.dtype in _COMPUTED_IN), torch.bfloat16)


def _sides(module: Any) -> tuple[int, int]:
    """A layer's outputs and inputs. Quantised weights have another shape than their layer."""
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    return module.weight.shape[0], module.weight.shape[1]


def _peft_settings(metadata: dict[str, str], name: str) -> dict[Part, _PeftSettings]:
    """peft's settings by part, which diffusers writes with peft's names since 0.34.

    https://github.com/huggingface/diffusers/pull/11324
    """
    try:
        stored = json.loads(metadata["lora_adapter_metadata"])
        return {part: _settings_of(prefix, stored, name) for part, prefix in _names(stored)}
    except KeyError:
        return {}
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        raise RenderFailed(
            f"The LoRA {name!r} is damaged: its lora_adapter_metadata cannot be read.",
            "Save it again with the program that trained it.",
        ) from error


def _names(stored: dict[str, Any]) -> list[tuple[Part, str]]:
    """The checkpoint's parts, and what diffusers calls them."""
    denoiser = "transformer" if any(key.startswith("transformer.") for key in stored) else "unet"
    encoders: tuple[Part, ...] = ("text_encoder", "text_encoder_2", "text_encoder_3")
    return [("denoiser", denoiser), *((part, part) for part in encoders)]


def _settings_of(part: str, stored: dict[str, Any], name: str) -> _PeftSettings:
    """Those of one part; RenderFailed for what would change the picture if it were ignored."""
    if stored.get(f"{part}.lora_bias"):
        raise RenderFailed(
            f"The LoRA {name!r} has biases (lora_bias), which picowatch does not support.",
            "Train or export it without.",
        )
    alpha = stored.get(f"{part}.lora_alpha")
    pattern = stored.get(f"{part}.alpha_pattern") or {}
    alphas = {}
    for layer, own in pattern.items():
        plain = layer.replace("\\.", ".")
        if not _PLAIN_PATTERN.fullmatch(plain):
            raise RenderFailed(
                f"The LoRA {name!r} names layers by a regular expression in its alpha_pattern: "
                f"{layer[:80]!r}. picowatch only supports plain names.",
                "Write the layers' names instead.",
            )
        alphas[plain] = float(own)
    return _PeftSettings(
        alpha=None if alpha is None else float(alpha),
        alphas=alphas,
        rank_stabilised=bool(stored.get(f"{part}.use_rslora")),
    )
