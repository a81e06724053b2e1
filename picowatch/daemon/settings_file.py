"""picowatch.yaml is read again when it is saved; valid settings are those of the next daemon."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path

from picowatch.errors import PicowatchError
from picowatch.files.essential import RETRY_SECONDS, in_words
from picowatch.files.safe_paths import Version, version_of
from picowatch.settings.settings import Settings

log = logging.getLogger("picowatch")


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """The settings file; `load` reads it with flags and environment, or raises SettingsInvalid."""

    path: Path
    load: Callable[[], Settings]


class SettingsWatch:
    """The settings, and those that a later save of the `file` brings.

    However an editor saves (in place, by a temporary file, by moving the old one away first), the
    file is read once its size, time and inode have been the same for `settle_seconds`. What cannot
    be read is tried again: a folder that it names may be away or closed for a moment. Without a
    `file` nothing changes, as in a single run.
    """

    def __init__(self, settings: Settings, file: SettingsFile | None) -> None:
        self.settings = settings
        self.new: Settings | None = None  # the next daemon's
        self.problem = ""  # what is wrong with the file
        self.name = file.path.name if file else ""
        self._file = file
        self._before: Settings | None = None  # until a daemon works with the newest settings
        self._seen: Version | None = None
        self._seen_at = time.monotonic()
        self._read: Version | None = None  # the first look reads it: it may have been saved since
        self._retry_at = inf

    @property
    def line(self) -> str:
        """What is wrong with the file, in a line."""
        return " ".join(self.problem.split())

    def look(self) -> None:
        if self._file is None:
            return
        found, now = None, time.monotonic()
        for follows in (False, True):  # a link to nothing is there, and cannot be read
            with suppress(OSError):
                found = version_of(self._file.path.stat(follow_symlinks=follows))
        if found != self._seen:
            self._seen, self._seen_at = found, now
        is_settled = now - self._seen_at >= self.settings.settle_seconds
        if not is_settled or (found == self._read and now < self._retry_at):
            return
        before, self._read = self._read, found
        self.new, self.problem, self._retry_at = None, "", inf
        if found is None:
            log.warning("%s is gone; its settings stay in effect", self._file.path)
            return
        try:
            new = self._file.load()
        except Exception as error:  # whatever a setting breaks, those from before work
            self.problem, self._retry_at = explained(error), time.monotonic() + RETRY_SECONDS
            return
        if new != self.settings:
            self.new = new
            log.info("%s: saved, takes effect after the batch in progress", self.name)
        elif before not in (None, found):
            log.info("%s: saved, nothing changed", self.name)

    def take(self) -> Settings:
        """Return the settings for the next daemon."""
        if self.new:
            self._before = self._before or self.settings
            self.settings, self.new = self.new, None
        return self.settings

    def keep(self) -> None:
        """Note that a daemon works with the settings."""
        self._before = None

    def refuse(self, error: Exception) -> bool:
        """Return to the settings from before the newest; False if there are none."""
        if self._before is None:
            return False
        self.settings, self._before = self._before, None
        self.problem = explained(error)
        return True


def explained(error: Exception) -> str:
    """Return what users read about an error, whatever it is."""
    if isinstance(error, PicowatchError):
        return error.with_remedy
    log.debug("unexpected", exc_info=error)
    return in_words(error)
