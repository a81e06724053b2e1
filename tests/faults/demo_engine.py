"""The real engine, which takes single files for demo models, and waits on request.

An image whose prompt begins with HOLD is returned only once there is a file `go` in the models
folder: its checkpoint is loaded by then, and stays so. A model whose name begins with SWAPPED is
replaced by another one after its hash was verified and before it is read.
"""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file

from picowatch.catalog import Catalog, Model, embedded
from picowatch.catalog.hashes import OnBlock
from picowatch.engine.protocol import EngineOptions, OnPreview, OnProgress, RenderedImage
from picowatch.recipe.request import ImageRequest

HOLD = "hold on"
SWAPPED = "swapped"
GO_FILE = "go"


def another(path: Path) -> None:
    """Rename the same tensors with other numbers over the file, as downloads do."""
    tensors = {
        name: tensor + 1 if tensor.is_floating_point() else tensor
        for name, tensor in load_file(path).items()
    }
    save_file(tensors, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


class SwappingCatalog(Catalog):
    """Replaces a file when its hash has just been verified."""

    def sha256(self, model: Model, *rest: OnBlock) -> str:
        digest = super().sha256(model, *rest)
        if model.name.startswith(SWAPPED):
            another(model.path)
        return digest


class HoldingEngine:
    """Renderer with the demo model's configs for single files."""

    def __init__(self, options: EngineOptions, on_preview: OnPreview) -> None:
        from picowatch.catalog.parts import CONFIGS
        from picowatch.engine.drawing import renderer

        renderer.Catalog = SwappingCatalog  # type: ignore[attr-defined]
        demo = embedded("checkpoint").path
        CONFIGS.update(sd1=demo, demo=demo)
        self._go = options.models / GO_FILE
        self._engine = renderer.Renderer(options, on_preview)

    def render(
        self,
        batch: Sequence[ImageRequest],
        on_progress: OnProgress,
        interrupted: Callable[[], bool],
    ) -> list[RenderedImage]:
        pictures = [*self._engine.render(batch, on_progress, interrupted)]
        while batch[0].prompt.startswith(HOLD) and not self._go.exists():
            threading.Event().wait(0.01)
        return pictures
