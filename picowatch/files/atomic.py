"""How files get written: whole, by temporary → fsync → rename → fsync of the folder; or appended.

Nothing else in picowatch writes files that have to last. Nothing is written below a folder that
is `held` while another one is at its path, such as the mount point of an unmounted disk.
"""

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from picowatch.errors import ControlFlow

TEMPORARY_PREFIX = ".picowatch-"
TEMPORARY_SUFFIX = ".tmp"

_held: dict[Path, Callable[[], bool]] = {}


class FolderAway(ControlFlow, OSError):
    """A folder that is held is gone, or another one is at its path."""

    def __init__(self, folder: Path) -> None:
        words = "the folder is not there, or another one is in its place"
        super().__init__(errno.ENOENT, words, str(folder))

    def __str__(self) -> str:
        return f"{self.filename} is not there, or another folder is in its place"


@contextmanager
def held(folder: Path, is_in_place: Callable[[], bool]) -> Iterator[None]:
    """Meanwhile nothing is written below the folder, unless it `is_in_place`."""
    _held[folder] = is_in_place
    try:
        yield
    finally:
        del _held[folder]


def check_in_place(target: Path) -> None:
    """Raises FolderAway if `target` is below a folder that is held and not in its place."""
    for folder, is_in_place in tuple(_held.items()):
        if target.is_relative_to(folder) and not is_in_place():
            raise FolderAway(folder)


def write_atomically(
    target: Path, content: bytes, *, durable: bool = True, readers: int = 0
) -> None:
    """Replace `target` by `content`: readers see the old bytes or the new ones, never a part.

    `durable`: after this returns, a power cut does not undo it. Without it (for files that
    are written again within seconds) only atomicity is promised. Missing folders are created.
    `readers`: as for `allow`.
    Target and temporary are in one folder: if that was in its place when the temporary was made,
    so is the target, or the rename fails.
    """
    copy_atomically(target, (content,), durable=durable, readers=readers)


def copy_atomically(
    target: Path, blocks: Iterable[bytes], *, durable: bool = True, readers: int = 0
) -> None:
    """`write_atomically` in blocks; what `blocks` raises leaves the target as it was."""
    make_folder(target.parent, durable=durable)
    name = f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
    temporary = target.parent / name
    try:
        with temporary.open("xb") as file:
            check_in_place(target)
            allow(file, readers)
            file.writelines(blocks)
            if durable:
                sync_file(file)
        rename(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(target.parent)


def allow(file: IO[bytes], readers: int) -> None:
    """Add these read bits to a new file's mode, whatever the umask says.

    A file system without permissions, as FAT, refuses that; there everybody may read, or nobody.
    """
    if readers:
        with suppress(OSError):
            os.fchmod(file.fileno(), stat.S_IMODE(os.fstat(file.fileno()).st_mode) | readers)


def append(target: Path, content: bytes, *, durable: bool = True) -> None:
    """Add bytes to the end of a file, created if it is missing; an error leaves it as it was.

    `durable`: after this returns, a power cut does not undo it.
    """
    check_in_place(target)
    with target.open("ab", buffering=0) as file:
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


def sync_file(file: IO[bytes]) -> None:
    """Make what was written to an open file durable."""
    file.flush()
    os.fsync(file.fileno())


def rename(temporary: Path, target: Path) -> None:
    """Replace the target in one step, so that readers see either file."""
    temporary.replace(target)


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable: only then is a rename durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Delete temporaries that a crash left in this very folder."""
    for leftover in folder.glob(f"{TEMPORARY_PREFIX}*{TEMPORARY_SUFFIX}"):
        leftover.unlink(missing_ok=True)


def make_folder(folder: Path, *, durable: bool = True) -> None:
    """Make a folder and those above it, where they are missing."""
    check_in_place(folder)
    if folder.is_dir():
        return
    make_folder(folder.parent, durable=durable)
    folder.mkdir(exist_ok=True)
    if durable:
        sync_folder(folder.parent)
