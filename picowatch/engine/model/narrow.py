"""Layers whose weights are kept in fewer bits than they compute in.

A layer's weight is widened each time it is read, so pictures are those of wide weights, to the bit.
Widening is exact, and whoever looks at a weight's type finds the one that is computed in.
"""

from functools import cache
from typing import Any

import torch
from torch import nn

FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)
_KINDS = nn.Linear, nn.Conv2d


class _Narrow(nn.Module):
    narrow: torch.Tensor
    wide: torch.dtype

    @property
    def weight(self) -> torch.Tensor:
        """The weight as it is computed with."""
        return self.narrow.to(self.wide)


def widening(model: nn.Module, dtype: torch.dtype) -> Any:
    """Let a model with weights that are narrower than `dtype` compute in it.

    Other narrow parameters are widened for good.
    """
    found = False
    for layer in list(model.modules()):
        for name, one in list(layer.named_parameters(recurse=False)):
            if one.is_floating_point() and one.dtype.itemsize < dtype.itemsize:
                found = True
                if name == "weight" and isinstance(layer, _KINDS):
                    _keep(layer, one, dtype)
                else:
                    one.data = one.data.to(dtype)
    return _computing(model, dtype) if found else model


def narrowed(model: Any) -> Any:
    """Let a model keep in fp8 those weights that lose nothing by it."""
    found = False
    for layer in [one for one in model.modules() if isinstance(one, _KINDS)]:
        weight = layer.weight
        held = next(
            (one for one in map(weight.to, FP8) if one.to(weight.dtype).equal(weight)), None
        )
        if held is not None:
            found = True
            _keep(layer, nn.Parameter(held, requires_grad=False), weight.dtype)
    return _computing(model, model.dtype) if found else model


def _keep(layer: Any, narrow: nn.Parameter, wide: torch.dtype) -> None:
    del layer._parameters["weight"]
    layer.narrow, layer.wide = narrow, wide
    kind: Any = type(layer)
    layer.__class__ = _kind(_Narrow, kind)


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
