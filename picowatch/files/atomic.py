"""Writes files atomically, by temporary → fsync → rename → fsync of the folder; or appends.

Nothing else in picowatch writes files that have to last. Nothing is written below a `held` folder
while another folder is at its path, such as the mount point of an unmounted disk.
"""

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO

from picowatch.errors import ControlFlow

TEMPORARY_PREFIX = ".picowatch-"
TEMPORARY_SUFFIX = ".tmp"

_held: dict[str, Callable[[], bool]] = {}


class FolderAway(ControlFlow, OSError):
    """A held folder is gone, or another one is at its path."""

    def __init__(self, folder: Path | str) -> None:
        words = "the folder is not there, or another one is in its place"
        super().__init__(errno.ENOENT, words, str(folder))

    def __str__(self) -> str:
        return f"{self.filename} is not there, or another folder is in its place"


@contextmanager
def held(folder: Path, is_in_place: Callable[[], bool]) -> Iterator[None]:
    """Let nothing be written below the folder within a `with` block unless it `is_in_place`."""
    _held[str(folder)] = is_in_place
    try:
        yield
    finally:
        del _held[str(folder)]


def check_in_place(target: Path) -> None:
    """Raise FolderAway if `target` is below a held folder that is not in its place."""
    for folder, is_in_place in tuple(_held.items()):
        if f"{target}/".startswith(f"{folder}/") and not is_in_place():
            raise FolderAway(folder)


def write_atomically(
    target: Path,
    content: bytes | Iterable[bytes],
    *,
    durable: bool = True,
    readers: int = 0,
    mtime_ns: int | None = None,
) -> None:
    """Replace `target` by `content`: readers see the old bytes or the new ones, never a part.

    `durable`: after this returns, a power cut does not undo it. Without it (for files that
    are written again within seconds) only atomicity is promised. Missing folders are created.
    `readers`: read bits that are added to its mode, whatever the umask says. `mtime_ns`: its time,
    if not now. If `content` is blocks and raises, the target stays as it was. As target and
    temporary are in one folder, it is enough to check that folder's place once the temporary
    exists: if it is moved then, the rename fails.
    """
    temporary = temporary_beside(target)
    try:
        with _created(temporary, durable=durable) as file:
            check_in_place(target)
            if readers:
                with suppress(OSError):  # on FAT and others without permissions all may read
                    mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                    os.fchmod(file.fileno(), mode | readers)
            file.writelines((content,) if isinstance(content, bytes) else content)
            if mtime_ns is not None:
                file.flush()  # which sets the time
                with suppress(OSError):  # as for modes
                    os.utime(file.fileno(), ns=(mtime_ns, mtime_ns))
            if durable:
                sync_file(file)
        rename(temporary, target)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and not isinstance(error, FolderAway):
            error.filename, error.filename2 = str(target), None  # nobody knows the temporary
        raise
    if durable:
        sync_folder(target.parent)


def _created(file: Path, *, durable: bool) -> IO[bytes]:
    """Create a file, and its folder if that is missing. Raises FolderAway, or OSError."""
    check_in_place(file)  # where a disk is away, the empty mount point may refuse the file
    try:
        return file.open("xb")
    except FileNotFoundError:
        make_folder(file.parent, durable=durable)
        return file.open("xb")


def temporary_beside(target: Path) -> Path:
    """Return a new name in the target's folder, of which `leftovers` knows."""
    return target.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")


def append(
    target: Path, content: bytes, *, durable: bool = True, follows_links: bool = False
) -> None:
    """Add bytes to the end of a file, created if it is missing; an error leaves it as it was.

    `durable`: after this returns, a power cut does not undo it. A link is refused, or followed.
    """
    check_in_place(target)
    opener = partial(open_to_append, follows_links=follows_links)
    with open(target, "ab", buffering=0, opener=opener) as file:
        check_in_place(target)
        before = file.seek(0, os.SEEK_END)
        try:
            left = memoryview(content)
            while left:
                left = left[file.write(left) :]
            if durable:
                sync_file(file)
        except BaseException:
            with suppress(OSError):
                file.truncate(before)
            raise
    if durable and not before:
        sync_folder(target.parent)


def create(path: Path) -> None:
    """Create a file unless it is there. Raises OSError for what is no regular file."""
    open(path, "ab", opener=partial(open_to_append, follows_links=True)).close()


def open_to_append(path: str, flags: int, *, follows_links: bool = False) -> int:
    """Open a regular file for writing; raise OSError for a pipe, without waiting, or a device.

    Through a link somebody else's file would be written, so it is refused unless it is followed.
    """
    flags |= os.O_NONBLOCK | (0 if follows_links else os.O_NOFOLLOW)
    handle = os.open(path, flags, 0o666)
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    raise OSError(errno.EINVAL, "it is not a regular file", path)


def sync_file(file: IO[bytes]) -> None:
    """Make the contents of an open file durable."""
    file.flush()
    os.fsync(file.fileno())


def rename(temporary: Path, target: Path) -> None:
    """Replace the target in one step, so that readers see either file."""
    temporary.replace(target)


def sync_folder(folder: Path | str, dir_fd: int | None = None) -> None:
    """Make the folder's entries durable: only then is a rename or a deletion durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY, dir_fd=dir_fd)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def leftovers(folder: Path) -> Iterator[Path]:
    """Return the temporaries in this folder that a crash may have left, but not those below it."""
    return folder.glob(f"{TEMPORARY_PREFIX}*{TEMPORARY_SUFFIX}")


def make_folder(folder: Path, *, durable: bool = True) -> None:
    """Make a folder, and missing ones above it."""
    check_in_place(folder)
    if folder.is_dir():
        return
    make_folder(folder.parent, durable=durable)
    try:
        folder.mkdir(exist_ok=True)
    except FileExistsError as error:  # a file, or a link to nothing
        error.strerror = f"{folder.name} is in the way, which is no folder"
        raise
    if durable:
        sync_folder(folder.parent)
