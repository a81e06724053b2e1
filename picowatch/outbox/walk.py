"""Walks through the outbox's folders, some a second, and reads those that have changed.

A folder's time changes whenever a file or folder in it is made, deleted or renamed. A glance at it
costs as much at a thousand pictures as at one.
"""

import os
import stat
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from picowatch.outbox.names import ENDINGS, MAP

GLANCES = 20  # after which every folder was looked at
LEAST = 20  # folders in a glance
# A folder may change again within the same moment, which is as long as two seconds on FAT.
SETTLED_SECONDS = 3.0


class FolderWalk:
    """The folders with pictures, and when each had changed last as it was read."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._read_at: dict[str, int] = {"": 0}  # a time of 0: it is to be read again
        self._left: deque[str] = deque()

    def glance(self, known: Callable[[], Iterable[str]] = tuple) -> dict[str, set[str]]:
        """Look at the next folders; return the pictures of each that has changed, or is gone.

        The next walk also has the folders that are `known`: one may be gone before it is seen.
        """
        if not self._left:
            self._read_at = dict.fromkeys(known(), 0) | self._read_at
            self._left.extend(self._read_at)
        found: dict[str, set[str]] = {}
        for _ in range(min(max(LEAST, len(self._read_at) // GLANCES), len(self._left))):
            folder = self._left.popleft()
            try:
                pictures = self._changed(folder)
            except (FileNotFoundError, NotADirectoryError):
                self._read_at.pop(folder, None)
                pictures = set()
            except OSError:  # no permission, or a share that is away
                continue
            if pictures is not None:
                found[folder] = pictures
        return found

    def look_again(self, folder: str) -> None:
        """Read a folder again with the next walk."""
        if folder in self._read_at:
            self._read_at[folder] = 0

    def _changed(self, folder: str) -> set[str] | None:
        """Return a folder's pictures, as paths below the outbox; None if it has not changed."""
        path = f"{self._root}/{folder}"  # a pathlib.Path costs more than the system's call
        status = os.stat(path, follow_symlinks=not folder)  # noqa: PTH116
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError
        if self._read_at.get(folder) == status.st_mtime_ns:
            return None
        pictures = set()
        with os.scandir(path) as entries:
            for entry in entries:
                file = f"{folder}/{entry.name}".lstrip("/")
                if entry.is_dir(follow_symlinks=False):
                    self._begin(file)
                elif folder and entry.name.endswith(ENDINGS) and not MAP.search(entry.name):
                    pictures.add(file)
        is_settled = abs(time.time() - status.st_mtime) > SETTLED_SECONDS
        self._read_at[folder] = status.st_mtime_ns if is_settled else 0
        return pictures

    def _begin(self, folder: str) -> None:
        """Look at a folder that is new, but not at picowatch's own."""
        if folder not in self._read_at and not folder.startswith("."):
            self._read_at[folder] = 0
            self._left.append(folder)
