"""The renderer of these tests: FaultyRenderer with previews, start images and interruption."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256

from picowatch.engine.protocol import (
    EngineOptions,
    OnPreview,
    OnProgress,
    Progress,
    RenderedImage,
    RgbPicture,
)
from picowatch.errors import EngineStopped
from picowatch.recipe.request import ImageRequest
from tests.faults.faulty_engine import FaultyRenderer

ENDLESS = "waits for an interruption"


class DigestRenderer(FaultyRenderer):
    """The start images that it finds are the pictures' warnings."""

    def __init__(self, options: EngineOptions, on_preview: OnPreview) -> None:
        super().__init__(options, on_preview)
        self._start_images = options.start_images
        self._on_preview = on_preview

    def render(
        self,
        batch: Sequence[ImageRequest],
        on_progress: OnProgress,
        interrupted: Callable[[], bool],
    ) -> list[RenderedImage]:
        """Each request's digest as a picture, after its steps."""
        self._on_preview(RgbPicture(8, 8, bytes(192)))
        while batch[0].prompt == ENDLESS:
            on_progress(Progress("draw", 1, 1))
            if interrupted():
                raise EngineStopped("interrupted")
            threading.Event().wait(0.01)
        images = super().render(batch, on_progress, interrupted)
        assert self._start_images is not None
        kept = sorted(self._start_images.iterdir())
        seen = tuple(sha256(path.read_bytes()).hexdigest() for path in kept)
        return [replace(image, warnings=seen) for image in images]
