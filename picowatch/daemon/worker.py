"""One engine: claim → render → publish, one batch after the other, in its own thread.

While a batch is compressed and written, the next one is denoised. The pool decides which worker
gets which batch.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from traceback import format_exception

from picowatch.catalog import EMBEDDED_NAMES, Catalog
from picowatch.daemon.batch_sizes import BatchSizes
from picowatch.daemon.dropped import DroppedPictures, InboxAway
from picowatch.daemon.durations import Durations, Rendering
from picowatch.daemon.publish import Publisher
from picowatch.daemon.run import Run
from picowatch.engine.protocol import (
    Engine,
    EngineCannotStart,
    EngineLost,
    MemoryUse,
    RenderedImage,
)
from picowatch.errors import (
    EngineDied,
    EngineStopped,
    LedgerCorrupt,
    PicowatchError,
    RenderFailed,
)
from picowatch.files.attempt import Ended
from picowatch.ledger import control, queue
from picowatch.ledger.rows import PutBack, QueuedImage

log = logging.getLogger("picowatch")

RESTART_SECONDS = 1.0  # after the engine could not be started
START_AGAIN_SECONDS = 60.0  # … twice in a row or more often
# A worker looks at its engine each half second. A longer gap is picowatch's own: it was stopped, as
# by `docker pause`, and the engine with it.
FROZEN_SECONDS = 1.0


@dataclass(kw_only=True, eq=False)
class Shared:
    """What all workers use. They end once `stopping` is set.

    `claim` returns a worker's next batch, marked as running, and sets its checkpoint.
    """

    claim: Callable[["Worker"], list[QueuedImage]]
    publisher: Publisher
    batch_sizes: BatchSizes
    durations: Durations
    dropped: DroppedPictures
    stopping: threading.Event


class Worker:
    """An engine with its `number`, and the thread that feeds it."""

    def __init__(self, run: Run, shared: Shared, engine: Engine, number: int) -> None:
        self.run, self.ledger = run, run.ledger
        self.shared, self.engine, self.number = shared, engine, number
        self._until_done = run.attempts.until_done
        self.idle = False  # it has no batch
        self.checkpoint = ""  # hash of the one that the engine used last, "" if it holds none
        self.checkpoint_name = ""
        self.node = self.device = self.precision = ""  # as its first batch shows
        self.memory: MemoryUse | None = None  # after its last batch
        self.rendered = 0  # images
        self.trouble = ""  # why it is waiting, or gave up
        self._failed_starts = 0  # in a row
        self._loaded: set[str] = set()  # hashes of the checkpoints used since the engine started
        self.rendering: Rendering | None = None
        self._wake = threading.Event()
        self.thread = threading.Thread(target=self._run, name=f"worker-{number}", daemon=True)
        self._publishing: Future[None] | None = None
        self._idle_since = time.monotonic()
        self._leaving = False  # the engine is gone

    @property
    def gave_up(self) -> bool:
        """Whether the worker no longer tries to start the engine."""
        return bool(self.trouble) and not self.run.attempts.keeps_trying

    @property
    def is_publishing(self) -> bool:
        """Whether its last batch is not published yet."""
        return bool(self._publishing and not self._publishing.done())

    def wake(self) -> None:
        """Wake the thread: images may be queued, or a pause may have begun or ended."""
        self._wake.set()

    def leave(self) -> None:
        """End the thread once its batch is recorded, because the engine is gone."""
        self._leaving = True
        self._wake.set()

    # -- the thread

    def _run(self) -> None:
        with self.run.ended_by_errors():
            self._work()
            self._wait_for_publisher()

    def _work(self) -> None:
        while self._goes_on():
            if batch := self._until_done(lambda: self.shared.claim(self)):
                if batch := self._with_pictures(batch):
                    self._render_and_publish(batch)
                self._idle_since = time.monotonic()
            else:
                self._wake.wait(self._rest())

    def _goes_on(self) -> bool:
        """Whether to look for images once more; a `wake` from now on ends the next wait."""
        self._wake.clear()
        return not (self.shared.stopping.is_set() or self._leaving or self.gave_up)

    def _with_pictures(self, batch: list[QueuedImage]) -> list[QueuedImage]:
        """Return the images of the batch whose dropped pictures are there; the others wait."""
        try:
            return self._until_done(lambda: self.shared.dropped.bring(batch))
        except InboxAway:
            self._put_back(batch)
            self._wake.clear()
            self.shared.stopping.wait(RESTART_SECONDS)
            return []

    def _rest(self) -> float | None:
        """Return how long to wait for images; close an engine that is paused or was idle for long.

        A pause frees the machine, above all its memory, for something else.
        """
        unload_at = self._idle_since + self.run.settings.unload_after_minutes * 60
        left = unload_at - time.monotonic()
        if left > 0 and not self._until_done(partial(control.is_paused, self.ledger)):
            return left
        self.engine.close()
        self._holds_nothing()
        return None

    def _render_and_publish(self, batch: list[QueuedImage]) -> None:
        """Render a batch and hand its pictures to the publisher, or record why there are none."""
        loads = "" if self.checkpoint in self._loaded else self.checkpoint_name
        if loads and not self.trouble:  # which would be logged at each attempt, every minute
            log.info("%s: loading %s", batch[0].recipe, loads)
        requests = [image.request for image in batch]
        now = self.rendering = Rendering(batch, loads, requests[0].steps)
        on_step, look = partial(self._on_step, now), partial(self._look, now)
        try:
            pictures = self.engine.render(requests, on_step, self.run.observers.preview, look)
            self._learn(now, pictures)
            self._publish(batch, pictures)
        except (LedgerCorrupt, Ended):
            raise
        except Exception as error:  # no single image may take the worker down
            self.rendering = None
            self._failed(error, batch)
        finally:
            self.rendering = None
        self._until_done(lambda: self.shared.dropped.clear(batch))

    def _look(self, now: Rendering) -> bool:
        """Return whether nobody requests the batch in progress any more.

        Raises EngineStopped if picowatch ends, and EngineDied if the engine has made no step for
        too long.
        """
        if self.shared.stopping.is_set():
            raise EngineStopped("picowatch ends.")
        before, now.looked_at = now.looked_at, time.monotonic()
        now.silent += min(now.looked_at - before, FROZEN_SECONDS)
        if now.silent > (limit := self.run.settings.stall_seconds):
            raise EngineDied(
                f"The engine made no step for {limit:.0f} s and was ended as hung. "
                "If such images take that long, set stall_seconds higher."
            )
        if not now.is_interrupted and not self._is_requested(now.batch):
            recipe = now.batch[0].recipe
            log.info("%s: stopped: no image of its batch is requested any more", recipe)
            now.is_interrupted = True
        return now.is_interrupted

    def _on_step(self, now: Rendering, step: int, steps: int) -> None:
        now.silent = 0.0
        if step:
            # The engine may begin again, using less memory.
            before = now.step_times if step > 1 else []
            now.steps, now.step_times = steps, [*before, time.monotonic()]

    def _is_requested(self, batch: list[QueuedImage]) -> bool:
        """Whether anybody still requests an image of the batch, as far as the ledger can tell."""
        try:
            return queue.are_running(self.ledger, batch)
        except sqlite3.OperationalError:
            return True

    def _holds_nothing(self) -> None:
        """Note that the engine was closed, or died, and holds no checkpoint."""
        self.checkpoint = self.checkpoint_name = ""
        self.memory = None
        self._loaded.clear()

    def _learn(self, now: Rendering, pictures: list[RenderedImage]) -> None:
        """Record what a batch shows about its engine."""
        timings = pictures[0].timings  # as those of the others
        self.shared.durations.learn(now.kind, sum(timings.values()) - timings.get("load", 0.0))
        self.trouble, self._failed_starts = "", 0
        self.rendered += len(pictures)
        self.node, self.memory = pictures[0].node, pictures[0].memory
        drawn = max(pictures, key=lambda one: one.batch_size)
        self.device, self.precision = drawn.device, drawn.precision
        self._loaded.add(self.checkpoint)
        self.shared.batch_sizes.learn([image.request for image in now.batch], pictures)

    def _failed(self, error: Exception, batch: list[QueuedImage]) -> None:
        """Queue the images of a batch without pictures again, or fail the one that is at fault."""
        trace = (
            error.trace if isinstance(error, PicowatchError) else "".join(format_exception(error))
        )
        log.debug("%s", error, extra={"traceback": trace})
        match error:
            case EngineStopped():
                self._put_back(batch)
            case EngineCannotStart():
                self._put_back(batch)
                self._note_engine_death()
                self._wait_to_start(str(error))
            case EngineLost():
                log.warning("%s: %s It is rendered elsewhere.", batch[0].recipe, error)
                self._put_back(batch)
                self._note_engine_death()
                self.shared.stopping.wait(RESTART_SECONDS)  # the executor reports that it is gone
            case EngineDied():
                self._note_engine_death()
                self._try_again_after(error, batch)
            case RenderFailed() if self._are_models_away(batch):
                self._put_back(batch)
                models = self.run.settings.models
                self._wait_to_start(f"There is no model in {models} any more: is it mounted?")
            case RenderFailed() if self._failed_starts:  # the models came back after the failure
                self._failed_starts, self.trouble = 0, ""
                self._put_back(batch)
            case RenderFailed():
                self._render_failed(str(error), batch)
            case _:
                words = f"Unexpected error: {type(error).__name__}: {error}."
                self._render_failed(words, batch)

    def _publish(self, batch: list[QueuedImage], pictures: list[RenderedImage]) -> None:
        """Hand a batch to the publisher once the previous one is published."""
        self._wait_for_publisher()
        self._publishing = self.shared.publisher.submit(batch, pictures)

    def _wait_for_publisher(self) -> None:
        if self._publishing is not None:
            self._publishing.result()

    # -- failures

    def _put_back(self, batch: list[QueuedImage], why: PutBack = PutBack.NO_FAULT) -> bool:
        """Queue the images again; returns whether anybody still requests one of them."""
        requested = [
            self._until_done(partial(queue.put_back, self.ledger, image, why)) for image in batch
        ]
        return any(requested)

    def _try_again_after(self, error: EngineDied, batch: list[QueuedImage]) -> None:
        """Try each image again alone, until the engine died on it `max_attempts` times.

        Which image of a larger batch was at fault is not known, so none of them fails.
        """
        first = batch[0]
        if len(batch) == 1 and first.attempts + 1 >= self.run.settings.max_attempts:
            self._fail(first, f"{error} That was attempt {first.attempts + 1}.")
            return
        again = self._put_back(batch, PutBack.ENGINE_DIED)
        rest = " It will be tried again." if again else ""
        log.warning("%s: %s%s", first.recipe, error, rest)

    def _render_failed(self, reason: str, batch: list[QueuedImage]) -> None:
        """Fail an image that was rendered alone; queue those of a larger batch to be tried alone.

        They go through the queue: pauses, cancellations and more urgent saves apply to each.
        """
        if len(batch) == 1:
            self._fail(batch[0], reason)
        else:
            self._put_back(batch, PutBack.ALONE)

    def _fail(self, image: QueuedImage, reason: str) -> None:
        if self._until_done(partial(queue.fail, self.ledger, image, reason)):
            self.run.result.count_failure()
            recipe = self._until_done(partial(queue.recipe_of, self.ledger, image))
            log.error("%s: seed %s failed: %s", recipe, image.request.seed, reason)
            self.run.wake.set()

    def _are_models_away(self, batch: list[QueuedImage]) -> bool:
        """Whether the models folder, which the batch needs, has no models any more.

        Its share may be unmounted.
        """
        requests = [image.request for image in batch]
        names = {
            name for one in requests for name in (one.checkpoint, *one.upscalers, *one.finders)
        }
        names |= {one.cutout.model for one in requests if one.cutout}
        if names <= EMBEDDED_NAMES | {""}:
            return False
        return not Catalog(self.run.settings.models).scan().models

    def _note_engine_death(self) -> None:
        self.run.observers.engine_died()
        self._holds_nothing()

    def _wait_to_start(self, trouble: str) -> None:
        """Wait before the next attempt: no image is at fault, and the cause may go away.

        The first failure is only retried. The second in a row is logged, later ones are not.
        """
        self._failed_starts += 1
        if self._failed_starts > 1:
            is_news, self.trouble = not self.trouble, trouble
            if self.gave_up:
                return
            if is_news:
                log.error("%s Trying again every minute.", trouble)
        self.shared.stopping.wait(START_AGAIN_SECONDS if self.trouble else RESTART_SECONDS)
