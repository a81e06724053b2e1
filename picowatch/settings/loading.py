"""Where settings come from: flags, the environment (PICOWATCH_…), and picowatch.yaml."""

import os
import re
import reprlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from picowatch.errors import SettingsInvalid
from picowatch.settings.file_names import MAX_NAME, check_file_name
from picowatch.settings.settings import FILE_NAME, FOLDERS, PREFIX, WITH_LOSSLESS, Settings
from picowatch.settings.values import LOSSLESS, one_line, unknown_setting, wanted_value

# Read by other parts of picowatch (daemon/process.py).
_OTHER_VARIABLES = {"PICOWATCH_RESTARTED"}
# Kubernetes and Docker's links set these for a service or container called picowatch
# (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables).
_SET_BY_OTHERS = re.compile(r"PICOWATCH_(NAME|ENV_.*|PORT(_.*)?|SERVICE_(HOST|PORT)(_.*)?)")
# Where somebody wants `steps: 30` who writes it into the settings.
_IN_RECIPES = " Recipe fields belong in a recipe, or in inbox/_defaults.yaml for all recipes."
_NO_SPACE = re.compile(r"(?P<name>[a-z_]+):(?P<value>[^\s#].*)")
_MAX_FILE_BYTES = 100_000
_MAX_FOLDER_BYTES = 2000  # Linux opens 4095, which pictures in subfolders need, too


def load_folders(
    flags: Mapping[str, Any], environment: Mapping[str, str], file: Path | None = None
) -> tuple[Settings, SettingsInvalid | None]:
    """The settings for a command that needs only the folders, and what is wrong with the file.

    Where something is, all but the folders have their defaults. A daemon runs on then, too.
    """
    try:
        return load_settings(flags, environment, file), None
    except SettingsInvalid as error:
        return load_settings(flags, environment, file, only_folders=True), error


def load_settings(
    flags: Mapping[str, Any],
    environment: Mapping[str, str],
    file: Path | None = None,
    *,
    only_folders: bool = False,
) -> Settings:
    """Merge flags, environment and the settings file; raises SettingsInvalid.

    `flags` holds only what was given. `file` None means ./picowatch.yaml, if it is there; a
    file that was named must exist. Relative folders in the file are relative to the file's
    own folder, elsewhere to the working directory. With `only_folders` the rest of the file
    is not looked at.
    """
    values: dict[str, Any] = {}
    where: dict[str, str] = {}
    unknown: list[str] = []
    path = file or Path(FILE_NAME)
    if file or os.path.lexists(path):
        found, unknown = _from_file(path)
        if only_folders:
            found, unknown = {name: found[name] for name in FOLDERS if name in found}, []
        for name, (value, position) in found.items():
            values[name] = value
            where[name] = f"{path}, {position}"
    variables = {PREFIX + name.upper(): name for name in Settings.model_fields}
    for variable, text in environment.items():
        if variable in variables and text:
            name, where[name] = variables[variable], f"environment variable {variable}"
            is_folder = name in FOLDERS
            values[name] = _expanded(text, f"{where[name]}: {name}") if is_folder else text
        elif text and _is_misspelt(variable):
            words = unknown_setting(variable, map(str.upper, Settings.model_fields), PREFIX)
            unknown.append(f"environment variable {variable}: {words}")
    for name, value in flags.items():
        values[name], where[name] = value, f"--{name.replace('_', '-')}"
    return _validated(values, where, unknown)


def _is_misspelt(variable: str) -> bool:
    """Whether a variable that is not a setting looks like one."""
    ours = variable.startswith(PREFIX) and variable not in _OTHER_VARIABLES
    return ours and not _SET_BY_OTHERS.fullmatch(variable)


def _from_file(path: Path) -> tuple[dict[str, tuple[Any, str]], list[str]]:
    """Values of a settings file, each with its line and column, and what is no setting."""
    text = ""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
        if len(content) > _MAX_FILE_BYTES:
            raise SettingsInvalid(
                f"The settings {path} are too large; the limit is {_MAX_FILE_BYTES:,} bytes."
            )
        text = content.decode("utf-8-sig")
        values = yaml.load(text, yaml.SafeLoader)
        node = yaml.compose(text, yaml.SafeLoader)
    except OSError as error:
        raise SettingsInvalid(f"Cannot read the settings {path}: {error.strerror}.") from error
    except yaml.MarkedYAMLError as error:
        _refuse_missing_spaces(path, text)
        mark = error.problem_mark or error.context_mark
        where = f"{path}, {_position(mark)}" if mark else str(path)
        raise SettingsInvalid(f"{where}: not valid YAML: {error.problem or error}.") from error
    except (yaml.YAMLError, ValueError) as error:
        raise SettingsInvalid(f"{path} is not valid YAML: {one_line(error)}.") from error
    except RecursionError as error:
        raise SettingsInvalid(f"{path} is nested too deeply.") from error
    if values is None:
        return {}, []
    if not isinstance(values, dict) or not isinstance(node, yaml.MappingNode):
        _refuse_missing_spaces(path, text)
        raise SettingsInvalid(f"{path} must contain `name: value` lines.")
    names: dict[str, str] = {}
    found, unknown = {}, []
    for key, _ in node.value:
        position = _position(key.start_mark)
        if key.value in names:
            before = names[key.value].partition(",")[0]
            twice = f"'{one_line(key.value)}' is given twice: already on {before}. Keep one."
            unknown.append(f"{path}, {position}: {twice}")
        names.setdefault(key.value, position)
    positions = {key.value: _position(written.start_mark) for key, written in node.value}
    for name, value in values.items():
        position = positions.get(name, _position(node.start_mark))  # merged in by `<<`
        if name not in Settings.model_fields:
            words = unknown_setting(str(name), Settings.model_fields, rest=_IN_RECIPES)
            unknown.append(f"{path}, {names.get(name, position)}: {words}")
            continue
        if name in FOLDERS and isinstance(value, str):
            value = path.parent / _expanded(value, f"{path}, {position}: {name}")
        if value is not None:
            found[str(name)] = (value, position)
    return found, unknown


def _refuse_missing_spaces(path: Path, text: str) -> None:
    """`watch:auto` is text to YAML."""
    problems = [
        f"{path}, line {number}, column {len(line['name']) + 1}: a space is missing after the "
        f"colon: write '{line['name']}: {_shown_plainly(line['value'])}'."
        for number, written in enumerate(text.splitlines(), 1)
        if (line := _NO_SPACE.match(written)) and line["name"] in Settings.model_fields
    ]
    if problems:
        raise SettingsInvalid("\n".join(problems))


def _shown_plainly(value: str) -> str:
    return value.strip() if len(value) <= 60 else f"{value[:60].strip()}…"


def _position(mark: yaml.Mark) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"


def _expanded(folder: str, where: str) -> Path:
    """The folder, with its owner's home in place of `~`."""
    try:
        return Path(folder).expanduser() if folder.startswith("~") else Path(folder)
    except RuntimeError as error:
        raise SettingsInvalid(
            f"{where} {_shown(folder)}: this user has no home folder.",
            "Write the full path.",
        ) from error


def _validated(values: dict[str, Any], where: dict[str, str], unknown: list[str]) -> Settings:
    """Raises SettingsInvalid with all that is wrong, in the order of the file's lines."""
    problems = [*unknown]
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        schemas = Settings.model_json_schema()["properties"]
        for problem in error.errors():
            name = str(problem["loc"][0])
            message = problem["msg"].removeprefix("Value error, ")
            if problem["type"] == "string_type":
                message = "it must be text"
            elif problem["type"] != "value_error" and not {"anyOf", "$ref"} & schemas[name].keys():
                message = wanted_value(schemas[name], values[name])
            end = "" if message.endswith("?") else "."
            problems.append(f"{where[name]}: {name} {_shown(values[name])}: {message}{end}")
    if problems:
        raise SettingsInvalid("\n".join(sorted(dict.fromkeys(problems), key=_line)))
    for name in FOLDERS:
        _check_folder(getattr(settings, name), f"{where.get(name, name)}: {name}")
    check_file_name(settings.file_name, where.get("file_name", "file_name"))
    if settings.quality == LOSSLESS and settings.format not in WITH_LOSSLESS:
        raise SettingsInvalid(
            f"{where['quality']}: quality 'lossless' does not exist for {settings.format}.",
            "Use format: webp or png, or a quality from 1 to 100.",
        )
    return settings


def _line(problem: str) -> int:
    """The line of a file that a message begins with; others come last."""
    found = re.match(r".*?, line (\d+), column ", problem)
    return int(found[1]) if found else sys.maxsize


def _check_folder(folder: Path, where: str) -> None:
    """Refuse a path that no file system takes, or that leaves no room for what lies in it."""
    if "\0" in str(folder):
        raise SettingsInvalid(
            f"{where} {_shown(str(folder))} is not a path: it contains a null byte."
        )
    longest = max(map(len, map(os.fsencode, folder.parts)), default=0)
    if longest > MAX_NAME or len(os.fsencode(folder.absolute())) > _MAX_FOLDER_BYTES:
        raise SettingsInvalid(
            f"{where} {_shown(str(folder))} is too long; the limit is {MAX_NAME} bytes for each "
            f"name in it and {_MAX_FOLDER_BYTES:,} for the whole path."
        )


def _shown(value: Any) -> str:
    """A value in a message; repr would write out what aliases only repeat."""
    try:
        return reprlib.repr(value)
    except ValueError:  # Python writes out no number of more than 4300 digits
        return "(a number with thousands of digits)"
