"""Everything that only watches the work: hooks, metrics, the preview."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from picowatch.engine.protocol import RgbPicture
from picowatch.errors import SettingsInvalid, install_command
from picowatch.files.atomic import write_atomically
from picowatch.files.decoding import Original
from picowatch.files.essential import Writing
from picowatch.observers.hooks import Hooks, Programs
from picowatch.outbox.encoding import encode_png
from picowatch.outbox.outbox import Outbox
from picowatch.outbox.status import Status

SCALE = 8  # a preview has one pixel per latent pixel, which covers 8x8 pixels of the picture

if TYPE_CHECKING:
    from picowatch.observers.metrics import Metrics

log = logging.getLogger("picowatch")


class Observers:
    """Gets each picture, failure, preview and status; never makes the work fail.

    Hooks and metrics go on when another daemon starts over, with its settings: see `use`.
    """

    def __init__(self) -> None:
        self._hooks = Hooks()
        self._metrics: Metrics | None = None
        self._address: str | None = None
        self._ignored: Mapping[str, str] = {}  # which was logged, also for a daemon before

    def serve_metrics(self, address: str | None) -> None:
        """Serve metrics there, or none. Raises SettingsInvalid; then none are served."""
        if address == self._address:
            return
        if self._metrics:
            self._metrics.close()  # it may be in the way: 127.0.0.1:9464 is part of :9464
        self._metrics, self._address = None, None
        self._metrics, self._address = _metrics(address), address

    def use(
        self, inbox: Path, outbox: Outbox, writing: Writing, hooks: Programs, hook_seconds: float
    ) -> None:
        """Observe a daemon with these settings from now on."""
        self._hooks.use(inbox, outbox.root, hooks, hook_seconds)
        self._outbox, self._writing = outbox, writing
        self._preview = outbox.root / "preview.png"
        self._newest_preview: RgbPicture | None = None
        self._shown_preview: RgbPicture | None = None
        self.remove_preview()  # from before a crash

    def published(self, line: dict[str, Any]) -> None:
        """Report a published picture; `line` is its line of images.jsonl."""
        self._hooks.picture(line)
        if self._metrics:
            self._metrics.image_seconds.observe(line["seconds"])

    def failed(self, recipe: str) -> None:
        """Report that an error file was written for the recipe."""
        self._hooks.failed(recipe, self._outbox.names.error_file(recipe))

    def finished(self, values: Mapping[str, Any]) -> None:
        """Report the account of a finished folder, or of all that was rendered."""
        self._hooks.finished(values)

    def preview(self, preview: RgbPicture) -> None:
        """Take roughly how a picture in progress will look; the next round shows the newest.

        An engine's thread must not wait for the disk: meanwhile nobody would read from its pipe,
        which is full after four previews of 1024x1024, and the engine would wait, too.
        """
        self._newest_preview = preview

    def status(self, status: Status) -> None:
        """Report the current status, a few times a second, and show the newest preview."""
        self._hooks.status(status)
        if self._metrics:
            self._metrics.status = status
        preview = self._newest_preview
        if preview and preview is not self._shown_preview:
            with self._writing.optional(self._preview.name):
                self._write_preview(preview)
                self._shown_preview = preview

    def ignored(self, files: Mapping[str, str]) -> None:
        """Log why files are not taken, once for each as long as it is there."""
        for path in files.keys() - self._ignored.keys():
            extra = {"event": "ignored", "recipe": path, "code": "never_run"}
            log.warning("%s is not run: %s", path, files[path], extra=extra)
        self._ignored = files

    def engine_died(self) -> None:
        if self._metrics:
            self._metrics.engine_restarts.inc()

    def close(self, hurry: Callable[[], bool]) -> None:
        """Let running hooks end by themselves until `hurry`; then kill them all."""
        self._hooks.close(hurry)
        if self._metrics:
            self._metrics.close()
            self._metrics = None

    def _write_preview(self, preview: RgbPicture) -> None:
        """Write a preview; it stays until the next preview: viewers lose a file that vanishes."""
        try:
            image = Image.frombytes("RGB", (preview.width, preview.height), preview.pixels)
            size = (preview.width * SCALE, preview.height * SCALE)
            large = image.resize(size, Image.Resampling.BICUBIC)
            content = encode_png(Original(large), {}, self._outbox.mark)
        # A preview is not worth an error. Pillow 12 raises SystemError if it has no pixels.
        except (OSError, ValueError, SystemError) as error:
            log.debug("no preview: %s", error)
            return
        write_atomically(self._preview, content, durable=False)

    def remove_preview(self) -> None:
        """Delete the preview, which nobody updates any more."""
        with suppress(OSError):
            self._preview.unlink(missing_ok=True)


def _metrics(address: str | None) -> Metrics | None:
    if not address:
        return None
    try:
        from picowatch.observers.metrics import Metrics
    except ImportError as error:
        raise SettingsInvalid(
            f"metrics_address {address}: metrics need prometheus-client, which is not installed.",
            f"Install it: {install_command('metrics')}",
        ) from error
    return Metrics(address)
