"""picowatch.yaml is read again when it is saved; a valid save restarts picowatch."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from picowatch.daemon.pool import WorkerPool
from picowatch.daemon.run import Run
from picowatch.errors import SettingsInvalid
from picowatch.settings import Settings
from picowatch.streams import harmless_lines

log = logging.getLogger("picowatch")

CLOSING = "The settings stay as they were. Fix the file and save it again."

_SizeAndTime = tuple[int, int, int] | None


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """The settings file, and how to read it again, with flags and environment.

    `load` raises SettingsInvalid for what picowatch could not start with.
    """

    path: Path
    load: Callable[[], Settings]


class SettingsWatch:
    """Ends the run with `restart` after a valid save, once the batches in progress are done.

    However an editor saves (in place, by a temporary file, by moving the old one away first), the
    file is read once its size, time and inode have been the same for `settle_seconds`. Without a
    `file` nothing happens, as in a single run.
    """

    def __init__(self, run: Run, file: SettingsFile | None, pool: WorkerPool) -> None:
        self.file, self.pool, self.result = file, pool, run.result
        self.settings, self.problems = run.settings, run.outbox.problems
        self.problem = ""  # what is wrong with the file, in a line
        self._seen: _SizeAndTime = None
        self._seen_at = time.monotonic()
        self._read: _SizeAndTime = None  # the first look reads it: it may have been saved since
        self._is_new = False  # True: its settings apply once no batch is in progress

    def look(self) -> None:
        """Read the file if it was saved, and end the run if it says something new.

        Raises OSError if the error file cannot be written; then the next call reads the file again.
        """
        if self.file is None:
            return
        path, now = self.file.path, time.monotonic()
        found = _size_and_time(path)
        if found != self._seen:
            self._seen, self._seen_at = found, now
        if found != self._read and now - self._seen_at >= self.settings.settle_seconds:
            self._take(self.file, found)
            self._read = found
        if self.pool.finish_batches(self._is_new):
            self.result.cannot_go_on(f"{path.name} was saved", restart=True)

    def _take(self, file: SettingsFile, found: _SizeAndTime) -> None:
        self._is_new = False
        if found is None:
            log.warning("%s is gone; its settings stay in effect", file.path)
        else:
            try:
                new = file.load()
            except SettingsInvalid as error:
                self.problem = " ".join(error.with_remedy.split())
                text = f"{error.with_remedy}\n\n{CLOSING}\n"
                self.problems.show_settings_error(harmless_lines(text))
                log.error("%s The settings stay as they were.", self.problem)
                return
            self._is_new = new != self.settings
            if self._is_new:
                log.info("%s: saved, takes effect after the batch in progress", file.path.name)
            elif self._read is not None:
                log.info("%s: saved, nothing changed", file.path.name)
        self.problems.show_settings_error("")
        self.problem = ""


def _size_and_time(path: Path) -> _SizeAndTime:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino
