"""Writes a full-size checkpoint of Stable Diffusion 1.5 or XL with random weights.

    python -m benchmarks.random_weights models/checkpoints/random.safetensors [--xl]

Real names, shapes and type in one file of the original layout, 2.1 or 6.9 GB in float16, to check
and time loading and rendering without a download. Its pictures are noise. Written tensor by
tensor, so that it needs little memory.
"""

import argparse
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.catalog.files import Shapes, header, sd15_shapes, sdxl_shapes

# Below 1 / sqrt(inputs) each layer shrinks what it gets, so that float16 cannot overflow.
_GAIN = 0.5
_DIFFERENT = 100_003  # numbers of a tensor, a prime


def write_checkpoint(path: Path, shapes: Shapes, seed: int = 1) -> None:
    """Write the file; the same seed gives the same bytes."""
    random = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(header(shapes))
        for name, shape in shapes.items():
            file.write(_weights(name, shape, random).tobytes())


def _weights(name: str, shape: tuple[int, ...], random: np.random.Generator) -> NDArray[np.float16]:
    """Ones for norms, zeros for biases, else random numbers, repeated (never aligned) for speed."""
    if name.endswith("bias"):
        return np.zeros(shape, np.float16)
    if len(shape) == 1:
        return np.ones(shape, np.float16)
    spread = 0.02 if "embedding" in name else _GAIN / math.sqrt(math.prod(shape[1:]))
    numbers = random.standard_normal(min(math.prod(shape), _DIFFERENT), dtype=np.float32)
    return np.resize((numbers * spread).astype(np.float16), shape)


def main() -> None:
    parser = argparse.ArgumentParser(description="A full-size checkpoint with random weights.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--xl", action="store_true", help="Stable Diffusion XL instead of 1.5")
    options = parser.parse_args()
    write_checkpoint(options.path, sdxl_shapes() if options.xl else sd15_shapes())
    print(f"{options.path}: {options.path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
