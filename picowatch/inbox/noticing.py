"""Paths of the inbox that differ, until they are quiet; and file events, which wake the daemon.

Events are missing on network file systems, when the kernel's queue overflows, and beyond the limit
of inotify watches. Nothing relies on them: without any, the next scan comes a little later.
"""

import logging
import threading
import warnings
from dataclasses import dataclass
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

from picowatch.inbox.names import is_dropped
from picowatch.ledger.rows import SizeAndTime

HELD_OPEN_LIMIT = 30.0
# Pictures, which are large and may come over slow connections, have to be quiet this much longer.
PICTURE_PATIENCE = 6


@dataclass(slots=True)
class Pending:
    """A path that differs from what the ledger knows. `size_and_time` None: no such file.

    `is_new`: the ledger does not know the path. `waits_for` is the state of what the recipe waits
    for, if that has changed. It has to be quiet for `patience` seconds. `first` is when it began to
    differ, `since` when it last changed, `later` when to look again.
    """

    path: str
    size_and_time: SizeAndTime | None
    waits_for: str | None
    is_new: bool
    patience: float
    first: float
    since: float
    later: float = 0.0

    @property
    def quiet_at(self) -> float:
        """When the file will be complete, if it does not change again."""
        return max(self.since + self.patience, self.later)


class Settling:
    """Paths that differ, until they are quiet. Times are passed in."""

    def __init__(self, settle_seconds: float) -> None:
        self._settle_seconds = settle_seconds
        self._pending: dict[str, Pending] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def all(self) -> list[Pending]:
        """Return what is pending, in the order in which it was noticed."""
        return list(self._pending.values())

    def note(
        self,
        path: str,
        size_and_time: SizeAndTime | None,
        now: float,
        waits_for: str | None = None,
        *,
        is_new: bool = False,
    ) -> None:
        """Note that a path differs; its quiet time starts again if it has changed since."""
        before = self._pending.get(path)
        if before is None:
            patience = self._settle_seconds * (PICTURE_PATIENCE if is_dropped(path) else 1)
            self._pending[path] = Pending(
                path, size_and_time, waits_for, is_new, patience, now, now
            )
        elif (before.size_and_time, before.waits_for) != (size_and_time, waits_for):
            before.size_and_time, before.waits_for, before.since = size_and_time, waits_for, now

    def drop(self, path: str) -> None:
        """Forget a path that does not differ any more, or that the ledger has."""
        self._pending.pop(path, None)

    def quiet(self, now: float) -> list[Pending]:
        """Return what has not changed for long enough."""
        return [one for one in self._pending.values() if now >= one.quiet_at]

    def postpone(self, one: Pending, now: float) -> None:
        """Let the file's quiet time start again."""
        one.since = now

    def look_later(self, one: Pending, now: float) -> None:
        """Look at a quiet file again later."""
        one.later = now + one.patience

    def ready_in(self, now: float) -> float | None:
        """Return the seconds until something may be complete; None if nothing is pending."""
        if not self._pending:
            return None
        soonest = min(one.quiet_at for one in self._pending.values())
        return max(0.0, soonest - now)


log = logging.getLogger("picowatch")

# Opening and reading a file, as picowatch does itself, raises none of these.
TELLING: list[type[FileSystemEvent]] = [
    DirAttribEvent, DirCreatedEvent, DirDeletedEvent, DirMovedEvent, FileAttribEvent,
    FileClosedEvent, FileCreatedEvent, FileDeletedEvent, FileModifiedEvent, FileMovedEvent,
]  # fmt: skip

logging.getLogger("watchdog").addHandler(logging.NullHandler())


class Watch(FileSystemEventHandler):
    """A watch on a folder and all folders below it, which sets an event."""

    def __init__(self, wake: threading.Event) -> None:
        self._wake = wake
        self._observer: threading.Thread | None = None
        self.has_news = threading.Event()

    def start(self, root: Path) -> None:
        """Watch a folder, which must be resolved: a watch on a link gives no events."""
        self.stop()
        # watchdog 7.1.0 adds a folder twice if its parent was made at the same moment, and prints
        # a screenful of warning; both are the same watch.
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
        """Wake the daemon. An exception here would end watchdog's dispatching for good."""
        self.has_news.set()
        self._wake.set()
