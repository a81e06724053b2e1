"""The note beside a compiled package: whether it may be tried, by one engine at a time.

A package may end the process that tries it, and so may anything else meanwhile: a pause, a kill,
a lack of memory. So a trial is noted before it begins. One that did not end is begun again, but
not at once, so that the image which the engine died on is made without the package; and not often.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import TextIO

MOST_TRIALS = 3
PAUSE_SECONDS = 3600.0


class Note:
    """Empty: the package works. A number: so many trials did not end. Else why it is not used."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self._path = path
        self._file = file

    @classmethod
    @contextmanager
    def held(cls, path: Path) -> Iterator["Note"]:
        """The note, for this process alone; OSError if another one has it, or on a full disk."""
        with path.open("a+", encoding="utf-8") as file:
            flock(file, LOCK_EX | LOCK_NB)
            yield cls(path, file)

    def begin_trial(self) -> bool:
        """Note that a trial begins; False if none may."""
        self._file.seek(0)
        said = self._file.read(100)
        begun = int(said) if said.isdecimal() else 0
        age = abs(time.time() - self._path.stat().st_mtime)
        if (said and not begun) or begun >= MOST_TRIALS or (begun and age < PAUSE_SECONDS):
            return False
        self.write(str(begun + 1))
        return True

    def write(self, text: str) -> None:
        """Replace the stored value with this."""
        self._file.truncate(0)
        self._file.write(text)
        self._file.flush()
