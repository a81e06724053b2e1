"""LoRA files: the two halves of each layer, and the modules of a pipeline that they are for.

A LoHa or LoKr equals a LoRA of a higher rank, and becomes one. Names and shapes are those of
https://github.com/KohakuBlueleaf/LyCORIS, described in https://arxiv.org/abs/2309.14859.
"""

import json
import math
import re
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers.loaders import FluxLoraLoaderMixin
from diffusers.utils import (
    convert_state_dict_to_diffusers,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)
from peft.utils.other import get_pattern_key
from safetensors import safe_open
from torch import nn

from picowatch.errors import RenderFailed

Tensors = dict[str, torch.Tensor]
_FACTOR = r"hada_w[12]_[ab]|lokr_w[12](?:_[ab])?"
# The end of a key, which says what the tensor is of its layer: of kohya or peft, of diffusers
# before it used peft (`to_q_lora.down`, `lora_linear_layer.down`), and of XLabs (`qkv_lora1.down`).
_ROLE = re.compile(
    r"\.lora_(down|up|A|B)(?:\.\w+)?\.weight$"
    r"|(?:_lora|\.lora|\.lora_linear_layer|(?<=_lora[12]))\.(down|up)\.weight$"
    r"|(?:_lora|\.lora|\.lora_linear_layer)?\.(alpha)$"
    rf"|\.({_FACTOR})(?:\.weight)?$"
)
_DIFFERENCE = re.compile(r"\.diff(_b)?$")
# What a LoHa or LoKr may have as a LoRA: 2 GiB in 16 bits.
_MOST_NUMBERS = 2**30


class Target(NamedTuple):
    """A part of a pipeline by diffusers' name, and a module in it."""

    part: str
    module: str


class Layer(NamedTuple):
    """What a LoRA adds to a layer is up(down(x)); `keys` are those in its file, by role."""

    down: torch.Tensor
    up: torch.Tensor
    keys: Mapping[str, str]


def read_lora(name: str, path: Path, pipeline: Any) -> tuple[Tensors, list[str]]:
    """What a pipeline loads of a file, in diffusers' names and shapes, and the keys of the rest.

    RenderFailed says why the LoRA of this name cannot be used. Kinds that the names of tensors
    tell, the catalog has refused.
    """
    layers, unused = _layers(name, path)
    try:
        found, failure = _modules(layers, pipeline), ""
    # Its converters raise whatever comes of names that they do not expect.
    except Exception:
        found, failure = {}, traceback.format_exc()
    if not found:
        raise RenderFailed(
            f"The LoRA {name!r} is for another kind of model: diffusers finds no layer of this "
            f"checkpoint for names like {next(iter(layers), '')[:80]!r}.",
            "Use a LoRA for this checkpoint's kind of model; if this is one, convert its names to "
            "those of diffusers.",
            failure,
        )
    tensors: Tensors = {}
    for target, (_, down, up) in found.items():
        keys = _as_peft(f"{target.part}.{target.module}")
        tensors |= zip(keys, _fitting(name, target, pipeline, (down, up)), strict=True)
    used = {stem for stem, _, _ in found.values()}
    for stem, layer in layers.items():
        unused += [] if stem in used else layer.keys.values()
    return tensors, sorted(unused)


def _layers(name: str, path: Path) -> tuple[dict[str, Layer], list[str]]:
    """The halves by the layers' names with their scales in `up`, and the keys of nothing else."""
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = (file.metadata() or {}).get("lora_adapter_metadata", "{}")
    try:
        # peft's LoraConfig, by part: https://github.com/huggingface/diffusers/pull/11324
        settings = {key: value for key, value in json.loads(metadata).items() if value}
    except (AttributeError, ValueError, RecursionError) as error:
        raise _damaged(name, "its lora_adapter_metadata cannot be read") from error
    # ComfyUI extracts many differences that are zero.
    keys = [key for key, one in tensors.items() if not _DIFFERENCE.search(key) or one.any()]
    if any(map(_DIFFERENCE.search, keys)):
        raise _of_another_kind(name, "a file of whole differences")
    roles: dict[str, dict[str, str]] = {}
    others = []
    for key in keys:
        if match := _ROLE.search(key):
            role = next(filter(None, match.groups()))
            own = roles.setdefault(key[: match.start()], {})
            own[{"A": "down", "B": "up"}.get(role, role)] = key
        else:
            others.append(key)
    layers: dict[str, Layer] = {}
    numbers = 0
    for stem, own in roles.items():
        try:
            halves = _halves(stem, {role: tensors[key] for role, key in own.items()}, settings)
        except (KeyError, TypeError, ValueError, re.error) as error:
            raise _damaged(name, f"{stem} lacks a part or has a strange scale ({error})") from error
        if halves is None:
            others += own.values()
            continue
        layers[stem] = Layer(*halves, own)
        numbers += sum(half.numel() for half in halves) * _has_factors(own)
        if numbers > _MOST_NUMBERS:
            raise _of_another_kind(name, "a LoKr with large whole matrices")
    return layers, others


def _has_factors(roles: Mapping[str, object]) -> bool:
    return any(re.fullmatch(_FACTOR, role) for role in roles)


def _halves(
    stem: str, own: Tensors, settings: Mapping[str, Any]
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Both halves of a layer with its scale in `up`; None if there are not both."""
    if _has_factors(own):
        down, up, rank = _product(own)
    elif own.keys() >= {"down", "up"}:
        down, up, rank = own["down"], own["up"], len(own["down"])
    else:
        return None
    scale = _scale(stem, rank, own.get("alpha"), settings) if rank else 1
    return down, up.float() * scale if scale != 1 else up


def _product(factors: Tensors) -> tuple[torch.Tensor, torch.Tensor, int | None]:
    """The halves of a LoHa or LoKr, down and up, and the rank that alpha is divided by.

    A LoHa is (a1 b1) * (a2 b2), number by number: the rows of (a1, a2) and the columns of (b1, b2),
    each multiplied by each, make its halves. A LoKr is kron(w, a b) = kron(w, a) kron(1, b). Alpha
    means nothing for one whose larger factor is whole: its halves are as large as the layer.
    """
    of = {name: factor.float() for name, factor in factors.items()}
    if "hada_w1_a" in of:
        down = of["hada_w1_b"][:, None] * of["hada_w2_b"][None]
        up = of["hada_w1_a"][:, :, None] * of["hada_w2_a"][:, None]
        return down.flatten(0, 1), up.flatten(1), len(of["hada_w1_b"])
    small = of["lokr_w1"] if "lokr_w1" in of else of["lokr_w1_a"] @ of["lokr_w1_b"]
    whole = of.get("lokr_w2")
    down = of["lokr_w2_b"] if whole is None else whole
    up = of["lokr_w2_a"] if whole is None else torch.eye(len(whole))
    one = torch.eye(small.shape[1]).reshape(*small.shape[1:] * 2, *[1] * (down.ndim - 2))
    return torch.kron(one, down), torch.kron(small, up), len(down) if whole is None else None


def _scale(stem: str, rank: int, alpha: torch.Tensor | None, settings: Mapping[str, Any]) -> float:
    """alpha / rank, or alpha / sqrt(rank) for rsLoRA, https://arxiv.org/abs/2312.03732."""
    if alpha is not None:
        return float(alpha) / rank
    part, _, module = stem.partition(".")
    patterns = settings.get(f"{part}.alpha_pattern", {})
    usual = settings.get(f"{part}.lora_alpha", rank)
    alpha_of = float(patterns.get(get_pattern_key([*patterns], module), usual))
    return alpha_of / (math.sqrt(rank) if f"{part}.use_rslora" in settings else rank)


def _modules(
    layers: Mapping[str, Layer], pipeline: Any
) -> dict[Target, tuple[str, torch.Tensor, torch.Tensor]]:
    """The modules of a pipeline that layers are for, with their halves.

    diffusers drops layers that it does not know without a word: to tell them, it first converts
    halves of rank 1 that are full of their layer's number.
    """
    numbers: Tensors = {}
    tensors: Tensors = {}
    for number, (stem, layer) in enumerate(layers.items()):
        keys, down, up = _keys(stem, layer, pipeline), layer.down, layer.up
        height = torch.full((len(up), 1, *up.shape[2:]), float(number))
        numbers |= zip(keys, (torch.ones(1, *down.shape[1:]), height, torch.ones(())), strict=False)
        tensors |= zip(keys, (down, up, torch.tensor(float(len(down)))), strict=False)
    stems = [*layers]
    named = {
        target: stems[int(up.flatten()[0])]
        for target, (_, up) in _converted(numbers, pipeline).items()
    }
    return {
        target: (named[target], *halves) for target, halves in _converted(tensors, pipeline).items()
    }


# diffusers knows these with kohya's halves alone, for FLUX.1 and what is built like it.
_FLUX_AUTHORS = re.compile(r"(diffusion_model\.)?(double|single)_blocks\.")


def _keys(stem: str, layer: Layer, pipeline: Any) -> tuple[str, ...]:
    """The names of both halves, and of alpha where it has to be there."""
    of_flux = isinstance(pipeline, FluxLoraLoaderMixin) and _FLUX_AUTHORS.match(stem)
    if of_flux or "." not in stem:
        return f"{stem}.lora_down.weight", f"{stem}.lora_up.weight", f"{stem}.alpha"
    if "down" in layer.keys:
        return layer.keys["down"], layer.keys["up"]
    return _as_peft(stem)


def _as_peft(stem: str) -> tuple[str, str]:
    return f"{stem}.lora_A.weight", f"{stem}.lora_B.weight"


def _converted(tensors: Tensors, pipeline: Any) -> dict[Target, tuple[torch.Tensor, torch.Tensor]]:
    """What diffusers makes of a file's names for this family, for modules that there are."""
    # Without it, names of SDXL's authors stay as they are.
    unet = {"unet_config": pipeline.unet.config} if hasattr(pipeline, "unet") else {}
    given: Any = pipeline.lora_state_dict(dict(tensors), **unet)
    by_part: dict[str, Tensors] = {}
    for key, tensor in (given if isinstance(given, dict) else given[0]).items():
        part, _, rest = key.partition(".")
        by_part.setdefault(part, {})[rest] = tensor
    found = {}
    for part, named in by_part.items():
        model = getattr(pipeline, part, None)
        # Those that its loader takes have no public name.
        if model is None or part not in pipeline._lora_loadable_modules:
            continue
        if not part.startswith("text_encoder"):
            named = convert_unet_state_dict_to_peft(named)
        elif not all(".lora_A." in key or ".lora_B." in key for key in named):
            named = convert_state_dict_to_peft(convert_state_dict_to_diffusers(named))
        modules = {
            name.removesuffix(".base_layer")  # as peft calls it, if another LoRA wraps it
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear | nn.Conv2d)
        }
        for stem in [key.removesuffix(".lora_A.weight") for key in named]:
            down, up = map(named.get, _as_peft(stem))
            # transformers 5 has CLIP without this level.
            module = stem if stem in modules else stem.removeprefix("text_model.")
            if down is not None and up is not None and module in modules:
                found[Target(part, module)] = down, up
    return found


def _fitting(
    name: str, target: Target, pipeline: Any, halves: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The halves in the module's shape, after a check: diffusers may enlarge FLUX.1's modules."""
    model = getattr(pipeline, target.part)
    module: Any = model.get_submodule(target.module)
    module = getattr(module, "base_layer", module)
    if isinstance(module, nn.Linear):  # quantised weights have another shape than their layer
        inputs, outputs, kernel = module.in_features, module.out_features, ()
    else:
        inputs, outputs, kernel = module.in_channels, module.out_channels, module.kernel_size
    # Stable Diffusion 1.x's `proj_in` is a convolution, for some files a matrix.
    down, up = (
        half.reshape(len(half), -1, *size) if half[0].numel() % math.prod(size) == 0 else half
        for half, size in zip(halves, (kernel, [1] * len(kernel)), strict=True)
    )
    if (down.shape[1], len(up), len(down)) != (inputs, outputs, up.shape[1]):
        raise RenderFailed(
            f"The LoRA {name!r} is for a model of another size: its {target.module} leads from "
            f"{down.shape[1]} to {len(up)} values, this checkpoint's from {inputs} to {outputs}.",
            "Use it with a checkpoint of the kind it was trained for, or remove it.",
        )
    # peft does it, too, but not over quantised weights.
    return down.to(model.dtype), up.to(model.dtype)


def _damaged(name: str, reason: str) -> RenderFailed:
    return RenderFailed(
        f"The LoRA {name!r} is damaged: {reason}.",
        "Get the file again, or save it again with the program that trained it.",
    )


def _of_another_kind(name: str, kind: str) -> RenderFailed:
    return RenderFailed(
        f"The LoRA {name!r} is {kind}, which picowatch does not render.",
        "Use a plain LoRA, or a LoHa or LoKr of low rank. ComfyUI can extract a LoRA from a "
        "model that this file was merged into.",
    )
