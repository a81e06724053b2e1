"""Waits until a full disk has room, a share is back, or a locked ledger is free."""

import errno
import logging
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from picowatch.errors import ControlFlow, LedgerCorrupt
from picowatch.files.atomic import FolderAway, check_in_place
from picowatch.service import ALIVE, notify

log = logging.getLogger("picowatch")

RETRY_SECONDS = 2.0  # between tries
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
    """The one way to wait for a disk; all threads share it, so that trouble is reported once."""

    def __init__(self, stop: threading.Event, folder: Path, *, keeps_trying: bool) -> None:
        """`stop` ends all waiting. Not `keeps_trying`: nothing is waited for, as in `run --once`.

        `folder` is what is written to.
        """
        self._stop = stop
        self._folder = folder
        self.keeps_trying = keeps_trying
        self._lock = threading.Lock()
        self._waiting: set[str] = set()  # names of threads
        self.trouble = ""  # what is waited for, in words

    def until_done(self, action: Callable[[], T]) -> T:
        """Retry the action until it works.

        Raises Ended once `stop` is set, and the error itself where nothing is waited for, or where
        waiting would change nothing.
        """
        while True:
            try:
                result = action()
            except PASSING as error:
                self.failed(error)
                notify(*ALIVE)  # a start may wait here
                if self._stop.wait(RETRY_SECONDS):
                    raise Ended from error
            else:
                self.worked()
                return result

    def has_ended(self) -> bool:
        """Whether picowatch ends: nothing is waited for, and nothing long is begun."""
        return self._stop.is_set()

    def failed(self, error: Exception) -> None:
        """Something of this thread could not be written; raises `error` if it does not pass."""
        if not (self.keeps_trying and passes(error)):
            raise error
        try:
            check_in_place(self._folder)
        except FolderAway as away:  # says more than what it made SQLite say
            error = away
        with self._lock:
            self.trouble = f"{error}{self._room(error)}"
            if not self._waiting:
                log.error("cannot write: %s; waiting", self.trouble)
            self._waiting.add(threading.current_thread().name)

    def worked(self) -> None:
        """What this thread does could be written."""
        with self._lock:
            self._waiting.discard(threading.current_thread().name)
            if self.trouble and not self._waiting:
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
