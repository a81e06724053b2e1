"""LoRAs: small matrices whose product is added to a layer's output, or to a copy of its weights.

LoHa and LoKr, which multiply them in other ways, are in products.py.

"LoRA: Low-Rank Adaptation of Large Language Models", https://arxiv.org/abs/2106.09685: a layer's
output h becomes h + weight * alpha / rank * up(down(x)). No weight of the checkpoint changes:
where many steps follow, a layer gets a copy with the product added, and its own weights back after
that. So removing a LoRA restores the plain checkpoint, bit by bit.
"""

import json
import math
import re
from collections import OrderedDict
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from picowatch.catalog.lora_keys import Role, layer_of
from picowatch.catalog.lora_layers import Adapted, LayerId, Part, adapted
from picowatch.engine.models.model_files import FindFile, unchanged
from picowatch.engine.models.weights import with_sides
from picowatch.engine.unet.products import Product, makes, rank_of
from picowatch.engine.unet.tiling import padded
from picowatch.errors import RenderFailed
from picowatch.recipe.request import LoraUse

# Files kept in memory; a LoRA of Stable Diffusion 1.x has 2 to 200 MB.
_KEPT_FILES = 8
_NAMED_KEYS = 3
# What the roles of LoHa's and LoKr's tensors begin with.
_FACTORS = ("hada_", "lokr_")
# The UNet's first layer, and its inputs where it sees nothing but latents.
_FIRST, _LATENTS = LayerId("denoiser", "conv_in"), 4
# In peft's names: what follows a layer's, what precedes it, and a pattern without wildcards.
_LORA_A = re.compile(r"\.lora_A(?:\.\w+)?\.weight$")
_PART = re.compile(r"^(?:base_model\.model\.)?(?:(?:unet|transformer|text_encoder(?:_[23])?)\.)?")
_PLAIN_PATTERN = re.compile(r"\^?[\w.]+")
# Types that layers compute in. Weights of others, as fp8, are converted for each computation.
_COMPUTED_IN = (torch.float32, torch.bfloat16, torch.float16)

# A layer sees an eighth of the latents' positions in the mean, and copying a weight costs as much
# as 16 multiplications of it: it is widened, added and written. So says the demo model with the
# tests' pixel-art on one core: 6 ms for the copies of 60 layers, and as much for their hooks in an
# evaluation of one image of 128x128 with guidance.
_POSITIONS_SEEN = 1 / 8
_READ_AND_WRITTEN = 16


@dataclass(frozen=True, slots=True)
class Layer:
    """What one file adds to one module; `scale` is alpha / rank, or peft's for rsLoRA.

    It computes in the type of what goes into the module: that of the module's weights may be one
    that nothing computes in.
    """

    down: torch.Tensor
    up: torch.Tensor
    mid: torch.Tensor | None
    scale: float

    def added(self, module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """scale * up(down(x)) for a linear layer or a convolution.

        A convolution's stride and padding belong to its kernel, which is `down`'s, or `mid`'s if a
        LyCORIS file has it separately.
        """
        down, up = self.down.to(x.dtype), self.up.to(x.dtype)
        if isinstance(module, nn.Conv2d):
            x, padding = padded(module, x)
            spatial: Any = {
                "stride": module.stride,
                "padding": padding,
                "dilation": module.dilation,
            }
            if self.mid is None:
                return functional.conv2d(functional.conv2d(x, down, **spatial), up)
            narrow = functional.conv2d(functional.conv2d(x, down), self.mid.to(x.dtype), **spatial)
            return functional.conv2d(narrow, up)
        return functional.linear(functional.linear(x, down), up)

    def matrix(self) -> torch.Tensor:
        """up(down(x)) as one weight, in float32: a matrix, or a convolution's kernel."""
        down, up = self.down.float(), self.up.float()
        if self.mid is not None:
            down = torch.einsum("rskl,si->rikl", self.mid.float(), down[:, :, 0, 0])
        if down.ndim == 2:
            return up @ down
        return torch.einsum("or,rikl->oikl", up[:, :, 0, 0], down)

    def multiplications(self, numbers: int) -> tuple[int, int]:
        """At each position by a hook, and once for a copy of so many numbers."""
        return self.down.numel() + self.up.numel(), len(self.down) * numbers


Change = Layer | Product


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
    """A file's layers, and the keys that match no layer of the checkpoint."""

    layers: dict[LayerId, Change]
    unexpected: tuple[str, ...]


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
        warnings: list[str] = []
        for use in wanted:
            file = self._file(use)
            if file.unexpected:
                warnings.append(_unexpected(use.name, file.unexpected))
            for layer_id, layer in file.layers.items():
                acting.setdefault(layer_id, []).append((layer, use.weight * layer.scale))
        encoders_change = any(one.part != "denoiser" for one in (*self._acting, *acting))
        self._remove()
        for layer_id, layers in acting.items():
            self._acting[layer_id] = [(layer, weight) for layer, weight in layers if weight]
            hook = _hook_of(self._acting[layer_id], self._plain)
            self._handles.append(self._modules[layer_id].register_forward_hook(hook))
        self.applied, self.warnings = wanted, tuple(warnings)
        return encoders_change

    def merged(self) -> dict[str, torch.Tensor]:
        """The adapted weights by name, with the LoRAs added: for a compiled UNet.

        Nothing moves: another UNet may compute with the copies that are there.
        """
        names = self._weight_names()
        return {
            names[module]: module.weight if module in self._plain else _merged(module, layers)
            for module, layers in self._acting_on_denoiser()
        }

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
        self._acting = {}

    def _file(self, use: LoraUse) -> LoraFile:
        """The file's layers, from memory if they were read before."""
        if use.hash not in self._files:
            with unchanged(self._find, "lora", use.name, use.hash) as path:
                while len(self._files) >= _KEPT_FILES:
                    self._files.popitem(last=False)
                reader = LoraReader(use.name, self._family, self._modules, self._device)
                file = reader.read(path)
            self._files[use.hash] = file
        self._files.move_to_end(use.hash)
        return self._files[use.hash]


def _hook_of(
    layers: list[tuple[Change, float]], merged: Container[nn.Module]
) -> Callable[[nn.Module, Any, Any], torch.Tensor]:
    """A forward hook that adds the layers in their order, unless the weights have them."""

    def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: Any) -> torch.Tensor:
        total: torch.Tensor = output
        if module in merged:
            return total
        for layer, weight in layers:
            total = total + (weight * layer.added(module, inputs[0])).to(total.dtype)
        return total

    return hook


def _merged(module: Any, layers: list[tuple[Change, float]]) -> torch.Tensor:
    """The module's weight with the layers added, in its type and order of dimensions."""
    total = module.weight.float()
    for layer, weight in layers:
        total = total + weight * layer.matrix()
    return torch.empty_like(module.weight).copy_(total)


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
        found: dict[Adapted, dict[Role, torch.Tensor]] = {}
        written: dict[Adapted, str] = {}  # the layers' names as the file has them
        unexpected = []
        for key, tensor in tensors.items():
            known = layer_of(key)
            target = adapted(known[0], self.family) if known else None
            if known is None or target is None or not self.modules.keys() >= {*target.layers}:
                unexpected.append(key)
            else:
                found.setdefault(target, {})[known[1]] = tensor
                if known[1] == "down":
                    written[target] = _LORA_A.sub("", key)
        if not found:
            raise RenderFailed(
                f"The LoRA {self.name!r} is for another kind of model: no layer of this checkpoint "
                f"has a name like {unexpected[0][:80]!r}.",
                "Use a LoRA for this checkpoint's kind of model.",
            )
        layers: dict[LayerId, Change] = {}
        # Some files have a fused layer and its parts, which say the same: the parts are last.
        for target in sorted(found, key=lambda target: -len(target.layers)):
            if any(role.startswith(_FACTORS) for role in found[target]):
                layers |= self._products(target, found[target])
                continue
            for layer_id, roles in self._of_each(target, found[target]).items():
                own = settings.get(layer_id.part, _PeftSettings())
                layers[layer_id] = self._layer(layer_id, roles, own, written.get(target, ""))
        return LoraFile(layers, tuple(sorted(unexpected)))

    def _products(self, target: Adapted, roles: dict[Role, torch.Tensor]) -> dict[LayerId, Change]:
        """What one layer of a LoHa or LoKr changes in each layer that it adapts."""
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

    def _of_each(
        self, target: Adapted, roles: dict[Role, torch.Tensor]
    ) -> dict[LayerId, dict[Role, torch.Tensor]]:
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

    def _is_swapped(self, target: Adapted) -> bool:
        """Whether the halves of its outputs are in another order than the file has them."""
        outputs, inputs = _sides(self.modules[target.layers[0]])
        return target.swapped or (target.swapped_alone and outputs == 2 * inputs)

    def _layer(
        self,
        layer_id: LayerId,
        roles: dict[Role, torch.Tensor],
        settings: _PeftSettings,
        written: str,
    ) -> Layer:
        """The tensors of one layer, after checking that they fit its module."""
        module: Any = self.modules[layer_id]
        if "down" not in roles or "up" not in roles:
            raise RenderFailed(
                f"The LoRA {self.name!r} is incomplete: {layer_id.module} has only one half."
            )
        # Stable Diffusion 1.x's `proj_in` is a convolution; some files contain it as a matrix.
        ndim = 4 if isinstance(module, nn.Conv2d) else 2
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

        return Layer(prepared(down), prepared(up), None if mid is None else prepared(mid), scale)

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
    for key, what in (("use_dora", "a DoRA"), ("lora_bias", "a LoRA with biases (lora_bias)")):
        if stored.get(f"{part}.{key}"):
            raise RenderFailed(
                f"The LoRA {name!r} is {what}: picowatch only supports plain LoRAs.",
                "Train or export it as a plain LoRA.",
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


def _unexpected(name: str, keys: tuple[str, ...]) -> str:
    named = ", ".join(key[:80] for key in keys[:_NAMED_KEYS])
    more = f" and {len(keys) - _NAMED_KEYS} more" if len(keys) > _NAMED_KEYS else ""
    return f"The LoRA {name!r} has parts that this checkpoint has no layer for: {named}{more}."


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
