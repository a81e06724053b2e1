"""LoHa and LoKr: changes of a layer that are products of smaller matrices, element by element, or
each number of one with all of the other (Kronecker's).

"Navigating Text-To-Image Customization: From LyCORIS Fine-Tuning to Model Evaluation",
https://arxiv.org/abs/2309.14859; names and shapes are those of
https://github.com/KohakuBlueleaf/LyCORIS.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from picowatch.engine.unet.tiling import padded

Factors = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Product:
    """What one file changes in one module; `scale` is alpha / rank.

    The product has `shape`. Of a layer that stands for several modules this one has some `rows`, of
    the halves in the other order if they are `swapped`.
    """

    factors: Factors
    shape: tuple[int, ...]
    rows: slice
    swapped: bool
    scale: float

    def added(self, module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """The change's share of the module's output, without scale."""
        matrix = self.matrix().to(x.dtype)
        if not isinstance(module, nn.Conv2d):
            return functional.linear(x, matrix)
        x, padding = padded(module, x)
        return functional.conv2d(x, matrix, None, module.stride, padding, module.dilation)

    def matrix(self) -> torch.Tensor:
        """The change as one weight, in float32: a matrix, or a convolution's kernel."""
        found = product(self.factors).reshape(self.shape)
        if self.swapped:
            found = torch.cat(found.chunk(2)[::-1])
        return found[self.rows]

    def multiplications(self, numbers: int) -> tuple[int, int]:
        """At each position by a hook, and once for a copy of so many numbers."""
        return numbers, (rank_of(self.factors) or 1) * numbers


def product(factors: Factors) -> torch.Tensor:
    """The weight that they make, in float32; a kernel's numbers may be in its second side."""
    if "hada_w1_a" in factors or "hada_w2_a" in factors:
        return _factor(factors, "hada_w1", "hada_t1") * _factor(factors, "hada_w2", "hada_t2")
    one, two = _factor(factors, "lokr_w1"), _factor(factors, "lokr_w2", "lokr_t2")
    return torch.kron(one.reshape(*one.shape, *[1] * (two.ndim - one.ndim)), two.contiguous())


def _factor(factors: Factors, name: str, core: str = "") -> torch.Tensor:
    """As it is, or of two matrices, or of these around a kernel (a Tucker decomposition)."""
    if name in factors:
        return factors[name].float()
    left, right = factors[f"{name}_a"].float(), factors[f"{name}_b"].float()
    if core in factors:
        return torch.einsum("rs...,si,ro->oi...", factors[core].float(), right, left)
    return left @ right


def rank_of(factors: Factors) -> int:
    """The rank of the larger factor that is made of two; 0 where both are whole."""
    names = ("hada_w1_b", "lokr_w2_b", "lokr_w1_b")
    return next((len(factors[name]) for name in names if name in factors), 0)


def makes(factors: Factors, shape: tuple[int, ...]) -> bool:
    """Whether they make a weight of this shape; KeyError or RuntimeError if they make none."""
    empty: Any = {name: torch.empty_like(factor, device="meta") for name, factor in factors.items()}
    found = product(empty)
    return found.shape[:1] == shape[:1] and found.numel() == torch.Size(shape).numel()
