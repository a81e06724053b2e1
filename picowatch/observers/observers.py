"""Observers, which have no part in the work: hooks, metrics, the preview."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from picowatch.engine.protocol import Preview
from picowatch.errors import SettingsInvalid, install_command
from picowatch.files.atomic import write_atomically
from picowatch.observers.hooks import Hooks
from picowatch.outbox.encoding import srgb
from picowatch.outbox.outbox import Outbox
from picowatch.outbox.status import Status
from picowatch.settings import Settings

SCALE = 8  # a preview has a pixel for each of the latents', which are 8x8 pixels of the picture


class Previews:
    """Writes the newest preview in its own thread; one that comes too soon replaces it.

    The file stays when its picture is done, until the next one's: viewers lose a file that
    vanishes. It is deleted when picowatch ends.
    """

    def __init__(self, outbox: Path) -> None:
        self._file = outbox / "preview.png"
        self._remove()  # from before a crash
        self._newest: Preview | None = None
        self._more = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="preview", daemon=True)
        self._thread.start()

    def show(self, preview: Preview) -> None:
        """Show this soon."""
        self._newest = preview
        self._more.set()

    def close(self) -> None:
        """Stop writing, and delete the file."""
        self._closed = True
        self._more.set()
        self._thread.join()
        self._remove()

    def _run(self) -> None:
        while self._goes_on():
            preview, self._newest = self._newest, None
            if preview is None:
                continue
            try:
                self._write(preview)
            # A preview is not worth an error. Pillow 12 raises SystemError for one without pixels.
            except (OSError, ValueError, SystemError) as error:
                log.debug("no preview: %s", error)

    def _goes_on(self) -> bool:
        """Wait for more, or for the end: what comes afterwards ends the next wait."""
        self._more.wait()
        self._more.clear()
        return not self._closed

    def _write(self, preview: Preview) -> None:
        """Raises ValueError for too few pixels."""
        width, height = preview.width, preview.height
        image = Image.frombytes("RGB", (width, height), preview.pixels)
        image = image.resize((width * SCALE, height * SCALE), Image.Resampling.BICUBIC)
        content = BytesIO()
        image.save(content, "PNG", pnginfo=srgb(), compress_level=1)
        write_atomically(self._file, content.getvalue(), durable=False)

    def _remove(self) -> None:
        with suppress(OSError):
            self._file.unlink(missing_ok=True)


if TYPE_CHECKING:
    from picowatch.observers.metrics import Metrics

log = logging.getLogger("picowatch")


class Observers:
    """Gets each picture, failure, preview and status; never makes the work fail."""

    def __init__(
        self,
        settings: Settings,
        outbox: Outbox,
        engine_restarts: Callable[[], int],
        *,
        is_daemon: bool,
    ) -> None:
        """Raises SettingsInvalid if a daemon's metrics cannot be served.

        Work that ends by itself goes on without them: a daemon may serve its own there.
        """
        self._outbox = outbox
        self._metrics = None
        try:
            self._metrics = _metrics(settings.metrics_address, engine_restarts)
        except SettingsInvalid as error:
            if is_daemon:
                raise
            log.warning("%s Going on without metrics.", error.message)
        self._hooks = Hooks(settings)
        self._previews = Previews(outbox.root)

    def published(self, line: dict[str, Any]) -> None:
        """A picture was published; `line` is its line of images.jsonl."""
        self._hooks.picture(line)
        if self._metrics:
            self._metrics.picture(line["seconds"])

    def failed(self, recipe: str) -> None:
        """An error file was written for the recipe."""
        self._hooks.failed(recipe, self._outbox.names.error_file(recipe))

    def preview(self, preview: Preview) -> None:
        """Roughly how a picture in progress will look."""
        self._previews.show(preview)

    def status(self, status: Status) -> None:
        """The current status, a few times a second."""
        self._hooks.status(status)
        if self._metrics:
            self._metrics.status(status)

    def close(self, hurry: Callable[[], bool]) -> None:
        """Let running hooks end by themselves until `hurry`; then kill them all."""
        self._hooks.close(hurry)
        self._previews.close()
        if self._metrics:
            self._metrics.close()


def _metrics(address: str | None, engine_restarts: Callable[[], int]) -> Metrics | None:
    if not address:
        return None
    try:
        from picowatch.observers.metrics import Metrics
    except ImportError as error:
        raise SettingsInvalid(
            f"metrics_address {address}: metrics need prometheus-client, which is not installed.",
            f"Install it: {install_command('metrics')}",
        ) from error
    return Metrics(address, engine_restarts)
