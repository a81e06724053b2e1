"""Layers that oneDNN computes where torch would call MKL.

On AMD's processors with AVX-512 oneDNN is twice as fast (benchmarks/RESULTS.md), and torch uses
it for float32 by itself only for most convolutions. It computes with weights in layouts of its
own, which torch would make anew for each call: those of small layers are kept.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

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
    """Let it compute the module's linear layers and convolutions; weights and names stay."""
    for layer in module.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = _Linear
        elif type(layer) is nn.Conv2d and layer.padding_mode == "zeros":
            layer.__class__ = _Conv2d


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


def _in_own_layout(layer: Any, reorder: Callable[..., torch.Tensor], *given: object) -> Any:
    """A small layer's weight as oneDNN computes with it, for inputs of a shape.

    It is kept until a call is `given` something else, or the layer another weight, as LoRAs do; no
    weight changes in place. A compiler gets the weight as it is.
    """
    if layer.weight.nbytes > _KEPT_BYTES or torch.compiler.is_compiling():
        return layer.weight
    made_of, made_for, kept = vars(layer).get("_kept", (None, None, None))
    if made_of is not layer.weight or made_for != given:
        kept = reorder(layer.weight, *given)
        layer._kept = (layer.weight, given, kept)
    return kept
