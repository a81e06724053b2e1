"""images.jsonl: one JSON line per published picture, appended and never rewritten."""

import json
import os
from pathlib import Path
from typing import Any

TAIL_BYTES = 1 << 20


class Listing:
    """The list of published pictures."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mend()

    def append(self, line: dict[str, Any]) -> None:
        """Add a picture, durably."""
        text = json.dumps(line, ensure_ascii=True) + "\n"
        with self._path.open("ab") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())

    def recent_files(self) -> set[str]:
        """The files in the last lines: enough to tell what a crash left unlisted."""
        return {line["file"] for line in self._tail() if "file" in line}

    def _tail(self) -> list[dict[str, Any]]:
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(max(0, self._path.stat().st_size - TAIL_BYTES))
            lines = file.read().splitlines()
        found = []
        for line in lines:
            try:
                found.append(json.loads(line))
            except ValueError:
                continue  # the first line may be cut by the seek
        return found

    def _mend(self) -> None:
        """Cut off a last line that a crash left without its end."""
        if not self._path.exists():
            return
        with self._path.open("rb+") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(0, size - TAIL_BYTES)
            file.seek(start)
            tail = file.read()
            if tail and not tail.endswith(b"\n"):
                file.truncate(start + tail.rfind(b"\n") + 1)
