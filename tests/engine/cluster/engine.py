"""The engine process of these tests: draws digests, and does what the prompt says meanwhile.

"wait for PATH" notes its process and its host's in PATH.pids, and goes on once PATH is there;
"crash" ends the process as native code does. Digests of models that are in the models folder are
counted in: what was seen of them changes the picture.
"""

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import OnPreview, OnStep, Preview, RenderedImage
from picowatch.errors import EngineStopped
from picowatch.recipe.request import ImageRequest
from tests.digest_engine import digest_picture

WAIT_FOR = "wait for "


class Maker:
    """What renders the pictures in the engine process."""

    def __init__(self, options: EngineOptions, on_preview: OnPreview) -> None:
        self._options = options
        self._on_preview = on_preview

    def render(
        self,
        batch: Sequence[ImageRequest],
        on_step: OnStep,
        interrupted: Callable[[], bool],
        preview_seconds: float,
    ) -> list[RenderedImage]:
        """Each request's digest as a picture, after its steps."""
        for done in range(1, batch[0].steps + 1):
            on_step(done, batch[0].steps)
        self._on_preview(Preview(8, 8, bytes(192)))
        for request in batch:
            if request.prompt == "crash":
                ctypes.string_at(0)
            if request.prompt.startswith(WAIT_FOR):
                _wait(Path(request.prompt.removeprefix(WAIT_FOR)), interrupted)
        warnings = tuple(self._seen())
        return [replace(digest_picture(one, len(batch)), warnings=warnings) for one in batch]

    def _seen(self) -> list[str]:
        """The model files and start images that there are, with their hashes."""
        roots = [self._options.models, self._options.start_images]
        files = {path for root in roots if root for path in root.rglob("*") if path.is_file()}
        return sorted(
            f"{path.relative_to(self._options.models)} {sha256(path.read_bytes()).hexdigest()}"
            for path in files
            if path.name != "lock"
        )


def _wait(path: Path, interrupted: Callable[[], bool]) -> None:
    path.with_suffix(".pids").write_text(f"{os.getpid()} {os.getppid()}")
    while not path.exists():
        if interrupted():
            raise EngineStopped("interrupted")
        threading.Event().wait(0.01)
