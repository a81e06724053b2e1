"""Parses the values of settings; a ValueError says what is wrong with a value."""

import re
import shlex
import string
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
)

from picowatch.files.names import is_picture_name
from picowatch.recipe.converters import MAX_SEED, format_called
from picowatch.sources import one_line

LOSSLESS: Literal["lossless"] = "lossless"
MAX_NAME = 255  # bytes of a file name, which hardly any file system exceeds


def _not_boolean(value: Any) -> Any:
    """Refuse true and false as numbers, as pydantic would take true for 1."""
    if isinstance(value, bool):
        raise ValueError("Input should be a number, not true or false")
    return value


def _with_point(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"\d{1,9},\d{1,9}", value):
        raise ValueError(f"write {value.replace(',', '.')}, with a point")
    return value


Int = Annotated[int, BeforeValidator(_not_boolean)]
Float = Annotated[float, BeforeValidator(_not_boolean), BeforeValidator(_with_point)]


def format_value(value: Any) -> Any:
    return format_called(value) if isinstance(value, str) else value


def device_value(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|(cuda|xpu)(:\d+)?", value):
        raise ValueError("it must be auto, cuda, cuda:N (the N-th card), xpu, mps or cpu")
    return value


def metrics_address_value(value: Any) -> str:
    if value is False or value in ("", "off", "none"):  # YAML reads off as false
        return ""
    text = value if isinstance(value, str) else ""
    address = text.rpartition("://")[2].partition("/")[0]
    _, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ValueError("it must be like 127.0.0.1:9464, or :9464 for every address")
    if address != text:
        raise ValueError(f"write {address}")
    return text


def _program_value(value: Any) -> Any:
    """Split a text as a shell would; numbers among arguments are no texts."""
    for part in value if isinstance(value, list) else ():
        if not isinstance(part, str):
            raise ValueError(f"the argument {part} is no text: write it in quotes")
    return shlex.split(value) if isinstance(value, str) else value


Hook = Literal["picture", "failed", "idle", "on_finished"]
Program = Annotated[list[str], Field(min_length=1), BeforeValidator(_program_value)]
HOOKS_SCHEMA = TypeAdapter(dict[Hook, str | list[str] | None]).json_schema()


def hooks_value(value: Any) -> Any:
    """Leave out hooks without a program."""
    hooks = _mapping(value, "like {picture: notify-send}")
    return {hook: program for hook, program in hooks.items() if program is not None}


def folders_value(value: Any) -> Any:
    """Name the inbox itself "" instead of "."."""
    found = {}
    for name, number in _mapping(value, "of folders like {ada: 2}").items():
        folder = str(name).rstrip("/")
        if not folder or "/" in folder:
            raise ValueError(f"{name} is no folder in the inbox itself")
        found["" if folder == "." else folder] = number
    return found


def _mapping(value: Any, wanted: str) -> dict[Any, Any]:
    found = yaml_value(value) if isinstance(value, str) else value
    if not isinstance(found, dict):
        raise ValueError(f"it must be a mapping {wanted}")
    return found


def yaml_value(text: str) -> Any:
    """Return the value of a text from the environment or a flag."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"it is not valid YAML: {one_line(error)}") from error


def problems_of(error: ValidationError) -> dict[str, str]:
    """Return what is wrong by name; a value may be wrong for each of several types."""
    found: dict[str, list[str]] = {}
    for problem in error.errors():
        words = problem["msg"].removeprefix("Value error, ").rstrip(".")  # of our own validators
        found.setdefault(str(problem["loc"][0]), []).append(words)
    return {name: ", or ".join(words) for name, words in found.items()}


# The placeholders of templates, with values to try a template with.
_SAMPLE: dict[str, Any] = {
    **dict.fromkeys(("recipe", "picture", "checkpoint", "sampler"), "x"),
    **dict.fromkeys(("number", "seed", "steps", "width", "height"), MAX_SEED),
    "cfg_scale": 7.5,
}


def file_name_value(template: str) -> str:
    """Refuse a template that cannot name pictures."""
    if len(template) > MAX_NAME:
        raise ValueError(f"it is too long; the limit is {MAX_NAME} characters")
    try:
        for _, name, how, _ in string.Formatter().parse(template):
            if name is not None and name not in _SAMPLE:
                known = ", ".join(_SAMPLE)
                raise ValueError(f"there is no {{{name}}}. The placeholders are {known}")
            if "{" in (how or ""):
                raise ValueError(f"':{how}' names a placeholder; write a format like {{number:04}}")
            if re.search(r"\d{4}", how or ""):
                raise ValueError(f"':{how}' is too wide; the limit is 999")
        first, second = (template.format_map({**_SAMPLE, "number": number}) for number in (1, 2))
    except (ValueError, IndexError, TypeError, OverflowError) as error:
        raise ValueError(f"it cannot be used: {error}") from error
    if first == second or "/" in first or "\0" in first or first.startswith("."):
        raise ValueError("it needs {number}, and must not contain '/' or begin with '.'")
    if is_picture_name(first):
        raise ValueError("leave out its ending: the format gives one")
    return template


MOST_ENGINES = 1024


class LocalSettings(BaseModel):
    """Engines on this machine, one for each GPU, or each with a share of the cores."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engines: int = Field(1, ge=1, le=MOST_ENGINES)

    def __str__(self) -> str:
        return "local" if self.engines == 1 else f"local:{self.engines}"


class RaySettings(BaseModel):
    """Engines on the Ray cluster of which this machine is a node."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str = Field("auto", description="auto, or the head's HOST:6379.")
    gpus_per_engine: Float = Field(1, ge=0, le=64, description="0: engines that use the CPU.")
    cpus_per_engine: Float = Field(1, gt=0, le=1024)
    engines: Literal["auto"] | Annotated[Int, Field(ge=1, le=MOST_ENGINES)] = "auto"

    @field_validator("address")
    @classmethod
    def _is_no_ray_client(cls, address: str) -> str:
        if address.startswith("ray://"):
            raise ValueError(
                "Ray Client (ray://) does not work. Run `ray start --num-cpus=0 "
                "--address=HOST:6379` on this machine, and set address: auto"
            )
        return address

    def __str__(self) -> str:
        return "ray"


Executor = LocalSettings | RaySettings

EXECUTOR_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "pattern": r"^(local(:[1-9]\d*)?|ray)$"},
        {
            "type": "object",
            "properties": {"ray": RaySettings.model_json_schema()},
            "required": ["ray"],
            "additionalProperties": False,
        },
    ]
}


def executor_value(value: Any) -> Any:
    """Parse `local`, `local:2`, `ray`, or a mapping `{ray: {address: …}}`, which may be text."""
    if isinstance(value, Executor):
        return value
    if isinstance(value, str) and value.startswith("{"):
        value = yaml_value(value)
    try:
        if isinstance(value, str) and (found := re.fullmatch(r"local(?::(\d{1,5}))?", value)):
            return LocalSettings(engines=int(found[1] or 1))
        match {"ray": None} if value == "ray" else value:
            case {"ray": dict() | None as parts, **others} if not others:
                return RaySettings.model_validate(parts or {})
    except ValidationError as error:
        name, words = next(iter(problems_of(error).items()))
        if error.errors()[0]["type"] == "extra_forbidden":
            known = ", ".join(RaySettings.model_fields)
            raise ValueError(f"there is no {name}. Ray takes {known}") from error
        raise ValueError(f"{name}: {words}") from error
    raise ValueError("it must be local, local:N (N engines), ray, or {ray: {address: …}}")
