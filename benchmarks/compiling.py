"""Compiles the demo model's UNets for small pictures beforehand, as a long queue would have done.

    python -m benchmarks.compiling FOLDER

For 128x128 in the batches that `batch_size: auto` begins with on a CPU, 8 and 16. FOLDER is what
the engine keeps compiled UNets in.
"""

import sys
from pathlib import Path

from picowatch.catalog import Catalog
from picowatch.engine.local import LocalEngine
from picowatch.engine.options import EngineOptions
from picowatch.recipe.request import ImageRequest

COMPILE_SECONDS = 900.0
LONG_QUEUE = 1_000_000
SIZES = (8, 16)


def main(folder: Path) -> None:
    """Compile one after the other."""
    engine = LocalEngine(EngineOptions(models=Path("nowhere"), device="cpu", compiled=folder))
    for size in SIZES:
        engine.make(_requests(size), lambda *_: None, waiting=LONG_QUEUE)
        engine.wait_for_compiling(COMPILE_SECONDS)


def _requests(count: int) -> list[ImageRequest]:
    catalog = Catalog(Path("nowhere"))
    return [
        ImageRequest(
            prompt="a corgi",
            negative_prompt="",
            checkpoint="demo",
            checkpoint_hash=catalog.sha256(catalog.demo),
            vae="baked",
            vae_hash="",
            sampler="DPM++ 2M",
            schedule_type="karras",
            steps=1,
            cfg_scale=7.5,
            width=128,
            height=128,
            seed=seed,
            clip_skip=1,
            exact=False,
        )
        for seed in range(count)
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
