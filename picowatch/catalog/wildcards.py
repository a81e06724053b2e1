"""Wildcard files: models/wildcards/**/*.txt, one choice a line."""

import os
from pathlib import Path

from picowatch.recipe.decoding import FORBIDDEN, NEVER_IN_NAMES, invisible

FOLDER = "wildcards"
MAX_FILE_BYTES = 5_000_000
MAX_BYTES = 20_000_000
MAX_FILES = 10_000
MAX_LINES = 300_000  # of all files together: each takes some 70 bytes beside its text

Wildcards = dict[str, tuple[str, ...]]


class WildcardFiles:
    """What lies in models/wildcards; a file is read again only when its size or time changed."""

    def __init__(self, models: Path) -> None:
        self._root = models / FOLDER
        self._read: dict[Path, tuple[tuple[int, int], tuple[str, ...]]] = {}

    def scan(self) -> tuple[Wildcards, dict[str, str]]:
        """Names with their lines, and the names of files that cannot be used with the reason.

        A name is the path below the folder with "/", without ending. Lines are stripped; empty
        ones and those that begin with "#" do not count.
        """
        known: Wildcards = {}
        refused: dict[str, str] = {}
        total = lines = 0
        for path in self._files():
            name = path.relative_to(self._root).with_suffix("").as_posix()
            try:
                status = path.stat()
                total += status.st_size
                if total > MAX_BYTES:
                    refused[name] = f"{path.name} is beyond {MAX_BYTES:,} bytes of wildcards."
                    continue
                found = self._lines(path, (status.st_size, status.st_mtime_ns))
                lines += len(found)
                if lines > MAX_LINES:
                    refused[name] = f"{path.name} is beyond {MAX_LINES:,} lines of wildcards."
                    continue
                known[name] = found
            except OSError as error:
                refused[name] = f"{path.name} cannot be read: {error.strerror}."
            except ValueError as error:
                refused[name] = f"{path.name} {error}"
        return known, refused

    def _files(self) -> list[Path]:
        """The files by name. Links to folders are not followed: circles of them would never end."""
        found = [
            Path(folder) / name
            for folder, _, names in os.walk(self._root)
            for name in names
            if name.lower().endswith(".txt") and not name.startswith(".")
        ]
        found = [path for path in found if path.is_file() and self._can_be_named(path)]
        return sorted(found)[:MAX_FILES]

    def _can_be_named(self, path: Path) -> bool:
        """A name that no recipe could spell is no wildcard's."""
        return not NEVER_IN_NAMES.search(path.relative_to(self._root).as_posix())

    def _lines(self, path: Path, stamp: tuple[int, int]) -> tuple[str, ...]:
        """ValueError says, behind the file's name, why it cannot be used."""
        seen, lines = self._read.get(path, ((-1, -1), ()))
        if seen == stamp:
            return lines
        if stamp[0] > MAX_FILE_BYTES:
            raise ValueError(f"has {stamp[0]:,} bytes; {MAX_FILE_BYTES:,} are the limit.")
        try:
            text = path.read_text(encoding="utf-8-sig")  # line breaks become "\n" alone
        except UnicodeDecodeError as error:
            raise ValueError("is not UTF-8: save it as UTF-8.") from error
        if text.count("\n") > MAX_LINES:
            raise ValueError(f"has more than {MAX_LINES:,} lines.")
        _refuse_invisible(text)
        stripped = (line.strip() for line in text.split("\n"))
        lines = tuple(line for line in stripped if line and not line.startswith("#"))
        self._read[path] = (stamp, lines)
        return lines


def _refuse_invisible(text: str) -> None:
    """What no recipe may hold cannot come into one by a wildcard."""
    found = FORBIDDEN.search(text.replace("\n", " "))
    if found:
        line = text.count("\n", 0, found.start()) + 1
        raise ValueError(f"holds {invisible(found[0])} in line {line}: delete it.")
