"""images.jsonl, the published pictures, and failures.jsonl: one JSON object per line."""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import IO, Any

from picowatch.files.atomic import append
from picowatch.files.inside import open_regular
from picowatch.metadata import Chunk
from picowatch.recipe.request import ImageRequest

TAIL_BYTES = 1 << 20
# What a line has besides the request, described as in docs/metadata.md.
OWN = {
    "file": "the picture, below the outbox",
    "recipe": "the recipe's path below the inbox, as it was when its rendering began",
    "finished": "when the picture was finished, in UTC: `2026-11-21T09:00:05+00:00`",
    "seconds": "how long rendering took; a batch's time is divided equally among its pictures",
    "device": "what rendered it: `cpu`, `cuda:0 (NVIDIA H200)`",
    "size": "the picture's, after `hires` and `upscale`: `512x768`; `width` and `height` are those "
    "of the first pass",
    "found": "how many places words found, where something was looked for",
    "digest": "sha256 of the request: equal digests are equal pictures",
    "save_digest": "sha256 of the recipe's bytes",
    "entry_index": "which entry of the recipe it was in the save of `save_digest`, from 0",
    "image_index": "which image of that entry, from 0",
    "entry_digest": "sha256 of that entry; the second of equal ones ends in `-1`",
}


# What a line of failures.jsonl has.
OF_FAILURES = {
    "recipe": "the path of the recipe or dropped picture below the inbox",
    "reason": "what is wrong, or why the image failed",
    "time": "when it was refused or failed, in UTC: `2026-11-21T09:00:05.123+00:00`",
    "save_digest": "sha256 of the recipe's bytes; empty if they cannot be read",
    "entry_index, image_index, seed, digest": "of an image that failed: which one it is, as in "
    "`images.jsonl`",
}


class Listing:
    """An append-only list that several threads write. Each line has at least its `key`."""

    def __init__(self, path: Path, key: str = "file") -> None:
        """Cut off a last line that a crash left incomplete or a power cut damaged.

        Each line is durable before the next is written, so only the last one can be damaged.
        """
        self._path, self._key = path, key
        self._lock = Lock()
        if path.exists():
            with path.open("rb+") as file:
                start, tail = _tail(file)
                whole = tail[: tail.rfind(b"\n") + 1]
                last = whole.rfind(b"\n", 0, -1) + 1
                end = len(whole) if _object(whole[last:]) is not None else last
                if end < len(tail):
                    file.truncate(start + end)

    def append(self, *lines: dict[str, Any]) -> None:
        """Add lines, durably; an error leaves the file as it was."""
        text = "".join(f"{_json(line)}\n" for line in lines)
        with self._lock:
            append(self._path, text.encode())

    def recent(self) -> list[dict[str, Any]]:
        """Return the last lines, some hundreds, oldest first."""
        with self._opened() as file:
            return list(self._lines(_tail(file)[1].splitlines(keepends=True)))

    def all(self) -> Iterator[dict[str, Any]]:
        with self._opened() as file:
            yield from self._lines(file)

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        """Open the list, as an empty one if it is missing; never a pipe, which might block."""
        try:
            handle = open_regular(self._path)
        except FileNotFoundError:
            yield BytesIO()
        else:
            with os.fdopen(handle, "rb") as file:
                yield file

    def _lines(self, texts: Iterable[bytes]) -> Iterator[dict[str, Any]]:
        """Yield valid lines: the first may be cut off, and users may have edited the file."""
        for text in texts:
            line = _object(text)
            if line and isinstance(line.get(self._key), str):
                yield line

    def recent_files(self) -> list[str]:
        """Return the files in the last lines, oldest first."""
        return [line["file"] for line in self.recent()]


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


def _json(line: dict[str, Any]) -> str:
    """Return a line's JSON, in which only letters and signs that can be seen stand as they are."""
    text = json.dumps(line, ensure_ascii=False)
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)


def _object(text: bytes) -> dict[str, Any] | None:
    """Return a line's object; None if the line is not valid."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) else None


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
        "device": rendered["device"],
        "size": rendered["size"],
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
    return ImageRequest.from_dict({name: line[name] for name in line.keys() - OWN.keys()})
