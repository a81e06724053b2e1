"""Does what a disk may refuse: it is said once with its file, waits alone, and is tried again.

A full disk, a lost share, a locked ledger, a folder that may not be written: all of these may pass.
"""

import errno
import logging
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from picowatch.errors import ControlFlow, LedgerCorrupt
from picowatch.files.atomic import FolderAway
from picowatch.service import ALIVE, notify

log = logging.getLogger("picowatch")

RETRY_SECONDS = 2.0  # between tries; what waits alone waits twice as long each time
MOST_DOUBLINGS = 4
FORGET_SECONDS = 60.0  # after which what nobody has tried again is gone, such as a deleted recipe
LITTLE = 1_000_000  # bytes of free space that are worth a message
# Errors that may pass when there is room again or the ledger is unlocked: see `passes`.
PASSING = (OSError, sqlite3.OperationalError)
# Errors about one name, or about what is at that name; waiting does not help.
_LASTING = {
    errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG,
    errno.EINVAL, errno.EILSEQ, errno.ELOOP, errno.EXDEV, errno.EFBIG, errno.ENXIO, errno.EMLINK,
    errno.EOPNOTSUPP, errno.ESPIPE,
}  # fmt: skip
_OF_A_FOLDER = {os.strerror(errno.EACCES), os.strerror(errno.EPERM)}

T = TypeVar("T")


class Ended(ControlFlow):
    """picowatch ends in the middle of something; the next start finishes it."""


def passes(error: BaseException) -> bool:
    """Whether an error is worth waiting for: a full disk, a lost share, a locked ledger.

    An OSError without a number is not the system's; Pillow raises such ones for damaged pictures.
    """
    if isinstance(error, sqlite3.OperationalError):
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_BUSY)
        return bool(code != sqlite3.SQLITE_ERROR)
    return isinstance(error, OSError) and error.errno is not None and error.errno not in _LASTING


def unexpected(error: Exception) -> str:
    """Return a sentence about an unforeseen error; with --debug the log has its traceback.

    Errors that are handled elsewhere are raised again: an end, a damaged ledger, and errors that
    are worth waiting for.
    """
    if isinstance(error, Ended | LedgerCorrupt) or passes(error):
        raise error
    log.debug("unexpected", exc_info=error)
    return f"Unexpected error: {type(error).__name__}: {error}."


@contextmanager
def unneeded(file: str, *, waits: bool = True) -> Iterator[None]:
    """Log why a file that no picture needs cannot be written or deleted.

    An error that may pass is raised if the file `waits` for that, and if all files do.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, FolderAway) or (waits and passes(error)):
            raise
        log.error("%s cannot be written: %s", file, error.strerror)


# Notes step, file, number of tries, time of the next one in Unix seconds, and reason of a refusal
# where it outlasts the daemon; without tries, that the step is not refused any more.
Note = Callable[[str, str, int, float, str], object]


@dataclass
class _Refusal:
    """A step that a disk refused; times are on the monotonic clock."""

    file: str  # "" if it is not known
    reason: str
    is_alone: bool  # everything else goes on
    error: Exception
    since: float
    next_at: float = 0.0
    tries: int = 0

    @property
    def about(self) -> tuple[str, str]:
        """What a message is about: refusals about the same have one message."""
        is_of_folder = self.reason in _OF_A_FOLDER
        return self.reason, os.path.dirname(self.file) if is_of_folder else ""  # noqa: PTH120


class Attempts:
    """What the disk refuses, for all steps and threads of a daemon.

    A reason is logged for the first file that has it; lack of permission, once for each folder.
    """

    def __init__(self, stop: threading.Event, folder: Path, limit: float | None = None) -> None:
        """Wait for `folder` until `stop`, or for `limit` seconds at most, as in `run --once`."""
        self._stop, self._folder, self.limit = stop, folder, limit
        self.keeps_trying = limit is None
        self._lock = threading.Lock()
        self._refusals: dict[tuple[str, str], _Refusal] = {}  # by step and file
        self._note: Note | None = None

    def remember(self, known: Iterable[tuple[str, str, int, str]], note: Note) -> None:
        """Know the refusals of earlier daemons. Each step is tried again at once."""
        self._note, now = note, time.monotonic()
        for step, file, tries, reason in known:
            one = _Refusal(file, reason, True, OSError(reason), now, now, tries)
            self._refusals[step, file] = one

    def attempt(
        self, step: str, file: str, action: Callable[[], object], *, is_alone: bool = True
    ) -> bool:
        """Do a step with a file, unless it waits; return whether it is done.

        It is not if the action returns False. Raises errors that do not pass and, if the step
        `is_alone`, those that concern all files.
        """
        with self._lock:
            one = self._refusals.get((step, file))
        if one and time.monotonic() < one.next_at:
            return False
        try:
            is_done = action() is not False
        except PASSING as error:
            if is_alone and isinstance(error, sqlite3.OperationalError | FolderAway):
                raise
            self.refused(step, file, error, is_alone=is_alone)
            return False
        self.worked(step, file)
        return is_done

    def until_done(self, action: Callable[[], T]) -> T:
        """Retry until it works, for a thread that can do nothing else meanwhile.

        Raises Ended at the end of picowatch, and errors that do not pass, or not soon enough.
        """
        key, results = ("thread", threading.current_thread().name), list[T]()
        while not self.attempt(*key, lambda: results.append(action()), is_alone=False):
            self.rest(*key)
        return results[0]

    def rest(self, step: str, file: str) -> None:
        """Wait until a step may be tried again, if it was refused.

        Raises Ended at the end of picowatch, and its error if a single run has waited long enough.
        """
        with self._lock:
            one = self._refusals.get((step, file))
        now = time.monotonic()
        if one and self.limit is not None and now - one.since >= self.limit:
            raise one.error
        if self._stop.wait(max(0.0, one.next_at - now) if one else 0.0):
            raise Ended

    def has_ended(self) -> bool:
        """Whether picowatch is ending: nothing is waited for, and nothing long is begun."""
        return self._stop.is_set()

    # -- what is refused

    @property
    def trouble(self) -> str:
        """What holds up other things, too, in words; "" if nothing does."""
        return next(self._all(is_alone=False), "").removeprefix(": ").lstrip()

    @property
    def waiting(self) -> list[str]:
        """What waits alone, in words: "cannot write FILE: REASON"."""
        return [f"cannot write{words}" for words in self._all(is_alone=True)]

    def refused(self, step: str, file: str, error: Exception, *, is_alone: bool = True) -> None:
        """Record that a step could not be done; raise `error` if waiting does not help."""
        if not passes(error):
            raise error
        now, reason = time.monotonic(), _reason(error)
        with self._lock:
            said = {other.about for other in self._refusals.values()}
            one = self._refusals.get((step, file)) or _Refusal("", "", is_alone, error, now)
            is_said = one.reason == reason
            one.file = self._shown(error) or (file if is_alone else "")
            one.reason, one.error = reason, error
            one.next_at = now + self._seconds(one)
            one.tries += 1
            self._refusals[step, file] = one
        if not is_said and one.about not in said:
            log.error("cannot write%s; waiting", self._words(one))
        if not is_alone:
            notify(*ALIVE)  # a start may wait here
        elif self._note:
            next_at = time.time() + one.next_at - now
            with suppress(*PASSING, LedgerCorrupt):  # it is remembered here
                self._note(step, file, one.tries, next_at, one.reason)

    def worked(self, step: str, file: str) -> None:
        if one := self._drop(step, file):
            with self._lock:
                is_over = one.about not in {other.about for other in self._refusals.values()}
            if is_over:
                log.info("writing%s works again; continuing", one.file and f" {one.file}")

    def forget_old(self) -> None:
        """Forget what nobody has tried again, because nobody wants it any more."""
        before = time.monotonic() - FORGET_SECONDS
        with self._lock:
            old = [key for key, one in self._refusals.items() if one.next_at < before]
        for key in old:
            self._drop(*key)

    def _drop(self, step: str, file: str) -> _Refusal | None:
        with self._lock:
            one = self._refusals.pop((step, file), None)
        if one and one.is_alone and self._note:
            with suppress(*PASSING, LedgerCorrupt):  # it is forgotten after the next start
                self._note(step, file, 0, 0.0, "")
        return one

    def _seconds(self, one: _Refusal) -> float:
        """Return how long to wait until the next try."""
        doubled = min(one.tries, MOST_DOUBLINGS) if one.is_alone else 0
        seconds = RETRY_SECONDS * (1 << doubled)
        return seconds if self.limit is None else min(seconds, self.limit / 5)

    def _all(self, *, is_alone: bool) -> Iterator[str]:
        with self._lock:
            refusals = list(self._refusals.values())
        return (self._words(one) for one in refusals if one.is_alone is is_alone)

    def _shown(self, error: Exception) -> str:
        """Return the file that an error names, as its path below the folder; "" elsewhere."""
        file, folder = str(getattr(error, "filename", "")), f"{self._folder}/"
        return file.removeprefix(folder) if file.startswith(folder) else ""

    def _words(self, one: _Refusal) -> str:
        """Return " FILE: REASON", with the room on the disk if that is little."""
        free = LITTLE
        with suppress(OSError):  # of a full disk, SQLite says "unable to open"
            free = shutil.disk_usage(self._folder).free
        room = f" ({free / 1e6:.0f} MB are free on the outbox's disk)" if free < LITTLE else ""
        return f"{one.file and f' {one.file}'}: {one.reason}{room}"


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and not isinstance(error, FolderAway) and error.strerror:
        return error.strerror
    return str(error)
