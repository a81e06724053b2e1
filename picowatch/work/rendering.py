"""One batch on its engine: its steps are monitored, and it can be interrupted."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass

from picowatch.engine.protocol import Engine, OnPreview, RenderedImage
from picowatch.errors import EngineDied
from picowatch.ledger.rows import QueuedImage
from picowatch.work.durations import Timeline

log = logging.getLogger("picowatch")

CHECK_SECONDS = 0.25  # between checks of a running batch
STOPPED_SECONDS = 5.0  # … after which picowatch itself did not run, as after Ctrl-Z


@dataclass(frozen=True, slots=True)
class Progress:
    """What is in progress: its first image, and how far the batch is.

    `loading` is the checkpoint that the engine loads first, "" once a step is done.
    """

    image: QueuedImage
    batch: int
    step: int
    steps: int
    steps_per_second: float
    loading: str = ""


@dataclass(kw_only=True, eq=False)
class Rendering:
    """A batch that an engine renders, until nobody requests any of its images any more.

    `is_requested` tells whether anybody does. An engine that finishes no step for `stall_seconds`
    has hung. `loads` is the name of the checkpoint that the engine does not hold, "" if it does.
    `began` may be the end of the batch before.
    """

    engine: Engine
    batch: list[QueuedImage]
    loads: str
    began: float
    stall_seconds: float
    on_preview: OnPreview
    preview_seconds: float
    is_requested: Callable[[], bool]

    def __post_init__(self) -> None:
        first = self.batch[0]
        self.progress = Progress(first, len(self.batch), 0, first.request.steps, 0.0, self.loads)
        self.timeline = Timeline(first.request, len(self.batch), self.began, self.loads)
        self._is_interrupted = False
        self._last_sign = 0.0
        self._looked_at = 0.0
        self._future: Future[list[RenderedImage]] | None = None

    def begin(self) -> None:
        """Let the engine begin."""
        self._last_sign = self._looked_at = time.monotonic()
        requests = [image.request for image in self.batch]
        self._future = self.engine.render(
            requests, self._on_step, self.on_preview, self.preview_seconds
        )

    def is_done(self, seconds: float = CHECK_SECONDS) -> bool:
        """Wait so long at most; whether `pictures` has an answer."""
        assert self._future is not None
        with suppress(TimeoutError):
            self._future.exception(seconds)
        return self._future.done()

    def check(self) -> None:
        """Look after the engine from time to time; raises EngineDied if it hangs."""
        if not self._is_interrupted and not self.is_requested():
            recipe = self.batch[0].recipe
            log.info("%s: stopped: no image of its batch is requested any more", recipe)
            self._is_interrupted = True
        if self._is_interrupted:  # an engine that just starts may miss the first
            self.engine.interrupt()
        self._end_if_hung()

    def pictures(self) -> list[RenderedImage]:
        """Return the pictures of a batch that is done; raises what the engine's future raises."""
        assert self._future is not None
        return self._future.result()

    def _end_if_hung(self) -> None:
        """Raises EngineDied if the engine has made no step for too long.

        It may have made some that nobody took while picowatch was stopped, or was stopped with it.
        """
        now, before = time.monotonic(), self._looked_at
        self._looked_at = now
        if now - before > STOPPED_SECONDS:
            self._last_sign = now
        if now - self._last_sign > self.stall_seconds:
            self.engine.close()
            raise EngineDied(
                f"The engine made no step for {self.stall_seconds:.0f} s and was ended as hung. "
                "If such images take that long, set stall_seconds higher."
            )

    def _on_step(self, step: int, steps: int) -> None:
        now = time.monotonic()
        self._last_sign = now
        if not step:
            return
        if step == 1:  # also where it begins again, with less memory
            self.timeline.times.clear()
        self.timeline.steps = steps
        self.timeline.times.append(now)
        elapsed = now - self.timeline.times[0]
        rate = (step - 1) / elapsed if elapsed > 0 else 0.0
        self.progress = Progress(self.batch[0], len(self.batch), step, steps, rate)
