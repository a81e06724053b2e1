"""picowatch.yaml is read again when it is saved, as recipes are."""

import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from picowatch.errors import SettingsInvalid
from picowatch.outbox.encoding import check_format
from picowatch.outbox.problems import ProblemFiles
from picowatch.recipe import RecipeInvalid, error_text, one_line
from picowatch.recipe.messages.problems import Problem, harmless_lines
from picowatch.settings import Settings
from picowatch.work.pool import WorkerPool

log = logging.getLogger("picowatch")

CLOSING = "The settings stay as they were. Fix the file and save it again."

_Stamp = tuple[int, int, int] | None


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """Where the settings are, and how to read them again, with flags and environment."""

    path: Path
    load: Callable[[], Settings]


@dataclass(eq=False)
class SettingsWatch:
    """Takes over what may change while picowatch runs, and says what needs a restart.

    However an editor saves (in place, by a temporary file, by moving the old one away first), the
    file is read once its size, time and inode have been the same for `settle_seconds`.
    """

    file: SettingsFile
    settings: Settings  # in force
    problems: ProblemFiles
    pool: WorkerPool
    problem: str = ""  # what is wrong with the file, in a line

    def __post_init__(self) -> None:
        self._seen: _Stamp = None
        self._seen_at = time.monotonic()
        # The first look reads it once more: it may have been saved since the start.
        self._answered: _Stamp = None
        self._is_first = True

    def look(self) -> None:
        """Answer a save of the file, if there was one.

        Raises OSError while the error file cannot be written; the next look answers it then.
        """
        stamp, now = _stamp(self.file.path), time.monotonic()
        if stamp != self._seen:
            self._seen, self._seen_at = stamp, now
        if stamp == self._answered or now - self._seen_at < self.settings.settle_seconds:
            return
        before, self._answered = self._answered, stamp
        if stamp is None:
            log.warning("%s is gone; its settings stay in force", self.file.path)
            return
        try:
            self._answer()
        except OSError:
            self._answered = before
            raise
        self._is_first = False

    def _answer(self) -> None:
        name = self.file.path.name
        try:
            new = self.file.load()
            check_format(new)
        except SettingsInvalid as error:
            text, line = explained(error, self.file.path)
            self.problems.write_settings_error(text)
            self.problem = line
            log.error("%s The settings stay as they were.", line)
            return
        self.problems.remove_settings_error()
        self.problem = ""
        changed, later = self.settings.take_over(new)
        if changed:
            self.pool.settings_changed()
        for setting in changed:
            log.info("%s: saved, %s is %s now", name, setting, _shown(self.settings, setting))
        for setting in later:
            log.warning("%s: saved, %s needs a restart of picowatch", name, setting)
        if not (changed or later or self._is_first):
            log.info("%s: saved, nothing changed", name)


def _shown(settings: Settings, name: str) -> object:
    """The value for the log; of hooks the programs, whose arguments may be secret."""
    if name == "hooks":
        return {event: program for event, (program, *_) in settings.hooks.items()}
    value = getattr(settings, name)
    if value is None:
        return "not set"
    return str(value).lower() if isinstance(value, bool) else value


def explained(error: SettingsInvalid, path: Path) -> tuple[str, str]:
    """The text of the error file, with each line that is wrong, and the line for the log."""
    found = list(_problems(error.message, path))
    if not found:
        line = " ".join(error.with_remedy.split())
        return harmless_lines(f"{error.with_remedy}\n\n{CLOSING}\n"), line
    invalid = RecipeInvalid(found)
    return error_text(invalid, "", CLOSING), one_line(invalid, "")


def _problems(message: str, path: Path) -> Iterator[Problem]:
    """What the lines of a message point at in the file."""
    try:
        lines = path.read_text("utf-8-sig", errors="replace").splitlines()
    except OSError:
        return
    for text in message.split("\n"):
        place = re.match(r"(?P<path>.*), line (?P<line>\d+), column (?P<column>\d+): ", text)
        if not place or place["path"] != str(path):
            continue
        number, column = int(place["line"]), int(place["column"])
        source = lines[number - 1] if number <= len(lines) else ""
        column = min(column, len(source) + 1)
        value = re.match(r"[^\s:#]+", source[column - 1 :])
        width = len(value[0]) if value else 1
        yield Problem(str(path), number, column, source, width, text[place.end() :])


def _stamp(path: Path) -> _Stamp:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino
