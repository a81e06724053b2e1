"""Multiplies out weights that SDNQ has packed: numbers of four to eight bits.

A weight is a number times the scale of its group, plus the group's zero point. The product of two
narrow matrices may be added. Columns that were rotated are rotated back.
"""

from collections.abc import Mapping
from functools import cache
from math import gcd, log
from typing import Any, NamedTuple

import torch

from picowatch.catalog.sdnq import Packed
from picowatch.engine.model.dequantise import rotation

_LEAST_ROTATED = 4  # SDNQ rotates no fewer columns together
# Some numbers are in the lower bits of as many bytes; each further number is in these bits of the
# same bytes: byte, first bit, how many, from the number's lowest bits on.
_FURTHER = {
    4: (((0, 4, 4),),),
    5: (((0, 5, 3), (3, 5, 2)), ((1, 5, 3), (4, 5, 2)), ((2, 5, 3), (4, 7, 1), (3, 7, 1))),
    6: (((2, 6, 2), (1, 6, 2), (0, 6, 2)),),
    7: (tuple((byte, 7, 1) for byte in reversed(range(7))),),
}
_BYTES = {4: 1, 5: 5, 6: 3, 7: 7}


class PackedWeight(NamedTuple):
    """A packed matrix, and the tensors of its layer by what follows the layer's name."""

    of: Packed
    parts: dict[str, torch.Tensor]


def stand_in(weight: PackedWeight, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return a parameter with a packed matrix' shape and a single number of its own.

    It goes through the loading of models in the matrix' place. Its attribute says what it stands
    for: torch makes a plain parameter of a class of its own where tensors are of a class, too.
    """
    number = torch.zeros((), dtype=dtype, device=device)
    made: Any = torch.nn.Parameter(number.expand(weight.of.rows, weight.of.columns), False)
    made.stands_for = weight
    return made  # type: ignore[no-any-return]


def stands_for(tensor: torch.Tensor) -> PackedWeight | None:
    """Return what a parameter stands in for, if it does."""
    return getattr(tensor, "stands_for", None)


def multiplied_out(packed: Packed, parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return a layer's weights in float32."""
    bits, stored, scale = packed.bits, parts["weight"], parts["scale"].float()
    weights = _numbers(stored, bits).reshape(len(scale), scale[0].numel(), -1).float()
    scale = scale.reshape(*weights.shape[:2], 1)
    if "zero_point" in parts:
        weights = weights * scale + parts["zero_point"].float().reshape(scale.shape)
    else:
        weights = (weights - (0 if stored.dtype == torch.int8 else 1 << bits - 1)) * scale
    weights = weights.flatten(1)
    if "svd_up" in parts:
        weights += parts["svd_up"].float() @ parts["svd_down"].float()
    if (group := gcd(packed.rotated, packed.columns)) >= _LEAST_ROTATED:
        matrix = _rotation(group, weights.device)
        weights = (weights.reshape(len(scale), -1, group) @ matrix).flatten(1)
    return weights


def _numbers(stored: torch.Tensor, bits: int) -> torch.Tensor:
    """Return packed numbers, one in a byte."""
    if bits not in _FURTHER:
        return stored
    stored = stored.reshape(-1, _BYTES[bits])
    found = [stored & (1 << bits) - 1]
    for pieces in _FURTHER[bits]:
        number, at = torch.zeros_like(stored[:, 0]), 0
        for byte, first, count in pieces:
            number |= (stored[:, byte] >> first & (1 << count) - 1) << at
            at += count
        found.append(number[:, None])
    return torch.cat(found, 1)


@cache
def _rotation(size: int, device: torch.device) -> torch.Tensor:
    """Return the symmetric Hadamard matrix of this size: ConvRot's, or Sylvester's."""
    if log(size, 4).is_integer():
        return rotation(size).to(device)
    two, matrix = torch.tensor([[1.0, 1.0], [1.0, -1.0]]), torch.ones(1, 1)
    while len(matrix) < size:
        matrix = torch.kron(matrix, two)
    return matrix.div(size**0.5).to(device)
