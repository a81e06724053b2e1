"""File events, which wake the daemon and name paths to look at.

Events are missing on network file systems, when the kernel's queue overflows, and beyond the limits
of inotify. Nothing relies on them: without any, the next scan comes a little later.
"""

import logging
import os
import threading
import warnings
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from watchdog import events
from watchdog.observers import Observer

log = logging.getLogger("picowatch")

# Opening and reading a file, as picowatch does itself, raises none of these.
TELLING: list[type[events.FileSystemEvent]] = [
    events.DirAttribEvent, events.DirCreatedEvent, events.DirDeletedEvent, events.DirMovedEvent,
    events.FileAttribEvent, events.FileClosedEvent, events.FileCreatedEvent,
    events.FileDeletedEvent, events.FileModifiedEvent, events.FileMovedEvent,
]  # fmt: skip

logging.getLogger("watchdog").addHandler(logging.NullHandler())

# More are found by a scan, which looks at thousands of files faster than at each by itself.
MOST_PATHS = 1000


class Watch(events.FileSystemEventHandler):
    """A watch on a folder and all folders below it; new `commands` only wake the daemon."""

    def __init__(self, wake: threading.Event, commands: Path) -> None:
        self._wake, self._commands = wake, commands
        self._observer: threading.Thread | None = None
        self.root = ""
        self._paths: dict[str, None] = {}  # of files of which events came
        self._lock = threading.Lock()
        self.has_news = threading.Event()  # of folders, or of very many files at once

    def start(self, root: Path) -> None:
        """Watch a folder, which must be resolved: a watch on a link gives no events."""
        self.stop()
        self.root = f"{root}/"
        # watchdog 7.1.0 adds a folder twice if its parent was made at the same moment, and prints
        # a screenful of warning; both are the same watch.
        warnings.filterwarnings("ignore", "Callback with id", RuntimeWarning)
        observer: Any = None
        try:
            observer = Observer()
            observer.schedule(self, str(root), recursive=True, event_filter=TELLING)
            with suppress(OSError):
                observer.schedule(self, str(self._commands), event_filter=[events.FileMovedEvent])
            observer.start()
        # RecursionError: watchdog cannot follow a thousand nested folders.
        except (OSError, RecursionError) as error:
            log.info("no file events for %s (%s): it is scanned every few seconds", root, error)
            if observer is not None:
                observer.stop()  # it has had an inotify instance and a thread since it was made
            return
        self._observer = observer

    def stop(self) -> None:
        if self._observer is not None:
            self._observer.stop()  # type: ignore[attr-defined]  # watchdog's, not Thread's
            self._observer.join(timeout=2)
        self._observer = None

    def taken_paths(self) -> Collection[str]:
        """Return the files that events named since the last time, as paths below the folder."""
        with self._lock:
            paths, self._paths = self._paths, {}
        return paths

    def on_any_event(self, event: events.FileSystemEvent) -> None:
        """Wake the daemon. An exception here would end watchdog's dispatching for good."""
        if event.is_directory or len(self._paths) >= MOST_PATHS:
            self.has_news.set()
        else:
            with self._lock:
                for path in (event.src_path, event.dest_path):
                    self._paths[os.fsdecode(path).removeprefix(self.root)] = None
        self._wake.set()
