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
from picowatch.outbox.outbox import Outbox
from picowatch.save import Save, Stamp
from picowatch.settings import Settings
from picowatch.work import plan
from picowatch.work.pool import WorkerPool
from picowatch.work.rendering import Rendering
from picowatch.work.result import RunResult
from picowatch.work.worker import Worker
from tests.digest_engine import Batch, DigestEngine
from tests.engine.requests import request
from tests.house import PATIENCE

BATCH = 8
A, B = f"{1:064x}", f"{2:064x}"


class Shared:
    """Three workers without threads; each is idle, and images wait for them."""

    def __init__(self, folder: Path) -> None:
        settings = Settings(outbox=folder, batch_size=BATCH)
        retry, result = Retry(threading.Event(), folder, keeps_trying=False), RunResult()
        self.ledger = Ledger(folder / "ledger.sqlite")
        self.pool = WorkerPool(
            settings=settings,
            ledger=self.ledger,
            outbox=Outbox(settings),
            executor=LocalEngines(EngineOptions(models=folder), 3, lambda options: DigestEngine()),
            on_published=lambda *_: None,
            on_finished=lambda _: None,
            on_preview=lambda _: None,
            retry=retry,
            result=result,
        )
        self.woken: list[int] = []
        for number, worker in enumerate(self.pool.workers):
            worker.state.idle = worker.state.warm = True
            worker.wake = lambda number=number: self.woken.append(number)  # type: ignore[method-assign,misc]

    def hold(self, *checkpoints: str) -> None:
        """What each engine holds."""
        for worker, checkpoint in zip(self.pool.workers, checkpoints, strict=True):
            worker.state.checkpoint = checkpoint

    def save(self, name: str, checkpoint: str, images: int, priority: int = 0) -> None:
        """So many images of one checkpoint."""
        requests = [request(seed=seed, checkpoint_hash=checkpoint) for seed in range(images)]
        self.ledger.accept(
            Save(name, name, Stamp(1, 1, 1), saved_at=0.0),
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
    shared.ledger.close()


def test_engines_that_hold_the_checkpoint_share_a_short_queue(shared: Shared) -> None:
    """Two that would rest otherwise take half each."""
    shared.hold(A, A, B)
    shared.save("a.yaml", A, 8)
    assert shared.claim(0) == [A] * 4
    assert shared.woken == [1]
    assert shared.claim(1) == [A] * 4
    assert shared.woken == [1]


def test_the_engine_that_holds_the_oldest_images_checkpoint_is_woken(shared: Shared) -> None:
    """The one that claims takes nothing."""
    shared.hold(A, A, B)
    shared.save("b.yaml", B, 1)
    assert shared.claim(0) == []
    assert shared.woken == [2]
    assert shared.claim(2) == [B]


def test_an_idle_engine_takes_what_a_busy_one_could(shared: Shared) -> None:
    """A second GPU does not stand still while two pictures are to be rendered."""
    shared.hold(A, "", B)
    shared.save("a.yaml", A, 2 * BATCH)
    assert shared.claim(0) == [A] * BATCH
    assert shared.woken == [1]
    assert shared.claim(1) == [A] * BATCH


def test_idle_engines_wait_for_saves_that_settle_soon(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that just finished a batch goes on: images enough may be queued."""
    for name in ("SOON_SECONDS", "LONGEST_SECONDS"):
        monkeypatch.setattr(plan, name, PATIENCE)
    shared.hold(A, A, A)
    shared.pool.workers[1].state.idle = False
    shared.save("a.yaml", A, 2)
    shared.pool.look_ahead(0.05)
    assert shared.claim(0) == []
    assert shared.claim(1) == [A]
    shared.pool.look_ahead(None)
    assert shared.claim(0) == [A]


def test_a_higher_priority_comes_before_the_checkpoint_that_is_held(shared: Shared) -> None:
    """On every engine."""
    shared.hold(A, A, A)
    shared.save("a.yaml", A, 1)
    shared.save("b.yaml", B, 1, priority=1)
    assert shared.claim(0) == [B]
    assert shared.woken == [1]
    assert shared.claim(1) == [A]


def test_what_takes_long_before_the_first_step_is_still_loading(shared: Shared) -> None:
    """A model is on its way to a node: no step is done."""
    shared.save("a.yaml", A, 1)
    rendering = _rendering(shared.pool.workers[0], time.monotonic(), "mine")
    rendering.engine = engine = HeldEngine()
    rendering.begin()
    engine.on_step(0, 24)
    assert (rendering.progress.step, rendering.progress.loading) == (0, "mine")
    assert not rendering.timeline.times
    engine.on_step(1, 24)
    assert (rendering.progress.step, rendering.progress.loading) == (1, "")


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
        stall_seconds=60,
        on_preview=lambda _: None,
        preview_seconds=0,
    )
