"""LoHa and LoKr as plain LoRAs, which each of them equals at a higher rank.

A LoHa is (a1 b1) * (a2 b2), number by number: the rows of (a1, a2) and the columns of (b1, b2),
each multiplied by each, make its two halves. A LoKr is kron(w, a b) = kron(w, a) kron(1, b). Names
and shapes are those of https://github.com/KohakuBlueleaf/LyCORIS, described in
https://arxiv.org/abs/2309.14859.
"""

import re
from collections.abc import Mapping

import torch

Factors = Mapping[str, torch.Tensor]

# The end of a factor's key.
FACTOR = r"(?:hada|lokr)_(?:w[12](?:_[ab])?|t[12])"
_IS_FACTOR = re.compile(FACTOR)


def has_factors(roles: Mapping[str, object]) -> bool:
    """Whether these are tensors of a LoHa or LoKr."""
    return any(map(_IS_FACTOR.fullmatch, roles))


def halves_of(factors: Factors) -> tuple[torch.Tensor, torch.Tensor, int | None]:
    """Both halves, down and up, and the rank that alpha is divided by; KeyError if one is missing.

    A half for a convolution may have its kernel in the second side. Alpha means nothing for a LoKr
    whose larger factor is whole: its halves are as large as the layer.
    """
    if "lokr_w2" in factors or "lokr_w2_a" in factors:
        if "lokr_w2" in factors:
            down = factors["lokr_w2"].float()
            up, rank = torch.eye(len(down)), None
        else:
            down, up = _pair(factors, "lokr_w2", "lokr_t2")
            rank = len(down)
        if "lokr_w1" in factors:
            small = factors["lokr_w1"].float()
        else:
            small = factors["lokr_w1_a"].float() @ factors["lokr_w1_b"].float()
        one = torch.eye(small.shape[1]).reshape(*small.shape[1:] * 2, *[1] * (down.ndim - 2))
        return torch.kron(one, down.contiguous()), torch.kron(small, up.contiguous()), rank
    down, up = _pair(factors, "hada_w1", "hada_t1")
    other_down, other_up = _pair(factors, "hada_w2", "hada_t2")
    return (
        (down[:, None] * other_down[None]).flatten(0, 1),
        (up[:, :, None] * other_up[:, None]).flatten(1),
        len(down),
    )


def _pair(factors: Factors, name: str, core: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The halves that a factor is made of, or those around a kernel (a Tucker decomposition)."""
    left, right = factors[f"{name}_a"].float(), factors[f"{name}_b"].float()
    if core in factors:
        return torch.einsum("rs...,si->ri...", factors[core].float(), right), left.T
    return right, left
