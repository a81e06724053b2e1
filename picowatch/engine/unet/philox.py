"""The normal numbers that torch draws on an NVIDIA GPU, on any processor. Imports no torch.

Philox 4x32-10: "Parallel Random Numbers: As Easy as 1, 2, 3", J. K. Salmon and others, SC11,
https://doi.org/10.1145/2063384.2063405; then Box and Muller's transform, in cuRAND's constants.
One counter for each number, as in A1111's setting NV (modules/rng_philox.py). torch's kernel has
one for each thread, and comes back to the first thread after as many numbers as the card runs
threads: 1,536 or 2,048 a multiprocessor (ATen/native/cuda/DistributionTemplates.h). Latents of
512 x 512 pixels have 16,384 numbers, those of 1024 x 1024 have 65,536.
"""

import numpy as np
from numpy.typing import NDArray

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (np.uint32(0x9E3779B9), np.uint32(0xBB67AE85))
_ROUNDS = 10
_LOW, _HIGH = np.uint64(0xFFFFFFFF), np.uint64(32)
_TO_UNIT = np.float32(2.3283064e-10)  # 2 ** -32
_TO_CIRCLE = np.float32(2.3283064e-10 * 6.2831855)


class Philox:
    """The numbers of `torch.Generator("cuda").manual_seed(seed)`."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._calls = 0

    def randn(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Standard normal numbers; each call continues where the last one ended."""
        count = int(np.prod(shape))
        counters = np.zeros((4, count), np.uint32)
        counters[0] = self._calls
        counters[2] = np.arange(count, dtype=np.uint32)
        self._calls += 1
        first, second, _, _ = philox(counters, self._seed)
        return _normal(first, second).reshape(shape)


def philox(counters: NDArray[np.uint32], seed: int) -> NDArray[np.uint32]:
    """Ten rounds of Philox over columns of four numbers."""
    key = [np.uint32(seed & 0xFFFFFFFF), np.uint32(seed >> 32 & 0xFFFFFFFF)]
    one, two, three, four = counters
    for _ in range(_ROUNDS):
        high, low = _product(one, _MULTIPLIERS[0])
        other_high, other_low = _product(three, _MULTIPLIERS[1])
        one, two, three, four = other_high ^ two ^ key[0], other_low, high ^ four ^ key[1], low
        with np.errstate(over="ignore"):
            key = [key[0] + _WEYL[0], key[1] + _WEYL[1]]
    return np.stack([one, two, three, four])


def _product(
    numbers: NDArray[np.uint32], multiplier: np.uint64
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """The high and the low 32 bits of a product of 64."""
    product = numbers.astype(np.uint64) * multiplier
    return (product >> _HIGH).astype(np.uint32), (product & _LOW).astype(np.uint32)


def _normal(first: NDArray[np.uint32], second: NDArray[np.uint32]) -> NDArray[np.float32]:
    """The first of the two normal numbers that Box and Muller's transform gives."""
    unit = first.astype(np.float32) * _TO_UNIT + _TO_UNIT / np.float32(2)
    angle = second.astype(np.float32) * _TO_CIRCLE + _TO_CIRCLE / np.float32(2)
    numbers: NDArray[np.float32] = np.sqrt(np.float32(-2) * np.log(unit)) * np.sin(angle)
    return numbers
