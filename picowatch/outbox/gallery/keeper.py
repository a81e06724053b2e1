"""Looks after the gallery in a thread of its own, so that nothing of it delays the work."""

import logging
import threading
from collections.abc import Callable

from picowatch.outbox.gallery.gallery import Gallery
from picowatch.outbox.problems import Problems

log = logging.getLogger("picowatch")

LOOK_SECONDS = 60.0  # between looks for pictures that the user deleted


class GalleryKeeper:
    """Finds old problems, makes thumbnails that are missing, shows no more what was deleted."""

    def __init__(self, gallery: Gallery, problems: Problems) -> None:
        self._gallery = gallery
        self._problems = problems
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gallery", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        self._try(self._problems.find)
        # It idles as long as each thumbnail took, so that the work keeps the processor.
        self._try(lambda: self._gallery.make_missing_thumbnails(rest=self._stop.wait))
        while not self._stop.is_set():
            self._try(self._gallery.drop_deleted)
            self._stop.wait(LOOK_SECONDS)

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except OSError as error:  # a full disk is waited for by those who have to write
            log.debug("the gallery will be updated later: %s", error)
