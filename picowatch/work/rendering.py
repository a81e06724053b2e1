"""One batch on its engine: its steps are monitored, and it can be interrupted."""

import logging
import time
from dataclasses import dataclass

from picowatch.engine.protocol import Engine, OnPreview, RenderedImage
from picowatch.errors import EngineDied
from picowatch.ledger.rows import QueuedImage

log = logging.getLogger("picowatch")

CHECK_SECONDS = 0.25  # between checks of a running batch


@dataclass(frozen=True, slots=True)
class Progress:
    """What is in progress: its first image, and how far the batch is."""

    image: QueuedImage
    batch: int
    step: int
    steps: int
    steps_per_second: float


@dataclass(kw_only=True, eq=False)
class Rendering:
    """A batch that an engine renders.

    An engine that finishes no step for `stall_seconds` has hung.
    """

    engine: Engine
    batch: list[QueuedImage]
    stall_seconds: float
    on_preview: OnPreview

    def __post_init__(self) -> None:
        first = self.batch[0]
        self.is_cancelled = False  # for good: it is not queued again
        self.progress = Progress(first, len(self.batch), 0, first.request.steps, 0.0)
        self._is_interrupted = False
        self._first_step_at = 0.0
        self._last_sign = 0.0

    def pictures(self, waiting: int) -> list[RenderedImage]:
        """Render it; raises what the engine's future raises, and EngineDied if it hangs.

        `waiting` images are queued after it.
        """
        self._last_sign = time.monotonic()
        requests = [image.request for image in self.batch]
        future = self.engine.render(requests, self._on_step, waiting, self.on_preview)
        while True:
            try:
                return future.result(timeout=CHECK_SECONDS)
            except TimeoutError:
                if self._is_interrupted:  # an engine that just starts may have missed it
                    self.engine.interrupt()
                self._end_if_hung()

    def interrupt(self, why: str, *, cancelled: bool = False) -> None:
        """Stop it; `cancelled`: for good."""
        self.is_cancelled |= cancelled
        if not self._is_interrupted:
            log.info("%s: stopped while rendering, %s", self.batch[0].recipe, why)
            self._is_interrupted = True
            self.engine.interrupt()

    def _end_if_hung(self) -> None:
        """Raises EngineDied if the engine has made no step for too long."""
        if time.monotonic() - self._last_sign > self.stall_seconds:
            self.engine.close()
            raise EngineDied(
                f"The engine made no step for {self.stall_seconds:.0f} s and was ended as hung. "
                "If such images take that long, set stall_seconds higher."
            )

    def _on_step(self, step: int, steps: int) -> None:
        now = time.monotonic()
        self._last_sign = now
        if step <= 1 or not self._first_step_at:
            self._first_step_at = now
        elapsed = now - self._first_step_at
        rate = (step - 1) / elapsed if elapsed > 0 else 0.0
        self.progress = Progress(self.batch[0], len(self.batch), step, steps, rate)
