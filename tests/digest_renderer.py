"""Draws digests in an engine process, a little slower than possible.

It waits as long as there is a file `hold` in the folder where picowatch was started.
"""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from picowatch.engine.protocol import EngineOptions, OnPreview, OnProgress, Progress, RenderedImage
from picowatch.errors import EngineStopped
from picowatch.recipe.request import ImageRequest
from tests.digest_engine import digest_picture

STEP_SECONDS = 0.01  # so that there is a middle of a picture to be killed in
HOLD = Path("hold").absolute()


class DigestRenderer:
    def __init__(self, options: EngineOptions, on_preview: OnPreview) -> None:
        self._pause = threading.Event()

    def render(
        self,
        batch: Sequence[ImageRequest],
        on_progress: OnProgress,
        interrupted: Callable[[], bool],
    ) -> list[RenderedImage]:
        while HOLD.exists() and not interrupted():
            self._pause.wait(STEP_SECONDS)
        for done in range(1, batch[0].steps + 1):
            self._pause.wait(STEP_SECONDS)
            if interrupted():
                raise EngineStopped("interrupted")
            on_progress(Progress("draw", done, batch[0].steps))
        return [digest_picture(request, len(batch)) for request in batch]
