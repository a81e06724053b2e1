"""Measures the memory that loading and rendering a flow checkpoint takes on the CPU.

    python -m benchmarks.flow_memory models Z-Image-Turbo-zeros
    python -m benchmarks.flow_memory models Z-Image-Turbo-zeros --memory low

In bfloat16, while it is read and while two batches render, the second with a new prompt. Memory
is what the process holds for itself (RssAnon in /proc, every 50 ms); pages of files that are
mapped while they are read do not count, because the kernel takes them back as it needs them.
"""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from picowatch.catalog import Catalog
from picowatch.engine.options import EngineOptions
from picowatch.engine.renderer import Renderer
from tests.engine.requests import ignore_steps, request

_GIGA = 1e9
_STATUS = Path("/proc/self/status")


def held_bytes() -> int:
    """What this process holds for itself."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


@contextmanager
def most_held() -> Iterator[list[int]]:
    """The most that was held inside, as the list's only entry."""
    found, done = [held_bytes()], Event()

    def watch() -> None:
        while not done.wait(0.05):
            found[0] = max(found[0], held_bytes())

    watching = Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield found
    finally:
        done.set()
        watching.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("models", type=Path)
    parser.add_argument("checkpoint")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--memory", choices=["auto", "full", "low"], default="auto")
    given = parser.parse_args()
    hash_cache = given.models / "hashes.json"
    catalog = Catalog(given.models, hash_cache)
    found = catalog.find("checkpoint", given.checkpoint)
    sha256 = catalog.sha256(found)
    renderer = Renderer(
        EngineOptions(
            models=given.models,
            device="cpu",
            precision="bfloat16",
            hash_cache=hash_cache,
            memory=given.memory,
        )
    )
    for prompt in ("a lighthouse at dusk", "a harbour in the rain"):
        wanted = request(
            prompt,
            checkpoint=found.name,
            checkpoint_hash=sha256,
            sampler="Euler",
            schedule_type="simple",
            steps=given.steps,
            cfg_scale=1,
            width=given.side,
            height=given.side,
        )
        begun = time.perf_counter()
        with most_held() as most:
            (image,) = renderer.render([wanted], ignore_steps)
        phases = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in image.timings.items())
        print(
            f"{prompt}: {image.memory_rung}, {most[0] / _GIGA:.2f} GB at most, "
            f"{time.perf_counter() - begun:.1f} s ({phases})",
            flush=True,
        )


if __name__ == "__main__":
    main()
