"""Settings: flags beat environment (PICOWATCH_…) beats picowatch.yaml beats the defaults here."""

import difflib
import os
import re
import reprlib
import shlex
import string
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
)

from picowatch.errors import SettingsInvalid

FILE_NAME = "picowatch.yaml"
PREFIX = "PICOWATCH_"
# Read by other parts of picowatch (fault_points.py).
_OTHER_VARIABLES = {"PICOWATCH_FAULT"}
# Kubernetes and Docker's links set these for a service or container called picowatch
# (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables).
_SET_BY_OTHERS = re.compile(r"PICOWATCH_(NAME|ENV_.*|PORT(_.*)?|SERVICE_(HOST|PORT)(_.*)?)")
_MAX_FILE_BYTES = 100_000
_MAX_FOLDER_BYTES = 2000  # Linux opens 4095, which pictures in subfolders need, too
_MAX_NAME = 255  # characters of a file name, which hardly any file system exceeds
_YEAR_MINUTES = 365 * 24 * 60
_WEEK_SECONDS = 7 * 24 * 60 * 60
FOLDERS = ("inbox", "outbox", "models")
LOSSLESS: Literal["lossless"] = "lossless"
_WITH_LOSSLESS = ("png", "webp")
HOOKS = ("picture", "failed", "idle")
_PROGRAM: dict[str, Any] = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}, "minItems": 1},
        {"type": "null"},
    ]
}
_HOOKS_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": dict.fromkeys(HOOKS, _PROGRAM),
    "additionalProperties": False,
}


MOST_ENGINES = 1024


class LocalSettings(BaseModel):
    """Engines on this machine: one for each GPU, or a share of the cores each."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engines: int = Field(1, ge=1, le=MOST_ENGINES)

    def __str__(self) -> str:
        return "local" if self.engines == 1 else f"local:{self.engines}"


class RaySettings(BaseModel):
    """Engines on a Ray cluster; without an address one is started on this machine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str | None = Field(None, description="ray://HOST:10001, HOST:6379 or auto.")
    gpus_per_engine: float = Field(1, ge=0, le=64, description="0: engines that use the CPU.")
    cpus_per_engine: float = Field(1, gt=0, le=1024)
    engines: Literal["auto"] | Annotated[int, Field(ge=1, le=MOST_ENGINES)] = "auto"

    def __str__(self) -> str:
        return "ray"


Executor = LocalSettings | RaySettings

_EXECUTOR_SCHEMA: dict[str, Any] = {
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


def _executor(value: Any) -> Any:
    """`local`, `local:2`, `ray`, or a mapping `{ray: {address: …}}`; as text from flags, too."""
    if isinstance(value, str) and value.startswith("{"):
        value = _yaml(value)
    if value == "local":
        return LocalSettings()
    if isinstance(value, str) and (found := re.fullmatch(r"local:(\d{1,5})", value)):
        return _checked(LocalSettings, {"engines": int(found[1])})
    if value == "ray":
        return RaySettings()
    if isinstance(value, dict) and [*value] == ["ray"] and isinstance(value["ray"], dict | None):
        return _checked(RaySettings, value["ray"] or {})
    if isinstance(value, Executor):
        return value
    raise ValueError("it must be local, local:N (N engines), ray, or {ray: {address: …}}")


def _yaml(text: str) -> Any:
    """What a text of the environment or of a flag says."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"it is not valid YAML: {_one_line(error)}") from error


def _checked(kind: type[BaseModel], values: dict[str, Any]) -> BaseModel:
    """The settings of an executor; what is wrong with them in one line."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0])
        if problem["type"] == "extra_forbidden":
            raise ValueError(_unknown(name, kind.model_fields).rstrip(".")) from error
        raise ValueError(f"{name}: {problem['msg']}") from error


def _device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
        raise ValueError("it must be auto, cuda, cuda:N (the N-th card), mps or cpu")
    return value


def _batch_size(value: Any) -> Any:
    if value == "auto" or re.fullmatch(r"[1-9]\d?|1\d\d|2[0-4]\d|25[0-6]", str(value)):
        return value
    raise ValueError("it must be auto, or a whole number from 1 to 256")


def _quality(value: Any) -> Any:
    if value in ("auto", LOSSLESS) or re.fullmatch(r"[1-9]\d?|100", str(value)):
        return value
    raise ValueError("it must be auto, a whole number from 1 to 100, or lossless")


Quality = Annotated[Literal["auto", "lossless"] | int, BeforeValidator(_quality)]


def _metrics_address(value: str) -> str:
    _, colon, port = value.rpartition(":")
    if not colon or not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise ValueError("it must be like 127.0.0.1:9464, or :9464 for every address")
    return value


def _hooks(value: Any) -> Any:
    """Programs by event, each an argument list; a text is split as a shell would."""
    if isinstance(value, str):  # of the environment
        value = _yaml(value)
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


class Settings(BaseModel):
    """Everything a user can set, with its default. Descriptions go into `init` and the docs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    inbox: Path = Field(Path("inbox"), description="Where recipes are saved.")
    outbox: Path = Field(
        Path("outbox"), description="Where pictures, errors and the log appear; picowatch's own."
    )
    models: Path = Field(
        Path("models"),
        description="Holds checkpoints/ vae/ text_encoders/ loras/ embeddings/ wildcards/.",
    )
    checkpoint: str | None = Field(
        None,
        description="Used by recipes that name none. Empty: the only one installed, or the "
        "embedded demo model if there are none.",
    )
    settle_seconds: float = Field(
        0.5, ge=0.05, le=60, description="A file is read when it has not changed for this long."
    )
    rescan_seconds: float = Field(
        60, ge=1, le=86400, description="How often the whole inbox is compared with what is known."
    )
    watch: Literal["auto", "events", "polling"] = Field(
        "auto",
        description="How saves are noticed. auto: by file events, or by polling where events are "
        "unreliable (network and shared folders).",
    )
    when_done: Literal["keep", "archive", "delete"] = Field(
        "keep",
        description="What happens to a recipe whose images all succeeded. archive: it is moved "
        "to its folder in the outbox. With archive and delete, no other picowatch may watch the "
        "same inbox: it would lose recipes that it has not rendered yet.",
    )
    interrupt: bool = Field(
        False,
        description="A newer save, a deleted recipe and `picowatch cancel` stop the image in "
        "progress at its next step, unless it or another image of its batch is still requested.",
    )
    device: Annotated[str, AfterValidator(_device)] = Field(
        "auto", description="auto, cuda, cuda:N, mps or cpu."
    )
    precision: Literal["auto", "float16", "bfloat16", "float32"] = Field(
        "auto",
        description="Number format of the model. auto: float16 on CUDA; on CPUs that support it, "
        "bfloat16 for the UNet of a full-size checkpoint; otherwise float32.",
    )
    memory: Literal["auto", "full", "low"] = Field(
        "auto",
        description="Memory-saving level to start with. auto: the one that last worked, else the "
        "first that may be enough; full: none, everything is on the device; low: weights are kept "
        "in main memory until they are needed.",
    )
    batch_size: Annotated[Literal["auto"] | int, BeforeValidator(_batch_size)] = Field(
        "auto",
        description="Images rendered together. auto: measured for each checkpoint and size.",
    )
    compile: Literal["auto", "never"] = Field(
        "auto",
        description="auto: if a C++ compiler is installed, the model is compiled in the "
        "background for sizes that take long, and is faster afterwards.",
    )
    executor: Annotated[Executor, BeforeValidator(_executor), WithJsonSchema(_EXECUTOR_SCHEMA)] = (
        Field(
            LocalSettings(),
            description="Where engines run. local: one on this machine; local:N: N of them (one "
            "for each GPU); ray: on a Ray cluster. See docs/scale.md.",
        )
    )
    unload_after_minutes: float = Field(
        15,
        ge=0,
        le=_YEAR_MINUTES,
        description="The engine frees its memory after this long without work. "
        f"{_YEAR_MINUTES} (a year) is the limit.",
    )
    stall_seconds: float = Field(
        600,
        ge=1,
        le=_WEEK_SECONDS,
        description="An engine that finishes no step for this long is ended as hung.",
    )
    max_attempts: int = Field(
        2,
        ge=1,
        le=1000,
        description="An image fails when the engine has died on it this many times.",
    )
    max_images_per_save: int = Field(
        1000, ge=1, le=1_000_000, description="A save that requests more images is refused."
    )
    max_picture_megapixels: float = Field(
        2, gt=0, le=16, description="Larger pictures are reduced to this under size: picture."
    )
    file_name: str = Field(
        "{number:04}-{seed}",
        description="Names of pictures, without ending. Placeholders: number, seed, recipe, "
        "checkpoint, sampler, steps, cfg_scale, width, height, picture (the start image). {number} "
        "is required.",
    )
    format: Literal["png", "jpeg", "webp", "avif"] = Field(
        "png",
        description="Format of pictures and contact sheets. Each has the settings inside.",
    )
    quality: Quality = Field(
        "auto",
        description="1 to 100 for jpeg, webp and avif; lossless for webp. auto: 92 for jpeg, 90 "
        "for webp, 80 for avif. png is always lossless.",
    )
    sidecar: Literal["none", "txt"] = Field(
        "none",
        description="txt: each picture has its prompt and settings beside it as text, too, as "
        "A1111 writes them.",
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Format of picowatch.log and of console lines."
    )
    preview_seconds: float = Field(
        1,
        ge=0,
        le=3600,
        description="How often outbox/preview.png, the picture in progress, is updated at most. "
        "0: never.",
    )
    hooks: Annotated[
        dict[str, list[str]], BeforeValidator(_hooks), WithJsonSchema(_HOOKS_SCHEMA)
    ] = Field(
        {},
        description="Programs to run: {picture: …, failed: …, idle: …}. See docs/hooks.md.",
    )
    hook_seconds: float = Field(
        30, gt=0, le=3600, description="A hook's program is ended after this long."
    )
    metrics_address: Annotated[str, AfterValidator(_metrics_address)] | None = Field(
        None,
        description="Address that serves Prometheus metrics, like 127.0.0.1:9464. Empty: none.",
    )

    @property
    def most_picture_pixels(self) -> int:
        """The limit of `size: picture`."""
        return int(self.max_picture_megapixels * 1_000_000)

    @property
    def state_folder(self) -> Path:
        """picowatch's own files: ledger, lock, caches."""
        return self.outbox / ".picowatch"

    @property
    def start_images(self) -> Path:
        """Copies of the pictures that queued images start from, under their hashes."""
        return self.state_folder / "start-images"

    @property
    def hash_cache(self) -> Path:
        """The hashes of model files, so that each is read once."""
        return self.state_folder / "hashes.json"


def load_settings(
    flags: Mapping[str, Any], environment: Mapping[str, str], file: Path | None = None
) -> Settings:
    """Merge flags, environment and the settings file; raises SettingsInvalid.

    `flags` holds only what was given. `file` None means ./picowatch.yaml, if it is there; a
    file that was named must exist. Relative folders in the file are relative to the file's
    own folder, elsewhere to the working directory.
    """
    values: dict[str, Any] = {}
    where: dict[str, str] = {}
    path = file or Path(FILE_NAME)
    if file or os.path.lexists(path):
        for name, (value, line) in _from_file(path).items():
            values[name] = value
            where[name] = f"{path}, line {line}"
    variables = {PREFIX + name.upper(): name for name in Settings.model_fields}
    for variable, text in environment.items():
        if variable in variables and text:
            name = variables[variable]
            values[name], where[name] = text, f"environment variable {variable}"
        elif text and _is_misspelt(variable):
            raise SettingsInvalid(
                f"environment variable {variable}: {_unknown(variable, variables)}"
            )
    for name, value in flags.items():
        values[name], where[name] = value, f"--{name.replace('_', '-')}"
    return _validated(values, where)


def _is_misspelt(variable: str) -> bool:
    """Whether a variable that is not a setting looks like one."""
    ours = variable.startswith(PREFIX) and variable not in _OTHER_VARIABLES
    return ours and not _SET_BY_OTHERS.fullmatch(variable)


def _from_file(path: Path) -> dict[str, tuple[Any, int]]:
    """Values and line numbers of a settings file."""
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
    except (yaml.YAMLError, ValueError) as error:
        raise SettingsInvalid(f"{path} is not valid YAML: {_one_line(error)}.") from error
    except RecursionError as error:
        raise SettingsInvalid(f"{path} is nested too deeply.") from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not isinstance(node, yaml.MappingNode):
        raise SettingsInvalid(f"{path} must contain `name: value` lines.")
    lines = {key.value: key.start_mark.line + 1 for key, _ in node.value}
    found = {}
    for name, value in values.items():
        if name not in Settings.model_fields:
            raise SettingsInvalid(
                f"{path}, line {lines.get(name, 1)}: {_unknown(str(name), Settings.model_fields)}"
            )
        if name in FOLDERS and isinstance(value, str):
            where = f"{path}, line {lines.get(name, 1)}: {name}"
            value = path.parent / _expanded(value, where)
        if value is not None:
            found[str(name)] = (value, lines.get(name, 1))  # 1: merged in by `<<`
    return found


def _expanded(folder: str, where: str) -> Path:
    """The folder, with its owner's home in place of `~`."""
    try:
        return Path(folder).expanduser()
    except RuntimeError as error:
        raise SettingsInvalid(
            f"{where} {_shown(folder)}: this user has no home folder.",
            "Write the full path.",
        ) from error


def _unknown(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, [*known], n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return f"unknown setting '{name}'.{hint}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _validated(values: dict[str, Any], where: dict[str, str]) -> Settings:
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        problems = []
        for problem in error.errors():
            name = str(problem["loc"][0])
            message = problem["msg"].removeprefix("Value error, ")
            problems.append(f"{where[name]}: {name} {_shown(values[name])}: {message}.")
        raise SettingsInvalid("\n".join(dict.fromkeys(problems))) from error
    for name in FOLDERS:
        _check_folder(getattr(settings, name), f"{where.get(name, name)}: {name}")
    _check_file_name(settings.file_name, where.get("file_name", "file_name"))
    if settings.quality == LOSSLESS and settings.format not in _WITH_LOSSLESS:
        raise SettingsInvalid(
            f"{where['quality']}: quality 'lossless' does not exist for {settings.format}.",
            "Use format: webp or png, or a quality from 1 to 100.",
        )
    return settings


def _check_folder(folder: Path, where: str) -> None:
    """Refuse a path that no file system takes, or that leaves no room for what lies in it."""
    if "\0" in str(folder):
        raise SettingsInvalid(
            f"{where} {_shown(str(folder))} is not a path: it contains a null byte."
        )
    longest = max(map(len, map(os.fsencode, folder.parts)), default=0)
    if longest > _MAX_NAME or len(os.fsencode(folder.absolute())) > _MAX_FOLDER_BYTES:
        raise SettingsInvalid(
            f"{where} {_shown(str(folder))} is too long; the limit is {_MAX_NAME} bytes for each "
            f"name in it and {_MAX_FOLDER_BYTES:,} for the whole path."
        )


def _shown(value: Any) -> str:
    """A value in a message; repr would write out what aliases only repeat."""
    try:
        return reprlib.repr(value)
    except ValueError:  # Python writes out no number of more than 4300 digits
        return "(a number with thousands of digits)"


def _check_file_name(template: str, where: str) -> None:
    """Refuse a template that cannot name pictures, names two alike, or pads without measure."""
    _check_placeholders(template, where)
    names = {_sample_name(template, where, number, seed) for number, seed in ((1, 1), (2, 1))}
    one = min(names)
    if len(names) < 2 or "/" in one or "\0" in one or one.startswith("."):
        raise SettingsInvalid(
            f"{where}: file_name {template!r} needs {{number}}, and must not contain '/' or begin "
            "with '.'."
        )
    pairs = [(1, 11), (11, 1), (1000, 11), (10001, 1)]
    if len({_sample_name(template, where, *pair) for pair in pairs}) < len(pairs):
        raise SettingsInvalid(
            f"{where}: file_name {template!r} gives two pictures the same name.",
            "Put a separator between {number} and what is next to it, as in {number}-{seed}.",
        )


def _check_placeholders(template: str, where: str) -> None:
    """A width is a number of the template's own, and no picture's name is longer than names are."""
    if len(template) > _MAX_NAME:
        raise SettingsInvalid(
            f"{where}: file_name is too long; the limit is {_MAX_NAME} characters."
        )
    try:
        formats = [form or "" for _, _, form, _ in string.Formatter().parse(template)]
    except ValueError as error:
        raise _unusable(template, where, error) from error
    for form in formats:
        if "{" in form or any(len(digits) > 3 for digits in re.findall(r"\d+", form)):
            raise SettingsInvalid(
                f"{where}: file_name {template!r} pads with ':{form}'.",
                "The limit is 999, and it must be a plain number, as in {number:04}.",
            )


def _sample_name(template: str, where: str, number: int, other: int) -> str:
    """The template's name for a picture with this number, and this value for all the rest."""
    sample: dict[str, Any] = dict.fromkeys(("checkpoint", "sampler"), str(other))
    sample |= {"recipe": "x", "picture": str(other)}  # a folder's pictures are of one recipe
    sample |= dict.fromkeys(("seed", "steps", "width", "height"), other)
    sample |= {"number": number, "cfg_scale": other}
    try:
        return template.format_map(sample)
    except (KeyError, ValueError, IndexError, AttributeError, TypeError) as error:
        raise _unusable(template, where, error) from error


def _unusable(template: str, where: str, error: Exception) -> SettingsInvalid:
    return SettingsInvalid(f"{where}: file_name {template!r} cannot be used: {error}.")


def settings_text() -> str:
    """The commented picowatch.yaml that `init` writes: every setting with its default."""
    lines = [
        "# picowatch's settings. Every line is optional. Lines with a # show the default.",
        f"# The same names work as environment variables ({PREFIX}SETTLE_SECONDS=1) and, for the",
        "# folders, as flags (--inbox). Flags override the environment, which overrides this file.",
    ]
    for name, field in Settings.model_fields.items():
        default = field.default
        if isinstance(default, Path | LocalSettings):
            default = str(default)
        shown = yaml.safe_dump({name: default}, allow_unicode=True).strip().replace(": null", ":")
        lines += ["", f"# {field.description}", f"# {shown}"]
    return "\n".join(lines) + "\n"
