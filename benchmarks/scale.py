"""What several engines bring, and what they cost, into RESULTS.md.

    python -m benchmarks.scale [--rows cores,ray,sharing,publishing] [--rounds 3] [--folder DIR]

cores       images a second with one engine on one core, and with two on two
ray         an engine on Ray against one of this machine's own
sharing     what it costs to find the next batch while 100,000 images wait
publishing  pictures that one daemon publishes in a second, if engines took no time at all

Some 10 minutes on two quiet cores. `--small` only proves that the script works.
"""

import argparse
import os
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.against_peers import WARM_UP_SEED
from benchmarks.jobs import DEMO, Job, pictures
from benchmarks.measuring import RESULTS, Figure, Goal, Section, compared, measured, percentile
from benchmarks.ours import Daemon, Folders, running
from benchmarks.plan import in_turns, own_command
from picowatch.engine.local import LocalEngines
from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import (
    OnPreview,
    OnStep,
    RenderedImage,
    resolve,
    unseen,
)
from picowatch.files.retry import Retry
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rows import QueuedImage, RequestedEntry
from picowatch.observers.observers import Observers
from picowatch.outbox.outbox import Outbox
from picowatch.save import Save, SizeAndTime
from picowatch.settings import Settings
from picowatch.work.pool import WorkerPool
from picowatch.work.result import RunResult
from picowatch.work.run import Run
from picowatch.work.worker import Worker
from tests.digest_engine import Batch, DigestEngine, digest_picture
from tests.engine.requests import request
from tests.house import House, wait_for

PICTURE = Path(__file__).parents[1] / "docs/images/demo.png"
ENGINES, CHECKPOINTS, BATCH = 64, 20, 8


@dataclass(frozen=True, slots=True)
class Extent:
    """How much of everything."""

    rounds: int
    pictures: int
    steps: int
    queue: int
    published: int
    folder: Path
    numbers: "count[int]"

    def new_folder(self) -> Path:
        """An empty folder."""
        path = self.folder / f"{next(self.numbers):03}"
        path.mkdir()
        return path


# -- engines that compute


def cores_row(extent: Extent) -> list[Figure]:
    """Two engines with a core each against one with a core; the daemon has both cores."""
    os.environ["OMP_NUM_THREADS"] = "1"  # the engines' threads
    job = Job(DEMO, 128, pictures(extent.pictures, extent.steps))
    found = in_turns(
        extent.rounds,
        {
            "two": lambda: _each(extent, job, "local:2", pinned=True),
            "one": lambda: _each(extent, job, "local:1", pinned=True),
        },
    )
    del os.environ["OMP_NUM_THREADS"]
    name = f"{extent.pictures} demo pictures, seconds each: two engines, a core each"
    return [
        compared(name, found["two"], found["one"], "one engine, one core", Goal("at least", 1.8))
    ]


def ray_row(extent: Extent) -> list[Figure]:
    """One engine on Ray against one without. This machine has to be a node: `ray start --head`."""
    job = Job(DEMO, 128, pictures(extent.pictures, extent.steps))
    ray = "{ray: {gpus_per_engine: 0, cpus_per_engine: 2, engines: 1}}"
    found = in_turns(
        extent.rounds,
        {
            "ray": lambda: _each(extent, job, ray),
            "local": lambda: _each(extent, job, "local"),
        },
    )
    name = f"{extent.pictures} demo pictures, seconds each: one engine on Ray"
    return [
        compared(
            name,
            found["ray"],
            found["local"],
            "executor: local",
            Goal("at most", 1.03),
            times_faster=False,
        )
    ]


def _each(extent: Extent, job: Job, executor: str, *, pinned: bool = False) -> float:
    """Seconds for each picture, once every engine is warm."""
    folders = Folders(extent.new_folder(), executor=executor, batch_size=BATCH, settle_seconds=0.05)
    with running(folders) as daemon:
        for turn in range(2):
            warm = [replace(one, seed=WARM_UP_SEED + one.seed) for one in job.pictures[: 4 * BATCH]]
            daemon.seconds_for(job, *warm, prefix=f"w{turn}")
            if pinned:
                _pin(daemon)
            job = replace(job, pictures=tuple(replace(p, seed=p.seed + 1000) for p in job.pictures))
        return daemon.seconds_for(job, *job.pictures) / len(job.pictures)


def _pin(daemon: Daemon) -> None:
    """Each engine to a core of its own, with all its threads.

    multiprocessing's own process, which does nothing, is a child, too.
    """
    cores = sorted(os.sched_getaffinity(0))
    for number, engine in enumerate(sorted(daemon.children())):
        for task in Path(f"/proc/{engine}/task").iterdir():
            os.sched_setaffinity(int(task.name), {cores[number % len(cores)]})


# -- what the daemon does


def sharing_row(extent: Extent) -> list[Figure]:
    """Finding a batch of 8 for one of 64 engines, while images of 20 checkpoints wait."""
    folder = extent.new_folder()
    ledger = TimedLedger(folder / "ledger.sqlite")
    _fill(ledger, extent.queue)
    pool = _pool(ledger, folder)
    for worker in pool.workers:
        worker.checkpoint, worker.idle = _hash(worker.number), False
    kept = [_milliseconds(pool, worker, ledger) for worker in pool.workers * 4]
    for worker in pool.workers:
        worker.checkpoint = "nothing that waits"
    changed = [_milliseconds(pool, worker, ledger) for worker in pool.workers]
    ledger.close()
    name = f"which batch of {BATCH} is next for one of {ENGINES} engines, {extent.queue:,} images "
    name += f"of {CHECKPOINTS} checkpoints waiting"
    goal = Goal("at most", 1.0)
    return [
        _median(f"{name}: median", [one for one, _ in kept], goal),
        measured("… 99 %", [percentile([one for one, _ in kept], 0.99)], "ms"),
        _median("… for an engine that has to load another checkpoint", [one for one, _ in changed]),
        _median(
            "… and taking it, with its files' names and the commit", [whole for _, whole in kept]
        ),
    ]


def _median(what: str, milliseconds: Sequence[float], goal: Goal | None = None) -> Figure:
    return measured(what, [percentile(milliseconds, 0.5)], "ms", goal)


class TimedLedger(Ledger):
    """Tells apart what taking a batch and its commit take."""

    seconds = 0.0

    def claim(self, *arguments: Any, **named: Any) -> list[QueuedImage]:
        """See `Ledger.claim`."""
        began = time.perf_counter()
        try:
            return super().claim(*arguments, **named)
        finally:
            self.seconds += time.perf_counter() - began

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """See `Ledger.transaction`."""
        with ExitStack() as stack:
            yield stack.enter_context(super().transaction())
            began = time.perf_counter()
            stack.close()
            self.seconds += time.perf_counter() - began


def _hash(number: int) -> str:
    return f"{number % CHECKPOINTS:064x}"


def _fill(ledger: Ledger, images: int) -> None:
    """So many images, of the checkpoints by turns."""
    with ledger.transaction():
        for save in range(images // 100):
            requests = [
                replace(request(seed=image), checkpoint_hash=_hash(7 * save + image))
                for image in range(100)
            ]
            entry = RequestedEntry("entry", 0, False, lambda _, requests=requests: requests)  # type: ignore[misc]
            ledger.accept(
                Save(f"{save}.yaml", str(save), SizeAndTime(1, 1, save)),
                [entry],
                draw_seed=lambda: 1,
                picture_exists=lambda file: False,
            )


def _pool(ledger: Ledger, folder: Path) -> WorkerPool:
    settings = Settings(outbox=folder, batch_size=BATCH)
    outbox = Outbox(settings)
    run = Run(
        settings=settings,
        ledger=ledger,
        outbox=outbox,
        observers=Observers(settings, outbox, lambda: 0, is_daemon=False),
        retry=Retry(threading.Event(), folder, keeps_trying=False),
        result=RunResult(),
        wake=threading.Event(),
    )
    engines = LocalEngines(EngineOptions(models=folder), ENGINES, lambda options: DigestEngine())
    return WorkerPool(run, engines)


def _milliseconds(pool: WorkerPool, worker: Worker, ledger: TimedLedger) -> tuple[float, float]:
    """Choosing the worker's next batch, and all of it until the batch is the worker's."""
    ledger.seconds = 0.0
    began = time.perf_counter()
    batch = pool.claim(worker)
    took = time.perf_counter() - began
    assert len(batch) == BATCH
    return 1000 * (took - ledger.seconds), 1000 * took


class InstantEngine(DigestEngine):
    """Gives the same picture for everything, at once."""

    def __init__(self, pixels: bytes) -> None:
        super().__init__()
        self._pixels = pixels

    def render(
        self,
        batch: Batch,
        on_step: OnStep,
        on_preview: OnPreview = unseen,
        preview_seconds: float = 0,
    ) -> Future[list[RenderedImage]]:
        """See `Engine.render`."""
        future: Future[list[RenderedImage]] = Future()
        made = [replace(digest_picture(one, len(batch)), pixels=self._pixels) for one in batch[:1]]
        resolve(future, made * len(batch))
        return future


def publishing_row(extent: Extent) -> list[Figure]:
    """Pictures that are claimed, compressed, made durable, listed and shown."""
    kinds = [(1, 512), (8, 512), (8, 64)]  # engines, and the pictures' side
    found: dict[tuple[int, int], list[float]] = {kind: [] for kind in kinds}
    for _ in range(extent.rounds):
        for kind, rates in found.items():
            rates.append(_published_each_second(extent, *kind))
    name = "pictures of {side}x{side} that one daemon publishes, of engines that take no time: "
    return [
        measured(f"{name.format(side=side)}{engines}", rates, "a second")
        for (engines, side), rates in found.items()
    ]


def _published_each_second(extent: Extent, engines: int, side: int) -> float:
    with Image.open(PICTURE) as image:
        pixels = image.convert("RGB").crop((0, 0, 128, 128)).resize((side, side)).tobytes()
    house = House(extent.new_folder())
    house.make_engine = lambda options: InstantEngine(pixels)
    with house.running(executor=f"local:{engines}", batch_size=BATCH):
        house.save("w.txt", f"warm --size {side}x{side}\n")
        wait_for(lambda: house.status()["images"]["done"] == 1, "the first picture")
        began = time.monotonic()
        house.save("a.yaml", f"prompt: a\nsize: {side}x{side}\ncount: {extent.published}\n")
        listing = house.outbox / "images.jsonl"
        lines = extent.published + 1
        wait_for(lambda: listing.read_bytes().count(b"\n") == lines, "the rest")
        return extent.published / (time.monotonic() - began)


ROWS = {"cores": cores_row, "ray": ray_row, "sharing": sharing_row, "publishing": publishing_row}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Several engines, into RESULTS.md.")
    parser.add_argument("--rows", default=",".join(ROWS), help=", ".join(ROWS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where everything is made")
    parser.add_argument("--results", type=Path, help="where the section goes (RESULTS.md)")
    parser.add_argument("--small", action="store_true", help="only prove that it works")
    options = parser.parse_args(arguments)
    if options.small and options.results is None:
        parser.error("--small needs --results: its figures say nothing")
    section = Section("Several engines", own_command("benchmarks.scale"))
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="picowatch-bench-") as folder:
        usual = Extent(options.rounds, 128, 24, 100_000, 600, Path(folder), count())
        small = replace(usual, rounds=1, pictures=4, steps=2, queue=5_000, published=8)
        for name in options.rows.split(","):
            print(name, flush=True)
            section.add(ROWS[name](small if options.small else usual))
    section.write(options.results or RESULTS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
