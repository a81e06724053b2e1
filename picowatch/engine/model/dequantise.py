"""Multiplies quantised weights out, as ComfyUI and the files of other programs have them."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.quantizers.bfl.utils import NVFP4_BLOCK, dequantize_nvfp4

from picowatch.catalog.dequantise import rotated_together


def dequantised(
    weight: torch.Tensor,
    scale: torch.Tensor,
    second: torch.Tensor | None = None,
    smoothing: torch.Tensor | None = None,
    *,
    told: Mapping[str, Any],
) -> torch.Tensor:
    """Return a layer's weights in float32, given its scales and what ComfyUI tells of it."""
    if weight.dtype == torch.uint8:
        assert second is not None
        wide = _nvfp4(weight, scale, second, of_comfyui=bool(told))
        return wide if smoothing is None else wide[:, : len(smoothing)] * smoothing.float()
    wide = weight.float() * scale.float().reshape(-1, *[1] * (weight.ndim - 1))
    if (group := rotated_together(told)) is None:
        return wide
    matrix = rotation(group)
    return (wide.reshape(len(wide), -1, len(matrix)) @ matrix).reshape(wide.shape)


def rotation(size: int) -> torch.Tensor:
    """Return ConvRot's regular Hadamard matrix, its own inverse: https://arxiv.org/abs/2512.03673."""
    four = torch.ones(4, 4) - 2 * torch.eye(4).flip(0)
    matrix = torch.ones(1, 1)
    while len(matrix) < size:
        matrix = torch.kron(matrix, four) / 2
    return matrix


def _nvfp4(
    packed: torch.Tensor, scale: torch.Tensor, second: torch.Tensor, *, of_comfyui: bool
) -> torch.Tensor:
    """Return numbers of four bits times the scales of their blocks and of the layer.

    The first of two numbers is in a byte's upper half with ComfyUI, whose scales are in the order
    of cuBLAS, and in the lower half otherwise.
    """
    scale = scale.view(torch.float8_e4m3fn)  # some files have them as bytes
    if of_comfyui:
        scale = _in_order(scale.float(), len(packed), 2 * packed.shape[1] // NVFP4_BLOCK)
        packed = packed >> 4 | packed << 4
    wide: torch.Tensor = dequantize_nvfp4(packed, scale, second.float())
    return wide


def _in_order(scale: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Return scales by rows and columns from cuBLAS' tiles of 128x4, in which rows interleave.

    https://docs.nvidia.com/cuda/cublas/index.html#d-block-scaling-factors-layout
    """
    tiles = scale.reshape(-(-rows // 128), -(-columns // 4), 32, 4, 4).permute(0, 3, 2, 1, 4)
    return tiles.reshape(-1, -(-columns // 4) * 4)[:rows, :columns]
