"""Layers that oneDNN computes where torch would call MKL.

On AMD's processors with AVX-512 oneDNN is twice as fast (benchmarks/RESULTS.md), and torch uses
it for float32 by itself only for most convolutions. It computes with weights in layouts of its
own, which torch would make anew for each call: those of small layers are kept.
"""

from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.activations import GEGLU
from torch import nn
from torch.nn import functional

from picowatch.engine.unet.kept import is_hooked, of_weight
from picowatch.engine.unet.tiling import padded

# A copy of larger weights takes more memory than it is worth: their layout is a small share of the
# time, because such layers have many channels.
_KEPT_BYTES = 2 * 2**20


def onednn_is_faster(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether it is installed, and torch would use MKL; in bfloat16 torch uses oneDNN anyway."""
    return (
        device.type == "cpu"
        and dtype == torch.float32
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    )


def use_onednn(module: nn.Module) -> None:
    """Let it compute linear layers, GEGLUs and convolutions; weights and names stay."""
    for layer in module.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = _Linear
        elif type(layer) is nn.Conv2d and layer.padding_mode == "zeros":
            layer.__class__ = _Conv2d
        elif type(layer) is GEGLU:
            layer.__class__ = _GEGLU


class _Linear(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.shape[:-1].numel()
        weight = _in_own_layout(self, torch.ops.mkldnn._reorder_linear_weight, rows)
        result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            x, weight, self.bias, "none", [], ""
        )
        return result


class _Conv2d(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, padding = padded(self, x)
        kernel = (padding, self.stride, self.dilation, self.groups)
        reorder = torch.ops.mkldnn._reorder_convolution_weight
        weight = _in_own_layout(self, reorder, *kernel, x.shape)
        result: torch.Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, weight, self.bias, *kernel, "none", [], ""
        )
        return result


class _GEGLU(GEGLU):  # type: ignore[misc]
    """diffusers' own, its halves apart: the gate's GELU is computed while oneDNN writes it."""

    def forward(self, hidden_states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        proj = self.proj
        if not _is_kept(proj) or is_hooked(proj):
            gated: torch.Tensor = super().forward(hidden_states)
            return gated
        rows = hidden_states.shape[:-1].numel()
        reorder, linear = (
            torch.ops.mkldnn._reorder_linear_weight,
            torch.ops.mkldnn._linear_pointwise,
        )
        weights = of_weight(
            proj, rows, lambda: [reorder(half, rows) for half in proj.weight.chunk(2)]
        )
        bias, gate_bias = proj.bias.chunk(2)
        result: torch.Tensor = linear(hidden_states, weights[0], bias, "none", [], "")
        return result.mul_(linear(hidden_states, weights[1], gate_bias, "gelu", [], "none"))


def transposed(conv: Any, kernel: Callable[[], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """A transposed convolution that doubles the sides (stride 2, padding 1).

    Its `kernel` is made of the convolution's weight, and kept with it.
    """
    if type(conv) is not _Conv2d or not _is_kept(conv):
        own = of_weight(conv, conv.weight.dtype, kernel)
        return functional.conv_transpose2d(x, own, conv.bias, stride=2, padding=1)
    given = ((1, 1), (0, 0), (2, 2), (1, 1), 1)  # padding, of the output, stride, dilation, groups
    reorder = torch.ops.mkldnn._reorder_convolution_transpose_weight
    own = of_weight(conv, x.shape, lambda: reorder(kernel(), *given, x.shape))
    result: torch.Tensor = torch.ops.mkldnn._convolution_transpose_pointwise(
        x, own, conv.bias, *given, "none", [], ""
    )
    return result


def _in_own_layout(layer: Any, reorder: Callable[..., torch.Tensor], *given: object) -> Any:
    """A small layer's weight as oneDNN computes with it, for inputs of a shape."""
    if not _is_kept(layer):
        return layer.weight
    return of_weight(layer, given, lambda: reorder(layer.weight, *given))


def _is_kept(layer: Any) -> bool:
    """Whether what is made of its weight is; a compiler gets the weight as it is."""
    return layer.weight.nbytes <= _KEPT_BYTES and not torch.compiler.is_compiling()
