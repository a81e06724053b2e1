"""Validates settings from all their sources, and words what is wrong."""

import os
import re
import reprlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from picowatch.errors import SettingsInvalid
from picowatch.recipe.messages.suggestions import closest
from picowatch.settings.settings import Settings
from picowatch.settings.values import words_of
from picowatch.sources import FILE_NAME, PREFIX, Given, from_file, from_outside, other_variables


def load_settings(
    flags: Mapping[str, Any], environment: Mapping[str, str], file: Path | None = None
) -> Settings:
    """Merge flags, environment and the settings file; raises SettingsInvalid.

    `flags` has only flags that were given. `file` None means ./picowatch.yaml, if it exists; a
    named file must exist. Folders in either are relative to the file's, flags' and the
    environment's to the working directory.
    """
    path, names = file or Path(FILE_NAME), Settings.model_fields
    is_there = file or os.path.lexists(path)
    given, problems = from_file(path, names) if is_there else ({}, [])
    given |= from_outside(flags, environment, names)
    settings = _validated(given, problems)
    vars(settings)["file"] = str(path)
    return settings


def unknown_variables(environment: Iterable[str]) -> list[str]:
    """Return a sentence for each variable that looks like a setting but is none."""
    known = [name.upper() for name in Settings.model_fields]
    said = []
    for variable in other_variables(environment):
        if (name := variable.removeprefix(PREFIX)) not in known:
            near = closest(name, known)
            meant = f" Did you mean {PREFIX}{near}?" if near else " docs/settings.md lists them."
            said.append(f"The environment variable {variable} is not a setting.{meant}")
    return said


def _validated(given: Given, problems: list[str]) -> Settings:
    """Return the settings, or raise SettingsInvalid with all problems, in the file's order."""
    settings = None
    try:
        settings = Settings.model_validate({name: value for name, (value, _) in given.items()})
    except ValidationError as error:
        wrong: dict[str, list[str]] = {}
        for problem in error.errors():
            wrong.setdefault(str(problem["loc"][0]), []).append(words_of(problem["msg"]))
        for name, words in wrong.items():
            value, where = given[name]
            # repr would write out everything that aliases repeat.
            shown = reprlib.repr(str(value) if isinstance(value, Path) else value)
            problems.append(f"{where}: {name} {shown}: {', or '.join(words)}.")
    if problems or settings is None:
        raise SettingsInvalid("\n".join(sorted(dict.fromkeys(problems), key=_line)))
    return settings


def _line(problem: str) -> int:
    """Return the line number in a message; messages without a number come last."""
    found = re.match(r".*?, line (\d+), column ", problem)
    return int(found[1]) if found else sys.maxsize
