"""Opens and deletes what a path names below a folder, whatever is put in its way meanwhile.

A symbolic link is followed if it ends inside the folder. The path is resolved first and then
walked from the folder, each part opened in the one before and none of them followed: a link that
is swapped in after the look makes the opening fail, it never leads anywhere.
"""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

# A folder that may be entered but not listed can be walked through where the system knows O_PATH.
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# NONBLOCK: a FIFO that takes the file's place must not stop the daemon.
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_below(root: Path, path: str) -> int:
    """A handle for reading the regular file `path` below `root`.

    Raises OSError: besides the system's own reasons EXDEV for a path that leads out of `root`,
    and EINVAL for what is no regular file; that is never opened.
    """
    real_root = _real(root)
    real = _real(real_root / path, strict=True)
    if real == real_root:
        raise OSError(errno.EXDEV, "it leads out of its folder")
    folder = _enter(real_root, real.parent)
    try:
        _check_regular(os.stat(real.name, dir_fd=folder, follow_symlinks=False))
        handle = os.open(real.name, _FILE, dir_fd=folder)
    finally:
        os.close(folder)
    try:
        _check_regular(os.fstat(handle))
    except OSError:
        os.close(handle)
        raise
    return handle


def open_regular(path: Path) -> int:
    """A handle for reading a regular file, wherever links to it lead; never of a pipe or a device.

    Raises OSError, EINVAL for what is no regular file.
    """
    _check_regular(path.stat())
    handle = os.open(path, _FILE & ~os.O_NOFOLLOW)
    try:
        _check_regular(os.fstat(handle))
    except OSError:
        os.close(handle)
        raise
    return handle


def unlink_below(root: Path, path: str, is_meant: Callable[[bytes], bool]) -> bool:
    """Delete the regular file `path` below `root` if its bytes are meant; gives whether they were.

    A link in its place stays. Raises OSError as `open_below`.
    """
    place = root / path
    name = place.name
    within = _enter(_real(root), _real(place.parent, strict=True))
    try:
        handle = os.open(name, _FILE, dir_fd=within)
        with os.fdopen(handle, "rb") as file:
            _check_regular(os.fstat(handle))
            if not is_meant(file.read()):
                return False
        os.unlink(name, dir_fd=within)
        _sync_folder(within)
        return True
    finally:
        os.close(within)


def _sync_folder(folder: int) -> None:
    """Make a deletion durable: what a power cut brings back would be taken for a new save."""
    handle = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def leads_out(root: Path, path: str) -> bool:
    """Whether `path`, its links followed, ends outside of `root`."""
    return not _real(root / path).is_relative_to(_real(root))


def _enter(root: Path, folder: Path) -> int:
    """A handle of a folder, both without links when they were looked at."""
    if not folder.is_relative_to(root):
        raise OSError(errno.EXDEV, "it leads out of its folder")
    handle = os.open(root, _FOLDER)
    try:
        for part in folder.relative_to(root).parts:
            inner = os.open(part, _FOLDER, dir_fd=handle)
            os.close(handle)
            handle = inner
    except OSError:
        os.close(handle)
        raise
    return handle


def _real(path: Path, *, strict: bool = False) -> Path:
    """The path without links. `Path.resolve` raises RuntimeError where links run in a circle."""
    return Path(os.path.realpath(path, strict=strict))


def _check_regular(status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file")
