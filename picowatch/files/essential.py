"""The two policies for files that cannot be written.

`essential`: pictures, images.jsonl and the ledger. What cannot be written ends the round, or holds
up its thread, and is tried again every two seconds. `optional`: what no picture needs, never
raised. What one folder refuses, as an error file, holds up its recipe `alone`. Each is said once.
"""

import errno
import logging
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from picowatch.errors import ControlFlow, LedgerCorrupt
from picowatch.files.atomic import FolderAway
from picowatch.service import ALIVE, notify

log = logging.getLogger("picowatch")

RETRY_SECONDS = 2.0  # between tries
FORGET_SECONDS = 60.0  # after which what nobody has tried again is gone, such as a deleted recipe
MOST_OPTIONAL = 50  # files that are remembered
LITTLE = 1_000_000  # bytes of free space that are worth a message
# Errors that may pass when there is room again or the ledger is unlocked: see `passes`.
PASSING = (OSError, sqlite3.OperationalError)
# Errors about one name, or about what is at that name; waiting does not help.
_LASTING = {
    errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG,
    errno.EINVAL, errno.EILSEQ, errno.ELOOP, errno.EXDEV, errno.EFBIG, errno.ENXIO, errno.EMLINK,
    errno.EOPNOTSUPP, errno.ESPIPE,
}  # fmt: skip

T = TypeVar("T")


class Ended(ControlFlow):
    """picowatch ends in the middle of something; the next start finishes it."""


def passes(error: BaseException) -> bool:
    """Whether an error is worth waiting for: a full disk, a lost share, a locked ledger."""
    if isinstance(error, sqlite3.OperationalError):
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_BUSY)
        return bool(code != sqlite3.SQLITE_ERROR)
    if not isinstance(error, OSError) or error.errno is None:  # as Pillow's, of damaged pictures
        return False
    # Whatever is in the place of images.jsonl may go away, and no picture can do without the list.
    return error.errno not in _LASTING or str(error.filename).endswith("/images.jsonl")


def unexpected(error: Exception) -> str:
    """Return a sentence about an unforeseen error; with --debug the log has its traceback."""
    if isinstance(error, Ended | LedgerCorrupt) or passes(error):
        raise error  # it is handled elsewhere
    log.debug("unexpected", exc_info=error)
    return in_words(error)


def in_words(error: Exception) -> str:
    """Return the sentence about an error that no code expects."""
    return f"Unexpected error: {type(error).__name__}: {error}."


_Key = tuple[str, str]  # step and file
_Policy = Literal["essential", "alone", "optional"]


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A file that cannot be written; times are on the monotonic clock."""

    policy: _Policy
    file: str  # "" if it is not known
    reason: str
    about: _Key  # refusals about the same have one message
    since: float
    tried_at: float


class Writing:
    """What cannot be written now, for all threads of a daemon.

    A reason is logged for the first file that has it; lack of permission, once for each folder.
    """

    def __init__(self, stop: threading.Event, folder: Path, limit: float | None = None) -> None:
        """Wait for `folder` until `stop`, or for `limit` seconds at most, as in `run --once`."""
        self._stop, self._folder, self.limit = stop, folder, limit
        self.keeps_trying = limit is None
        self._pause = RETRY_SECONDS if limit is None else min(RETRY_SECONDS, limit / 5)
        self._lock = threading.Lock()
        self._refusals: dict[_Key, _Refusal] = {}

    def essential(self, action: Callable[[], T]) -> T:
        """Do it until it works; this thread waits. Raises Ended, and errors that do not pass."""
        key = "thread", threading.current_thread().name
        while True:
            try:
                result = action()
            except PASSING as error:
                refusal = self.refused(key, error)
                if self.limit is not None and refusal.tried_at - refusal.since >= self.limit:
                    raise
            else:
                self.works(key)
                return result
            if self._stop.wait(self._pause):
                raise Ended

    def ends_round(self, action: Callable[[], object]) -> None:
        """Do a round, unless the last round was refused a moment ago. Raises what does not pass."""
        self._try(("round", ""), action, "essential")

    def alone(self, step: str, file: str, action: Callable[[], object]) -> bool:
        """Do a step with a file, unless it was refused a moment ago; return whether it is done.

        It is not if the action returns False. Raises errors that do not pass or concern all files.
        """
        return self._try((step, file), action, "alone")

    @contextmanager
    def optional(self, file: str, *, waits: bool = False) -> Iterator[None]:
        """Report why a file that no picture needs cannot be written or deleted, and go on."""
        try:
            yield
        except OSError as error:
            if waits and passes(error):
                raise  # the caller tries again
            if not isinstance(error, FolderAway):  # reported where it is waited for
                self.refused(("", file), error, "optional")
        else:
            self.works(("", file))

    def has_ended(self) -> bool:
        """Whether picowatch is ending: nothing is waited for, and nothing long is begun."""
        return self._stop.is_set()

    # -- what is refused

    @property
    def trouble(self) -> str:
        """What holds up everything, in words; "" if nothing does."""
        return next(iter(self._current("essential")), "")

    @property
    def waiting(self) -> list[str]:
        """What holds up a recipe alone, in words: "cannot write FILE: REASON"."""
        return [f"cannot write {words}" for words in self._current("alone")]

    @property
    def missing(self) -> list[str]:
        """What holds up nothing, in the same words."""
        return [f"cannot write {words}" for words in self._current("optional")]

    def refused(self, key: _Key, error: Exception, policy: _Policy = "essential") -> _Refusal:
        """Record a file that cannot be written; raise `error` if waiting does not help."""
        if policy != "optional" and not passes(error):
            raise error
        of_system = "" if isinstance(error, FolderAway) else getattr(error, "strerror", "")
        now, reason = time.monotonic(), of_system or str(error)
        file = self._shown(error) or ("" if policy == "essential" else key[1])
        about = reason, _place(error, file)
        with self._lock:
            before = self._refusals.get(key)
            refusal = _Refusal(policy, file, reason, about, before.since if before else now, now)
            self._refusals[key] = refusal
            is_same = before and (policy == "optional" or before.reason == reason)
            is_said = is_same or self._is_told(refusal)
            if policy == "optional":
                known = [key for key, it in self._refusals.items() if it.policy == policy]
                for old in known[:-MOST_OPTIONAL]:
                    del self._refusals[old]
        if not is_said:
            waits = "" if policy == "optional" else "; waiting"
            words = " " if file else ": ", self._words(refusal), waits
            log.error("cannot write%s%s%s", *words, extra={"event": "trouble"})
        if policy == "essential":
            notify(*ALIVE)  # a start may wait here
        return refusal

    def works(self, key: _Key) -> None:
        """Record that a step works."""
        if key not in self._refusals:  # as nearly always
            return
        with self._lock:
            refusal = self._refusals.pop(key, None)
            is_over = refusal and not self._is_told(refusal)
        if refusal and is_over:
            rest = "" if refusal.policy == "optional" else "; continuing"
            words = refusal.file and f" {refusal.file}", rest
            log.info("writing%s works again%s", *words, extra={"event": "recovered"})

    def forget(self, file: str) -> None:
        """Forget that a file was refused which nobody wants any more."""
        with self._lock:
            for key in [key for key, refusal in self._refusals.items() if refusal.file == file]:
                del self._refusals[key]

    def _try(self, key: _Key, action: Callable[[], object], policy: _Policy) -> bool:
        refusal = self._refusals.get(key)
        if refusal and time.monotonic() < refusal.tried_at + self._pause:
            return False
        try:
            is_done = action() is not False
        except PASSING as error:
            if policy == "alone" and isinstance(error, sqlite3.OperationalError | FolderAway):
                raise
            self.refused(key, error, policy)
            return False
        self.works(key)
        return is_done

    def _is_told(self, refusal: _Refusal) -> bool:
        """Whether a message about another file says the same; what waits has its own."""
        alike = [it for it in self._refusals.values() if it.about == refusal.about]
        others = [it for it in alike if it is not refusal]
        return any(refusal.policy == "optional" or it.policy != "optional" for it in others)

    def _current(self, policy: _Policy) -> list[str]:
        """Return refusals in words; forget what nobody tries again, as nobody wants it any more."""
        before = time.monotonic() - FORGET_SECONDS
        with self._lock:
            for key, refusal in [*self._refusals.items()]:
                if refusal.policy != "optional" and refusal.tried_at < before:
                    del self._refusals[key]
            return [self._words(it) for it in self._refusals.values() if it.policy == policy]

    def _shown(self, error: Exception) -> str:
        """Return the file that an error names, as its path below the folder; "" elsewhere."""
        file, folder = str(getattr(error, "filename", "")), f"{self._folder}/"
        return file.removeprefix(folder) if file.startswith(folder) else ""

    def _words(self, refusal: _Refusal) -> str:
        """Return "FILE: REASON", with the room on the disk if that is little."""
        free = LITTLE
        with suppress(OSError):  # of a full disk, SQLite says "unable to open"
            free = shutil.disk_usage(self._folder).free
        room = f" ({free / 1e6:.0f} MB are free on the outbox's disk)" if free < LITTLE else ""
        return f"{refusal.file}: {refusal.reason}{room}".removeprefix(": ")


def _place(error: Exception, file: str) -> str:
    """Return what has this error: the file, its folder, or the whole disk ("")."""
    if not passes(error):
        return file
    return os.path.dirname(file) if isinstance(error, PermissionError) else ""  # noqa: PTH120
