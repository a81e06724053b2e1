"""One engine: claim → render → publish, one batch after the other, in its own thread.

The next batch is denoised while one is written. The pool decides which worker gets which batch.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from traceback import format_exception

from picowatch.catalog import EMBEDDED_NAMES, Catalog
from picowatch.catalog.recognise import ARTICLES
from picowatch.daemon.batch_sizes import BatchSizes
from picowatch.daemon.clock import Clock, device_name
from picowatch.daemon.dropped import DroppedPictures
from picowatch.daemon.publish import Publisher
from picowatch.daemon.rendering import Rendering
from picowatch.daemon.run import Run
from picowatch.engine import protocol
from picowatch.errors import EngineDied, EngineStopped, LedgerCorrupt, PicowatchError, RenderFailed
from picowatch.files.essential import Ended, in_words
from picowatch.ledger import control, queries, queue
from picowatch.ledger.rows import PutBack, QueuedImage
from picowatch.recipe.request import DetailUse, ImageRequest

log = logging.getLogger("picowatch")

RESTART_SECONDS = 1.0  # after the engine could not be started
START_AGAIN_SECONDS = 60.0  # … twice in a row or more often
# A worker looks at its engine each half second. A longer gap is picowatch's own: it was stopped, as
# by `docker pause`, and the engine with it.
FROZEN_SECONDS = 1.0
LOADING_STALLS = 10  # times stall_seconds that a checkpoint may take to load


@dataclass(kw_only=True, eq=False)
class Shared:
    """What all workers use, with settings."""

    publisher: Publisher
    batch_sizes: BatchSizes
    clock: Clock
    dropped: DroppedPictures
    shares: Mapping[str, float]
    models: Path
    unload_after_minutes: float
    stall_seconds: float
    max_attempts: int


# Returns a worker's next batch, marked as running, and sets its checkpoint.
Claim = Callable[["Worker"], list[QueuedImage]]


class Worker:
    """An engine with its `number`, and the thread that feeds it."""

    def __init__(
        self, run: Run, shared: Shared, claim: Claim, engine: protocol.Engine, number: int
    ) -> None:
        self.run, self.ledger = run, run.ledger
        self.shared, self._claim, self.engine, self.number = shared, claim, engine, number
        self._essential = run.writing.essential
        self.idle = False  # it has no batch
        self.checkpoint = ""  # hash of what the engine used last, "" if it holds none
        self.checkpoint_name = ""
        self.node = self.device = self.precision = ""  # as its first batch shows
        self.memory: protocol.MemoryUse | None = None  # after its last batch
        self.rendered = 0  # images
        self.trouble = ""  # why it is waiting, or gave up
        self._failed_starts = 0  # in a row
        self.loaded: set[str] = set()  # hashes of the checkpoints used since the engine started
        self.rendering: Rendering | None = None
        self.wake = threading.Event()  # images may be queued, or a pause may have begun or ended
        self.thread = threading.Thread(target=self._run, name=f"worker-{number}", daemon=True)
        self._publishing: Future[None] | None = None
        self._idle_since = time.monotonic()
        self.leaving = False  # the engine is gone: the thread ends once its batch is recorded

    @property
    def gave_up(self) -> bool:
        """Whether the worker no longer tries to start the engine."""
        return bool(self.trouble) and not self.run.writing.keeps_trying

    @property
    def is_busy(self) -> bool:
        return bool(self.rendering or (self._publishing and not self._publishing.done()))

    # -- the thread

    def _run(self) -> None:
        with self.run.ended_by_errors():
            while True:
                self.wake.clear()  # set from now on, it ends the next wait
                if self.run.stop.is_set() or self.leaving or self.gave_up:
                    break
                if batch := self._essential(lambda: self._claim(self)):
                    if batch := self._with_pictures(batch):
                        self._render_and_publish(batch)
                    self._idle_since = time.monotonic()
                    continue
                if self._failed_starts:  # the cause may be gone once no image waits for the engine
                    left = self._essential(partial(queries.counts, self.ledger))
                    if not (left["queued"] or left["running"]):
                        self.trouble, self._failed_starts = "", 0
                self.wake.wait(self._rest())
            self._wait_for_publisher()

    def _with_pictures(self, batch: list[QueuedImage]) -> list[QueuedImage]:
        """Return the images of the batch whose dropped pictures are there; the others wait."""
        # Copying may take long. Meanwhile the batch is not done, and its time does not run.
        self.rendering = Rendering(batch, now=lambda: 0.0)
        brought = self._essential(lambda: self.shared.dropped.bring(batch))
        if not brought:
            self.rendering = None
        if brought is None:
            self._put_back(batch)
            self.wake.clear()
            self.run.stop.wait(RESTART_SECONDS)
        return brought or []

    def _rest(self) -> float | None:
        """Return how long to wait for images; close an engine that is paused or was idle long."""
        unload_at = self._idle_since + self.shared.unload_after_minutes * 60
        left = unload_at - time.monotonic()
        if left > 0 and not self._essential(partial(control.is_paused, self.ledger)):
            return left
        self.engine.close()  # which frees the machine, above all its memory
        self._holds_nothing()
        return None

    def _render_and_publish(self, batch: list[QueuedImage]) -> None:
        """Render a batch and hand its pictures to the publisher, or record why there are none."""
        loads = "" if self.checkpoint in self.loaded else self.checkpoint_name
        if loads and not self.trouble:  # which would be logged at each attempt, every minute
            recipe = self._recipe_of(batch)
            log.info("%s: loading %s", recipe, loads, extra={"event": "loading", "recipe": recipe})
        requests = [image.request for image in batch]
        now = self.rendering = Rendering(batch, loads, device_name(self.device, self.precision))
        preview, look = self.run.observers.preview, partial(self._look, now)
        try:
            pictures = self.engine.render(requests, now.report, preview, look)
            self._learn(now, pictures)
            self._publishing = self.shared.publisher.submit(batch, pictures)
        except (LedgerCorrupt, Ended):
            raise
        except Exception as error:  # no single image may take the worker down
            self.rendering = None
            if isinstance(error, RenderFailed | EngineStopped) and not now.loading:
                self.loaded.add(self.checkpoint)  # the engine goes on
            self._failed(error, batch)
        finally:
            self.rendering = None
        self._essential(lambda: self.shared.dropped.clear(batch))

    def _look(self, now: Rendering) -> bool:
        """Whether nobody requests the batch. Raises EngineStopped, or EngineDied if it hangs."""
        if self.run.stop.is_set():
            raise EngineStopped("picowatch ends.")
        before, now.looked_at = now.looked_at, time.monotonic()
        now.silent += min(now.looked_at - before, FROZEN_SECONDS)
        if self.trouble and now.has_drawn:
            self.trouble, self._failed_starts = "", 0
        self._check_silence(now)
        with suppress(sqlite3.OperationalError):  # a later look tells
            if not now.is_interrupted and not queue.running_recipes(self.ledger, now.batch):
                recipe = queue.recipe_of(self.ledger, now.batch[0])
                log.info("%s: stopped: no image of its batch is requested any more", recipe)
                now.is_interrupted = True
        return now.is_interrupted

    def _check_silence(self, now: Rendering) -> None:
        """Raise EngineDied if the engine has made no step for too long, and hangs."""
        patience = self.shared.stall_seconds * (LOADING_STALLS if now.loading else 1)
        if now.silent <= patience:
            return
        what = f"loading {now.loading}" if now.loading else "such an image"
        words = (
            f"The engine made no step for {patience:.0f} s and was ended as hung. "
            f"If {what} takes that long, set stall_seconds higher."
        )
        if not now.loading:
            raise EngineDied(words)
        if not self._failed_starts:  # the second failure in a row is reported as trouble
            self._tell_of_engine(now.batch, f"{words} It will be tried again.")
        raise protocol.EngineCannotStart(words)  # no image is at fault

    def _holds_nothing(self) -> None:
        """Note that the engine was closed, or died, and holds no checkpoint."""
        self.checkpoint = self.checkpoint_name = ""
        self.memory = None
        self.loaded.clear()

    def _learn(self, now: Rendering, pictures: list[protocol.RenderedImage]) -> None:
        """Record what a batch shows about its engine, once the batch before it is published."""
        self.trouble, self._failed_starts = "", 0
        self.rendered += len(pictures)
        self.node, self.memory = pictures[0].node, pictures[0].memory
        drawn = max(pictures, key=lambda picture: picture.batch_size)
        self.device, self.precision = drawn.device, drawn.precision
        self.loaded.add(self.checkpoint)
        requests = [image.request for image in now.batch]
        self.shared.batch_sizes.learn(requests, pictures)
        self._wait_for_publisher()  # which is a part of the batch's time
        seconds = time.monotonic() - now.began
        self.shared.clock.learn(requests, pictures, seconds, loaded=bool(now.loads))

    def _failed(self, error: Exception, batch: list[QueuedImage]) -> None:
        """Queue the images of a batch without pictures again, or fail the one that is at fault."""
        trace = (
            error.trace if isinstance(error, PicowatchError) else "".join(format_exception(error))
        )
        log.debug("%s", error, extra={"traceback": trace})
        if isinstance(error, EngineDied):
            self.run.observers.engine_died()
            self._holds_nothing()
        attempts = batch[0].attempts + 1
        match error:
            case EngineStopped():
                self._put_back(batch)
            case protocol.EngineCannotStart():
                self._put_back(batch)
                self._wait_to_start(str(error))
            case protocol.EngineLost():
                self._tell_of_engine(batch, f"{error} It is rendered elsewhere.")
                self._put_back(batch)
                self.run.stop.wait(RESTART_SECONDS)  # the executor reports that it is gone
            case EngineDied() if len(batch) == 1 and attempts >= self.shared.max_attempts:
                self._fail(batch[0], f"{error} That was attempt {attempts}.")
            case EngineDied():  # each is tried alone, as any may be at fault
                again = self._put_back(batch, PutBack.ENGINE_DIED)
                self._tell_of_engine(batch, f"{error}{' It will be tried again.' if again else ''}")
            case RenderFailed() if kind := self._kind_away(batch):
                self._put_back(batch)
                words = f"No {kind} in {self.shared.models} can be used any more: is it mounted?"
                self._wait_to_start(words)
            case RenderFailed() if self._failed_starts:  # the models came back after the failure
                self.trouble, self._failed_starts = "", 0
                self._put_back(batch)
            case _ if len(batch) > 1:  # which go through the queue, where cancellations apply
                self._put_back(batch, PutBack.ALONE)
            case RenderFailed():
                self._fail(batch[0], str(error))
            case _:
                self._fail(batch[0], in_words(error))

    def _recipe_of(self, batch: list[QueuedImage]) -> str:
        """Return the recipe of the first image, which may have been renamed since the claim."""
        return self._essential(partial(queue.recipe_of, self.ledger, batch[0]))

    def _wait_for_publisher(self) -> None:
        if self._publishing is not None:
            self._publishing.result()

    # -- failures

    def _put_back(self, batch: list[QueuedImage], why: PutBack = PutBack.NO_FAULT) -> bool:
        """Queue the images again; returns whether anybody still requests one of them."""
        put = partial(queue.put_back, self.ledger, why=why)
        requested = [self._essential(partial(put, image)) for image in batch]
        return any(requested)

    def _tell_of_engine(self, batch: list[QueuedImage], words: str) -> None:
        recipe = self._recipe_of(batch)
        log.warning("%s: %s", recipe, words, extra={"event": "engine", "recipe": recipe})

    def _fail(self, image: QueuedImage, reason: str) -> None:
        if self._essential(partial(queue.fail, self.ledger, image, reason)):
            self.run.result.count_failure()
            recipe = self._recipe_of([image])
            extra = {"event": "failed", "recipe": recipe}
            what = f"{image.request.seed_used} failed".lstrip()
            log.error("%s: %s: %s", recipe, what, reason, extra=extra)
            self.run.wake.set()

    def _kind_away(self, batch: list[QueuedImage]) -> str:
        """Return the kind of which the batch needs a model, but none can be used; "" for none."""
        kinds = set[str]()
        for request in (image.request for image in batch):
            kinds |= {file.kind for file in request.files if file.name not in EMBEDDED_NAMES}
            drawn: tuple[ImageRequest | DetailUse, ...] = request, *request.detail
            kinds |= {"lora" for each in drawn if each.loras}
            kinds |= {"embedding" for each in drawn if each.embeddings}
        if not (needed := ARTICLES.keys() & kinds):
            return ""
        found = Catalog(self.shared.models).scan().models
        needed.difference_update(model.kind for model in found if not model.missing)
        incomplete, has_lost = {model.kind for model in found}, self.run.hashes.catalog.has_lost
        # A kind's share may be unmounted, unless its last models were deleted.
        away = [kind for kind in needed if kind in incomplete or not has_lost(kind)]
        return ARTICLES[min(away)].partition(" ")[2] if away else ""

    def _wait_to_start(self, trouble: str) -> None:
        """Wait before the next attempt: no image is at fault, and the cause may go away."""
        self._failed_starts += 1
        if self._failed_starts > 1:  # the first failure is only retried
            is_news, self.trouble = not self.trouble, trouble
            if self.gave_up:
                return
            if is_news:
                log.error("%s Trying again every minute.", trouble, extra={"event": "engine"})
        self.run.stop.wait(START_AGAIN_SECONDS if self.trouble else RESTART_SECONDS)
