"""The renderer of these tests: it draws digests, and obeys commands in prompts.

"wait for PATH" notes its process in PATH.pid, and goes on once PATH is there; "hang at PATH" does
not go on, and holds Python's lock; "crash" ends the process as native code does; "fail" fails its
image. The start images that it finds are the pictures' warnings.
"""

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from picowatch.engine.protocol import EngineOptions, OnPreview, OnStep, Preview, RenderedImage
from picowatch.errors import EngineStopped, RenderFailed
from picowatch.recipe.request import ImageRequest
from tests.digest_engine import digest_picture

WAIT_FOR = "wait for "
HANG_AT = "hang at "


class DigestRenderer:
    """A BatchRenderer without torch."""

    def __init__(self, options: EngineOptions, on_preview: OnPreview) -> None:
        if (options.models / "broken").exists():
            raise RenderFailed("There is no such device.")
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
            if request.prompt == "fail":
                raise RenderFailed("There is no such model.")
            if request.prompt == "crash":
                ctypes.string_at(0)
            if request.prompt.startswith(WAIT_FOR):
                _wait(Path(request.prompt.removeprefix(WAIT_FOR)), interrupted)
            if request.prompt.startswith(HANG_AT):
                _note(Path(request.prompt.removeprefix(HANG_AT)))
                ctypes.PyDLL(None).sleep(3600)
        folder = self._options.start_images
        assert folder is not None
        seen = sorted(sha256(path.read_bytes()).hexdigest() for path in folder.iterdir())
        return [replace(digest_picture(one, len(batch)), warnings=tuple(seen)) for one in batch]


def _wait(path: Path, interrupted: Callable[[], bool]) -> None:
    _note(path)
    while not path.exists():
        if interrupted():
            raise EngineStopped("interrupted")
        threading.Event().wait(0.01)


def _note(path: Path) -> None:
    path.with_suffix(".pid").write_text(str(os.getpid()))
