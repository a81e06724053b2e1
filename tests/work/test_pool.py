"""The ledger's images are shared out among the workers that are idle."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from picowatch.engine.local import LocalEngines
from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import OnStep, RenderedImage
from picowatch.files.retry import Retry
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rows import RequestedEntry
from picowatch.observers.observers import Observers
from picowatch.outbox.outbox import Outbox
from picowatch.save import Save, SizeAndTime
from picowatch.settings import Settings
from picowatch.work.pool import WorkerPool
from picowatch.work.rendering import Rendering
from picowatch.work.result import RunResult
from picowatch.work.run import Run
from picowatch.work.worker import Worker
from tests.digest_engine import Batch, DigestEngine
from tests.engine.requests import request

BATCH = 8
A, B, C = f"{1:064x}", f"{2:064x}", f"{3:064x}"


class Shared:
    """Three workers without threads; each is idle, and images wait for them."""

    def __init__(self, folder: Path) -> None:
        settings = Settings(outbox=folder, batch_size=BATCH)
        retry, result = Retry(threading.Event(), folder, keeps_trying=False), RunResult()
        self.ledger = Ledger(folder / "ledger.sqlite")
        outbox = Outbox(settings)
        run = Run(
            settings=settings,
            ledger=self.ledger,
            outbox=outbox,
            observers=Observers(settings, outbox, lambda: 0, is_daemon=False),
            retry=retry,
            result=result,
            wake=threading.Event(),
        )
        self.observers = run.observers
        executor = LocalEngines(EngineOptions(models=folder), 3, lambda options: DigestEngine())
        self.pool = WorkerPool(run, executor)
        for worker in self.pool.workers:
            worker.idle = True

    def hold(self, *checkpoints: str) -> None:
        """What each engine holds."""
        for worker, checkpoint in zip(self.pool.workers, checkpoints, strict=True):
            worker.checkpoint = checkpoint

    def save(self, name: str, checkpoint: str, images: int, priority: int = 0) -> None:
        """So many images of one checkpoint."""
        requests = [request(seed=seed, checkpoint_hash=checkpoint) for seed in range(images)]
        self.ledger.accept(
            Save(name, name, SizeAndTime(1, 1, 1), saved_at=0.0),
            [RequestedEntry("entry", priority, False, lambda _: requests)],
            draw_seed=lambda: 1,
            picture_exists=lambda file: False,
        )

    def claim(self, number: int) -> list[str]:
        """The checkpoints of the images in a worker's next batch."""
        batch = self.pool.claim(self.pool.workers[number])
        return [image.request.checkpoint_hash for image in batch]


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Shared]:
    shared = Shared(tmp_path)
    yield shared
    shared.observers.close(lambda: True)
    shared.ledger.close()


def test_idle_engines_share_a_short_queue(shared: Shared) -> None:
    """Two that would rest otherwise take their part; of a long queue each takes a whole batch."""
    shared.save("a.yaml", A, 8)
    assert [len(shared.claim(number)) for number in range(3)] == [3, 3, 2]
    shared.save("b.yaml", A, 5 * BATCH)
    for worker in shared.pool.workers:
        worker.idle = True
    assert len(shared.claim(0)) == BATCH


def test_engines_keep_the_checkpoints_that_they_hold(shared: Shared) -> None:
    """One that holds none takes what no other one holds; a whole queue is left to none."""
    shared.hold(A, B, "")
    shared.save("b.yaml", B, 2)
    shared.save("a.yaml", A, 2)
    shared.save("c.yaml", C, 1)
    assert shared.claim(0) == [A, A]
    assert shared.claim(2) == [C]
    shared.pool.workers[2].idle = True
    assert shared.claim(2) == [B], "rather than rest"


def test_a_higher_priority_comes_before_the_checkpoint_that_is_held(shared: Shared) -> None:
    """On every engine."""
    shared.hold(A, A, A)
    shared.save("a.yaml", A, 1)
    shared.save("b.yaml", B, 1, priority=1)
    assert shared.claim(0) == [B]
    assert shared.claim(1) == [A]


def test_what_takes_long_before_the_first_step_is_still_loading(shared: Shared) -> None:
    """A model is on its way to a node: no step is done."""
    shared.save("a.yaml", A, 1)
    rendering = _rendering(shared.pool.workers[0], time.monotonic(), "mine")
    rendering.engine = engine = HeldEngine()
    rendering.begin()
    engine.on_step(0, 24)
    assert (rendering.step, rendering.loading) == (0, "mine")
    engine.on_step(1, 24)
    assert (rendering.step, rendering.loading) == (1, "")


class HeldEngine(DigestEngine):
    """Makes the steps that the test makes."""

    def render(self, batch: Batch, on_step: OnStep, *_: object) -> Future[list[RenderedImage]]:
        self.on_step = on_step
        return Future()


def _rendering(worker: Worker, began: float, loads: str = "") -> Rendering:
    """The worker's next batch."""
    return Rendering(
        engine=worker.engine,
        batch=worker.claim(worker),
        loads=loads,
        began=began,
        settings=worker.settings,
        on_preview=lambda _: None,
        is_requested=lambda: True,
    )
