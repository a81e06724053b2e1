"""outbox/preview.png: the picture in progress, so that a bad one can be cancelled early."""

import logging
import threading

from picowatch.engine.protocol import Preview
from picowatch.outbox.outbox import Outbox

log = logging.getLogger("picowatch")


class Previews:
    """Writes the newest preview in its own thread; one that comes too soon replaces it.

    The file stays when its picture is done, until the next one's: viewers lose a file that
    vanishes. It is deleted when picowatch ends.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._outbox.remove_preview()  # from before a crash
        self._newest: Preview | None = None
        self._more = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._write, name="preview", daemon=True)
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
        self._outbox.remove_preview()

    def _write(self) -> None:
        while self._more.wait() and not self._closed:
            self._more.clear()
            preview, self._newest = self._newest, None
            if preview is None:
                continue
            try:
                self._outbox.write_preview(preview.width, preview.height, preview.pixels)
            except (OSError, ValueError) as error:  # a preview is not worth an error
                log.debug("no preview: %s", error)
