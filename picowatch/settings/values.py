"""What is written for a setting, understood; a ValueError says what is wrong with it."""

import os
import re
import shlex
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError

LOSSLESS: Literal["lossless"] = "lossless"
HOOKS = ("picture", "failed", "idle")
MAX_NAME = 255  # bytes of a file name, which hardly any file system exceeds
_MAX_FOLDER_BYTES = 2000  # Linux opens 4095, which pictures in subfolders need, too
_PROGRAM: dict[str, Any] = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}, "minItems": 1},
        {"type": "null"},
    ]
}
HOOKS_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": dict.fromkeys(HOOKS, _PROGRAM),
    "additionalProperties": False,
}


def not_boolean(value: Any) -> Any:
    """Refuse true and false as numbers: pydantic would take true for 1."""
    if isinstance(value, bool):
        raise ValueError("Input should be a number, not true or false")
    return value


def folder_value(folder: Path) -> Path:
    """Expand `~`; refuse what no file system takes, or what leaves no room for pictures."""
    try:
        folder = folder.expanduser()
    except RuntimeError as error:
        raise ValueError("this user has no home folder; write the full path") from error
    if "\0" in str(folder):
        raise ValueError("it is not a path: it contains a null byte")
    longest = max(map(len, map(os.fsencode, folder.parts)), default=0)
    if longest > MAX_NAME or len(os.fsencode(folder.absolute())) > _MAX_FOLDER_BYTES:
        raise ValueError(
            f"it is too long; the limit is {MAX_NAME} bytes for each name in it and "
            f"{_MAX_FOLDER_BYTES:,} for the whole path"
        )
    return folder


def device_value(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
        raise ValueError("it must be auto, cuda, cuda:N (the N-th card), mps or cpu")
    return value


def batch_size_value(value: Any) -> Any:
    if value == "auto" or re.fullmatch(r"[1-9]\d?|1\d\d|2[0-4]\d|25[0-6]", str(value)):
        return value
    raise ValueError("it must be auto, or a whole number from 1 to 256")


def quality_value(value: Any) -> Any:
    if value in ("auto", LOSSLESS) or re.fullmatch(r"[1-9]\d?|100", str(value)):
        return value
    raise ValueError("it must be auto, a whole number from 1 to 100, or lossless")


def metrics_address_value(value: Any) -> str:
    if value is False or value in ("", "off", "none"):  # YAML reads off as false
        return ""
    text = value if isinstance(value, str) else ""
    _, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise ValueError("it must be like 127.0.0.1:9464, or :9464 for every address")
    return text


def hooks_value(value: Any) -> Any:
    """Programs by event, each an argument list; a text is split as a shell would."""
    if isinstance(value, str):  # of the environment
        value = yaml_value(value)
    if not isinstance(value, dict):
        raise ValueError("it must be a mapping like {picture: notify-send}")
    hooks = {}
    for event, command in value.items():
        if event not in HOOKS:
            raise ValueError(f"unknown hook {event!r}; the hooks are {', '.join(HOOKS)}")
        arguments = shlex.split(command) if isinstance(command, str) else command
        is_list = isinstance(arguments, list) and all(isinstance(a, str) for a in arguments)
        if command is not None and not (is_list and arguments):
            raise ValueError(f"{event} must be a program, as text or as a list of arguments")
        if command is not None:
            hooks[event] = arguments
    return hooks


def yaml_value(text: str) -> Any:
    """The value of a text from the environment or a flag."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"it is not valid YAML: {one_line(error)}") from error


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong within a value, with the name of its part."""
    problems = error.errors()
    name = problems[0]["loc"][0]
    words = [words_of(one["msg"]) for one in problems if one["loc"][0] == name]
    return f"{name}: {', or '.join(words)}"


def words_of(message: str) -> str:
    """pydantic's message without what it puts before those of our own validators."""
    return message.removeprefix("Value error, ").rstrip(".")


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())
