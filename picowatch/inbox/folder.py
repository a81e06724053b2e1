"""The inbox's own folder: whether it exists and is still the same, and how changes are noticed."""

import logging
import os
import threading
from enum import Enum, auto
from pathlib import Path

from picowatch.inbox.watching import Watch, events_are_reliable, file_system_type

log = logging.getLogger("picowatch")


class Change(Enum):
    """What happened to the folder since the last look."""

    NONE = auto()
    MISSING = auto()
    REPLACED = auto()  # another folder has its path, or it is back
    WATCH_LOST = auto()  # the same folder, but its watch had to be set up again


class InboxFolder:
    """Watches the folder by events, or leaves that to polling where events cannot be trusted."""

    def __init__(self, named: Path, how: str, wake: threading.Event) -> None:
        """`named` is the setting `inbox`: it may be a link; `how` is the setting `watch`."""
        self._named = named
        self._root = named.resolve()
        self._how = how
        self._wake = wake
        self._watch = Watch(self._root, wake)
        self._identity: tuple[int, int, Path] | None = None
        self.polling = False

    @property
    def root(self) -> Path:
        """The folder itself, without links, as it was when its watch was set up."""
        return self._root

    @property
    def inode(self) -> int | None:
        """The folder's inode at the last look, None while it is missing."""
        return self._identity[1] if self._identity else None

    def watch(self) -> None:
        """Watch the folder that exists now."""
        self._watch.stop()
        self._identity = self._look()
        if self._identity is not None and self._identity[2] != self._root:
            self._root = self._identity[2]
            self._watch = Watch(self._root, self._wake)
        self.polling = self._how == "polling" or (
            self._how == "auto" and not events_are_reliable(file_system_type(self._root))
        )
        if self._identity is None:
            log.warning("the inbox %s is not there; waiting for it", self._named)
        elif not self.polling:
            self.polling = not self._start_watch()

    def check(self) -> Change:
        """Look again: inotify reports neither an unmount nor a root that was replaced."""
        identity = self._look()
        if identity == self._identity:
            if identity is None or self.polling or self._watch.is_alive():
                return Change.MISSING if identity is None else Change.NONE
            log.warning("the watch on the inbox ended unexpectedly; setting it up again")
            self.watch()
            return Change.WATCH_LOST
        if identity is None:
            log.warning(
                "the inbox %s has vanished; nothing is cancelled; waiting for it to return",
                self._named,
            )
            self._identity = None
            self._watch.stop()
            return Change.MISSING
        log.warning("the inbox %s is another folder now; it is watched again", self._named)
        self.watch()
        return Change.REPLACED

    def hints(self) -> list[str]:
        """See `Watch.hints`."""
        return self._watch.hints()

    def close(self) -> None:
        self._watch.stop()

    def _look(self) -> tuple[int, int, Path] | None:
        """Device, inode and path of the named folder, if it exists and can be read."""
        try:
            root = Path(os.path.realpath(self._named, strict=True))
            status = root.stat()
            os.scandir(root).close()
        except OSError:
            return None
        return status.st_dev, status.st_ino, root

    def _start_watch(self) -> bool:
        try:
            folders = self._folders()
            self._watch.start()
            # Others come and go meanwhile: watchdog hears of them.
            if self._watch.is_complete(len(folders & self._folders())):
                return True
        # RecursionError: os.walk, and watchdog with it, cannot follow a thousand nested folders.
        except (OSError, RecursionError) as error:
            why = error if isinstance(error, OSError) else "its folders are nested too deeply"
            log.warning("the inbox cannot be watched by events (%s); polling instead", why)
            self._watch.stop()
            return False
        self._watch.stop()
        log.warning(
            "the system's limit of inotify watches is reached; polling instead. "
            "Raise it with `sysctl fs.inotify.max_user_watches=524288`"
        )
        return False

    def _folders(self) -> set[str]:
        """The paths of all folders that can be read, with the inbox's own."""
        return {folder for folder, _, _ in os.walk(self._root)}
