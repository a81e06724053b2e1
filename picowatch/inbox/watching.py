"""File events as hints: watchdog's observer, reduced to "look at this path".

The handler never raises (an exception in it would end watchdog's dispatch for good) and does no
work; lost events request a rescan. `events_are_reliable` says on which file systems there are any.
"""

import logging
import os
import re
import sys
import threading
import warnings
from pathlib import Path
from queue import Empty, SimpleQueue

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

# On the queue, none is a path below the inbox:
RESCAN = ""  # events were lost, look at everything
OPENED = "/"  # a folder without a watch can be read now, watch and look at everything
# Its warning is the only sign that the kernel dropped events (watchdog 7.1.0).
OVERFLOW_LOGGER = "watchdog.observers.inotify_c"
# Files that are opened and read raise none of these: half of the events of a recipe that is copied
# in and read, and each takes room in the kernel's queue. That something in a folder was modified
# has an event of its own.
TELLING: list[type[FileSystemEvent]] = [
    DirAttribEvent, DirCreatedEvent, DirDeletedEvent, DirMovedEvent, FileAttribEvent,
    FileClosedEvent, FileCreatedEvent, FileDeletedEvent, FileModifiedEvent, FileMovedEvent,
]  # fmt: skip

# picowatch reports lost events in its own words, not in watchdog's.
logging.getLogger("watchdog").addHandler(logging.NullHandler())
# Events of other machines never arrive on these: network file systems, and the
# shared folders of virtual machines and of Docker Desktop.
WITHOUT_EVENTS = {
    "9p", "acfs", "afs", "ceph", "cifs", "fakeowner", "glusterfs", "grpcfuse", "lustre", "ncpfs",
    "nfs", "nfs4", "osxfs", "prl_fs", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs",
}  # fmt: skip
# FUSE file systems on local disks, whose own changes do raise events.
LOCAL_FUSE = {"fuse.ext4", "fuse.ntfs", "fuse.ntfs-3g", "fuse.exfat", "fuse.gocryptfs", "fuseblk"}


class Watch:
    """A watch on a folder and all below it; `hints` returns the paths to look at."""

    def __init__(self, root: Path, wake: threading.Event) -> None:
        """`root` must be resolved: a watch on a symlink gives no events and no error."""
        self._root = root
        self._hints: SimpleQueue[str] = SimpleQueue()
        self._wake = wake
        self._observer: threading.Thread | None = None
        self._emitters: list[threading.Thread] = []
        self._overflow = _OverflowListener(self._hints, wake)

    def start(self) -> None:
        """Raises OSError if the system refuses a watch."""
        # A folder whose parent was made in the same moment is added twice by watchdog 7.1.0,
        # which warns of it with a screenful; the second watch is the first one.
        warnings.filterwarnings("ignore", "Callback with id", RuntimeWarning)
        observer = Observer()
        hinter = _Hinter(self._hints, self._wake)
        observer.schedule(hinter, str(self._root), recursive=True, event_filter=TELLING)
        observer.start()
        self._observer = observer
        self._emitters = list(observer.emitters)
        logging.getLogger(OVERFLOW_LOGGER).addHandler(self._overflow)

    def stop(self) -> None:
        """End the watch; hints that are queued stay."""
        logging.getLogger(OVERFLOW_LOGGER).removeHandler(self._overflow)
        if self._observer is not None:
            self._observer.stop()  # type: ignore[attr-defined]  # watchdog's, not Thread's
            self._observer.join(timeout=2)
        self._observer = None

    def is_alive(self) -> bool:
        """Whether all of its threads are alive: the observer outlives its emitters."""
        threads = [self._observer, *self._emitters]
        return all(thread is not None and thread.is_alive() for thread in threads)

    def is_complete(self, folders: int) -> bool:
        """Whether at least `folders` folders are really watched.

        At the inotify limit watchdog starts silently with a part of them; the kernel lists
        the watches of this process in /proc/self/fdinfo.
        """
        return not _has_inotify() or len(_watched_inodes()) >= folders

    def hints(self) -> list[str]:
        """Absolute paths to look at since the last call, folders end with a slash.

        RESCAN or OPENED among them: look everywhere.
        """
        paths: dict[str, None] = {}
        while True:
            try:
                paths[self._hints.get_nowait()] = None
            except Empty:
                return list(paths)


class _Hinter(FileSystemEventHandler):
    def __init__(self, hints: SimpleQueue[str], wake: threading.Event) -> None:
        self._hints = hints
        self._wake = wake

    def on_any_event(self, event: FileSystemEvent) -> None:
        try:
            if isinstance(event, DirAttribEvent):
                if _is_watched(event.src_path):
                    return
                self._hints.put(OPENED)
            else:
                mark = "/" if event.is_directory else ""
                for path in (event.src_path, event.dest_path):
                    if path:
                        self._hints.put(os.fsdecode(path) + mark)
            self._wake.set()
        except Exception:  # nothing may end watchdog's dispatch thread
            self._hints.put(RESCAN)


class _OverflowListener(logging.Handler):
    def __init__(self, hints: SimpleQueue[str], wake: threading.Event) -> None:
        super().__init__(logging.WARNING)
        self._hints = hints
        self._wake = wake

    def emit(self, record: logging.LogRecord) -> None:
        self._hints.put(RESCAN)
        self._wake.set()


def _has_inotify() -> bool:
    return sys.platform.startswith("linux")


def _is_watched(folder: bytes | str) -> bool:
    """Whether nothing is missed of a folder: watchdog passes over those that it cannot read."""
    try:
        inode = Path(os.fsdecode(folder)).stat().st_ino
        os.scandir(folder).close()
    except OSError:  # it is gone, or still cannot be read
        return True
    return not _has_inotify() or inode in _watched_inodes()


def _watched_inodes() -> list[int]:
    """The inode of each watch of this process: proc(5), /proc/pid/fdinfo."""
    inodes: list[int] = []
    for descriptor in Path("/proc/self/fdinfo").iterdir():
        try:
            found = re.findall(r"^inotify wd:\w+ ino:(\w+)", descriptor.read_text(), re.MULTILINE)
        except OSError:
            continue  # closed meanwhile
        inodes += [int(inode, 16) for inode in found]
    return inodes


def file_system_type(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """The type of the file system that holds `folder`, or "" where the system does not say."""
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    best, kind = Path(), ""
    for line in lines:
        fields = line.split()
        if len(fields) < 3:
            continue
        point = Path(fields[1].replace("\\040", " ").replace("\\011", "\t"))
        # Of several mounts on one point, the last one is visible.
        if folder.is_relative_to(point) and len(point.parts) >= len(best.parts):
            best, kind = point, fields[2]
    return kind


def events_are_reliable(kind: str) -> bool:
    """Whether inotify reports every change on a file system of this type."""
    if kind.startswith("fuse.") or kind == "fuse":
        return kind in LOCAL_FUSE
    return kind not in WITHOUT_EVENTS
