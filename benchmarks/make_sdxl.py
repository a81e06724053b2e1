"""Writes a full-size Stable Diffusion XL checkpoint with random weights.

    python -m benchmarks.make_sdxl models/checkpoints/randomxl.safetensors

All 2,513 tensors under their real names, 6.9 GB in float16; see make_sd15.py.
"""

import argparse
from pathlib import Path

from benchmarks.make_sd15 import write_checkpoint
from tests.catalog.unets import sdxl_shapes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("path", type=Path)
    path = parser.parse_args().path
    write_checkpoint(path, shapes=sdxl_shapes())
    print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
