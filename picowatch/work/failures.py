"""What happens to a batch that was not rendered: queued again, cancelled, or failed."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from picowatch.errors import EngineDied, RenderFailed
from picowatch.files.retry import Retry
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rows import QueuedImage
from picowatch.settings import Settings
from picowatch.work.rendering import Rendering
from picowatch.work.result import RunResult

log = logging.getLogger("picowatch")

T = TypeVar("T")


@dataclass(kw_only=True, eq=False)
class Failures:
    """Records it in the ledger, and waits for that, so that no outcome of a batch gets lost.

    An image on which the engine died `max_attempts` times fails. What was cancelled meanwhile is
    not changed.
    """

    settings: Settings
    ledger: Ledger
    retry: Retry
    result: RunResult
    wake_daemon: threading.Event

    def put_back(self, rendering: Rendering) -> None:
        """Into the queue through no fault of its own."""
        self._move(rendering, self.ledger.put_back)

    def engine_died(self, rendering: Rendering, error: EngineDied) -> None:
        """Each image is tried again alone, until the engine died on it `max_attempts` times.

        Which one of a batch it was is not known, so that none of a batch fails.
        """
        batch = rendering.batch
        for image in batch:
            if len(batch) == 1 and image.attempts + 1 >= self.settings.max_attempts:
                self._fail(image, f"{error} That was attempt {image.attempts + 1}.")
            else:
                again = self._patiently(partial(self.ledger.retry_after_engine_death, image.id))
                rest = " It will be tried again." if again else ""
                log.warning("%s: %s%s", image.recipe, error, rest)

    def render_failed(self, rendering: Rendering, error: RenderFailed) -> None:
        """An image that fails alone has failed; of a batch, each is tried alone.

        They go through the queue, so that a pause, a cancellation and a more urgent save hold
        for each of them.
        """
        log.debug("%s", error, extra={"traceback": error.trace})
        if len(rendering.batch) == 1:
            self._fail(rendering.batch[0], str(error))
        else:
            self._move(rendering, self.ledger.retry_alone)

    def picture_missing(self, image: QueuedImage) -> None:
        """The dropped picture that it starts from is not there as requested."""
        log.info("%s: its picture changed or is gone; its queue waits for it", image.recipe)
        self._patiently(partial(self.ledger.picture_missing, image))

    def _move(self, rendering: Rendering, move: Callable[[int], bool]) -> None:
        for image in rendering.batch:
            self._patiently(partial(move, image.id))

    def _fail(self, image: QueuedImage, reason: str) -> None:
        if self._patiently(partial(self.ledger.fail, image.id, reason)):
            self.result.count_failure()
            recipe = self._patiently(partial(self.ledger.recipe_of, image))
            log.error("%s: seed %s failed: %s", recipe, image.request.seed, reason)
            self.wake_daemon.set()

    def _patiently(self, action: Callable[[], T]) -> T:
        return self.retry.until_done(action)
