"""Recipe files on disk: telling their versions apart, reading them once.

Only regular files are ever opened. A symlink is followed only if it ends inside the inbox.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from picowatch.errors import ControlFlow, PicowatchError
from picowatch.files.safe_paths import blocks_of, is_open_for_writing, leads_out, open_below
from picowatch.ledger.rows import SizeAndTime

MAX_BYTES = 1024 * 1024
LEADS_OUT = "a symbolic link in its path leads out of the inbox"
# Errors that mean that a path does not exist; others mean that it cannot be read.
MISSING = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}


class FileUnreadable(PicowatchError):
    """A recipe file cannot be read; the text says why and what to do."""

    usual_remedy = "Check the file and its permissions, and save it again."


class FileChanged(ControlFlow):
    """The file was written while it was read: it is not complete yet."""


def size_and_time_of(root: Path | str, path: str) -> SizeAndTime | None:
    """Return the size and time of a recipe file, or None if it cannot be seen."""
    try:
        status = _status(root, path)
    except (OSError, ValueError):
        return None
    return _size_and_time(status) if status else None


def is_gone(root: Path, path: str) -> bool:
    """Whether the recipe file does not exist (any more). An unreadable file may exist."""
    try:
        return _status(root, path) is None
    except OSError as error:
        return error.errno in MISSING
    except ValueError:
        return True


def _status(root: Path | str, path: str) -> os.stat_result | None:
    """Return the status of a regular file; None for anything else, and a link out of the inbox."""
    status = os.lstat(f"{root}/{path}")  # enough for nearly all of ten thousand
    if stat.S_ISLNK(status.st_mode):
        if leads_out(Path(root), path):
            return None
        status = os.stat(f"{root}/{path}")  # noqa: PTH116  (many times cheaper than a Path)
    return status if stat.S_ISREG(status.st_mode) else None


def _size_and_time(status: os.stat_result) -> SizeAndTime:
    return SizeAndTime(status.st_size, status.st_mtime_ns, status.st_ino, 0, status.st_ctime_ns)


def read_file(root: Path, path: str, *, heeds_writers: bool = False) -> tuple[bytes, SizeAndTime]:
    """Return the file's bytes, at most MAX_BYTES + 1, and the size and time it had then.

    Raises FileUnreadable, FileChanged, or FileNotFoundError.
    """
    with complete_file(root, path, heeds_writers=heeds_writers) as (file, size_and_time):
        return b"".join(blocks_of(file, MAX_BYTES)), size_and_time


@contextmanager
def complete_file(
    root: Path, path: str, *, heeds_writers: bool = False
) -> Iterator[tuple[IO[bytes], SizeAndTime]]:
    """Open a file to be read, with its size and time. Raises like `read_file`.

    With `heeds_writers`, a file that another process has open for writing counts as changed.
    """
    try:
        opened = open_below(root, path)
    except FileNotFoundError:
        raise
    except NotADirectoryError as error:
        raise FileNotFoundError(error.errno, error.strerror) from error
    except OSError as error:
        raise FileUnreadable(_why(error)) from error
    with opened as file:
        before = os.fstat(file.fileno())
        if not stat.S_ISREG(before.st_mode):
            raise FileUnreadable("it is not a regular file")
        if heeds_writers and is_open_for_writing(file.fileno()):
            raise FileChanged
        try:
            yield file, _size_and_time(before)
        except OSError as error:
            raise FileUnreadable(_why(error)) from error
        if _size_and_time(before) != _size_and_time(os.fstat(file.fileno())):
            raise FileChanged


def _why(error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM):
        return "picowatch has no permission to read it; allow it with `chmod a+r`"
    if error.errno == errno.EXDEV:
        return LEADS_OUT
    if error.errno == errno.ELOOP:
        return "it is a symbolic link that changed while it was opened"
    return error.strerror or str(error)
