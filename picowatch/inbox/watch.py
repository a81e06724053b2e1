"""File events, which only wake the daemon.

Events are missing on network file systems, when the kernel's queue overflows, and beyond the limit
of inotify watches. Nothing relies on them: without any, the next look comes a little later.
"""

import logging
import threading
import warnings
from pathlib import Path

from watchdog.events import (
    DirAttribEvent,
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileAttribEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer

log = logging.getLogger("picowatch")

# Files that are opened and read, as picowatch does itself, raise none of these.
TELLING: list[type[FileSystemEvent]] = [
    DirAttribEvent, DirCreatedEvent, DirDeletedEvent, DirMovedEvent, FileAttribEvent,
    FileClosedEvent, FileCreatedEvent, FileDeletedEvent, FileModifiedEvent, FileMovedEvent,
]  # fmt: skip

logging.getLogger("watchdog").addHandler(logging.NullHandler())


class Watch(FileSystemEventHandler):
    """A watch on a folder and all below it, which sets an event."""

    def __init__(self, wake: threading.Event) -> None:
        self._wake = wake
        self._observer: threading.Thread | None = None
        self.has_news = threading.Event()

    def start(self, root: Path) -> None:
        """Watch a folder, which must be resolved: a watch on a link gives no events."""
        self.stop()
        # A folder whose parent was made in the same moment is added twice by watchdog 7.1.0,
        # which warns of it with a screenful; the second watch is the first one.
        warnings.filterwarnings("ignore", "Callback with id", RuntimeWarning)
        observer = Observer()
        try:
            observer.schedule(self, str(root), recursive=True, event_filter=TELLING)
            observer.start()
        # RecursionError: watchdog cannot follow a thousand nested folders.
        except (OSError, RecursionError) as error:
            log.info("no file events of %s (%s): it is looked at every few seconds", root, error)
            return
        self._observer = observer

    def stop(self) -> None:
        """End the watch."""
        if self._observer is not None:
            self._observer.stop()  # type: ignore[attr-defined]  # watchdog's, not Thread's
            self._observer.join(timeout=2)
        self._observer = None

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Wake whoever waits; an exception here would end watchdog's dispatch for good."""
        self.has_news.set()
        self._wake.set()
