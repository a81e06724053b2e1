"""Multiplies quantised weights out, once when they are read or each time a layer computes.

The latter is exact, so pictures are those of wide weights, to the bit; a layer's `weight` has the
type in which it computes. Files are those of ComfyUI, SDNQ and other programs. SDNQ packs numbers
of four to eight bits. A weight is a number times the scale of its group, plus the group's zero
point. The product of two narrow matrices may be added. Columns that were rotated are rotated back.
"""

import copy
from collections.abc import Mapping
from functools import cache
from math import gcd, log
from typing import Any, NamedTuple, cast

import torch
from diffusers.quantizers.bfl.utils import NVFP4_BLOCK, dequantize_nvfp4
from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter, dequantize_gguf_tensor
from torch import nn

from picowatch.catalog.dequantise import Packed, rotated_together


def dequantised(
    weight: torch.Tensor,
    scale: torch.Tensor,
    second: torch.Tensor | None = None,
    smoothing: torch.Tensor | None = None,
    *,
    told: Mapping[str, Any],
) -> torch.Tensor:
    """Return a layer's weights in float32, given its scales and what ComfyUI tells of it.

    nvfp4 has numbers of four bits, times the scales of their blocks and of the layer. The first of
    two numbers is in a byte's upper half with ComfyUI, and in the lower half otherwise.
    """
    if weight.dtype == torch.uint8:
        assert second is not None
        scale = scale.view(torch.float8_e4m3fn)  # some files have them as bytes
        if told:
            # cuBLAS has tiles of 128x4, in which rows interleave:
            # https://docs.nvidia.com/cuda/cublas/index.html#d-block-scaling-factors-layout
            rows, columns = len(weight), 2 * weight.shape[1] // NVFP4_BLOCK
            tiles = scale.float().reshape(-(-rows // 128), -(-columns // 4), 32, 4, 4)
            scale = tiles.permute(0, 3, 2, 1, 4).reshape(-1, -(-columns // 4) * 4)[:rows, :columns]
            weight = weight >> 4 | weight << 4
        wide: torch.Tensor = dequantize_nvfp4(weight, scale, second.float())
        return wide if smoothing is None else wide[:, : len(smoothing)] * smoothing.float()
    wide = weight.float() * scale.float().reshape(-1, *[1] * (weight.ndim - 1))
    if (group := rotated_together(told)) is None:
        return wide
    matrix = rotation(group, wide.device)
    return (wide.reshape(len(wide), -1, len(matrix)) @ matrix).reshape(wide.shape)


@cache
def rotation(size: int, device: torch.device) -> torch.Tensor:
    """Return a symmetric Hadamard matrix, its own inverse.

    A power of 4 has ConvRot's, which is regular (https://arxiv.org/abs/2512.03673), the others
    Sylvester's.
    """
    is_regular, matrix = log(size, 4).is_integer(), torch.ones(1, 1)
    regular = torch.ones(4, 4) - 2 * torch.eye(4).flip(0)
    part = regular if is_regular else torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    while len(matrix) < size:
        matrix = torch.kron(matrix, part)
    return matrix.div(size**0.5).to(device)


# Some numbers are in the lower bits of as many bytes; each further number is in these bits of the
# same bytes: byte, first bit, how many, from the number's lowest bits on.
_FURTHER = {
    4: (((0, 4, 4),),),
    5: (((0, 5, 3), (3, 5, 2)), ((1, 5, 3), (4, 5, 2)), ((2, 5, 3), (4, 7, 1), (3, 7, 1))),
    6: (((2, 6, 2), (1, 6, 2), (0, 6, 2)),),
    7: (tuple((byte, 7, 1) for byte in reversed(range(7))),),
}


class PackedWeight(NamedTuple):
    """A packed matrix, and the tensors of its layer by what follows the layer's name."""

    of: Packed
    parts: dict[str, torch.Tensor]


def stand_in(weight: PackedWeight, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return a parameter with a packed matrix' shape and a single number of its own.

    It goes through the loading of models in the matrix' place. Its attribute says what it stands
    for: torch makes a plain parameter of a class of its own where tensors are of a class, too.
    """
    number = torch.zeros((), dtype=dtype, device=device)
    made: Any = torch.nn.Parameter(number.expand(weight.of.rows, weight.of.columns), False)
    made.stands_for = weight
    return made  # type: ignore[no-any-return]


def stands_for(tensor: torch.Tensor) -> PackedWeight | None:
    """Return what a parameter stands in for, if it does."""
    return getattr(tensor, "stands_for", None)


def multiplied_out(packed: Packed, parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return a layer's weights in float32."""
    bits, stored, scale = packed.bits, parts["weight"], parts["scale"].float()
    weights = _numbers(stored, bits).reshape(len(scale), scale[0].numel(), -1).float()
    scale = scale.reshape(*weights.shape[:2], 1)
    if "zero_point" in parts:
        weights = weights * scale + parts["zero_point"].float().reshape(scale.shape)
    else:
        weights = (weights - (0 if stored.dtype == torch.int8 else 1 << bits - 1)) * scale
    weights = weights.flatten(1)
    if "svd_up" in parts:
        weights += parts["svd_up"].float() @ parts["svd_down"].float()
    if (group := gcd(packed.rotated, packed.columns)) >= 4:  # SDNQ rotates no fewer together
        matrix = rotation(group, weights.device)
        weights = (weights.reshape(len(scale), -1, group) @ matrix).flatten(1)
    return weights


def _numbers(stored: torch.Tensor, bits: int) -> torch.Tensor:
    """Return packed numbers, a byte for each."""
    if bits not in _FURTHER:
        return stored
    stored = stored.reshape(-1, bits // gcd(bits, 8))
    found = [stored & (1 << bits) - 1]
    for pieces in _FURTHER[bits]:
        number, at = torch.zeros_like(stored[:, 0]), 0
        for byte, first, count in pieces:
            number |= (stored[:, byte] >> first & (1 << count) - 1) << at
            at += count
        found.append(number[:, None])
    return torch.cat(found, 1)


FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)
_KINDS = nn.Linear, nn.Conv2d


class _Narrow(nn.Module):
    narrow: torch.Tensor
    wide: torch.dtype

    @property
    def weight(self) -> torch.Tensor:
        """The weight as it is computed with."""
        return self.narrow.to(self.wide)


class _Packed(_Narrow):
    """A layer that SDNQ has packed; the other tensors of its weight are parameters, too."""

    of: Packed

    @property
    def weight(self) -> torch.Tensor:
        beside = {name: getattr(self, name) for name in self.of.parts if name != "weight"}
        return multiplied_out(self.of, {"weight": self.narrow, **beside}).to(self.wide)


def packed(model: Any, weights: Mapping[str, PackedWeight]) -> Any:
    """Let layers keep packed weights, by the weights' names, in the place of stand-ins."""
    for name, weight in weights.items():
        layer = model.get_submodule(name.rpartition(".")[0])
        parts = {end: nn.Parameter(part, False) for end, part in weight.parts.items()}
        _keep(layer, parts.pop("weight"), layer.weight.dtype, _Packed)
        layer.of = weight.of
        for end, part in parts.items():
            layer.register_parameter(end, part)
    return model


def widening(model: nn.Module, dtype: torch.dtype) -> Any:
    """Let layers with narrower weights compute in `dtype`; other narrow parameters become wide."""
    found = False
    for layer in list(model.modules()):
        found = found or isinstance(layer, _Packed)
        for name, weight in list(layer.named_parameters(recurse=False)):
            if weight.is_floating_point() and weight.dtype.itemsize < dtype.itemsize:
                found = True
                if name == "weight" and isinstance(layer, _KINDS):
                    _keep(layer, weight, dtype)
                else:
                    weight.data = weight.data.to(dtype)
    return _computing(model, dtype) if found else model


def widened(model: Any, dtype: torch.dtype) -> Any:
    """Return a copy of a model whose layers all compute in this type, and keep nothing narrow."""
    # Copies of a GGUF file's parameters do not know how they are quantised.
    wide: dict[int, Any] = {
        id(weight): nn.Parameter(dequantize_gguf_tensor(weight).to(dtype), requires_grad=False)
        for weight in model.parameters()
        if isinstance(weight, GGUFParameter)
    }
    model = copy.deepcopy(model, wide)
    nn.Module.to(model, dtype)  # diffusers forbids it for what was read from a GGUF file
    for layer in model.modules():
        if isinstance(layer, _Packed):
            weight = nn.Parameter(layer.weight.to(dtype), requires_grad=False)
            for name in {"narrow", *layer.of.parts} - {"weight"}:
                delattr(layer, name)
            layer.__class__ = type(layer).__bases__[-1]
            cast(Any, layer).weight = weight
        elif isinstance(layer, _Narrow):
            layer.wide = dtype
        elif isinstance(layer, GGUFLinear):
            layer.__class__ = nn.Linear
    return _computing(model, dtype)


def narrowed(model: Any) -> Any:
    """Let a model keep in fp8 those weights that lose nothing by it."""
    found = False
    for layer in [module for module in model.modules() if isinstance(module, _KINDS)]:
        weight = layer.weight
        fitting = (held for held in map(weight.to, FP8) if held.to(weight.dtype).equal(weight))
        if (held := next(fitting, None)) is not None:
            found = True
            _keep(layer, nn.Parameter(held, requires_grad=False), weight.dtype)
    return _computing(model, model.dtype) if found else model


def _keep(layer: Any, narrow: nn.Parameter, wide: torch.dtype, how: Any = _Narrow) -> None:
    del layer.weight
    layer.narrow, layer.wide = narrow, wide
    kind: Any = type(layer)
    layer.__class__ = _kind(how, kind)


def _computing(model: Any, dtype: torch.dtype) -> Any:
    """Let a model name the type that it computes in as its own, not that of a parameter."""
    kind: Any = type(model)
    model.__class__ = _kind(kind, dtype=dtype)
    return model


@cache
def _kind(*bases: type, **changed: Any) -> type:
    """Return a class that has the name of the last base, by which pipelines know it."""
    last = bases[-1]
    return type(last.__name__, bases, {"__module__": last.__module__, **changed})
