"""The error and warning files of one outbox: written, taken back, and known for the gallery."""

import os
import threading
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from picowatch.files.atomic import write_atomically
from picowatch.files.inside import open_regular
from picowatch.outbox.names import ERROR_ENDING, WARNING_ENDING

MOST_SHOWN = 20
MOST_CHARACTERS = 2000  # of one file


@dataclass(frozen=True, slots=True)
class Problem:
    """One of the files, as the gallery shows it."""

    file: str
    recipe: str
    is_error: bool
    text: str


class ProblemFiles:
    """Safe to use from several threads."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._files: dict[str, None] = {}  # newest last
        self.changes = 0

    def write(self, file: str, text: str) -> None:
        """Tell the user of a problem; `file` ends as error or warning files do."""
        write_atomically(self._root / file, text.encode("utf-8", "backslashreplace"))
        self._note(file)

    def remove(self, file: str) -> None:
        """The problem is gone; a file that somebody else put there stays."""
        with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            (self._root / file).unlink()
        with self._lock:
            if file in self._files:
                del self._files[file]
                self.changes += 1

    def remove_all_but(self, files: Collection[str]) -> None:
        """Delete all others; a recipe that was archived may have such a name, too."""
        for path in self._paths():
            file = path.relative_to(self._root).as_posix()
            if file not in files and (self.text(file) or "").startswith("inbox/"):
                self.remove(file)

    def find(self) -> None:
        """Take in the files that earlier runs left."""
        found = [
            (_changed_at(path), path.relative_to(self._root).as_posix()) for path in self._paths()
        ]
        with self._lock:
            self._files = {file: None for _, file in sorted(found)} | self._files
            self.changes += 1

    def shown(self) -> tuple[list[Problem], int]:
        """The newest problems, errors first, and how many more there are.

        A file that the user deleted no longer counts.
        """
        with self._lock:
            files = list(reversed(self._files))
        files.sort(key=lambda file: not file.endswith(ERROR_ENDING))
        problems: list[Problem] = []
        for index, file in enumerate(files):
            if len(problems) == MOST_SHOWN:
                return problems, len(files) - index
            if (text := self.text(file)) is not None:
                ending = ERROR_ENDING if file.endswith(ERROR_ENDING) else WARNING_ENDING
                recipe = file.removesuffix(ending)
                problems.append(Problem(file, recipe, ending == ERROR_ENDING, text))
        return problems, 0

    def _paths(self) -> Iterator[Path]:
        for folder, _, names in os.walk(self._root):
            for name in names:
                if name.endswith((ERROR_ENDING, WARNING_ENDING)):
                    yield Path(folder, name)

    def _note(self, file: str) -> None:
        with self._lock:
            self._files.pop(file, None)
            self._files[file] = None
            self.changes += 1

    def text(self, file: str) -> str | None:
        """The beginning of a file, None if it cannot be read."""
        try:
            handle = open_regular(self._root / file)
            with os.fdopen(handle, encoding="utf-8", errors="replace") as stream:
                return stream.read(MOST_CHARACTERS)
        except FileNotFoundError:
            with self._lock:
                self._files.pop(file, None)
        except OSError:
            pass  # it may be readable the next time
        return None


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0  # it was fixed in between
