"""The real engine, which takes single files for demo models, and waits on request.

An image whose prompt begins with HOLD is returned only once there is a file `go` in the models
folder: its checkpoint is loaded by then, and stays so.
"""

import threading
from collections.abc import Callable, Sequence

from picowatch.catalog import Catalog
from picowatch.engine.protocol import EngineOptions, OnPreview, OnStep, RenderedImage
from picowatch.recipe.request import ImageRequest

HOLD = "hold on"
GO_FILE = "go"


class HoldingEngine:
    """Renderer with the demo model's configs for single files."""

    def __init__(self, options: EngineOptions, on_preview: OnPreview) -> None:
        from picowatch.catalog.parts import CONFIGS
        from picowatch.engine.renderer import Renderer

        demo = Catalog(options.models).demo.path
        CONFIGS.update(sd1=demo, demo=demo)
        self._go = options.models / GO_FILE
        self._engine = Renderer(options, on_preview)

    def render(
        self,
        batch: Sequence[ImageRequest],
        on_step: OnStep,
        interrupted: Callable[[], bool],
        preview_seconds: float,
    ) -> list[RenderedImage]:
        """Return the pictures as soon as they may be returned."""
        pictures = self._engine.render(batch, on_step, interrupted)
        while batch[0].prompt.startswith(HOLD) and not self._go.exists():
            threading.Event().wait(0.01)
        return pictures
