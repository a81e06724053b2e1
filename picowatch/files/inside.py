"""Opens and deletes files below a folder, safe against links that are swapped in meanwhile.

A path is walked from the folder: each part is opened in the one before, and no link is followed. If
a part is a link that stays inside the folder, the path is resolved and walked again; a link that is
swapped in after that makes the opening fail, and is never followed.
"""

import errno
import fcntl
import hashlib
import os
import signal
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from picowatch.errors import ControlFlow
from picowatch.files.atomic import sync_folder

# With O_PATH, where there is such a flag, folders that may be entered but not listed can be walked.
_ROOT = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
_FOLDER = _ROOT | os.O_NOFOLLOW
# NONBLOCK: a FIFO that replaces the file must not block the daemon.
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_below(root: Path, path: str) -> int:
    """Open the regular file `path` below `root` for reading; return its handle.

    Raises OSError: besides the system's own reasons, EXDEV for a path that leads out of `root`, and
    EINVAL for anything but a regular file, which is never opened.
    """
    parts = path.split("/")
    if not {"", ".", ".."} & {*parts}:
        try:
            return _open(root, parts)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
    real_root = _real(root)  # a link is on the way
    real = _real(real_root / path, strict=True)
    if real == real_root:
        raise _leads_out()
    return _open(real_root, _parts_below(real_root, real))


def _open(root: Path, parts: Sequence[str]) -> int:
    """Open the regular file at these names below a folder; none of them may be a link."""
    *folders, name = parts
    folder = _enter(root, folders)
    try:
        _check_regular(os.stat(name, dir_fd=folder, follow_symlinks=False))
        handle = os.open(name, _FILE, dir_fd=folder)
    finally:
        os.close(folder)
    return _checked(handle)


def open_regular(path: Path) -> int:
    """Open a regular file for reading, following links; never a pipe or a device.

    Raises OSError, with EINVAL for anything but a regular file.
    """
    _check_regular(path.stat(), path)
    return _checked(os.open(path, _FILE & ~os.O_NOFOLLOW))


def unlink_below(root: Path, path: str, is_meant: Callable[[IO[bytes]], bool]) -> bool:
    """Delete the regular file `path` below `root` if `is_meant`; return whether it was deleted.

    A file that was saved again meanwhile, or that somebody has open for writing, stays; so does a
    link. Raises OSError like `open_below`.
    """
    target = root / path
    real_root = _real(root)
    within = _enter(real_root, _parts_below(real_root, _real(target.parent, strict=True)))
    try:
        with os.fdopen(os.open(target.name, _FILE, dir_fd=within), "rb") as file:
            before = os.fstat(file.fileno())
            _check_regular(before)
            if is_open_for_writing(file.fileno()) or not is_meant(file):
                return False
        now = os.stat(target.name, dir_fd=within, follow_symlinks=False)
        if _version(now) != _version(before):
            return False
        os.unlink(target.name, dir_fd=within)
        sync_folder(".", within)  # else a power cut may bring it back, as a new save
        return True
    finally:
        os.close(within)


def is_open_for_writing(handle: int) -> bool:
    """Whether anybody has the file open for writing: then a read lease is refused, fcntl(2).

    Only a file's owner and root get leases. Network file systems and systems other than Linux have
    none, so nothing is detected there.
    """
    try:
        # If the file is opened meanwhile, the kernel sends a signal: use one that does nothing.
        fcntl.fcntl(handle, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except AttributeError:
        return False
    except OSError as error:
        return error.errno == errno.EAGAIN
    return False


def _version(status: os.stat_result) -> tuple[int, int, int]:
    """Return numbers that differ between two saves."""
    return status.st_ino, status.st_size, status.st_mtime_ns


def leads_out(root: Path, path: str) -> bool:
    """Whether `path`, with links followed, ends outside of `root`."""
    return not _real(root / path).is_relative_to(_real(root))


def _enter(root: Path, folders: Sequence[str]) -> int:
    """Open the folder at these names below `root`; none of them may be a link."""
    handle = os.open(root, _ROOT)
    try:
        for part in folders:
            inner = os.open(part, _FOLDER, dir_fd=handle)
            os.close(handle)
            handle = inner
    except OSError:
        os.close(handle)
        raise
    return handle


def _parts_below(root: Path, path: Path) -> Sequence[str]:
    """Return the names that lead from `root` to `path`, both without links. Raises OSError."""
    if not path.is_relative_to(root):
        raise _leads_out()
    return path.relative_to(root).parts


def _leads_out() -> OSError:
    return OSError(errno.EXDEV, "it leads out of its folder")


def _real(path: Path, *, strict: bool = False) -> Path:
    """Resolve links. Unlike this, `Path.resolve` raises RuntimeError if links run in a circle."""
    return Path(os.path.realpath(path, strict=strict))


def _checked(handle: int) -> int:
    """Return the handle of a regular file; close any other, and raise OSError."""
    try:
        _check_regular(os.fstat(handle))
    except OSError:
        os.close(handle)
        raise
    return handle


def _check_regular(status: os.stat_result, path: Path | None = None) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", path and str(path))


_BLOCK = 1 << 16
MAX_BYTES = 64 * 1024 * 1024  # of a picture; no larger file is read whole


class OtherBytes(ControlFlow):
    """A file has other bytes than expected, or cannot be read."""


def blocks_of(file: IO[bytes], most: int = MAX_BYTES) -> Iterator[bytes]:
    """Yield the file's bytes from its beginning, at most `most` + 1 of them."""
    file.seek(0)
    left = most + 1
    while left and (block := file.read(min(_BLOCK, left))):
        left -= len(block)
        yield block


def sha256_of(file: IO[bytes]) -> str:
    """Return the sha256 of the bytes that `blocks_of` yields."""
    digest = hashlib.sha256()
    for block in blocks_of(file):
        digest.update(block)
    return digest.hexdigest()


def checked_blocks(root: Path, path: str, digest: str) -> Iterator[bytes]:
    """Yield the blocks of a file below `root`.

    Raises OtherBytes if it cannot be read, or at the end if `digest` is not its sha256.
    """
    found = hashlib.sha256()
    try:
        with os.fdopen(open_below(root, path), "rb") as file:
            for block in blocks_of(file):
                found.update(block)
                yield block
    except OSError as error:
        raise OtherBytes from error
    if found.hexdigest() != digest:
        raise OtherBytes
