"""The sources of settings: flags, the environment (PICOWATCH_…), and picowatch.yaml."""

import difflib
import os
import re
import reprlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from picowatch.errors import SettingsInvalid
from picowatch.files.inside import open_regular
from picowatch.settings.settings import FILE_NAME, FOLDERS, PREFIX, Settings
from picowatch.settings.values import one_line, words_of

MAX_FILE_BYTES = 100_000

_Given = dict[str, tuple[Any, str]]  # by name: the value, and where it is set


def load_settings(
    flags: Mapping[str, Any],
    environment: Mapping[str, str],
    file: Path | None = None,
    *,
    only_folders: bool = False,
) -> Settings:
    """Merge flags, environment and the settings file; raises SettingsInvalid.

    `flags` has only flags that were given. `file` None means ./picowatch.yaml, if it exists; a
    named file must exist. Folders in the file are relative to the file's own folder, others to the
    working directory. With `only_folders` the rest of the file is ignored, as a running daemon
    ignores a file with a mistake.
    """
    given: _Given = {}
    problems: list[str] = []
    path = file or Path(FILE_NAME)
    if file or os.path.lexists(path):
        given, problems = _from_file(path)
        if only_folders:
            given, problems = {name: given[name] for name in FOLDERS if name in given}, []
    for name in Settings.model_fields:
        if text := environment.get(variable := PREFIX + name.upper()):
            given[name] = text, f"environment variable {variable}"
    for name, value in flags.items():
        given[name] = value, f"--{name.replace('_', '-')}"
    return _validated(given, problems)


def unknown_variables(environment: Iterable[str]) -> list[str]:
    """Return a sentence for each variable that looks like a setting but is not one."""
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    said = []
    for variable in sorted(environment):
        if variable.startswith(PREFIX) and variable not in known:
            near = difflib.get_close_matches(variable, known, n=1)
            meant = f" Did you mean {near[0]}?" if near else " docs/settings.md lists them."
            said.append(f"The environment variable {variable} is not a setting.{meant}")
    return said


def _text_of(path: Path) -> str:
    """Return the text of a settings file. Raises OSError, also for a pipe, or SettingsInvalid."""
    with os.fdopen(open_regular(path), "rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise SettingsInvalid(
            f"The settings {path} are too large; the limit is {MAX_FILE_BYTES:,} bytes."
        )
    return content.decode("utf-8-sig")


def _from_file(path: Path) -> tuple[_Given, list[str]]:
    """Return a settings file's values, each with its line and column, and its problems."""
    node, values = _parsed(path)
    given: _Given = {}
    problems = []
    lines: dict[str, int] = {}
    for key, written in node.value:
        name, where = str(key.value), f"{path}, {_position(key.start_mark)}"
        if name not in Settings.model_fields:
            problems.append(f"{where}: {_unknown(name)}")
        elif name in lines:
            problems.append(
                f"{where}: '{name}' is given twice: already on line {lines[name]}. Keep one."
            )
        elif (value := values[name]) is not None:
            is_below = name in FOLDERS and isinstance(value, str) and not value.startswith("~")
            where = f"{path}, {_position(written.start_mark)}"
            given[name] = path.parent / value if is_below else value, where
        lines.setdefault(name, key.start_mark.line + 1)
    return given, problems


def _parsed(path: Path) -> tuple[yaml.MappingNode, dict[str, Any]]:
    """Return the mapping in a settings file, as YAML's node and as values."""
    try:
        loader = yaml.SafeLoader(_text_of(path))
        node = loader.get_single_node()
        if node is None or (isinstance(node, yaml.ScalarNode) and not node.value):
            return yaml.MappingNode("", []), {}
        if not isinstance(node, yaml.MappingNode):
            raise SettingsInvalid(
                f"{path} must contain `name: value` lines, with a space after the colon."
            )
        written = [*node.value]
        values = loader.construct_document(node)
        return yaml.MappingNode("", written), values
    except OSError as error:
        raise SettingsInvalid(f"Cannot read the settings {path}: {error.strerror}.") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}, {_position(mark)}" if mark else str(path)
        raise SettingsInvalid(f"{where}: not valid YAML: {error.problem or error}.") from error
    except RecursionError as error:
        raise SettingsInvalid(f"{path} is not valid YAML: its brackets nest too deep.") from error
    except (yaml.YAMLError, ValueError) as error:
        raise SettingsInvalid(f"{path} is not valid YAML: {one_line(error)}.") from error


def _unknown(name: str) -> str:
    """Return what may have been meant: another setting, or a recipe's field."""
    near = difflib.get_close_matches(name, [*Settings.model_fields], n=1, cutoff=0.65)
    if near:
        return f"unknown setting '{name}'. Did you mean '{near[0]}'?"
    where = "Recipe fields belong in a recipe, or in inbox/_defaults.yaml for all recipes."
    return f"unknown setting '{one_line(ValueError(name))}'. {where}"


def _position(mark: yaml.Mark) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"


def _validated(given: _Given, problems: list[str]) -> Settings:
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
    """Return the line number in a message; messages without one come last."""
    found = re.match(r".*?, line (\d+), column ", problem)
    return int(found[1]) if found else sys.maxsize
