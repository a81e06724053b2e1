"""What is written for a setting, understood; a ValueError says what is wrong with it."""

import difflib
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import yaml
from pydantic_core import PydanticCustomError

LOSSLESS: Literal["lossless"] = "lossless"
HOOKS = ("picture", "failed", "idle")
_ALIKE = 0.65  # 'width' is no 'watch'
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
    """For numbers: pydantic would take true for 1."""
    if isinstance(value, bool):
        raise PydanticCustomError("boolean", "it must be a number")
    return value


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
    """What a text of the environment or of a flag says."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"it is not valid YAML: {one_line(error)}") from error


def unknown_setting(name: str, known: Iterable[str], prefix: str = "", rest: str = "") -> str:
    """All names begin with `prefix`; `rest` is said if none is like this one."""
    near = difflib.get_close_matches(name.removeprefix(prefix), [*known], n=1, cutoff=_ALIKE)
    hint = f" Did you mean '{prefix}{near[0]}'?" if near else rest
    return f"unknown setting '{name}'.{hint}"


def wanted_value(schema: Mapping[str, Any], value: Any) -> str:
    """What a setting of this JSON schema takes, and what `value` may have been meant to be."""
    text = value if isinstance(value, str) else ""
    if choices := schema.get("enum"):
        near = difflib.get_close_matches(text, choices, n=1)
        hint = f". Did you mean {near[0]!r}?" if near else ""
        return f"it must be {', '.join(choices[:-1])} or {choices[-1]}{hint}"
    kinds = {"integer": "a whole number", "number": "a number", "boolean": "true or false"}
    words = kinds.get(schema.get("type", ""), "text")
    if "exclusiveMinimum" in schema:
        words += f" above {schema['exclusiveMinimum']:,.10g}, at most {schema['maximum']:,.10g}"
    elif "maximum" in schema:
        words += f" from {schema['minimum']:,.10g} to {schema['maximum']:,.10g}"
    elif "minimum" in schema:
        words += f", at least {schema['minimum']:,.10g}"
    if re.fullmatch(r"[1-9]\d{0,2},\d{3}", text) and schema.get("type") == "integer":
        words += f". Write {text.replace(',', '')}, without a comma"
    elif re.fullmatch(r"\d{1,9},\d{1,9}", text) and schema.get("type") == "number":
        words += f". Write {text.replace(',', '.')}, with a point"
    return f"it must be {words}"


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())
