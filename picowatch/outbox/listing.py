"""images.jsonl, the published pictures and their recipes, and failures.jsonl: lines of JSON."""

import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import IO, Any

from picowatch.files.atomic import append
from picowatch.files.safe_paths import open_regular
from picowatch.recipe.chunk import Chunk, escaped_json
from picowatch.recipe.request import ImageRequest

TAIL_BYTES = 1 << 20
_DAMAGED = re.compile(rb"(?m)^[^\n]*\0[^\n]*\n")
# What a line has besides the request; docs/metadata.md says what each is.
OWN = {
    *("file", "recipe", "finished", "seconds", "device", "size", "found", "digest", "save_digest"),
    *("entry_index", "image_index", "entry_digest", "moved"),
}


class Listing:
    """An append-only list that several threads write."""

    def __init__(self, path: Path, *, follows_links: bool = False) -> None:
        self._path, self._follows_links = path, follows_links
        self._lock, self._end = Lock(), -1  # where the last line ended that was added

    def append(self, *lines: dict[str, Any]) -> None:
        """Add lines, durably; an error leaves the file as it was."""
        # Only letters and signs that can be seen stand as they are.
        written = (escaped_json(json.dumps(line, ensure_ascii=False)) for line in lines)
        text = "".join(f"{line}\n" for line in written)
        with self._lock:
            if self._end != self._size():
                self._mend_end()
            append(self._path, text.encode(), follows_links=self._follows_links)
            self._end = self._size()

    def _size(self) -> int:
        with suppress(FileNotFoundError):
            return self._path.stat().st_size
        return 0

    def _mend_end(self) -> None:
        """End a last line that an editor left without an end, or cut off a damaged line.

        A crash or power cut may damage it, and leave zeros in lines that were added with it.
        Spaces instead of these belong to the next line. All lines before them are durable.
        """
        with self._opened() as file:
            start, tail = _tail(file)
        whole = tail[: tail.rfind(b"\n") + 1]
        last = whole.rfind(b"\n", 0, -1) + 1
        end = len(whole) if _object(whole[last:]) is not None else last
        if _object(tail[len(whole) :]) is not None:
            append(self._path, b"\n", follows_links=self._follows_links)
        elif end < len(tail):
            os.truncate(self._path, start + end)
        if damaged := [*_DAMAGED.finditer(tail, 0, end)]:
            with self._path.open("r+b") as file:
                for line in damaged:
                    file.seek(start + line.start())
                    file.write(b" " * len(line[0]))

    def recent(self) -> list[dict[str, Any]]:
        """Return the last lines, some hundreds, oldest first."""
        with self._opened() as file:
            return list(_lines(_tail(file)[1].splitlines(keepends=True)))

    def all(self) -> Iterator[dict[str, Any]]:
        with self._opened() as file:
            yield from _lines(file)

    def _opened(self) -> IO[bytes]:
        """Open the list, as an empty list if it is missing; never a pipe, which might block."""
        try:
            return open_regular(self._path, follows_links=self._follows_links)
        except FileNotFoundError:
            return BytesIO()

    def recent_files(self) -> list[str]:
        """Return the pictures in the last lines, oldest first; moving one makes it no younger."""
        files: dict[str, str] = {}  # as they were called at first
        for line in self.recent_pictures():
            was = next((key for key, file in files.items() if file == line.get("moved")), None)
            if was is not None:
                files[was] = line["file"]
            elif "moved" not in line:
                files.pop(line["file"], None)
                files[line["file"]] = line["file"]
        return [*files.values()]

    def recent_moves(self) -> set[tuple[str, str]]:
        """Return former and present paths of moved pictures of which no later line tells."""
        last: dict[str, tuple[str, str]] = {}  # of what is told of a path
        for line in self.recent_pictures():
            pair = line.get("moved", ""), line["file"]
            last |= dict.fromkeys(pair, pair)
        return {pair for pair in last.values() if last[pair[0]] == last[pair[1]]}

    def recent_pictures(self) -> list[dict[str, Any]]:
        """Return the last lines without those about recipes."""
        return [line for line in self.recent() if "file" in line]


def _lines(texts: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Yield valid lines: the first may be cut off, and users may have edited the file."""
    for line in filter(None, map(_object, texts)):
        if isinstance(line.get("file", ""), str) and isinstance(line.get("moved", ""), str):
            yield line


def _tail(file: IO[bytes]) -> tuple[int, bytes]:
    """Return the offset and bytes of the file's last part: at least its last line."""
    size, wanted = file.seek(0, os.SEEK_END), TAIL_BYTES
    while True:
        start = max(0, size - wanted)
        file.seek(start)
        content = file.read()
        if not start or b"\n" in content[: content.rfind(b"\n")]:
            return start, content
        wanted *= 2


def _object(text: bytes) -> dict[str, Any] | None:
    with suppress(ValueError, RecursionError):
        line = json.loads(text)
        return line if isinstance(line, dict) else None
    return None


def line_of(file: str, chunk: Chunk, finished_at: float, entry_digest: str = "") -> dict[str, Any]:
    """Return the line of a picture with these metadata; `finished_at` is in Unix seconds.

    Raises KeyError, TypeError or AttributeError if they do not say how it was rendered.
    """
    rendered = chunk.rendered
    return {
        "file": file,
        "recipe": chunk.recipe,
        "finished": datetime.fromtimestamp(finished_at, UTC).isoformat(timespec="seconds"),
        "seconds": round(sum(rendered["timings"].values()), 3),
        "device": str(rendered["device"]),
        "size": str(rendered["size"]),
        **({"found": rendered["found"]} if "found" in rendered else {}),
        **chunk.request.as_dict(),
        "digest": chunk.request.digest,
        "save_digest": chunk.save_digest,
        "entry_index": chunk.entry_index,
        "image_index": chunk.image_index,
        "entry_digest": entry_digest,
    }


def request_in(line: dict[str, Any]) -> ImageRequest:
    """Return the request of a line's picture. Raises KeyError, TypeError or ValueError."""
    return ImageRequest.from_dict({name: line[name] for name in line.keys() - OWN})
