"""What a LoRA changes in one layer: a low-rank product and its kin, each a change of the weight.

LoRA: "LoRA: Low-Rank Adaptation of Large Language Models", https://arxiv.org/abs/2106.09685.
LoHa and LoKr: "Navigating Text-To-Image Customization: From LyCORIS Fine-Tuning to Model
Evaluation", https://arxiv.org/abs/2309.14859; names and shapes are those of
https://github.com/KohakuBlueleaf/LyCORIS. DoRA: "DoRA: Weight-Decomposed Low-Rank Adaptation",
https://arxiv.org/abs/2402.09353.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from picowatch.engine.unet.tiling import padded

Factors = Mapping[str, torch.Tensor]

# Instead of a division by zero: columns and rows of zeros stay zeros.
_SMALLEST = 1e-12


@dataclass(frozen=True, slots=True)
class LowRank:
    """What a LoRA adds to one module; `scale` is alpha / rank, or peft's for rsLoRA.

    It computes in the type of what goes into the module: that of the module's weights may be one
    that nothing computes in.
    """

    down: torch.Tensor
    up: torch.Tensor
    mid: torch.Tensor | None
    scale: float

    def added(self, module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """up(down(x)) for a linear layer or a convolution.

        A convolution's stride and padding belong to its kernel, which is `down`'s, or `mid`'s if a
        LyCORIS file has it separately.
        """
        down, up = self.down.to(x.dtype), self.up.to(x.dtype)
        if not isinstance(module, nn.Conv2d):
            return functional.linear(functional.linear(x, down), up)
        if self.mid is None:
            return functional.conv2d(_through(module, x, down), up)
        return functional.conv2d(
            _through(module, functional.conv2d(x, down), self.mid.to(x.dtype)), up
        )

    def change_of(self, weight: torch.Tensor) -> torch.Tensor:
        """up(down(x)) as one weight, in float32: a matrix, or a convolution's kernel."""
        down, up = self.down.float().flatten(1), self.up.float().flatten(1)
        if self.mid is not None:
            down = torch.einsum("rskl,si->rikl", self.mid.float(), down).flatten(1)
        return (up @ down).reshape(weight.shape)

    def multiplications(self, numbers: int) -> tuple[int, int]:
        """At each position by a hook, and once for a copy of so many numbers."""
        return self.down.numel() + self.up.numel(), len(self.down) * numbers


@dataclass(frozen=True, slots=True)
class Product:
    """LoHa's or LoKr's product, or a whole difference; `scale` is alpha / rank.

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
        return _through(module, x, self._matrix().to(x.dtype))

    def change_of(self, weight: torch.Tensor) -> torch.Tensor:
        """The change without scale, in float32 and the weight's shape."""
        return self._matrix().reshape(weight.shape)

    def _matrix(self) -> torch.Tensor:
        found = product(self.factors).reshape(self.shape)
        if self.swapped:
            found = torch.cat(found.chunk(2)[::-1])
        return found[self.rows]

    def multiplications(self, numbers: int) -> tuple[int, int]:
        """At each position by a hook, and once for a copy of so many numbers."""
        return numbers, (rank_of(self.factors) or 1) * numbers


@dataclass(slots=True)
class Decomposed:
    """DoRA: after another change, the weight's columns or rows get the lengths that were trained.

    `lengths` have the weight's sides, 1 for those that a length is measured over: (outputs, 1) or
    (1, inputs), and more for kernels. The whole change has the recipe's weight, as in A1111 and
    ComfyUI.
    """

    change: LowRank | Product
    lengths: torch.Tensor
    scale: float = 1.0
    _factors: torch.Tensor | None = field(default=None, init=False)

    def added(self, module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """The change's share of the module's output.

        The factors are measured once; to make the whole weight each time takes longer than to
        multiply by what is there.
        """
        plain = _plain(module).to(x.device)
        if self._factors is None:
            self._factors = self._measured(self._changed(plain))
        factors = self._factors.flatten()
        if isinstance(module, nn.Conv2d):
            factors = factors[:, None, None]
        more, factors = (factors - 1).to(x.dtype), factors.to(x.dtype)
        plain = plain.to(x.dtype)
        if self.lengths.shape[0] == 1:  # of inputs
            change = self.change.added(module, x * factors)
            return _through(module, x * more, plain) + self.change.scale * change
        change = self.change.added(module, x) * factors
        return _through(module, x, plain) * more + self.change.scale * change

    def change_of(self, weight: torch.Tensor) -> torch.Tensor:
        """What is added to the weight, in float32."""
        changed = self._changed(weight)
        return changed * self._measured(changed) - weight.float()

    def _changed(self, weight: torch.Tensor) -> torch.Tensor:
        return weight.float() + self.change.scale * self.change.change_of(weight)

    def _measured(self, changed: torch.Tensor) -> torch.Tensor:
        """What makes the lengths of a changed weight the trained ones."""
        sides = [side for side, length in enumerate(self.lengths.shape) if length == 1]
        measured: torch.Tensor = torch.linalg.vector_norm(changed, dim=sides, keepdim=True)
        return self.lengths / measured.clamp(min=_SMALLEST)

    def multiplications(self, numbers: int) -> tuple[int, int]:
        """At each position by a hook, and once for a copy of so many numbers."""
        by_hook, once = self.change.multiplications(numbers)
        return numbers + by_hook, once + 2 * numbers


Change = LowRank | Product | Decomposed


def _through(module: nn.Module, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """What the module would give with this weight and no bias."""
    if not isinstance(module, nn.Conv2d):
        return functional.linear(x, weight)
    x, padding = padded(module, x)
    return functional.conv2d(x, weight, None, module.stride, padding, module.dilation)


def _plain(module: Any) -> torch.Tensor:
    """The module's weight as numbers, if it is quantised or has left the device again, too."""
    weight: torch.Tensor = module.weight
    if weight.is_meta:  # offloaded layer by layer: between its turns, accelerate's hook has it
        weight = module._hf_hook.weights_map["weight"]
    if hasattr(weight, "quant_type"):
        # With what it imports it takes a third of a second; most models are not quantised.
        from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor

        weight = dequantize_gguf_tensor(weight)
    return weight


def product(factors: Factors) -> torch.Tensor:
    """The weight that they make, in float32; a kernel's numbers may be in its second side."""
    if "diff" in factors:
        return factors["diff"].float()
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
