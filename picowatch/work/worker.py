"""One engine at work: render → publish, one batch after the other, in a thread of its own.

While a batch is compressed and written, the next one denoises already. What a worker is to make,
the pool says.
"""

import logging
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from picowatch.engine.protocol import Engine, EngineCannotStart, EngineLost, RenderedImage
from picowatch.errors import EngineDied, EngineStopped, LedgerCorrupt, RenderFailed
from picowatch.files.retry import Ended, Retry
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rows import QueuedImage
from picowatch.settings import Settings
from picowatch.work.batch_sizes import BatchSizes
from picowatch.work.publish import Publisher
from picowatch.work.result import RunResult

log = logging.getLogger("picowatch")

CHECK_SECONDS = 0.25  # how often a running batch is looked after
RESTART_SECONDS = 1.0  # after the engine could not be started
START_AGAIN_SECONDS = 60.0  # … twice and more
AVERAGE_WEIGHT = 0.3  # of the newest batch in the average time of an image

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Progress:
    """What is in work: its first image, and how far the batch is."""

    image: QueuedImage
    batch: int
    step: int
    steps: int
    steps_per_second: float


@dataclass(frozen=True, slots=True)
class Shop:
    """What all workers work with.

    `claim` gives a worker its next batch, now running, or nothing. `on_finished` is called with
    the recipe of an image that failed. `steady` gives seconds that never jump. `stopping` is set
    when all workers are to end.
    """

    settings: Settings
    ledger: Ledger
    publisher: Publisher
    batch_sizes: BatchSizes
    retry: Retry
    result: RunResult
    claim: Callable[["Worker"], list[QueuedImage]]
    on_finished: Callable[[str], None]
    steady: Callable[[], float]
    stopping: threading.Event


class Worker:
    """An engine and the thread that feeds it."""

    def __init__(self, shop: Shop, engine: Engine, number: int) -> None:
        """`number` tells it from others."""
        self.number = number
        self.engine = engine
        self._shop = shop
        self._more = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"worker-{number}", daemon=True)
        self._publishing: Future[None] | None = None
        self._batch: list[QueuedImage] = []
        self._unwanted: list[QueuedImage] = []  # a batch that is to end, if it is still in work
        self._cancelled: list[QueuedImage] = []  # … and that is not to come back
        self._first_step_at = 0.0
        self._last_sign = 0.0
        self._idle_since = 0.0
        self._failed_starts = 0  # of the engine, in a row
        self._leaving = False  # the engine is gone
        self._lost = False  # … or most likely so
        self.idle = False  # it asked for a batch, and there was none for it
        self.warm = False  # the engine is started
        self.checkpoint = ""  # the hash of what the engine used last
        self.checkpoint_name = ""  # … and its name
        self.used = 0  # the number of its last batch among those of all workers
        self.device = ""  # with precision; known after the first batch
        self.progress: Progress | None = None
        self.paused = False
        self.made = 0  # images
        self.seconds_per_image: float | None = None
        self.trouble = ""  # why it waits, or tries no more
        self.gave_up = False

    def start(self) -> None:
        """Begin to work."""
        self._idle_since = self._shop.steady()
        self._thread.start()

    @property
    def is_started(self) -> bool:
        return self._thread.ident is not None

    @property
    def is_over(self) -> bool:
        """Whether it has worked, and will not any more."""
        return self.is_started and not self._thread.is_alive()

    @property
    def can_work(self) -> bool:
        """Whether batches may be left to it."""
        gone = self._leaving or self._lost or self.is_over
        return not (gone or self.trouble)

    def look(self) -> None:
        """There may be work, or a pause may have begun or ended."""
        self._more.set()

    def leave(self) -> None:
        """The engine is gone: end once its batch is answered for."""
        self._leaving = True
        self._more.set()

    def join(self) -> None:
        """Wait until the thread has ended."""
        if self.is_started:
            self._thread.join()

    def prepare(self) -> None:
        """Start the engine for work that is about to come, unless it could not start before."""
        if self.can_work and not self._failed_starts:
            self._idle_since = self._shop.steady()
            self.warm = True
            self.engine.prepare()
            self._more.set()

    @property
    def in_work(self) -> list[QueuedImage]:
        """The batch in work."""
        return self._batch

    def interrupt(self, batch: list[QueuedImage], why: str, *, cancelled: bool = False) -> None:
        """End this batch if it is still in work; `cancelled`: for good."""
        if cancelled:
            self._cancelled = batch
        if batch and batch is not self._unwanted:
            log.info("%s: stopped in work, %s", batch[0].recipe, why)
            self._unwanted = batch
            self.engine.interrupt()

    # -- the thread

    def _run(self) -> None:
        try:
            self._work()
            self._wait_for_publisher()
        except Ended:
            pass  # what is in work goes on at the next start
        except LedgerCorrupt as error:
            self._shop.result.cannot_go_on(str(error), ledger_corrupt=True)
        except sqlite3.Error as error:
            self._shop.result.cannot_go_on(f"the ledger cannot be used: {error}")
        except Exception as error:  # the daemon must hear of it, whatever it is
            log.debug("unexpected", exc_info=True)
            words = f"something went wrong that should not: {type(error).__name__}: {error}"
            self._shop.result.cannot_go_on(words)

    def _work(self) -> None:
        while not (self._shop.stopping.is_set() or self._leaving or self.gave_up):
            self._more.clear()
            if batch := self._patiently(lambda: self._shop.claim(self)):
                self._make(batch)
                self._idle_since = self._shop.steady()
            else:
                self._more.wait(self._rest())

    def _rest(self) -> float | None:
        """How long to wait for work; ends an engine that idled long enough, or is not wanted.

        Who pauses needs the machine for something else, its memory above all.
        """
        unload_at = self._idle_since + self._shop.settings.unload_after_minutes * 60
        left = unload_at - self._shop.steady()
        if left > 0 and not self.paused:
            return left
        self.engine.close()
        self._forget_engine()
        return None

    def _patiently(self, action: Callable[[], T]) -> T:
        """What changes the ledger is waited for, so that no outcome of a batch gets lost."""
        return self._shop.retry.until_done("worker", action)

    def _make(self, batch: list[QueuedImage]) -> None:
        """Render a batch and hand it to the publisher, or answer for its failure."""
        started = self._shop.steady()
        self.warm, self.checkpoint = True, batch[0].request.checkpoint_hash
        self.checkpoint_name = batch[0].request.checkpoint
        try:
            pictures = self._render(batch)
        except EngineStopped:
            self._put_back(batch)
        except EngineCannotStart as error:
            self._put_back(batch)
            self._wait_for_engine(error)
        except EngineLost as error:
            log.warning("%s: %s It is made elsewhere.", batch[0].recipe, error)
            self._put_back(batch)
            self._engine_ended()
            self._wait_to_leave()
        except EngineDied as error:
            self._after_death(batch, error)
        except RenderFailed as error:
            self._after_failure(batch, error)
        except (LedgerCorrupt, Ended):
            raise
        except Exception as error:  # no single image may take the worker down
            log.debug("unexpected", exc_info=True)
            words = f"Something went wrong that should not: {type(error).__name__}: {error}."
            self._after_failure(batch, RenderFailed(words))
        else:
            self._measure(batch, pictures, self._shop.steady() - started)
            self.trouble, self._failed_starts = "", 0
            self._publish(batch, pictures)
        finally:
            self._batch, self.progress = [], None

    def _render(self, batch: list[QueuedImage]) -> list[RenderedImage]:
        self._batch, self._first_step_at = batch, 0.0
        self.progress = Progress(batch[0], len(batch), 0, batch[0].request.steps, 0.0)
        if self._shop.stopping.is_set():
            raise EngineStopped("picowatch ends")
        waiting = self._patiently(self._shop.ledger.counts).queued
        self._last_sign = self._shop.steady()
        future = self.engine.render([image.request for image in batch], self._on_step, waiting)
        while True:
            try:
                return future.result(timeout=CHECK_SECONDS)
            except TimeoutError:
                if batch is self._unwanted:  # an engine that just starts may not have heard it
                    self.engine.interrupt()
                self._end_if_hung()

    def _end_if_hung(self) -> None:
        """Raises EngineDied if the engine has made no step for too long."""
        longest = self._shop.settings.stall_seconds
        if self._shop.steady() - self._last_sign > longest:
            self.engine.close()
            raise EngineDied(
                f"The engine made no step for {longest:.0f} s and was ended as hung. If such "
                "images take that long, set stall_seconds higher."
            )

    def _on_step(self, step: int, steps: int) -> None:
        now = self._shop.steady()
        self._last_sign = now
        if step <= 1 or not self._first_step_at:
            self._first_step_at = now
        elapsed = now - self._first_step_at
        rate = (step - 1) / elapsed if elapsed > 0 else 0.0
        if self._batch:
            self.progress = Progress(self._batch[0], len(self._batch), step, steps, rate)

    def _publish(self, batch: list[QueuedImage], pictures: list[RenderedImage]) -> None:
        """Hand it to the publisher, once the batch before is published."""
        self._wait_for_publisher()
        self._publishing = self._shop.publisher.submit(batch, pictures)

    def _wait_for_publisher(self) -> None:
        if self._publishing is not None:
            self._publishing.result()

    def _measure(
        self, batch: list[QueuedImage], pictures: list[RenderedImage], seconds: float
    ) -> None:
        """Take in how a batch went."""
        self.made += len(batch)
        self.device = f"{pictures[0].device} {pictures[0].precision}"
        self._shop.batch_sizes.learn([image.request for image in batch], pictures)
        each = seconds / len(batch)
        before = self.seconds_per_image
        weight = AVERAGE_WEIGHT if before is not None else 1.0
        self.seconds_per_image = weight * each + (1 - weight) * (before or 0.0)

    # -- when it does not work out

    def _engine_ended(self) -> None:
        self._shop.result.count_engine_restart()
        self._forget_engine()

    def _wait_to_leave(self) -> None:
        """Others take what is left: the executor soon says that this engine is gone."""
        self._lost = True
        self._more.clear()
        if not self._leaving:
            self._more.wait(RESTART_SECONDS)
        self._lost = False

    def _forget_engine(self) -> None:
        self.warm, self.checkpoint, self.checkpoint_name = False, "", ""

    def _put_back(self, batch: list[QueuedImage], *, alone: bool = False) -> None:
        """Into the queue, unless it was stopped for good; `alone`: each in a batch of its own."""
        ledger = self._shop.ledger
        move = ledger.retry_alone if alone else ledger.put_back
        if batch is self._cancelled:
            move = ledger.cancel_running
        for image in batch:
            self._patiently(partial(move, image.id))

    def _after_death(self, batch: list[QueuedImage], error: EngineDied) -> None:
        """Each image is tried again alone, until the engine died on it `max_attempts` times.

        Which one of a batch it was is not known, so that none of a batch fails.
        """
        self._engine_ended()
        for image in batch:
            if len(batch) == 1 and image.attempts + 1 >= self._shop.settings.max_attempts:
                self._fail(image, f"{error} That was attempt {image.attempts + 1}.")
            else:
                log.warning("%s: %s It is tried again.", image.recipe, error)
                self._patiently(partial(self._shop.ledger.retry_after_engine_death, image.id))

    def _wait_for_engine(self, error: EngineCannotStart) -> None:
        """No image is at fault, so none fails: a new driver or more memory may mend it.

        Once is no news: whoever killed it, it is started again. After that it is said, once.
        """
        log.debug("%s", error.trace)
        self._engine_ended()
        self._failed_starts += 1
        if self._failed_starts > 1:
            if not self._shop.retry.keeps_trying:
                self.trouble, self.gave_up = str(error), True
                return
            if not self.trouble:
                log.error("%s picowatch waits, and tries again each minute.", error)
            self.trouble = str(error)
        self._shop.stopping.wait(START_AGAIN_SECONDS if self.trouble else RESTART_SECONDS)

    def _after_failure(self, batch: list[QueuedImage], error: RenderFailed) -> None:
        """An image that fails alone has failed; of a batch, each is tried alone.

        They go through the queue, so that a pause, a cancellation and a more urgent save hold
        for each of them.
        """
        log.debug("%s", error.trace)
        if len(batch) == 1:
            self._fail(batch[0], str(error))
        else:
            self._put_back(batch, alone=True)

    def _fail(self, image: QueuedImage, reason: str) -> None:
        self._patiently(partial(self._shop.ledger.fail, image.id, reason))
        self._shop.result.count_failure()
        recipe = self._patiently(partial(self._shop.ledger.recipe_of, image))
        log.error("%s: seed %s failed: %s", recipe, image.request.seed, reason)
        self._shop.on_finished(recipe)
