"""Layers whose weights are kept in fewer bits than they compute in.

A layer's weight is widened each time it is read. Widening is exact, so pictures are those of wide
weights, to the bit. The type of `weight` is that in which the layer computes.
"""

import copy
from collections.abc import Mapping
from functools import cache
from typing import Any, cast

import torch
from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter, dequantize_gguf_tensor
from torch import nn

from picowatch.catalog.sdnq import Packed
from picowatch.engine.model.dequantise import PackedWeight, multiplied_out
from picowatch.errors import RenderFailed

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
    """A linear layer that SDNQ has packed; the other tensors of its weight are parameters, too."""

    of: Packed

    @property
    def weight(self) -> torch.Tensor:
        beside = {name: getattr(self, name) for name in self.of.parts if name != "weight"}
        return multiplied_out(self.of, {"weight": self.narrow, **beside}).to(self.wide)


def packed(model: Any, weights: Mapping[str, PackedWeight], what: str) -> Any:
    """Let linear layers keep packed weights, by the weights' names, in the place of stand-ins."""
    for name, weight in weights.items():
        layer = model.get_submodule(name.rpartition(".")[0])
        if not isinstance(layer, nn.Linear):
            raise RenderFailed(
                f"The {what} has a packed weight that is no linear layer's: {name}.",
                "Get it in bfloat16.",
            )
        dtype, made = layer.weight.dtype, cast(Any, layer)
        parts = {end: nn.Parameter(part, False) for end, part in weight.parts.items()}
        _keep(layer, parts.pop("weight"), dtype, _Packed)
        made.of = weight.of
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
            _unpack(layer, dtype)
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


def _unpack(layer: Any, dtype: torch.dtype) -> None:
    """Make a packed layer plain again."""
    wide = nn.Parameter(layer.weight.to(dtype), requires_grad=False)
    for name in {"narrow", *layer.of.parts} - {"weight"}:
        delattr(layer, name)
    layer.__class__ = type(layer).__bases__[-1]
    layer.weight = wide


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
