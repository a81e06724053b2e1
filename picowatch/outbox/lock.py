"""One picowatch per outbox: an advisory lock that the system releases when its holder dies."""

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from picowatch.errors import OutboxInUse, OutboxInUseByMake
from picowatch.files.atomic import create, make_folder
from picowatch.files.safe_paths import open_regular

LOCK = ".picowatch/lock"  # below the outbox
_MAKE = " make"  # follows the process id if the holder is a `picowatch make`
_TRIES, _RETRY_SECONDS = 50, 0.01


class OutboxLock:
    """Keeps the outbox for this process until it is released."""

    def __init__(self, outbox: Path, *, by_make: bool = False) -> None:
        """Take the lock, `by_make` until its recipes are done. Raises OutboxInUse or OSError."""
        self.outbox = outbox
        path = outbox / LOCK
        make_folder(path.parent)
        create(path)
        self._file: IO[str] = path.open("r+")
        for _ in range(_TRIES):  # `is_held` shares it for a moment only
            with suppress(OSError):
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(_RETRY_SECONDS)
        else:
            with self._file as file:
                raise _in_use(outbox, file.read().strip())
        self._lock_id, self._outbox_id = _id(path), _id(outbox)
        self._holder = f"{os.getpid()}{_MAKE if by_make else ''}"
        try:
            # Whether the picowatch before ended by itself. The lock's file says it: on a full disk
            # its bytes can be overwritten when nothing else can be written.
            self.ended_well = not self._file.read().strip()
            self._write(self._holder)
        except OSError:
            with suppress(OSError):
                self._file.close()
            raise

    def is_of(self, outbox: Path) -> bool:
        """Whether the folder at this path is the locked folder."""
        return _id(outbox / LOCK) == self._lock_id

    def is_in_place(self) -> bool:
        """Whether the outbox is there: no event reports that it was moved or unmounted."""
        return self.is_of(self.outbox)

    def is_replaced(self) -> bool:
        """Whether another outbox is at the path, or the lock was deleted: it can be made again."""
        # Otherwise it is away, and a folder that is there now may be anybody's.
        return _id(self.outbox / LOCK) is not None or _id(self.outbox) == self._outbox_id

    def release(self) -> None:
        with suppress(OSError):
            if self.ended_well:
                self._write(" " * len(self._holder))
        self._file.close()

    def _write(self, text: str) -> None:
        self._file.seek(0)
        self._file.write(text)
        self._file.truncate()


def _id(path: Path) -> tuple[int, int] | None:
    with suppress(OSError):
        status = path.stat()
        return status.st_dev, status.st_ino
    return None


def _in_use(outbox: Path, holder: str) -> OutboxInUse:
    if holder.endswith(_MAKE):
        return OutboxInUseByMake(
            f"`picowatch make` (process {holder.removesuffix(_MAKE)}) is using the outbox "
            f"{outbox.absolute()} until its recipes are done."
        )
    return OutboxInUse(
        f"Another picowatch is already using the outbox {outbox.absolute()}"
        + (f" (process {holder})." if holder else ".")
    )


def is_held(outbox: Path) -> bool:
    """Whether a running picowatch has the outbox locked; changes nothing."""
    try:
        file = open_regular(outbox / LOCK)
    except OSError as error:  # it is not there, or no file, which no picowatch can have locked
        return isinstance(error, PermissionError)
    with file, suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    return True
