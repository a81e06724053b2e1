"""One picowatch an outbox: an advisory lock that the system drops when its holder dies."""

import fcntl
import os
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import IO

from picowatch.errors import OutboxInUse
from picowatch.outbox.atomic import make_folder, sync_file, sync_folder

# Folders below the outbox with files that, as in the outbox itself, are written again within
# seconds, or made again when they are missing.
_HASTILY_WRITTEN = (".picowatch", ".picowatch/commands", ".picowatch/gallery",
                    ".picowatch/gallery/thumbs", ".picowatch/gallery/thumbs/*")  # fmt: skip


class OutboxLock:
    """Holds the outbox for this process until it is released.

    `after_crash`: the last holder never released it.
    """

    def __init__(self, outbox: Path) -> None:
        """Raises OutboxInUse, naming the process that holds it, or OSError."""
        self._outbox = outbox
        path = _path(outbox)
        make_folder(path.parent)
        self._file: IO[str] = path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.seek(0)
            holder = self._file.read().strip()
            self._file.close()
            raise OutboxInUse(
                f"Another picowatch works with the outbox {outbox}"
                + (f" (process {holder})." if holder else "."),
                "End it first, or give this one another --outbox.",
            ) from error
        self._file.seek(0)
        # Who ends by itself leaves the file empty.
        self.after_crash = bool(self._file.read())
        try:
            self._file.truncate(0)
            self._file.write(str(os.getpid()))
            self._file.flush()
            os.fsync(self._file.fileno())  # a power cut, too, is a crash
            sync_folder(path.parent)
        except OSError:
            with suppress(OSError):
                self._file.close()
            raise

    def release(self, *, left_undone: bool = False) -> None:
        """Let go of the outbox; what was `left_undone` is mended as after a crash."""
        if not left_undone:
            self._sync_hastily_written()
            with suppress(OSError):
                self._file.truncate(0)
        self._file.close()

    def _sync_hastily_written(self) -> None:
        """Make durable what was renamed without waiting for the disk, contents before names.

        Else a power cut may leave a temporary or a damaged latest.png behind an end that looks
        like a good one, and after such an end none is looked for.
        """
        with suppress(OSError), (self._outbox / "latest.png").open("rb") as latest:
            sync_file(latest)
        below = (self._outbox.glob(pattern) for pattern in _HASTILY_WRITTEN)
        for folder in (self._outbox, *chain.from_iterable(below)):
            with suppress(OSError):
                sync_folder(folder)


def is_held(outbox: Path) -> bool:
    """Whether a running picowatch holds the outbox; changes nothing."""
    try:
        with _path(outbox).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _path(outbox: Path) -> Path:
    return outbox / ".picowatch" / "lock"
