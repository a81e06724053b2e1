"""Opens, links and deletes files below a folder, safe against links that are swapped in meanwhile.

A path is walked from the folder: each part is opened in the one before, and none may be a link. A
path with links is resolved first, and walked if it stays inside. A link that is swapped in after
that makes the opening fail, and is never followed.
"""

import errno
import fcntl
import hashlib
import os
import signal
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, BinaryIO

from picowatch.errors import ControlFlow
from picowatch.files.atomic import sync_folder

# With O_PATH, where there is such a flag, folders that may be entered but not listed can be walked.
_ROOT = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
_FOLDER = _ROOT | os.O_NOFOLLOW
# NONBLOCK: a FIFO that replaces the file must not block the daemon.
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_below(root: Path, path: str) -> BinaryIO:
    """Open the regular file `path` below `root` for reading.

    Raises OSError: besides the system's own reasons, EXDEV for a path that leads out of `root`, and
    EINVAL for anything but a regular file, which is never opened.
    """
    parts = path.split("/")
    if not {"", ".."} & {*parts}:
        try:
            return _open_in(root, parts)  # nearly always, as there are no links
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
    real_root = real(root)
    target = real(real_root / path, strict=True)
    return _open_in(real_root, _below(real_root, target) or ".")


def _open_in(root: Path, parts: Sequence[str]) -> BinaryIO:
    """Open the regular file at the path of these parts, none of them a link. Raises OSError."""
    *folders, name = parts
    with _inside(root, folders) as within:
        return _opened(name, _FILE, within)


def open_regular(path: Path, *, follows_links: bool = True) -> BinaryIO:
    """Open a regular file for reading. Raises OSError for a pipe, a device or a refused link."""
    return _opened(path, _FILE & ~os.O_NOFOLLOW if follows_links else _FILE)


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder, or a link to one; False if it cannot be examined."""
    return os.path.isdir(path)  # noqa: PTH112  (pathlib's raises without permission)


def is_file(path: Path) -> bool:
    """Return whether a path is a regular file, or a link to one; False if it cannot be examined."""
    return os.path.isfile(path)  # noqa: PTH113


def read_regular(path: Path) -> bytes:
    """Return a regular file's bytes. Raises OSError like `open_regular`."""
    with open_regular(path) as file:
        return file.read()


def unlink_below(root: Path, path: str, is_meant: Callable[[IO[bytes]], bool]) -> bool:
    """Delete the regular file `path` below `root` if `is_meant`; return whether it was deleted.

    A file that was saved again meanwhile, or that somebody has open for writing, stays; so does a
    link. Raises OSError like `open_below`.
    """
    target = root / path
    with _folder_of(root, target) as within:
        with _opened(target.name, _FILE, within) as file:
            before = os.fstat(file.fileno())
            if is_open_for_writing(file.fileno()) or not is_meant(file):
                return False
        now = os.stat(target.name, dir_fd=within, follow_symlinks=False)
        if version_of(now) != version_of(before):
            return False
        os.unlink(target.name, dir_fd=within)
        sync_folder(".", within)  # else a power cut may bring it back, as a new save
        return True


def link_below(root: Path, path: str, target: str) -> None:
    """Give the regular file `path` below `root` the name `target` there, too, if that is free.

    Raises OSError like `open_below`, and what the system says where there are no hard links.
    """
    source, place = root / path, root / target
    with _folder_of(root, source) as within:
        _check_regular(path, os.stat(source.name, dir_fd=within, follow_symlinks=False))
        with _folder_of(root, place) as into:
            names = {"src_dir_fd": within, "dst_dir_fd": into}
            os.link(source.name, place.name, **names, follow_symlinks=False)


def is_open_for_writing(handle: int) -> bool:
    """Whether anybody has the file open for writing: then a read lease is refused, fcntl(2).

    Only its owner and root get leases, on Linux alone, and on no network file system: False else.
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


Version = tuple[int, int, int, int]


def version_of(status: os.stat_result) -> Version:
    """Return numbers that differ between two saves."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def leads_out(root: Path, path: str) -> bool:
    """Whether `path`, with links followed, ends outside of `root`."""
    return not real(root / path).is_relative_to(real(root))


def to_write(root: Path, path: str) -> Path:
    """Return the file `path` below `root`; raise OSError if links lead its folder elsewhere."""
    target = root / path
    if leads_out(root, path.rpartition("/")[0]):
        raise _leads_out(target.parent)
    return target


def _below(root: Path, path: Path) -> Sequence[str]:
    """Return the parts of a path below `root`, both without links; raise OSError elsewhere."""
    if not path.is_relative_to(root):
        raise _leads_out()
    return path.relative_to(root).parts


def _folder_of(root: Path, file: Path) -> AbstractContextManager[int]:
    """Open the folder of a file below `root`; both may have links. Raises OSError."""
    real_root = real(root)
    return _inside(real_root, _below(real_root, real(file.parent, strict=True)))


@contextmanager
def _inside(root: Path, folders: Sequence[str]) -> Iterator[int]:
    """Open the folder inside of folders below `root`, none of them a link. Raises OSError."""
    handle = os.open(root, _ROOT)
    try:
        for part in folders:
            inner = os.open(part, _FOLDER, dir_fd=handle)
            os.close(handle)
            handle = inner
        yield handle
    finally:
        os.close(handle)


def _leads_out(path: Path | None = None) -> OSError:
    return OSError(errno.EXDEV, "it leads out of its folder", path and str(path))


def real(path: Path, *, strict: bool = False) -> Path:
    """Resolve links. Unlike this, `Path.resolve` raises RuntimeError if links run in a circle."""
    return Path(os.path.realpath(path, strict=strict))


def _opened(path: Path | str, flags: int, within: int | None = None) -> BinaryIO:
    """Open a regular file; a pipe or device that takes its place meanwhile is closed again."""
    _check_regular(path, os.stat(path, dir_fd=within, follow_symlinks=not flags & os.O_NOFOLLOW))
    handle = os.open(path, flags, dir_fd=within)
    try:
        _check_regular(path, os.fstat(handle))
    except OSError:
        os.close(handle)
        raise
    return os.fdopen(handle, "rb")


def _check_regular(path: Path | str, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise OSError(errno.ELOOP, "it is a link", str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))


_BLOCK = 1 << 16
MAX_BYTES = 1024 * 1024 * 1024  # of a picture; no larger file is read


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
    """Yield the blocks of a file below `root`. Raises OtherBytes, at the end for another sha256."""
    found = hashlib.sha256()
    try:
        with open_below(root, path) as file:
            for block in blocks_of(file):
                found.update(block)
                yield block
    except OSError as error:
        raise OtherBytes from error
    if found.hexdigest() != digest:
        raise OtherBytes
