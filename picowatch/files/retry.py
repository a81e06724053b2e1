"""Waits until a full disk has room, a share is back, or a locked ledger is free."""

import errno
import logging
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from picowatch.errors import ControlFlow, LedgerCorrupt
from picowatch.systemd import ALIVE, notify

log = logging.getLogger("picowatch")

RETRY_SECONDS = 2.0  # between tries
GRACE_SECONDS = 0.5  # in which what was begun may be finished when picowatch ends
LITTLE = 100_000_000  # bytes of free space that are worth a message
# Errors that may pass when there is room again or the ledger is unlocked: see `passes`.
PASSING = (OSError, sqlite3.OperationalError)
# What a file system says of one name, or of what lies there; waiting changes nothing about it.
_LASTING = {
    errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG,
    errno.EINVAL, errno.EILSEQ, errno.ELOOP, errno.EXDEV, errno.EFBIG, errno.ENXIO, errno.EMLINK,
    errno.EOPNOTSUPP,
}  # fmt: skip

T = TypeVar("T")


def passes(error: BaseException) -> bool:
    """Whether it is worth waiting for: a full disk, a lost share, a locked ledger.

    An OSError without a number is not the system's: Pillow raises some for damaged pictures.
    """
    if isinstance(error, sqlite3.OperationalError):
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_BUSY)
        return bool(code != sqlite3.SQLITE_ERROR)
    return isinstance(error, OSError) and error.errno is not None and error.errno not in _LASTING


def is_of_one_folder(error: BaseException, root: Path) -> bool:
    """Whether permission is missing below `root` alone: waiting would hold up all other folders."""
    return isinstance(error, PermissionError) and os.access(root, os.W_OK | os.X_OK)


class Ended(ControlFlow):
    """picowatch ends in the middle of something; the next start finishes it."""


def unexpected(error: Exception) -> str:
    """A sentence on an error that nobody foresaw; with --debug the log has its traceback.

    What others handle is raised again: an end, a damaged ledger, and what is worth waiting for.
    """
    if isinstance(error, Ended | LedgerCorrupt) or passes(error):
        raise error
    log.debug("unexpected", exc_info=error)
    return f"Unexpected error: {type(error).__name__}: {error}."


class Retry:
    """Shared by all threads of the daemon, so that a full disk and its end are reported once."""

    def __init__(self, stop: threading.Event, folder: Path, *, keeps_trying: bool) -> None:
        """`stop` ends all waiting. Not `keeps_trying`: nothing is waited for, as in `run --once`.

        `folder` is what is written to.
        """
        self._stop = stop
        self._folder = folder
        self.keeps_trying = keeps_trying
        self._lock = threading.Lock()
        self._waiting: set[str] = set()
        self._end_at: float | None = None
        self.trouble = ""  # what it is waiting for, in words

    def until_begun(self, action: Callable[[], T]) -> T:
        """As `until_done`, for what must succeed before anything else can begin.

        A service manager is told that picowatch is alive: it would end a start that takes long,
        and the start after that would wait for the same.
        """
        return self.until_done("start", action, lambda: notify(*ALIVE))

    def until_done(
        self, who: str, action: Callable[[], T], on_wait: Callable[[], None] = lambda: None
    ) -> T:
        """Retry the action until it works; `who` names the caller that is waiting.

        `on_wait` is called before each wait. Raises Ended once `stop` is set, and the error itself
        where nothing is waited for, or where waiting would change nothing.
        """
        while True:
            try:
                result = action()
            except PASSING as error:
                if not passes(error):
                    raise
                self.wait_begins(who, error)
                on_wait()
                if self._stop.wait(RETRY_SECONDS):
                    raise Ended from error
            else:
                self.wait_ends(who)
                return result

    def go_on(self) -> None:
        """Long operations call this between two steps.

        Raises Ended once `stop` is set, after GRACE_SECONDS: short operations finish.
        """
        if not self._stop.is_set():
            return
        if self._end_at is None:
            self._end_at = time.monotonic() + GRACE_SECONDS
        if time.monotonic() >= self._end_at:
            raise Ended

    def wait_begins(self, who: str, error: Exception) -> None:
        """Something could not be written; raises `error` where nothing is waited for."""
        if not self.keeps_trying:
            raise error
        with self._lock:
            self.trouble = f"{error}{self._room(error)}"
            if not self._waiting:
                log.error("cannot write: %s; waiting", self.trouble)
            self._waiting.add(who)

    def wait_ends(self, who: str) -> None:
        """It could be written."""
        with self._lock:
            if who not in self._waiting:
                return
            self._waiting.discard(who)
            if not self._waiting:
                self.trouble = ""
                log.info("it can be written again; continuing")

    def _room(self, error: Exception) -> str:
        """How little there is, where that may be the reason."""
        if not _may_lack_room(error, self._folder):
            return ""
        try:
            free = shutil.disk_usage(self._folder).free
        except OSError:
            return ""
        return f" ({free / 1e6:.0f} MB are free on the outbox's disk)" if free < LITTLE else ""


def _may_lack_room(error: Exception, folder: Path) -> bool:
    """What SQLite calls "unable to open database file" is most often a full disk."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_BUSY)
    return code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN) and os.access(folder, os.W_OK)
