"""Claim → render → publish → finish: one batch after the other, in a thread of its own.

While a batch is compressed and written, the next one denoises already.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from picowatch.engine.batches import batch_size_for
from picowatch.engine.protocol import Engine, EngineCannotStart, RenderedImage
from picowatch.errors import EngineDied, EngineStopped, LedgerCorrupt, RenderFailed
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rows import FileNames, QueuedImage
from picowatch.patience import Ended, Patience
from picowatch.publishing import Publisher
from picowatch.settings import Settings

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


class Worker:
    """Makes what waits in the ledger until it is stopped."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        names: FileNames,
        engine: Engine,
        publisher: Publisher,
        *,
        on_finished: Callable[[str], None],
        patience: Patience,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_finished` is called with the recipe of an image that failed.

        `steady` gives seconds that never jump.
        """
        self._settings = settings
        self._ledger = ledger
        self._names = names
        self._engine = engine
        self._on_finished = on_finished
        self._patience = patience
        self._steady = steady
        self._stopping = threading.Event()
        self._more = threading.Event()
        self._publisher = publisher
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self._batch: list[QueuedImage] = []
        self._first_step_at = 0.0
        self._last_sign = 0.0
        self._progress: Progress | None = None
        self.seconds_per_image: float | None = None
        self.failed = 0
        self._failed_starts = 0  # of the engine, in a row
        self.trouble = ""  # why it waits
        self.broken = ""  # why it cannot go on at all
        self.ledger_corrupt = False

    def start(self) -> None:
        self._thread.start()

    def look(self) -> None:
        """There may be work."""
        self._more.set()

    def stop(self) -> None:
        """End within 2 seconds; the batch in work goes back to the queue."""
        self._stopping.set()
        self._more.set()
        self._engine.close()
        if self.is_started():
            self._thread.join()
        self._publisher.close()

    def is_started(self) -> bool:
        return self._thread.ident is not None

    def progress(self) -> Progress | None:
        """What is in work right now."""
        return self._progress

    def interrupt_unasked(self) -> None:
        """End the batch in work if no recipe asks for any of its images any more."""
        batch = self._batch
        if batch and not any(self._ledger.is_asked(image.id) for image in batch):
            log.info("%s: stopped in work, nothing asks for it any more", batch[0].recipe)
            self._engine.interrupt()

    # -- the thread

    def _run(self) -> None:
        try:
            self._work()
            self._publisher.wait()
        except Ended:
            pass  # what is in work goes on at the next start
        except LedgerCorrupt as error:
            self.ledger_corrupt, self.broken = True, str(error)
        except sqlite3.Error as error:
            self.broken = f"the ledger cannot be used: {error}"
        except Exception as error:  # the daemon must hear of it, whatever it is
            log.debug("unexpected", exc_info=True)
            self.broken = f"something went wrong that should not: {type(error).__name__}: {error}"

    def _work(self) -> None:
        idle_since = self._steady()
        while not self._stopping.is_set():
            self._more.clear()
            if batch := self._patiently(self._claim):
                self._make(batch)
                idle_since = self._steady()
            else:
                self._more.wait(self._rest(idle_since))

    def _rest(self, idle_since: float) -> float | None:
        """How long to wait for work; ends an engine that idled long enough."""
        left = idle_since + self._settings.unload_after_minutes * 60 - self._steady()
        if left > 0:
            return left
        self._engine.close()
        return None

    def _patiently(self, action: Callable[[], T]) -> T:
        """What changes the ledger is waited for, so that no outcome of a batch gets lost."""
        return self._patience.until_done("worker", action)

    def _claim(self) -> list[QueuedImage]:
        return self._ledger.claim(
            self._names, lambda request: batch_size_for(request, self._settings.batch_size)
        )

    def _make(self, batch: list[QueuedImage]) -> None:
        """Render a batch and hand it to the publisher, or answer for its failure."""
        started = self._steady()
        try:
            pictures = self._render(batch)
        except EngineStopped:
            self._put_back(batch)
        except EngineCannotStart as error:
            self._put_back(batch)
            self._wait_for_engine(error)
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
            self._measure(batch, self._steady() - started)
            self.trouble, self._failed_starts = "", 0
            self._publisher.submit(batch, pictures)
        finally:
            self._batch, self._progress = [], None

    def _render(self, batch: list[QueuedImage]) -> list[RenderedImage]:
        self._batch, self._first_step_at = batch, 0.0
        self._last_sign = self._steady()
        self._progress = Progress(batch[0], len(batch), 0, batch[0].request.steps, 0.0)
        if self._stopping.is_set():
            raise EngineStopped("picowatch ends")
        future = self._engine.render([image.request for image in batch], self._on_step)
        while True:
            try:
                return future.result(timeout=CHECK_SECONDS)
            except TimeoutError:
                if self._steady() - self._last_sign > self._settings.stall_seconds:
                    self._engine.close()
                    raise EngineDied(
                        f"The engine made no step for {self._settings.stall_seconds:.0f} s "
                        "and was ended as hung. If such images take that long, set "
                        "stall_seconds higher."
                    ) from None

    def _on_step(self, step: int, steps: int) -> None:
        now = self._steady()
        self._last_sign = now
        if step <= 1 or not self._first_step_at:
            self._first_step_at = now
        elapsed = now - self._first_step_at
        rate = (step - 1) / elapsed if elapsed > 0 else 0.0
        if self._batch:
            self._progress = Progress(self._batch[0], len(self._batch), step, steps, rate)

    def _measure(self, batch: list[QueuedImage], seconds: float) -> None:
        each = seconds / len(batch)
        before = self.seconds_per_image
        weight = AVERAGE_WEIGHT if before is not None else 1.0
        self.seconds_per_image = weight * each + (1 - weight) * (before or 0.0)

    # -- when it does not work out

    def _put_back(self, batch: list[QueuedImage]) -> None:
        for image in batch:
            self._patiently(partial(self._ledger.put_back, image.id))

    def _after_death(self, batch: list[QueuedImage], error: EngineDied) -> None:
        """Each image is tried again alone, until the engine died on it `max_attempts` times.

        Which one of a batch it was is not known, so that none of a batch fails.
        """
        for image in batch:
            if len(batch) == 1 and image.attempts + 1 >= self._settings.max_attempts:
                self._fail(image, f"{error} That was attempt {image.attempts + 1}.")
            else:
                log.warning("%s: %s It is tried again.", image.recipe, error)
                self._patiently(partial(self._ledger.retry_after_engine_death, image.id))

    def _wait_for_engine(self, error: EngineCannotStart) -> None:
        """No image is at fault, so none fails: a new driver or more memory may mend it.

        Once is no news: whoever killed it, it is started again. After that it is said, once.
        """
        log.debug("%s", error.trace)
        self._failed_starts += 1
        if self._failed_starts > 1:
            if not self._patience.patient:
                self.broken = str(error)
                self._stopping.set()
                return
            if not self.trouble:
                log.error("%s picowatch waits, and tries again each minute.", error)
            self.trouble = str(error)
        self._stopping.wait(START_AGAIN_SECONDS if self.trouble else RESTART_SECONDS)

    def _after_failure(self, batch: list[QueuedImage], error: RenderFailed) -> None:
        """An image that fails alone has failed; of a batch, each is tried alone."""
        log.debug("%s", error.trace)
        if len(batch) == 1:
            self._fail(batch[0], str(error))
            return
        for image in batch:
            self._make([image])

    def _fail(self, image: QueuedImage, reason: str) -> None:
        self._patiently(partial(self._ledger.fail, image.id, reason))
        self.failed += 1
        log.error("%s: seed %s failed: %s", image.recipe, image.request.seed, reason)
        self._on_finished(image.recipe)
