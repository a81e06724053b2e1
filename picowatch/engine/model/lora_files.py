"""Reads LoRAs: a file's tensors for the parts of a pipeline, in diffusers' names.

A LoHa or LoKr equals a LoRA of a higher rank, and becomes that. Names and shapes are those of
https://github.com/KohakuBlueleaf/LyCORIS, described in https://arxiv.org/abs/2309.14859.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft.utils.other import get_pattern_key
from safetensors import safe_open
from torch import nn

from picowatch.catalog.loras import CONDITIONER, FACTOR, PREFIX, ROLE, places
from picowatch.engine.model.part_files import Tensors
from picowatch.engine.private import parts_for_loras
from picowatch.errors import RenderFailed


class _Layer(NamedTuple):
    """Two matrices that add up(down(x)) to a layer."""

    down: torch.Tensor
    up: torch.Tensor  # with the scale of `alpha`
    alpha: float | None  # None where it has no effect
    keys: Mapping[str, str]  # in the file, by role


_Target = tuple[str, str]  # a part of a pipeline by diffusers' name, and a module in it


class File(NamedTuple):
    """What a file has for the parts of a pipeline that are in memory."""

    halves: dict[_Target, tuple[torch.Tensor, ...]]  # `down` and `up` by module
    unused: list[str]  # the keys of those that are for no part
    of_texts: bool  # some are for text encoders
    alphas: set[float]  # of the layers


def read_lora(name: str, path: Path, pipeline: Any, family: str) -> File:
    """Return what a file has for a pipeline.

    RenderFailed says why the LoRA of this name cannot be used; a damaged file raises other errors.
    The catalog has already refused the kinds that names of tensors tell.
    """
    layers, unused = _layers(name, path)
    parts: dict[str, Any] = {
        part: getattr(pipeline, part, None) for part in parts_for_loras(pipeline)
    }
    known = {part: _adaptable(model) for part, model in parts.items() if model is not None}
    # Asking a large model for its type takes some milliseconds.
    types = {part: parts[part].dtype for part in known}
    halves: dict[_Target, tuple[torch.Tensor, ...]] = {}
    stems: dict[_Target, str] = {}  # the layers that they are from
    absent = set[str]()  # layers for parts that are not in memory
    for stem, layer in layers.items():
        part, names = _named(stem, family, parts)
        if part in parts and part not in known:
            absent.add(stem)
        modules = [known.get(part, {}).get(flat, "") for flat in names]
        if modules and all(modules):
            sizes = [_size(parts[part], module) for module in modules]
            for module, rows in zip(modules, _rows(stem, layer, sizes, names), strict=True):
                fitting = _fitting(name, parts[part], module, layer.down, layer.up[rows])
                # peft converts them, too, but not for quantised weights.
                halves[part, module] = tuple(half.to(types[part]) for half in fitting)
                stems[part, module] = stem
    if not halves and not absent:
        raise RenderFailed(
            f"The LoRA {name!r} is for another kind of model: this checkpoint has no layer for "
            f"names like {next(iter(layers), '')[:80]!r}.",
            "Use a LoRA for this checkpoint's kind of model; if this is one, convert its names to "
            "those of diffusers.",
        )
    for stem in layers.keys() - {*stems.values()} - absent:
        unused += layers[stem].keys.values()
    alphas = {alpha for stem in stems.values() if (alpha := layers[stem].alpha) is not None}
    return File(halves, sorted(unused), any(map(_OF_TEXTS.match, layers)), alphas)


_ALPHA = re.compile(r"(?:_lora|\.lora|\.lora_linear_layer)?\.alpha$")
_DIFFERENCE = re.compile(r"\.diff(_b)?$")
_MOST_NUMBERS = 2**30  # of a LoHa or LoKr as a LoRA: 2 GiB in 16 bits


def _layers(name: str, path: Path) -> tuple[dict[str, _Layer], list[str]]:
    """Return the layers by name, with their scales in `up`, and the keys of all other tensors."""
    with safe_open(path, framework="pt") as file:
        # Copies: the file is memory-mapped, so that overwriting it would change the pictures.
        tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
        metadata = (file.metadata() or {}).get("lora_adapter_metadata", "{}")
    # peft's LoraConfig, by part: https://github.com/huggingface/diffusers/pull/11324
    settings = {key: value for key, value in json.loads(metadata).items() if value}
    roles: dict[str, dict[str, str]] = {}
    others = []
    for key, tensor in tensors.items():
        if match := ROLE.search(key) or _ALPHA.search(key):
            role = next(filter(None, match.groups()), "alpha")
            own = roles.setdefault(key[: match.start()], {})
            own[{"A": "down", "B": "up"}.get(role, role)] = key
        elif not _DIFFERENCE.search(key):
            others.append(key)
        elif tensor.any():  # ComfyUI extracts many that are zero
            raise _of_another_kind(name, "a file of whole differences")
    layers: dict[str, _Layer] = {}
    numbers = 0
    for stem, own in roles.items():
        has_factors = any(re.fullmatch(FACTOR, role) for role in own)
        if not has_factors and not own.keys() >= {"down", "up"}:
            others += own.values()
            continue
        factors = {role: tensors[key] for role, key in own.items()}
        down, up, rank = _halves(factors)
        alpha = None
        if rank:
            alpha, divisor = _scale(stem, rank, factors, settings)
            up = up if alpha == divisor else up.float() * (alpha / divisor)
        layers[stem] = _Layer(down, up, alpha, own)
        numbers += (down.numel() + up.numel()) * has_factors
        if numbers > _MOST_NUMBERS:
            raise _of_another_kind(name, "a LoKr with large whole matrices")
    return layers, others


def _halves(own: Tensors) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Return `down` and `up` of a layer without its scale, and the rank that alpha is divided by.

    A LoHa is the elementwise product (a1 b1) * (a2 b2): all products of rows of a1 and a2, and of
    columns of b1 and b2, make the two matrices. A LoKr is kron(w, a b) = kron(w, a) kron(1, b).
    Alpha has no effect if the larger factor is a whole matrix: then the rank is 0 here.
    """
    if "down" in own and "up" in own:
        return own["down"], own["up"], len(own["down"])
    of = {name: factor.float() for name, factor in own.items()}
    if "hada_w1_a" in of:
        down = (of["hada_w1_b"][:, None] * of["hada_w2_b"][None]).flatten(0, 1)
        up = (of["hada_w1_a"][:, :, None] * of["hada_w2_a"][:, None]).flatten(1)
        return down, up, len(of["hada_w1_b"])
    small = of["lokr_w1"] if "lokr_w1" in of else of["lokr_w1_a"] @ of["lokr_w1_b"]
    whole = of.get("lokr_w2")
    down = of["lokr_w2_b"] if whole is None else whole
    up = of["lokr_w2_a"] if whole is None else torch.eye(len(whole))
    identity = torch.eye(small.shape[1]).reshape(*small.shape[1:] * 2, *[1] * (down.ndim - 2))
    rank = len(down) if whole is None else 0
    return torch.kron(identity, down), torch.kron(small, up), rank


def _scale(stem: str, rank: int, own: Tensors, settings: Mapping[str, Any]) -> tuple[float, float]:
    """Return alpha and what divides it: the rank, or its root: https://arxiv.org/abs/2312.03732."""
    if "alpha" in own:
        return float(own["alpha"]), rank
    part, _, module = stem.partition(".")
    patterns = settings.get(f"{part}.alpha_pattern", {})
    usual = settings.get(f"{part}.lora_alpha", rank)
    alpha = float(patterns.get(get_pattern_key([*patterns], module), usual))
    return alpha, math.sqrt(rank) if f"{part}.use_rslora" in settings else rank


# What the names of text encoders' layers begin with; kohya's "te" and "te1" are the first.
_OF_TEXTS = re.compile(r"(?:base_model\.model\.)?(?:lora_te|text_encoder_?)(\d?)[._](.+)")


def _named(stem: str, family: str, parts: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Return the part that a layer is for, and its modules' names with "_" for the dots."""
    if found := _OF_TEXTS.fullmatch(stem):
        flat = found[2].replace(".", "_").removeprefix("text_model_")
        # Before it used peft, diffusers named them as the UNet's.
        flat = re.sub(r"(self_attn)_to_(q|k|v|out)$", r"\1_\2_proj", flat)
        return f"text_encoder_{found[1]}".removesuffix("_1").removesuffix("_"), (flat,)
    names = places(family, PREFIX.sub("", stem).replace(".", "_"))
    if names and names[0].startswith(CONDITIONER):
        return CONDITIONER[:-1], tuple(name.removeprefix(CONDITIONER) for name in names)
    return "unet" if "unet" in parts else "transformer", names


class _Size(NamedTuple):
    inputs: int
    outputs: int
    kernel: tuple[int, ...]


def _rows(
    stem: str, layer: _Layer, sizes: Sequence[_Size], names: Sequence[str]
) -> list[torch.Tensor]:
    """Return the rows of `up` for each of a layer's modules: they follow each other."""
    rows = torch.arange(len(layer.up))
    renamed = not stem.replace(".", "_").endswith(names[0])
    # Before the last layer the models' authors have the shift first, diffusers the scale.
    if renamed and "norm" in names[0] and sizes[0].outputs == 2 * sizes[0].inputs:
        return [rows.roll(len(rows) // 2)]
    return [*rows.tensor_split([*accumulate(size.outputs for size in sizes[:-1])])]


def _adaptable(model: nn.Module) -> dict[str, str]:
    """Return the modules that LoRAs may be for, by their names with "_" for the dots."""
    names = (
        name.removesuffix(".base_layer")  # peft's name for a layer that another LoRA wraps
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    )
    return {name.removeprefix("text_model.").replace(".", "_"): name for name in names}


def _size(model: nn.Module, target: str) -> _Size:
    module: Any = model.get_submodule(target)
    module = getattr(module, "base_layer", module)
    if isinstance(module, nn.Linear):  # quantised weights have another shape than their layer
        return _Size(module.in_features, module.out_features, ())
    return _Size(module.in_channels, module.out_channels, module.kernel_size)


def _fitting(
    name: str, model: Any, target: str, down: torch.Tensor, up: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `down` and `up` in the module's shape, checked: diffusers may enlarge FLUX.1's."""
    inputs, outputs, kernel = _size(model, target)
    # Stable Diffusion 1.x's `proj_in` is a convolution, for some files a matrix.
    if down[0].numel() % math.prod(kernel) == 0:
        down = down.reshape(len(down), -1, *kernel)
    up = up.reshape(len(up), -1, *[1] * len(kernel))
    if (down.shape[1], len(up), len(down)) != (inputs, outputs, up.shape[1]):
        raise RenderFailed(
            f"The LoRA {name!r} is for a model of another size: its {target} leads from "
            f"{down.shape[1]} to {len(up)} values, this checkpoint's from {inputs} to {outputs}.",
            "Use it with a checkpoint of the kind it was trained for, or remove it.",
        )
    return down, up


def _of_another_kind(name: str, kind: str) -> RenderFailed:
    return RenderFailed(
        f"The LoRA {name!r} is {kind}, which picowatch does not render.",
        "Use a plain LoRA, or a LoHa or LoKr of low rank. ComfyUI can extract a LoRA from a "
        "model that this file was merged into.",
    )
