"""Everything that only watches the work: hooks, metrics, the preview."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Any

from PIL import Image

from picowatch.engine.protocol import RgbPicture
from picowatch.errors import SettingsInvalid, install_command
from picowatch.files.atomic import write_atomically
from picowatch.observers.hooks import Hooks
from picowatch.outbox.encoding import srgb
from picowatch.outbox.outbox import Outbox
from picowatch.outbox.status import Status
from picowatch.settings import Settings

SCALE = 8  # a preview has one pixel per latent pixel, which covers 8x8 pixels of the picture


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
        """Raise SettingsInvalid if a daemon's metrics cannot be served; only daemons have some."""
        self._outbox = outbox
        address = settings.metrics_address if is_daemon else None
        self._metrics = _metrics(address, engine_restarts)
        self._hooks = Hooks(settings)
        self._preview = outbox.root / "preview.png"
        self._remove_preview()  # from before a crash
        self._newest_preview: RgbPicture | None = None

    def published(self, line: dict[str, Any]) -> None:
        """Report a published picture; `line` is its line of images.jsonl."""
        self._hooks.picture(line)
        if self._metrics:
            self._metrics.picture(line["seconds"])

    def failed(self, recipe: str) -> None:
        """Report that an error file was written for the recipe."""
        self._hooks.failed(recipe, self._outbox.names.error_file(recipe))

    def preview(self, preview: RgbPicture) -> None:
        """Take roughly how a picture in progress will look; the next round shows the newest one.

        An engine's thread must not wait for the disk: meanwhile nobody would read from its pipe,
        which is full after four previews of 1024x1024, and the engine would wait, too.
        """
        self._newest_preview = preview

    def status(self, status: Status) -> None:
        """Report the current status, a few times a second, and show the newest preview."""
        self._hooks.status(status)
        if self._metrics:
            self._metrics.status(status)
        if preview := self._newest_preview:
            self._newest_preview = None
            self._write_preview(preview)

    def close(self, hurry: Callable[[], bool]) -> None:
        """Let running hooks end by themselves until `hurry`; then kill them all."""
        self._hooks.close(hurry)
        self._remove_preview()
        if self._metrics:
            self._metrics.close()

    def _write_preview(self, preview: RgbPicture) -> None:
        """Write a preview; it stays until the next one: viewers lose a file that vanishes."""
        try:
            image = Image.frombytes("RGB", (preview.width, preview.height), preview.pixels)
            size = (preview.width * SCALE, preview.height * SCALE)
            content = BytesIO()
            image.resize(size, Image.Resampling.BICUBIC).save(
                content, "PNG", pnginfo=srgb(), compress_level=1
            )
            write_atomically(self._preview, content.getvalue(), durable=False)
        # A preview is not worth an error. Pillow 12 raises SystemError if it has no pixels.
        except (OSError, ValueError, SystemError) as error:
            log.debug("no preview: %s", error)

    def _remove_preview(self) -> None:
        with suppress(OSError):
            self._preview.unlink(missing_ok=True)


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
