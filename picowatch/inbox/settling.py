"""When is a file complete? When it has been quiet, and nobody has it open for writing.

`Settling` is pure bookkeeping: time is passed in, in seconds of any steady clock.
"""

import os
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from picowatch.inbox.names import is_dropped
from picowatch.save import Stamp

HELD_OPEN_LIMIT = 30.0
# Pictures are large, and come over slow connections: they are to be quiet for longer than recipes.
PICTURE_PATIENCE = 6
# Limit of what one round of answers reads, so that other work is not delayed and memory is small.
FILES_AT_ONCE = 200
PICTURES_AT_ONCE = 20  # to decode one takes as long as to answer some recipes
BYTES_AT_ONCE = 4 * 1024 * 1024

FileId = tuple[int, int]  # device, inode


@dataclass(slots=True)
class Pending:
    """A path with evidence of a write. `stamp` None: no such file. `by_event`: not only a scan.

    `same_since` is when it was written last, as far as is known.
    """

    path: str
    stamp: Stamp | None
    first_noted: float
    quiet_since: float
    by_event: bool
    same_since: float


class Settling:
    """Paths with evidence of a write, until they are quiet.

    A path is settled when, for `settle_seconds`, no evidence came and its stamp stayed the
    same; a dropped picture's when that holds for PICTURE_PATIENCE times as long. The caller
    decides whether it is complete, and may `postpone` it.
    """

    def __init__(self, settle_seconds: float) -> None:
        self.settle_seconds = settle_seconds
        self._pending: dict[str, Pending] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def __iter__(self) -> Iterator[Pending]:
        return iter(self._pending.values())

    def ready_in(self, now: float) -> float | None:
        """Seconds until something may be settled, 0 if it is due; None if nothing is pending."""
        if not self._pending:
            return None
        return max(0.0, min(map(self._quiet_at, self._pending.values())) - now)

    def _quiet_at(self, pending: Pending) -> float:
        patience = PICTURE_PATIENCE if is_dropped(pending.path) else 1
        return pending.quiet_since + self.settle_seconds * patience

    def note(self, path: str, stamp: Stamp | None, now: float, *, by_event: bool) -> None:
        """Evidence: the quiet time of the path starts (again)."""
        pending = self._pending.get(path)
        if pending is None:
            self._pending[path] = Pending(path, stamp, now, now, by_event, now)
            return
        pending.by_event |= by_event
        if by_event or pending.stamp != stamp:
            pending.stamp, pending.quiet_since, pending.same_since = stamp, now, now

    def settled(
        self,
        now: float,
        stamp_of: Callable[[str], Stamp | None],
        priority_in: Callable[[str], int] = lambda folder: 0,
        above: int | None = None,
    ) -> list[Pending]:
        """Take out the paths that have been quiet, only a part if these are many.

        The highest priority first, then the oldest evidence. `priority_in` returns the priority
        of a folder; files of at most the priority `above` stay, and so do those that are missing.
        """
        ready: list[Pending] = []
        size = pictures = 0
        for pending in self._in_order(priority_in, above):
            if len(ready) == FILES_AT_ONCE or size >= BYTES_AT_ONCE or pictures >= PICTURES_AT_ONCE:
                break
            if now < self._quiet_at(pending):
                continue
            stamp = stamp_of(pending.path)
            if stamp != pending.stamp:
                pending.stamp, pending.quiet_since, pending.same_since = stamp, now, now
                continue
            size += stamp.size if stamp else 0
            pictures += is_dropped(pending.path)
            ready.append(pending)
        for file in ready:
            del self._pending[file.path]
        return ready

    def _in_order(self, priority_in: Callable[[str], int], above: int | None) -> list[Pending]:
        """The pending paths; they are not sorted where all folders have the same priority."""
        folders = set(map(_folder_of, self._pending))
        priorities = {folder: priority_in(folder) for folder in folders}
        if above is not None and max(priorities.values(), default=above) <= above:
            return []
        pending = list(self)
        if above is not None:
            pending = [
                one for one in pending if one.stamp and priorities[_folder_of(one.path)] > above
            ]
        if len(set(priorities.values())) > 1:
            pending.sort(key=lambda one: -priorities[_folder_of(one.path)])
        return pending

    def postpone(self, settled: Pending, now: float) -> None:
        """Not yet: wait for another quiet time."""
        settled.quiet_since = now
        self._pending[settled.path] = settled


def _folder_of(path: str) -> str:
    return path.rpartition("/")[0]


def held_open_for_writing(files: Collection[FileId]) -> set[FileId]:
    """Those of `files` that another process has open for writing, as far as can be seen.

    Linux shows them in /proc/PID/fd, for processes of the same user (of all, for root). Elsewhere,
    and for writers outside a container, nothing is seen and only the quiet time protects.
    """
    if not files or not sys.platform.startswith("linux"):
        return set()
    wanted = set(files)
    held: set[FileId] = set()
    for process in _names("/proc"):
        if process.isdigit() and int(process) != os.getpid():
            held |= _held_by(f"/proc/{process}", wanted)
    return held


def _held_by(process: str, wanted: set[FileId]) -> set[FileId]:
    """Plain strings: on a desktop this looks at thousands of descriptors a round."""
    held = set()
    for descriptor in _names(f"{process}/fd"):
        try:
            status = os.stat(f"{process}/fd/{descriptor}")  # noqa: PTH116
            file = (status.st_dev, status.st_ino)
            if file in wanted and _writes(Path(f"{process}/fdinfo/{descriptor}")):
                held.add(file)
        except OSError:
            continue  # closed meanwhile, or not ours to see
    return held


def _writes(fdinfo: Path) -> bool:
    """fdinfo's `flags:` are the octal open(2) flags."""
    for line in fdinfo.read_text().splitlines():
        if line.startswith("flags:"):
            return int(line.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY
    return False


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208
    except OSError:
        return []
