"""The sources of settings: flags, the environment (PICOWATCH_…), and picowatch.yaml.

`status`, `pause` and their like need only the folders. These come without pydantic, which takes
longer to import than all else, and whatever is wrong with other settings.
"""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from picowatch.errors import SettingsInvalid
from picowatch.files.safe_paths import open_regular

if TYPE_CHECKING:
    import yaml

FILE_NAME = "picowatch.yaml"
PREFIX = "PICOWATCH_"
FOLDERS = ("inbox", "outbox", "models")
MAX_FILE_BYTES = 100_000

# By name: the value, where it is set, and its line; without a file, one after all others.
Given = dict[str, tuple[Any, str, int]]


class Folders(NamedTuple):
    """Where recipes are saved, and where pictures appear."""

    inbox: Path
    outbox: Path


def folders(
    flags: Mapping[str, Any], environment: Mapping[str, str], file: Path | None = None
) -> Folders:
    """Return the folders, whatever else is wrong in the settings.

    If the file cannot be parsed, lines that name folders count. Raises SettingsInvalid if the
    outbox is not known then: the default outbox may be another daemon's.
    """
    path, names, values = file or Path(FILE_NAME), Folders._fields, dict[str, Any]()
    outside = from_outside(flags, environment, names)
    try:
        if file or os.path.lexists(path):
            values = _parsed(path)[1]
    except SettingsInvalid:
        with suppress(SettingsInvalid):
            values = _parsed(path, names)[1]
        if "outbox" not in values.keys() | outside.keys():
            raise
    found = {name: _in_file(path, value) for name in names if (value := values.get(name))}
    found |= {name: value for name, (value, *_) in outside.items()}
    if not isinstance(found.get("inbox"), str | Path):  # the daemon refuses a wrong folder
        found["inbox"] = "inbox"
    try:
        return Folders(*(folder_value(Path(found.get(name, name))) for name in names))
    except (TypeError, ValueError) as error:
        raise SettingsInvalid(f"{path}: inbox or outbox cannot be used: {error}.") from error


def _in_file(path: Path, value: Any) -> Any:
    """Return a folder as a file means it: below the file's own folder."""
    is_below = isinstance(value, str) and not value.startswith("~")
    return path.parent / value if is_below else value


def folder_value(folder: Path) -> Path:
    """Expand `~`; refuse names that cannot be written into the ledger and the lists."""
    if "\0" in str(folder):
        raise ValueError("its name contains a NUL; remove it")
    try:
        str(folder).encode()
        return folder.expanduser()
    except UnicodeEncodeError as error:
        raise ValueError("its name is not valid UTF-8; rename it") from error
    except RuntimeError as error:
        raise ValueError("this user has no home folder; write the full path") from error


def from_outside(
    flags: Mapping[str, Any], environment: Mapping[str, str], names: Iterable[str]
) -> Given:
    """Return what flags and environment set of these settings."""
    given: Given = {}
    for name in names:
        if text := environment.get(variable := PREFIX + name.upper()):
            given[name] = text, f"environment variable {variable}", sys.maxsize
        if name in flags:
            given[name] = flags[name], f"--{name.replace('_', '-')}", sys.maxsize
    return given


def other_variables(environment: Iterable[str]) -> list[str]:
    """Return the variables, sorted, that look like settings and are not the usual ones."""
    usual = {PREFIX + name.upper() for name in (*FOLDERS, "checkpoint", "device")}
    return sorted(key for key in environment if key.startswith(PREFIX) and key not in usual)


def from_file(path: Path, names: Iterable[str]) -> tuple[Given, dict[str, int]]:
    """Return these settings in a file, and the file's problems with their lines."""
    node, values = _parsed(path)
    given: Given = {}
    problems: dict[str, int] = {}
    lines: dict[str, int] = {}
    for key, written in node:
        name, line = str(key.value), key.start_mark.line + 1
        where = f"{path}, {_position(key.start_mark)}"
        if name not in names:
            problems[f"{where}: {_unknown(name, names)}"] = line
        elif name in lines:
            what = f"'{name}' is given twice: already on line {lines[name]}. Keep one."
            problems[f"{where}: {what}"] = line
        elif (value := values[name]) is not None:
            value = _in_file(path, value) if name in FOLDERS else value
            mark = written.start_mark
            given[name] = value, f"{path}, {_position(mark)}", mark.line + 1
        lines.setdefault(name, line)
    return given, problems


def _parsed(
    path: Path, only: Sequence[str] = ()
) -> tuple[Sequence[tuple["yaml.Node", "yaml.Node"]], dict[str, Any]]:
    """Return a settings file's mapping, or lines of the names `only`: as nodes, and as values."""
    import yaml  # which most commands do without: there is no such file, or none is read

    try:
        with open_regular(path) as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise SettingsInvalid(
                f"The settings {path} are too large; the limit is {MAX_FILE_BYTES:,} bytes."
            )
        lines = content.decode("utf-8-sig").splitlines(keepends=True)
        wanted = (line for line in lines if not only or line.partition(":")[0] in only)
        loader = yaml.SafeLoader("".join(wanted))
        node = loader.get_single_node()
        if node is None or (isinstance(node, yaml.ScalarNode) and not node.value):
            return (), {}
        if not isinstance(node, yaml.MappingNode):
            raise SettingsInvalid(
                f"{path} must contain `name: value` lines, with a space after the colon."
            )
        return [*node.value], loader.construct_document(node)
    except OSError as error:
        raise SettingsInvalid(f"Cannot read the settings {path}: {error.strerror}.") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}, {_position(mark)}" if mark else str(path)
        raise SettingsInvalid(f"{where}: not valid YAML: {error.problem or error}.") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise SettingsInvalid(f"{path}, line {line}: not UTF-8.", "Save it as UTF-8.") from error
    except RecursionError as error:
        raise SettingsInvalid(f"{path} is not valid YAML: its brackets nest too deep.") from error
    except (yaml.YAMLError, ValueError) as error:
        raise SettingsInvalid(f"{path} is not valid YAML: {one_line(error)}.") from error


def _unknown(name: str, names: Iterable[str]) -> str:
    """Return what may have been meant: another setting, or a recipe's field."""
    from picowatch.recipe.messages.suggestions import did_you_mean

    if meant := did_you_mean(name, names):
        return f"unknown setting '{name}'. {meant}".rstrip()
    where = "Recipe fields belong in a recipe, or in inbox/_defaults.yaml for all recipes."
    if name in ("settings", "picowatch"):
        where = "Write the lines below it alone, not indented."
    return f"unknown setting '{one_line(ValueError(name))}'. {where}"


def _position(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())
