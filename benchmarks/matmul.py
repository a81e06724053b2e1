"""How fast a device multiplies matrices in bfloat16: the roof over all pictures.

    python -m benchmarks.matmul DEVICE [SIDE]

Prints TFLOP a second, the best of ten blocks of twenty products.
"""

import sys
import time
from collections.abc import Callable

import torch

BLOCKS, PRODUCTS = 10, 20


def best_rate(device: str, side: int) -> float:
    """TFLOP a second; a product of n x n matrices takes 2 n^3."""
    one, other = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    finish: Callable[[], None] = torch.cuda.synchronize if one.is_cuda else lambda: None
    best = float("inf")
    for _ in range(BLOCKS):
        finish()
        began = time.perf_counter()
        for _ in range(PRODUCTS):
            torch.mm(one, other)
        finish()
        best = min(best, time.perf_counter() - began)
    return float(PRODUCTS * 2 * side**3 / best / 1e12)


if __name__ == "__main__":
    print(best_rate(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 8192))
