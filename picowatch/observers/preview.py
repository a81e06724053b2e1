"""outbox/preview.png: the picture in progress, so that a hopeless one is seen early."""

import logging
import threading

from picowatch.engine.protocol import Preview
from picowatch.outbox.outbox import Outbox

log = logging.getLogger("picowatch")


class Previews:
    """Writes the newest preview in a thread of its own; one that comes too soon takes its place.

    The file stays when its picture is done, until the next one's: viewers lose a file that
    vanishes. It is taken away when picowatch ends.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._outbox.remove_preview()  # a crash left it
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
        """Write no more, and leave none."""
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
            except (OSError, ValueError) as error:  # a preview is worth no trouble
                log.debug("no preview: %s", error)
