"""Wildcard files below models/wildcards: .txt with a choice in each line."""

import os
import re
import stat
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from unicodedata import normalize

from picowatch.recipe.written import FORBIDDEN, NEVER_IN_NAMES, invisible

FOLDER = "wildcards"
MAX_FILE_BYTES = 5_000_000
# Of all files that are used: each line takes some 70 bytes besides its text.
MAX_BYTES, MAX_LINES = 20_000_000, 300_000
# Of dynamicprompts: files of many wildcards, and weights of lines and options.
_YAML = (".yaml", ".yml")
_NUMBER = r"(?:\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})"
_WEIGHT = re.compile(rf"(?m)(?:^[^\S\n]*|\{{(?:[^{{}}\n]*\|)?\s*)({_NUMBER}::)")


class WildcardFiles:
    """The files in models/wildcards, each read again only when its size or time changed.

    A wildcard's name is the path below the folder with "/", composed and without ending.
    """

    def __init__(self, models: Path) -> None:
        self._root = models / FOLDER
        # Size and time, the number of lines, and these, unless they are too many.
        self._read: dict[Path, tuple[tuple[int, int], int, tuple[str, ...] | None]] = {}

    def scan(self) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
        """Return the lines by name, and why files cannot be used by theirs.

        Those of the largest pack are read last: beyond the limits, they are refused. A pack is a
        folder in models/wildcards with all that is below it, or a file there.
        """
        found: dict[str, tuple[str, ...]] = {}
        refused: dict[str, str] = {}
        size = count = 0
        for path in self._files():
            name = normalize("NFC", path.relative_to(self._root).as_posix())
            if not _is_yaml(path):
                name = name.removesuffix(path.suffix)
            try:
                status = path.stat()
                _check(path, status)
                if size + status.st_size > MAX_BYTES:
                    raise ValueError(f"exceeds the limit of {MAX_BYTES:,} bytes of wildcards.")
                signature = status.st_size, status.st_mtime_ns
                seen, number, lines = self._read.get(path, ((-1, -1), 0, None))
                if seen != signature or (lines is None and count + number <= MAX_LINES):
                    lines = _lines(path)
                    number = len(lines)
                if lines is None or count + number > MAX_LINES:
                    self._read[path] = signature, number, None
                    raise ValueError(f"exceeds the limit of {MAX_LINES:,} lines of wildcards.")
                self._read[path] = signature, number, lines
                size, count = size + status.st_size, count + number
                found[name] = lines
            except (OSError, ValueError) as error:
                why = f"cannot be read: {error.strerror}." if isinstance(error, OSError) else error
                refused[name] = f"{path.name} {why}"
        return found, refused

    def _files(self) -> list[Path]:
        """Return the files by the sizes of their packs, but those that no recipe can name."""
        packs = defaultdict[str, list[tuple[int, Path]]](list)
        for folder, _, names in os.walk(self._root):  # not through links: circles never end
            for path in (Path(folder) / name for name in names if not name.startswith(".")):
                inner = path.relative_to(self._root)
                is_meant = path.name.lower().endswith((".txt", *_YAML))
                if is_meant and not NEVER_IN_NAMES.search(str(inner)):
                    size = 0
                    with suppress(OSError):
                        size = path.stat().st_size
                    packs[inner.parts[0]].append((size, path))
        by_size = sorted(packs.items(), key=lambda pack: (sum(n for n, _ in pack[1]), pack[0]))
        return [path for _, pack in by_size for _, path in sorted(pack)]


def _is_yaml(path: Path) -> bool:
    return path.name.lower().endswith(_YAML)


def _check(path: Path, status: os.stat_result) -> None:
    """Raise ValueError, which says after the file's name what is wrong, before reading it."""
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("is not a regular file.")
    if _is_yaml(path):
        raise ValueError(
            "is not read: write each of its lists into a .txt file, with a choice in each line."
        )
    if status.st_size > MAX_FILE_BYTES:
        raise ValueError(f"has {status.st_size:,} bytes; the limit is {MAX_FILE_BYTES:,}.")


def _lines(path: Path) -> tuple[str, ...]:
    """Return the stripped lines of a file that are not empty, nor comments, which begin with "#".

    ValueError says, after the file's name, what is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # line breaks become "\n" alone
    except UnicodeDecodeError as error:
        raise ValueError("is not UTF-8: save it as UTF-8.") from error
    if found := FORBIDDEN.search(text.replace("\n", " ")):  # no recipe may contain it
        raise ValueError(f"contains {invisible(found[0])} in line {_line(text, found)}: delete it.")
    if found := _WEIGHT.search(text):
        raise ValueError(
            f"has a weight in line {_line(text, found)}, '{found[1]}'. To have a choice drawn more "
            "often, repeat its line."
        )
    stripped = (line.strip() for line in text.split("\n"))
    return tuple(line for line in stripped if line and not line.startswith("#"))


def _line(text: str, found: re.Match[str]) -> int:
    return text.count("\n", 0, found.start()) + 1
