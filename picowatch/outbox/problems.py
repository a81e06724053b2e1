"""The error and warning files of one outbox: written, deleted, and listed for the gallery."""

import logging
import os
import threading
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from picowatch.files.atomic import write_atomically
from picowatch.files.attempt import unneeded
from picowatch.files.inside import open_regular
from picowatch.files.names import natural_key
from picowatch.outbox.names import ERROR_ENDING, WARNING_ENDING, OutboxNames
from picowatch.streams import harmless, harmless_lines

log = logging.getLogger("picowatch")

SETTINGS_ERROR = f"settings{ERROR_ENDING}"  # cannot be a recipe's, whose name has a suffix
MOST_SHOWN = 20
MOST_CHARACTERS = 2000  # of one file
MOST_ADDED = 50_000  # characters of a warning file
_ENDINGS = (ERROR_ENDING, WARNING_ENDING)
MORE = "\nMore warnings are in the log.\n"


@dataclass(frozen=True, slots=True)
class ShownProblem:
    """One of the files, as the gallery shows it."""

    file: str
    recipe: str
    is_error: bool
    text: str


def errors_below(outbox: Path, names: OutboxNames, folder: str) -> dict[str, str]:
    """Return what the error files of a folder of the inbox, or of a recipe, say in a line each.

    They are in the natural order of their names.
    """
    files = [f"{outbox}/{names.error_file(folder)}"]
    for path, _, inside in os.walk(outbox / names.folder(f"{folder}/.png")):
        files += [f"{path}/{name}" for name in inside if name.endswith(ERROR_ENDING)]
    found = {}
    for file in sorted(files, key=natural_key):
        with suppress(OSError), os.fdopen(open_regular(Path(file)), errors="replace") as stream:
            recipe = os.path.relpath(file, outbox).removesuffix(ERROR_ENDING)
            found[recipe] = _in_a_line(recipe, stream.read(MOST_CHARACTERS))
    return found


def _in_a_line(recipe: str, text: str) -> str:
    """Return the first mistake of an error file, without its excerpt of the recipe."""
    head, _, rest = text.partition("\n\n")
    place = head.removeprefix("inbox/").removeprefix(harmless(recipe)).removeprefix(", ")
    message = rest.strip("\n").partition("\n\n")[0].splitlines()
    return ": ".join(filter(None, [place, " ".join(one for one in message if one[:1] != " ")]))


def _folder_of(recipe: str) -> str:
    """Return the first line of a warning file: equal warnings of recipes are one file, linked."""
    return harmless(f"inbox/{recipe[: recipe.rfind('/') + 1]}")


class ProblemFiles:
    """The error and warning files of all recipes. Safe to use from several threads."""

    def __init__(self, root: Path, names: OutboxNames) -> None:
        self._root = root
        self._names = names
        self._lock = threading.RLock()
        self._files: dict[str, None] = {}  # newest last
        self._settings_error: str | None = None  # not known yet
        self._last = ("", "")  # the last file that was written, and its text
        self.changes = 0

    def write_error(self, recipe: str, text: str) -> bool:
        """Write a recipe's error file; return whether it says something new."""
        is_new = self.error(recipe) != text.encode("utf-8", "backslashreplace").decode()
        return self._write(self._names.error_file(recipe), text) and is_new

    def error(self, recipe: str) -> str:
        """Return the text of the recipe's error file; "" if it does not exist."""
        return self._text(self._names.error_file(recipe), -1) or ""

    def warning(self, recipe: str) -> str:
        """Return the recipe's name and its warnings; "" without any."""
        text = self._text(self._names.warning_file(recipe), -1) or ""
        _, line_break, rest = text.partition("\n")
        return line_break and harmless(f"inbox/{recipe}") + line_break + rest

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
        if text:
            self._write(SETTINGS_ERROR, text)
        else:
            self._remove(SETTINGS_ERROR)
        self._settings_error = text
        return True

    def write_warnings(self, recipe: str, warnings: Sequence[str]) -> None:
        """Write a recipe's warning file, or delete it if there are no warnings."""
        file = self._names.warning_file(recipe)
        if not warnings:
            self._remove(file)
            return
        text = "\n\n".join([_folder_of(recipe), *map(harmless_lines, warnings)]) + "\n"
        if not self._link(file, text):
            self._write(file, text)

    def add_warning(self, recipe: str, warning: str) -> bool:
        """Add a warning to the recipe's file; return whether it is new.

        If there are very many, only the log has the rest.
        """
        file = self._names.warning_file(recipe)
        with self._lock:
            before = self._text(file, -1) or f"{_folder_of(recipe)}\n"
            added = f"\n{harmless_lines(warning)}\n"
            if added in before:
                return False
            if len(before) > MOST_ADDED:  # the whole file is written for each one
                added = MORE
            if added not in before:
                self._write(file, before + added)
            return True

    def list_existing(self, recipes: Collection[str], wrong: Collection[str]) -> None:
        """List the files of earlier runs, but delete what a crash left.

        These are files of other recipes, and error files of those that are not `wrong`.
        """
        kept = {*map(self._names.warning_file, recipes), *map(self._names.error_file, wrong)}
        found: list[tuple[float, str]] = []
        for folder, _, names in os.walk(self._root):
            for path in (Path(folder, name) for name in names if name.endswith(_ENDINGS)):
                with suppress(FileNotFoundError):  # somebody deleted it meanwhile
                    found.append((path.lstat().st_mtime, path.relative_to(self._root).as_posix()))
        with self._lock:
            self._files = {file: None for _, file in sorted(found)}
            self.changes += 1
        for _, file in found:
            if file not in kept and (self._text(file) or "").startswith("inbox/"):
                self._remove(file)

    def shown(self) -> tuple[list[ShownProblem], int]:
        """Return the newest problems, errors first, and how many more there are.

        Files that the user deleted do not count.
        """
        with self._lock:
            newest = list(reversed(self._files))
        files = sorted(newest, key=lambda file: not file.endswith(ERROR_ENDING))
        problems: list[ShownProblem] = []
        for index, file in enumerate(files):
            if len(problems) == MOST_SHOWN:
                return problems, len(files) - index
            if (text := self._text(file)) is not None:
                recipe = file.removesuffix(ERROR_ENDING).removesuffix(WARNING_ENDING)
                problems.append(ShownProblem(file, recipe, file.endswith(ERROR_ENDING), text))
        return problems, 0

    def _write(self, file: str, text: str) -> bool:
        """Write a file; return whether that worked, as something else may be in its place."""
        is_error = file.endswith(ERROR_ENDING)  # warnings are in the log, too
        with unneeded(file, waits=is_error):
            content = text.encode("utf-8", "backslashreplace")
            write_atomically(self._root / file, content, durable=is_error)
            self._last = file, text
            self._add(file)
            return True
        return False

    def _link(self, file: str, text: str) -> bool:
        """Link a new file to the last one if that says the same; return whether that worked.

        A link takes a tenth of the time of a file: thousands of recipes may have the same warning.
        """
        last, its_text = self._last
        with suppress(OSError):
            if text == its_text:
                os.link(f"{self._root}/{last}", f"{self._root}/{file}")
                self._add(file)
                return True
        return False

    def _add(self, file: str) -> None:
        with self._lock:
            self._files.pop(file, None)
            self._files[file] = None
            self.changes += 1

    def _remove(self, file: str) -> None:
        """Delete a file that was listed or written; a folder in its place stays."""
        if file not in self._files:
            return
        with unneeded(file, waits=file.endswith(ERROR_ENDING)):
            with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                os.unlink(f"{self._root}/{file}")  # noqa: PTH108 (no Path for each save)
            with self._lock:
                self._files.pop(file, None)
                self.changes += 1

    def _text(self, file: str, most: int = MOST_CHARACTERS) -> str | None:
        """Return the beginning of a file, with -1 all of it; None if it cannot be read."""
        try:
            handle = open_regular(self._root / file)
            with os.fdopen(handle, encoding="utf-8", errors="replace") as stream:
                return stream.read(most)
        except FileNotFoundError:
            with self._lock:
                self._files.pop(file, None)
        except OSError:
            pass  # it may be readable next time
        return None
