"""Layers that oneDNN computes where torch would call MKL.

On AMD's processors with AVX-512 oneDNN is twice as fast (benchmarks/RESULTS.md), and torch uses
it for float32 by itself only for most convolutions.
"""

import torch
from torch import nn

from picowatch.engine.unet.tiling import padded


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
        result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self.weight, self.bias, "none", [], ""
        )
        return result


class _Conv2d(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, padding = padded(self, x)
        result: torch.Tensor = torch.ops.mkldnn._convolution_pointwise(
            x,
            self.weight,
            self.bias,
            padding,
            self.stride,
            self.dilation,
            self.groups,
            "none",
            [],
            "",
        )
        return result
