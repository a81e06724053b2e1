"""Blocks of diffusers' UNets and VAEs that give the same with less work (benchmarks/RESULTS.md)."""

from typing import Any

import torch
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import nn
from torch.nn import functional

from picowatch.engine.unet.kept import is_hooked, of_weight

_KERNEL = (3, 3)
# Larger kernels have few pixels to double: a copy of them takes more memory than it is worth.
_MOST_KERNEL_BYTES = 10 * 2**20


def use_quick_blocks(model: nn.Module) -> None:
    """Let them compute the model's blocks of the usual kind; weights and names stay."""
    for block in model.modules():
        if type(block) is ResnetBlock2D and _is_usual_resnet(block):
            block.__class__ = _ResnetBlock2D
        elif type(block) is Upsample2D and _is_usual_upsampler(block):
            block.__class__ = _Upsample2D


def _is_usual_resnet(block: Any) -> bool:
    resized = block.upsample is not None or block.downsample is not None
    # A VAE's have the norm "group", and no timestep that it could act on.
    adds = block.time_embedding_norm == "default" or block.time_emb_proj is None
    return (
        not resized
        and adds
        and block.output_scale_factor == 1
        and block.dropout.p == 0
        and type(block.nonlinearity) is nn.SiLU
    )


class _ResnetBlock2D(ResnetBlock2D):  # type: ignore[misc]
    """diffusers' own, without copies: what a layer gives is changed where it is."""

    def forward(self, input_tensor: torch.Tensor, temb: Any, *_: Any, **__: Any) -> torch.Tensor:
        x: torch.Tensor = self.conv1(functional.silu(self.norm1(input_tensor), inplace=True))
        if self.time_emb_proj is not None:
            shown = temb if self.skip_time_act else functional.silu(temb)
            x += self.time_emb_proj(shown)[:, :, None, None]
        x = self.conv2(functional.silu(self.norm2(x), inplace=True))
        if self.conv_shortcut is not None:
            input_tensor = self.conv_shortcut(input_tensor)
        x += input_tensor
        return x


def _is_usual_upsampler(block: Any) -> bool:
    doubles = block.interpolate and block.use_conv and not block.use_conv_transpose
    return (
        doubles
        and block.norm is None
        and block.name == "conv"
        and block.conv.kernel_size == _KERNEL
        and block.conv.padding == (1, 1)
    )


class _Upsample2D(Upsample2D):  # type: ignore[misc]
    """On a CPU, one transposed convolution instead of doubled pixels and a convolution of these.

    Of the nine doubled pixels below a kernel four at most differ, so its weights can be added up
    before: four ninths of the multiplications. On GPUs it was not measured.
    """

    def forward(
        self, hidden_states: torch.Tensor, output_size: Any = None, *_: Any, **__: Any
    ) -> torch.Tensor:
        conv: Any = self.conv
        if (
            output_size is not None
            or hidden_states.device.type != "cpu"
            or conv.weight.nbytes > _MOST_KERNEL_BYTES
            or conv.padding_mode != "zeros"
            or is_hooked(conv)
            or torch.compiler.is_compiling()
        ):
            doubled: torch.Tensor = super().forward(hidden_states, output_size)
            return doubled
        kernel = of_weight(conv, conv.weight.dtype, lambda: doubling_kernel(conv.weight))
        return functional.conv_transpose2d(hidden_states, kernel, conv.bias, stride=2, padding=1)


def doubling_kernel(kernel: torch.Tensor) -> torch.Tensor:
    """Of a transposed convolution (stride 2, padding 1) that doubles the pixels, then convolves.

    `kernel` is outputs x inputs x 3 x 3, the result inputs x outputs x 4 x 4. A pixel's first
    number goes to the outputs one before its pair, its last one to those one after.
    """
    summed = kernel.float()
    for axis in (2, 3):
        before, middle, after = summed.unbind(axis)
        summed = torch.stack([after, middle + after, before + middle, before], axis)
    return summed.transpose(0, 1).contiguous().to(kernel.dtype)
