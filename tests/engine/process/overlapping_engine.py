"""An engine process whose pictures come while the next batch makes its steps. Without torch.

It notes in the file `began` of the models folder which image begins, and "beside" if the pictures
of the one before it were still on their way. An image of which the prompt is DIES ends the process
in the middle, the first time.
"""

import os
import threading
import time
from collections.abc import Callable

from picowatch.engine.process.wire import Render

from picowatch.engine import child_main
from picowatch.engine.child_main import Unfinished
from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import OnPreview, OnStep, RenderedImage
from picowatch.errors import EngineStopped
from tests.digest_engine import digest_picture

BEGAN_FILE = "began"
DIES = "dies once"
_STEP_SECONDS = 0.005
_LATEST_SECONDS = 5.0  # longer than the next batch takes to come on a busy machine


def main(handle: int) -> None:
    """Serve the daemon."""
    child_main.main(handle, OverlappingRenderer)


class _Late:
    """Pictures that arrive during the next batch, or, without one, some seconds later."""

    def __init__(self, images: list[RenderedImage]) -> None:
        self._images = images
        self._drawn_at = time.monotonic()
        self.steps_since = 0
        self.are_taken = False

    def has_come(self) -> bool:
        return self.steps_since > 3 or time.monotonic() - self._drawn_at > _LATEST_SECONDS

    def images(self) -> list[RenderedImage]:
        self.are_taken = True
        return self._images


class OverlappingRenderer:
    """Draws digests."""

    def __init__(self, options: EngineOptions, on_preview: OnPreview) -> None:
        self._models = options.models
        self._models.mkdir(exist_ok=True)
        self._pause = threading.Event()
        self._late: _Late | None = None

    def begin(
        self, work: Render, on_step: OnStep, interrupted: Callable[[], bool]
    ) -> list[RenderedImage] | Unfinished:
        """Each request's digest, at once if no more are queued."""
        beside = bool(self._late and not self._late.are_taken)
        with (self._models / BEGAN_FILE).open("a") as began:
            began.write(f"{work.batch[0].seed} {'beside' if beside else 'alone'}\n")
        for done in range(1, work.batch[0].steps + 1):
            self._pause.wait(_STEP_SECONDS)
            if interrupted():
                raise EngineStopped("interrupted")
            if self._late:
                self._late.steps_since = done
            on_step(done, work.batch[0].steps)
            died = self._models / "died"
            if work.batch[0].prompt == DIES and not died.exists():
                died.touch()
                os._exit(3)
        images = [digest_picture(request, len(work.batch)) for request in work.batch]
        self._late = _Late(images) if work.waiting else None
        return self._late or images
