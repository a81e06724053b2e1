"""The user's stars, by picture: a log in `.picowatch/`, and stars.jsonl for scripts.

stars.jsonl stands beside images.jsonl: a line for each picture that has a star now, in the order in
which they got it. Whoever deletes or edits it changes nothing: it is written again from the log.
Only where the log itself is gone, it begins with what stars.jsonl says.
"""

import json
import time
from collections.abc import Iterable
from pathlib import Path
from threading import Lock

from picowatch.files.atomic import write_atomically
from picowatch.outbox.listing import JsonLines


class Stars:
    """Safe to use from several threads."""

    def __init__(self, root: Path) -> None:
        self._lock = Lock()
        log = root / ".picowatch" / "stars.jsonl"
        self._log = JsonLines(log)
        self._export = root / "stars.jsonl"
        self._starred: dict[str, int] = {}  # files, with the Unix time at which they got it
        if not log.exists():
            self._begin_with_export()
        for line in self._log.all():
            match line:
                case {"file": str(file), "starred": bool(starred), "at": int(at)}:
                    self._note(file, starred, at)
        self._write_export()

    def _begin_with_export(self) -> None:
        lines = []
        for line in JsonLines(self._export).all():
            match line:
                case {"file": str(file), "starred_at": int(at)}:
                    lines.append({"file": file, "starred": True, "at": at})
        if lines:
            self._log.append(*lines)

    def files(self) -> list[str]:
        """The pictures that have one, as paths below the outbox."""
        with self._lock:
            return list(self._starred)

    def set(self, files: Iterable[str], starred: bool) -> list[str]:
        """Give these pictures a star, or take it from them; returns those that this changed.

        May be repeated. An error leaves the log as it was; the next start repairs stars.jsonl.
        """
        at = int(time.time())
        with self._lock:
            changed = [file for file in files if (file in self._starred) != starred]
            if changed:
                self._log.append(
                    *({"file": file, "starred": starred, "at": at} for file in changed)
                )
                for file in changed:
                    self._note(file, starred, at)
            self._write_export()
        return changed

    def _note(self, file: str, starred: bool, at: int) -> None:
        if starred:
            self._starred.setdefault(file, at)
        else:
            self._starred.pop(file, None)

    def _write_export(self) -> None:
        lines = [{"file": file, "starred_at": at} for file, at in self._starred.items()]
        content = "".join(json.dumps(line) + "\n" for line in lines).encode()
        exists = self._export.exists()
        if (content or exists) and not (exists and self._export.read_bytes() == content):
            write_atomically(self._export, content)
