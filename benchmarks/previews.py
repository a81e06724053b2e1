"""What a look at the picture in work costs: ratios of the denoising time with and without.

python -m benchmarks.previews            # the demo model
python -m benchmarks.previews --models models --checkpoint v1-5-pruned-emaonly --size 512
"""

import argparse
import tempfile
from pathlib import Path
from statistics import median

from picowatch.catalog import Catalog
from picowatch.engine.child import ChildEngine
from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import Preview
from picowatch.recipe import ImageRequest, read_recipes

# Seconds between previews: none, the default, and one after each step.
SECONDS = (0.0, 1.0, 1e-6)


def main() -> None:
    """The ways take turns, so that what else the machine does falls on all of them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=Path, default=Path(tempfile.gettempdir()) / "no-models")
    parser.add_argument("--checkpoint", default="demo")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    request = _request(options)
    engines = [ChildEngine(EngineOptions(models=options.models)) for _ in SECONDS]
    previews: list[list[Preview]] = [[] for _ in engines]
    times: list[list[float]] = [[] for _ in engines]
    for turn in range(options.rounds + 1):
        # They take turns at going first.
        for place in sorted(range(len(engines)), key=lambda place: (place + turn) % len(engines)):
            keep, seconds = previews[place].append, SECONDS[place]
            future = engines[place].render([request], lambda *_: None, 0, keep, seconds)
            (picture,) = future.result()
            if turn:  # the first one warms up
                times[place].append(picture.timings["denoise"])
    for engine in engines:
        engine.close()
    print("| preview_seconds | previews a picture | denoising, against none |")
    print("|---|---|---|")
    for seconds, seen, taken in zip(SECONDS, previews, times, strict=True):
        # Pair by pair: what else the machine does changes from round to round.
        ratio = median(one / none for one, none in zip(taken, times[0], strict=True))
        print(f"| {seconds:g} | {len(seen) / (options.rounds + 1):.1f} | {ratio:.3f} |")


def _request(options: argparse.Namespace) -> ImageRequest:
    catalog = Catalog(options.models)
    text = (
        f"prompt: a corgi\nseed: 1\ncheckpoint: {options.checkpoint}\nsteps: {options.steps}\n"
        f"size: {options.size}x{options.size}\n"
    )
    (recipe,) = read_recipes("a.yaml", text.encode(), catalog.inventory())
    checkpoint = catalog.sha256(catalog.find("checkpoint", recipe.checkpoint))
    (request,) = recipe.image_requests(lambda kind, name: checkpoint)
    return request


if __name__ == "__main__":
    main()
