"""Blocks of diffusers' UNets and VAEs that give the same with less work (benchmarks/RESULTS.md)."""

from functools import lru_cache
from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import nn
from torch.nn import functional

from picowatch.engine.unet.kept import is_hooked
from picowatch.engine.unet.onednn import transposed

_KERNEL = (3, 3)
# Larger kernels have few pixels to double: a copy of them takes more memory than it is worth.
_MOST_KERNEL_BYTES = 10 * 2**20
# torch's attention on a CPU takes keys by so many; a remainder, as of a prompt's 77, takes longer.
_KEYS = 16


def use_quick_blocks(model: nn.Module) -> None:
    """Let them compute the model's blocks of the usual kind; weights and names stay."""
    for block in model.modules():
        if type(block) is ResnetBlock2D and _is_usual_resnet(block):
            block.__class__ = _ResnetBlock2D
        elif type(block) is Upsample2D and _is_usual_upsampler(block):
            block.__class__ = _Upsample2D
        elif type(block) is Attention and _is_usual_attention(block):
            block.__class__ = _Attention


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
        return transposed(conv, lambda: doubling_kernel(conv.weight), hidden_states)


def _is_usual_attention(block: Any) -> bool:
    norms = (block.group_norm, block.spatial_norm, block.norm_q, block.norm_k, block.norm_cross)
    return (
        all(norm is None for norm in norms)
        and not block.residual_connection
        and block.rescale_output_factor == 1
        and block.to_out[1].p == 0
    )


class _Attention(Attention):  # type: ignore[misc]
    """diffusers' own, without looking at what its processor could be given besides.

    On a CPU keys and values are filled up with some that nothing is taken from.
    """

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **others: Any,
    ) -> torch.Tensor:
        if (
            type(self.processor) is not AttnProcessor2_0
            or attention_mask is not None
            or others
            or torch.compiler.is_compiling()
        ):
            attended: torch.Tensor = super().forward(
                hidden_states, encoder_hidden_states, attention_mask, **others
            )
            return attended
        text = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        layers = ((self.to_q, hidden_states), (self.to_k, text), (self.to_v, text))
        query, key, value = (
            layer(states).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, states in layers
        )
        seen = None
        if missing := -key.shape[2] % _KEYS if key.device.type == "cpu" else 0:
            seen = _seen(key.shape[2], missing, key.dtype)
            key, value = (functional.pad(one, (0, 0, 0, missing)) for one in (key, value))
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        result: torch.Tensor = self.to_out[0](attended.transpose(1, 2).flatten(2))
        return result


@lru_cache(maxsize=8)
def _seen(keys: int, missing: int, dtype: torch.dtype) -> torch.Tensor:
    """What is added to scores, so that nothing is taken from the missing keys."""
    added = torch.zeros(1, 1, 1, keys + missing, dtype=dtype)
    added[..., keys:] = -torch.inf
    return added


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
