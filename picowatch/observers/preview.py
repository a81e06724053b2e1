"""outbox/preview.png: the picture in progress, so that a bad one can be cancelled early."""

import logging
import threading
from contextlib import suppress
from io import BytesIO
from pathlib import Path

from PIL import Image

from picowatch.engine.protocol import Preview
from picowatch.files.atomic import write_atomically
from picowatch.outbox.encoding import srgb

log = logging.getLogger("picowatch")

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
