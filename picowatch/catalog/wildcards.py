"""Wildcard files below models/wildcards: .txt with one choice per line."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from picowatch.recipe.written import FORBIDDEN, NEVER_IN_NAMES, invisible

FOLDER = "wildcards"
MAX_FILE_BYTES = 5_000_000
MAX_BYTES = 20_000_000
MAX_LINES = 300_000  # of all files together: each takes some 70 bytes besides its text
# Of dynamicprompts: files of many wildcards, and weights of lines and options.
_PACK_ENDINGS = (".yaml", ".yml")
_NUMBER = r"(?:\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})"
_WEIGHT = re.compile(rf"(?m)(?:^[^\S\n]*|\{{(?:[^{{}}\n]*\|)?\s*)({_NUMBER}::)")


@dataclass(frozen=True, slots=True)
class FoundWildcards:
    """The wildcards that recipes may draw from.

    `lines` maps their names to their lines, `refused` the names of files that cannot be used to
    the reason. A name is the path below the folder with "/", without ending.
    """

    lines: dict[str, tuple[str, ...]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


class WildcardFiles:
    """The files in models/wildcards, each read again only when its size or time changed."""

    def __init__(self, models: Path) -> None:
        self._root = models / FOLDER
        self._read: dict[Path, tuple[tuple[int, int], tuple[str, ...]]] = {}

    def scan(self) -> FoundWildcards:
        found = FoundWildcards()
        size = count = 0
        for path in self._files():
            name = path.relative_to(self._root).as_posix()
            if not _is_pack(path):
                name = name.removesuffix(path.suffix)
            try:
                status = path.stat()
                size += status.st_size
                if size > MAX_BYTES:
                    raise ValueError(f"exceeds the limit of {MAX_BYTES:,} bytes of wildcards.")
                signature = status.st_size, status.st_mtime_ns
                seen, lines = self._read.get(path, ((-1, -1), ()))
                if seen != signature:
                    lines = _lines(path, status.st_size)
                count += len(lines)
                if count > MAX_LINES:
                    raise ValueError(f"exceeds the limit of {MAX_LINES:,} lines of wildcards.")
                self._read[path] = signature, lines
                found.lines[name] = lines
            except (OSError, ValueError) as error:
                why = f"cannot be read: {error.strerror}." if isinstance(error, OSError) else error
                found.refused[name] = f"{path.name} {why}"
        return found

    def _files(self) -> list[Path]:
        """Return the files by name, without names that no recipe could contain.

        Links to folders are not followed: circles of them would never end.
        """
        found = (
            Path(folder) / name
            for folder, _, names in os.walk(self._root)
            for name in names
            if name.lower().endswith((".txt", *_PACK_ENDINGS)) and not name.startswith(".")
        )
        return sorted(
            path
            for path in found
            if path.is_file() and not NEVER_IN_NAMES.search(str(path.relative_to(self._root)))
        )


def _is_pack(path: Path) -> bool:
    return path.name.lower().endswith(_PACK_ENDINGS)


def _lines(path: Path, size: int) -> tuple[str, ...]:
    """Return the lines of a file. ValueError says, after the file's name, what is wrong.

    Lines are stripped; empty ones and those that begin with "#" do not count.
    """
    if _is_pack(path):
        raise ValueError(
            "is not read: write each of its lists into a .txt file, with a choice in each line."
        )
    if size > MAX_FILE_BYTES:
        raise ValueError(f"has {size:,} bytes; the limit is {MAX_FILE_BYTES:,}.")
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
