"""Paths of the inbox that differ from the ledger, until they are quiet."""

import time
from collections import Counter
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import count

from picowatch.inbox.names import is_dropped, is_template
from picowatch.ledger.rows import SizeAndTime

HELD_OPEN_LIMIT = 30.0
# Pictures, which are large and may come over slow connections, have to be quiet this much longer.
PICTURE_PATIENCE = 6
# … and in a single run, which waits ten times `settle_seconds` at most, an incomplete picture.
SINGLE_RUN_PATIENCE = 8
# A webcam may write its picture so often that it is never read. This many seconds later it is told.
STILL_WRITTEN_SECONDS = 60.0
STILL_WRITTEN = "it is still being written, and is read once it has been the same for {:g} s"
# What makes a file a save, besides its size or its time.
NEW, WANTED, TEMPLATE = "new", "a command", "its template"
LACKED = "what it lacked"  # a refused file is read again: another file may have come
BYTES = "its bytes"  # at the same size and time


@dataclass(frozen=True, slots=True, eq=False)
class Pending:
    """A path that differs from what the ledger knows."""

    path: str
    size_and_time: SizeAndTime | None  # None: no such file
    why: str  # what differs
    is_new: bool  # the ledger knows another file by this path, or none: it may be renamed
    first: float  # when it began to differ
    since: float  # when it last changed
    digest: str = ""  # that of the ledger's bytes, if only others make this a save
    place: int = 0  # in the order of beginning

    def after(self, before: "Pending | None") -> "Pending":
        """Return what was noted before if that is the same, else this with its first time."""
        if before is None:
            return self
        if (before.size_and_time, before.why) == (self.size_and_time, self.why):
            return before
        return replace(self, first=before.first)


class Waiting:
    """What is pending, by path, in the order in which it becomes quiet."""

    def __init__(self, settle_seconds: float) -> None:
        self.settle_seconds = settle_seconds
        self.all: dict[str, Pending] = {}
        self._quiet_at: dict[str, float] = {}  # of those that `quiet` has not returned yet
        self._times: list[tuple[float, str]] = []  # a heap of these, and of former ones
        self._places = count()
        self._versions: Counter[tuple[int, ...]] = Counter()  # with inodes, of new files
        self.templates = 0  # how many are pending that may be usable at once

    def __len__(self) -> int:
        return len(self.all)

    def has(self, pending: Pending) -> bool:
        """Whether this still differs from the ledger, and has not changed since."""
        return self.all.get(pending.path) is pending

    def note(self, pending: Pending, quiet_at: float | None = None) -> None:
        """Note a path, unless this is noted; it is quiet at that time, or as its kind has to be."""
        path, before = pending.path, self.all.get(pending.path)
        if before is pending:
            return
        self.drop(path)
        self.all[path] = replace(pending, place=before.place if before else next(self._places))
        self._count(pending, 1)
        own = pending.since + self.patience(path)
        self._quiet_at[path] = own if quiet_at is None else quiet_at
        heappush(self._times, (self._quiet_at[path], path))

    def patience(self, path: str) -> float:
        """Return the seconds for which a path has to be the same."""
        return self.settle_seconds * (PICTURE_PATIENCE if is_dropped(path) else 1)

    def still_written(self, now: float) -> dict[str, str]:
        """Return the files that change again and again, each with why it is not read yet."""
        told, at = {}, time.time_ns()
        for path, pending in self.all.items():
            version, patience = pending.size_and_time, self.patience(path)
            if version is None or now - pending.first < STILL_WRITTEN_SECONDS:
                continue
            if 0 <= at - version.mtime_ns < patience * 1e9:  # else it waits for something else
                told[path] = STILL_WRITTEN.format(patience)
        return told

    def settle_again(self, pending: Pending, now: float) -> None:
        """Let a path be quiet once more, as a file that was not complete."""
        if self.has(pending):
            self.note(replace(pending, since=now))

    def read_again(self, pending: Pending, at: float = 0.0) -> None:
        """Read a file again, at that time at the earliest."""
        if self.has(pending):
            self.note(replace(pending), at)

    def drop(self, path: str) -> None:
        """Leave a path alone until a look finds that it differs."""
        if pending := self.all.pop(path, None):
            self._quiet_at.pop(path, None)
            self._count(pending, -1)
        if not self.all:
            self._versions.clear()

    def quiet(self, now: float) -> list[Pending]:
        """Return what has become quiet since the last call, in the order of the first notes."""
        quiet = []
        while self.next_quiet_at() <= now:
            _, path = heappop(self._times)
            del self._quiet_at[path]
            quiet.append(self.all[path])
        return sorted(quiet, key=lambda pending: pending.place)

    def next_quiet_at(self) -> float:
        while self._times and self._quiet_at.get(self._times[0][1]) != self._times[0][0]:
            heappop(self._times)  # it was noted again, or dropped
        return self._times[0][0] if self._times else float("inf")

    def may_be(self, version: SizeAndTime) -> bool:
        """Whether a file that the ledger does not have yet has this size and time."""
        return self._versions[version[:2]] > 0

    def is_new_name_of(self, version: SizeAndTime) -> bool:
        """Whether this version of a file has a name that the ledger does not know it by."""
        return self._versions[version[:3]] > 0

    def _count(self, pending: Pending, change: int) -> None:
        if pending.why == LACKED:  # the ledger has refused these bytes; they wait for another file
            return
        self.templates += change * is_template(pending.path)
        if version := pending.size_and_time:
            self._versions[version[:2]] += change
            self._versions[version[:3]] += change * pending.is_new
