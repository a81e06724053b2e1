"""images.jsonl: one JSON line per published picture, appended and never rewritten."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from threading import Lock
from typing import IO, Any

from picowatch.files.atomic import append_durably
from picowatch.recipe.request import ImageRequest

TAIL_BYTES = 1 << 20
# What a line contains besides the request.
OWN = {"file", "recipe", "digest", "save_digest", "entry_index", "image_index"}


class Listing:
    """The list of published pictures. Pictures may be added from several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._repair()

    def append(self, line: dict[str, Any]) -> None:
        """Add a picture, durably; an error leaves the list as it was."""
        text = json.dumps(line, ensure_ascii=True) + "\n"
        with self._lock:
            append_durably(self._path, text.encode())

    def recent_files(self) -> set[str]:
        """The files in the last lines: enough to tell what a crash left unlisted."""
        return {line["file"] for line in self.recent()}

    def newest(self, count: int) -> list[str]:
        """The files of the last pictures, the newest at the end."""
        return [line["file"] for line in self.recent()[-count:]]

    def recent(self) -> list[dict[str, Any]]:
        """The last lines, some hundreds, oldest first."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            return list(_lines(_tail(file)[1].splitlines(keepends=True)))

    def all(self) -> Iterator[dict[str, Any]]:
        """Every line, oldest first."""
        if self._path.exists():
            with self._path.open("rb") as file:
                yield from _lines(file)

    def _repair(self) -> None:
        """Cut off a last line that a crash left incomplete, or a power cut damaged."""
        if not self._path.exists():
            return
        with self._path.open("rb+") as file:
            start, tail = _tail(file)
            if (whole := len(without_torn_line(tail, picture_of))) < len(tail):
                file.truncate(start + whole)


def _tail(file: IO[bytes]) -> tuple[int, bytes]:
    """Where the end of the file begins, and its bytes: at least the last line, however long."""
    size, wanted = file.seek(0, os.SEEK_END), TAIL_BYTES
    while True:
        start = max(0, size - wanted)
        file.seek(start)
        content = file.read()
        if not start or b"\n" in content[: content.rfind(b"\n")]:
            return start, content
        wanted *= 2


def without_torn_line(content: bytes, parse: Callable[[bytes], object | None]) -> bytes:
    """The lines, without a last one that is incomplete or that `parse` rejects.

    Each line is durable before the next is written, so only the last one can be torn.
    """
    whole = content[: content.rfind(b"\n") + 1]
    last = whole[whole.rfind(b"\n", 0, -1) + 1 :]
    return whole if parse(last) is not None else whole[: len(whole) - len(last)]


def picture_of(text: bytes) -> dict[str, Any] | None:
    """A line's picture, None if the line is not valid."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) and isinstance(line.get("file"), str) else None


def request_of(line: dict[str, Any]) -> ImageRequest:
    """What the picture of a line was made from; raises KeyError, TypeError or ValueError."""
    return ImageRequest.from_dict({name: line[name] for name in line.keys() - OWN})


def _lines(file: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The complete ones: the first may be cut off, and a user may have edited the file."""
    for text in file:
        if (line := picture_of(text)) is not None:
            yield line
