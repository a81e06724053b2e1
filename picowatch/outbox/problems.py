"""The error and warning files of one outbox: written, deleted, and listed for the gallery."""

import logging
import os
import threading
from collections.abc import Collection, Sequence
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from picowatch.files.atomic import FolderAway, check_in_place, write_atomically
from picowatch.files.essential import Writing
from picowatch.files.safe_paths import open_regular
from picowatch.outbox.names import ERROR_ENDING, WARNING_ENDING, OutboxNames
from picowatch.streams import harmless, harmless_lines

log = logging.getLogger("picowatch")

SETTINGS_ERROR = f"settings{ERROR_ENDING}"  # cannot be a recipe's, whose name has a suffix
MOST_SHOWN = 20
MOST_CHARACTERS = 2000  # of one file
MOST_ADDED = 50_000  # characters of a warning file
PROBLEM_ENDINGS = (ERROR_ENDING, WARNING_ENDING)
MORE = "\nMore warnings are in the log.\n"


class ProblemFiles:
    """The error and warning files of all recipes. Safe to use from several threads."""

    def __init__(self, root: Path, names: OutboxNames, writing: Writing) -> None:
        self._root, self._names, self._writing = root, names, writing
        self._lock = threading.RLock()
        self._files: dict[str, str] = {}  # with their recipes, newest last
        self._settings_error: str | None = None  # not known yet
        self.changes = 0

    def write_error(self, recipe: str, text: str) -> bool:
        """Write a recipe's error file; return whether it says something new."""
        is_new = self.error(recipe) != text.encode("utf-8", "backslashreplace").decode()
        return self._write(recipe, self._names.error_file(recipe), text) and is_new

    def error(self, recipe: str) -> str:
        """Return the text of the recipe's error file, as `warning` does; "" without one."""
        return self._text(self._names.error_file(recipe), -1) or ""

    def warning(self, recipe: str) -> str:
        return self._text(self._names.warning_file(recipe), -1) or ""

    def remove_error(self, recipe: str) -> None:
        """Delete the error file of a recipe that is valid now, or gone."""
        self._remove(self._names.error_file(recipe))

    def clear(self, recipe: str) -> None:
        """Delete both files of a recipe that is gone, or has no problem."""
        self.remove_error(recipe)
        self.write_warnings(recipe, ())

    def show_settings_error(self, text: str) -> bool:
        """Write the settings' error file, or delete it without a `text`; return if it is new."""
        if text == self._settings_error:
            return False
        self._write("", SETTINGS_ERROR, text)
        self._settings_error = text
        return True

    def write_warnings(self, recipe: str, warnings: Sequence[str]) -> None:
        """Write a recipe's warning file, or delete it if there are no warnings."""
        lines = [harmless(f"inbox/{recipe}"), *map(harmless_lines, warnings)]
        text = "\n\n".join(lines) + "\n"
        self._write(recipe, self._names.warning_file(recipe), text if warnings else "")

    def add_warning(self, recipe: str, warning: str) -> bool:
        """Add a warning to the recipe's file while it has room; return whether it is new."""
        file = self._names.warning_file(recipe)
        with self._lock:
            before = self._text(file, -1) or harmless(f"inbox/{recipe}") + "\n"
            added = f"\n{harmless_lines(warning)}\n"
            if added in before:
                return False
            if len(before) > MOST_ADDED:  # the whole file is written for each one
                added = MORE
            if added not in before:
                self._write(recipe, file, before + added)
            return True

    def remove_warnings_of(self, names: Collection[str], template: str) -> None:
        """Remove a template's warnings that name one of these files, which are gone."""
        file = self._names.warning_file(template)
        with self._lock:
            if file in self._files and (text := self._text(file, -1)):
                head, *told = text.removesuffix("\n").split("\n\n")
                named = [*map(harmless, names)]
                kept = [each for each in told if not any(name in each for name in named)]
                if kept != told:
                    self._write(template, file, "\n\n".join([head, *kept]) + "\n" if kept else "")

    def list_existing(self, recipes: Collection[str], wrong: Collection[str]) -> None:
        """List files of earlier runs; delete those of other recipes and of mended errors."""
        kept = {self._names.warning_file(recipe): recipe for recipe in recipes}
        kept |= {self._names.error_file(recipe): recipe for recipe in wrong}
        found: list[tuple[float, str]] = []
        for folder, _, names in os.walk(self._root):
            for path in (Path(folder, name) for name in names if name.endswith(PROBLEM_ENDINGS)):
                with suppress(FileNotFoundError):  # somebody deleted it meanwhile
                    found.append((path.lstat().st_mtime, path.relative_to(self._root).as_posix()))
        with self._lock:
            self._files = {file: kept.get(file, "") for _, file in sorted(found)}
            self.changes += 1
        for _, file in found:
            if file not in kept and (self._text(file) or "").startswith("inbox/"):
                self._remove(file, waits=False)

    def shown(self) -> tuple[list[dict[str, Any]], int]:
        """Return the newest problems that are there, errors first, and how many more there are."""
        with self._lock:
            newest = list(reversed(self._files.items()))
        files = sorted(newest, key=lambda found: not found[0].endswith(ERROR_ENDING))
        problems: list[dict[str, Any]] = []
        for index, (file, recipe) in enumerate(files):
            if len(problems) == MOST_SHOWN:
                return problems, len(files) - index
            if (text := self._text(file)) is not None:
                name = file.removesuffix(ERROR_ENDING).removesuffix(WARNING_ENDING)
                if recipe and recipe == harmless(recipe):  # it is pasted into terminals
                    name = recipe
                is_error = file.endswith(ERROR_ENDING)
                shown = {"file": file, "recipe": name, "is_error": is_error, "text": text}
                problems.append(shown)
        return problems, 0

    def _write(self, recipe: str, file: str, text: str) -> bool:
        """Write a file of a recipe, or delete it without a text; return whether it is written."""
        if not text:
            self._remove(file)
            return False
        is_error = file.endswith(ERROR_ENDING)  # warnings are in the log, too
        with self._writing.optional(file, waits=is_error):
            content = text.encode("utf-8", "backslashreplace")
            write_atomically(self._root / file, content, durable=is_error)
            with self._lock:
                self._files.pop(file, None)
                self._files[file] = recipe
                self.changes += 1
            return True
        return False

    def _remove(self, file: str, *, waits: bool = True) -> None:
        """Delete a file that was listed or written; a folder in its place stays."""
        if file not in self._files:
            self._writing.forget(file)
            return
        with self._writing.optional(file, waits=waits and file.endswith(ERROR_ENDING)):
            with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                os.unlink(f"{self._root}/{file}")  # noqa: PTH108 (no Path for each save)
            with self._lock:
                self._files.pop(file, None)
                self.changes += 1

    def _text(self, file: str, most: int = MOST_CHARACTERS) -> str | None:
        """Return the beginning of a file, with -1 all of it; None if it cannot be read."""
        try:
            opened = open_regular(self._root / file)
            with TextIOWrapper(opened, encoding="utf-8", errors="replace") as stream:
                return stream.read(most)
        except FileNotFoundError:
            with suppress(FolderAway), self._lock:
                check_in_place(self._root)
                self._files.pop(file, None)
        except OSError:
            pass  # it may be readable next time
        return None
