"""`picowatch bench`: how fast this machine renders, for each number of steps, size and batch."""

import json
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from itertools import groupby, product
from pathlib import Path
from typing import Any

from picowatch.catalog import Catalog
from picowatch.daemon.build import engine_options
from picowatch.engine.child import ChildEngine
from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import Engine, EngineCannotStart, RenderedImage
from picowatch.engine.versions import versions
from picowatch.errors import CommandFailed, EngineDied, RenderFailed, SettingsInvalid
from picowatch.extras import install_command
from picowatch.recipe import ImageRequest, RecipeInvalid, read_recipes
from picowatch.recipe.messages.problems import harmless
from picowatch.settings import Settings

PROMPT = "a corgi wearing a red hat on a blue background"
WARM_UP_STEPS = 2
FULL = "full"
MAX_BATCH = 256  # as the setting batch_size
MEBI = 1 << 20
INCHES = (8, 5)  # of the plot
PIXELS_PER_INCH = 120


def main(options: Namespace, load: Callable[[], Settings]) -> int:
    return bench(
        load(),
        Combinations(options.steps, options.sizes, options.batches, options.checkpoint),
        as_json=options.json,
        plot=options.plot,
    )


@dataclass(frozen=True, slots=True)
class Combinations:
    """What is to be measured: every combination. `sizes` () means the checkpoint's own."""

    steps: Sequence[int]
    sizes: Sequence[str]
    batches: Sequence[int]
    checkpoint: str | None


@dataclass(frozen=True, slots=True)
class Measurement:
    """One combination and what came out: seconds of the batch, or why there is no picture."""

    steps: int
    size: str
    batch: int
    seconds: float | None = None
    peak_bytes: int | None = None
    memory_rung: str = FULL
    compiled: bool = False
    failure: str = ""

    @property
    def images_per_second(self) -> float | None:
        return self.batch / self.seconds if self.seconds else None

    @property
    def seconds_per_image(self) -> float | None:
        return self.seconds / self.batch if self.seconds else None


def bench(
    settings: Settings,
    wanted: Combinations,
    *,
    as_json: bool,
    plot: Path | None,
    make_engine: Callable[[EngineOptions], Engine] = ChildEngine,
) -> int:
    """Measure and print; also what was measured when it is interrupted or the engine is lost."""
    if plot:
        _check_plot(plot)
    for size in wanted.batches:
        if not 1 <= size <= MAX_BATCH:
            raise SettingsInvalid(f"--batches {size}: a batch holds 1 to {MAX_BATCH} images.")
    batches = list(_batches(settings, wanted))
    engine = make_engine(engine_options(settings))
    cells: list[Measurement] = []
    try:
        for number, batch in enumerate(batches, start=1):
            _print_progress(f"{number} of {len(batches)}: {_words(batch)}")
            cells.append(measure(engine, batch))
    finally:
        about = engine.describe() | {"checkpoint": batches[0][0].checkpoint}
        engine.close()
        if cells:
            _print_json(cells, about) if as_json else _print_table(cells, about)
    if all(cell.failure for cell in cells):
        raise CommandFailed("No image could be rendered.", "The log of `picowatch run` says more.")
    if plot:
        _draw_plot(plot, cells, _title(about))
        _print_progress(f"plot: {plot}")
    return 0


def measure(engine: Engine, batch: Sequence[ImageRequest]) -> Measurement:
    """Time one batch, after one of few steps that loads and prepares whatever it needs."""
    first = batch[0]
    cell = Measurement(first.steps, f"{first.width}x{first.height}", len(batch))
    try:
        _render(engine, [replace(one, steps=min(WARM_UP_STEPS, one.steps)) for one in batch])
        began = time.perf_counter()
        pictures = _render(engine, batch)
        seconds = time.perf_counter() - began
    except EngineCannotStart:
        raise
    except (RenderFailed, EngineDied) as error:
        return replace(cell, failure=str(error))
    one = pictures[0]
    return replace(
        cell,
        seconds=seconds,
        peak_bytes=one.peak_bytes,
        memory_rung=one.memory_rung,
        compiled=one.compiled,
    )


def _render(engine: Engine, batch: Sequence[ImageRequest]) -> list[RenderedImage]:
    return engine.render(batch, lambda done, total: None).result()


def _batches(settings: Settings, wanted: Combinations) -> Iterator[list[ImageRequest]]:
    """The images of each combination, from a recipe that requests it."""
    catalog = Catalog(settings.models, settings.hash_cache, keep_hashes=False)
    inventory = catalog.inventory(settings.checkpoint)

    def hash_of(kind: Any, name: str) -> str:
        return catalog.sha256(catalog.find(kind, name))

    for steps, size, batch in product(wanted.steps, wanted.sizes or [""], wanted.batches):
        fields = {"prompt": PROMPT, "steps": steps, "count": batch, "seed": 1}
        fields |= {"size": size} if size else {}
        fields |= {"checkpoint": wanted.checkpoint} if wanted.checkpoint else {}
        try:
            (recipe,) = read_recipes("bench.yaml", json.dumps(fields).encode(), inventory)
        except RecipeInvalid as error:
            raise CommandFailed(
                " ".join(p.message for p in error.problems), "Change the flag with that value."
            ) from error
        yield recipe.image_requests(hash_of)


# -- output


def _print_progress(text: str) -> None:
    """Print it on standard error, so that a pipe gets the result alone."""
    print(harmless(text), file=sys.stderr, flush=True)


def _words(batch: Sequence[ImageRequest]) -> str:
    first = batch[0]
    return f"{first.steps} steps, {first.width}x{first.height}, batch of {len(batch)}"


def _title(about: dict[str, str]) -> str:
    return f"{about['checkpoint']} on {about['device']}, {about['precision']}"


def _plain(cell: Measurement) -> dict[str, Any]:
    each, rate = cell.seconds_per_image, cell.images_per_second
    return {**asdict(cell), "images_per_second": rate, "seconds_per_image": each}


def _print_json(cells: Sequence[Measurement], about: dict[str, str]) -> None:
    print(json.dumps({**versions(), **about, "cells": [_plain(cell) for cell in cells]}, indent=1))


def _print_table(cells: Sequence[Measurement], about: dict[str, str]) -> None:
    # rich costs a tenth of a second to import; `--help` does without it.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(harmless(_title(about))))
    for name in ("steps", "size", "batch", "images/s", "s/image", "peak memory", "compiled"):
        table.add_column(name, justify="right")
    for cell in cells:
        shown = (str(cell.steps), cell.size, str(cell.batch))
        table.add_row(*shown, *map(Text, _results(cell)))
    Console().print(table)
    for cell in cells:
        if cell.failure:
            print(harmless(f"{cell.steps} steps, {cell.size}, {cell.batch}: {cell.failure}"))


def _results(cell: Measurement) -> tuple[str, str, str, str]:
    rate, each = cell.images_per_second, cell.seconds_per_image
    if rate is None or each is None:
        return "out of memory" if "memory" in cell.failure else "failed", "", "", ""
    memory = f"{cell.peak_bytes / MEBI:,.0f} MiB" if cell.peak_bytes else ""
    rung = "" if cell.memory_rung == FULL else f" ({cell.memory_rung})"
    return f"{rate:.3g}", f"{each:.3g}", memory + rung, "yes" if cell.compiled else "no"


def _check_plot(path: Path) -> None:
    """Refuse what cannot be drawn before minutes are spent on measuring."""
    if find_spec("matplotlib") is None:
        raise CommandFailed(
            "--plot needs matplotlib, which is not installed.",
            f"Install it: {install_command('bench')}",
        )
    if path.suffix.lower() != ".png":
        raise SettingsInvalid(f"--plot {path}: the plot is a PNG.", "Give it a name with .png.")
    if not path.parent.is_dir():
        raise SettingsInvalid(
            f"--plot {path}: there is no folder {path.parent}.", "Create it first."
        )


def _draw_plot(path: Path, cells: Sequence[Measurement], title: str) -> None:
    """Images per second over the batch size, a line for steps and size; failures are left out."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=INCHES, layout="constrained")
    axes = figure.subplots()
    for (steps, size), line in groupby(cells, key=lambda cell: (cell.steps, cell.size)):
        points = [(cell.batch, rate) for cell in line if (rate := cell.images_per_second)]
        axes.plot(
            [batch for batch, _ in points],
            [rate for _, rate in points],
            marker="o",
            label=f"{steps} steps, {size}",
        )
    axes.set_title(title)
    axes.set_xlabel("batch size")
    axes.set_ylabel("images per second")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=PIXELS_PER_INCH)
