"""Waits until a full disk has room, a share is back, or a locked ledger is free."""

import errno
import logging
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from picowatch.errors import ControlFlow, LedgerCorrupt
from picowatch.files.atomic import FolderAway, check_in_place
from picowatch.service import ALIVE, notify

log = logging.getLogger("picowatch")

RETRY_SECONDS = 2.0  # between tries
LITTLE = 1_000_000  # bytes of free space that are worth a message
# Errors that may pass when there is room again or the ledger is unlocked: see `passes`.
PASSING = (OSError, sqlite3.OperationalError)
# Errors about one name, or about what is at that name; waiting does not help.
_LASTING = {
    errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG,
    errno.EINVAL, errno.EILSEQ, errno.ELOOP, errno.EXDEV, errno.EFBIG, errno.ENXIO, errno.EMLINK,
    errno.EOPNOTSUPP,
}  # fmt: skip

T = TypeVar("T")


def passes(error: BaseException) -> bool:
    """Whether an error is worth waiting for: a full disk, a lost share, a locked ledger.

    An OSError without a number is not the system's; Pillow raises such ones for damaged pictures.
    """
    if isinstance(error, sqlite3.OperationalError):
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_BUSY)
        return bool(code != sqlite3.SQLITE_ERROR)
    return isinstance(error, OSError) and error.errno is not None and error.errno not in _LASTING


def is_of_one_folder(error: BaseException, root: Path) -> bool:
    """Whether permission is missing only below `root`: waiting would hold up all other folders."""
    return isinstance(error, PermissionError) and os.access(root, os.W_OK | os.X_OK)


@contextmanager
def only_logged(file: str, root: Path) -> Iterator[None]:
    """Log why a file below `root` that no picture needs cannot be written or deleted.

    A full disk is waited for.
    """
    try:
        yield
    except OSError as error:
        if passes(error) and not is_of_one_folder(error, root):
            raise
        log.error("%s cannot be written: %s", file, error.strerror)


class Ended(ControlFlow):
    """picowatch ends in the middle of something; the next start finishes it."""


def unexpected(error: Exception) -> str:
    """Return a sentence about an unforeseen error; with --debug the log has its traceback.

    Errors that are handled elsewhere are raised again: an end, a damaged ledger, and errors that
    are worth waiting for.
    """
    if isinstance(error, Ended | LedgerCorrupt) or passes(error):
        raise error
    log.debug("unexpected", exc_info=error)
    return f"Unexpected error: {type(error).__name__}: {error}."


class Retry:
    """The one way to wait for a disk; all threads share it, so that trouble is reported once."""

    def __init__(self, stop: threading.Event, folder: Path, *, keeps_trying: bool) -> None:
        """Wait for `folder` until `stop`; never without `keeps_trying`, as in `run --once`."""
        self._stop = stop
        self._folder = folder
        self.keeps_trying = keeps_trying
        self._lock = threading.Lock()
        self._waiting: set[str] = set()  # names of threads
        self.trouble = ""  # what is waited for, in words

    def until_done(self, action: Callable[[], T]) -> T:
        """Retry the action until it works.

        Raises Ended once `stop` is set, or the error itself if waiting is off or would not help.
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
        """Whether picowatch is ending: nothing is waited for, and nothing long is begun."""
        return self._stop.is_set()

    def failed(self, error: Exception) -> None:
        """Record that this thread could not write; raise `error` if waiting does not help."""
        if not (self.keeps_trying and passes(error)):
            raise error
        try:
            check_in_place(self._folder)
        except FolderAway as away:  # more exact than what SQLite says about it
            error = away
        with self._lock:
            self.trouble = f"{error}{self._room()}"
            if not self._waiting:
                log.error("cannot write: %s; waiting", self.trouble)
            self._waiting.add(threading.current_thread().name)

    def worked(self) -> None:
        """Record that this thread could write."""
        with self._lock:
            self._waiting.discard(threading.current_thread().name)
            if self.trouble and not self._waiting:
                self.trouble = ""
                log.info("writing works again; continuing")

    def _room(self) -> str:
        """Return how little room there is: of a full disk, SQLite says "unable to open"."""
        try:
            free = shutil.disk_usage(self._folder).free
        except OSError:
            return ""
        return f" ({free / 1e6:.0f} MB are free on the outbox's disk)" if free < LITTLE else ""
