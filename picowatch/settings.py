"""Settings: flags beat environment (PICOWATCH_…) beats picowatch.yaml beats the defaults here."""

import difflib
import re
import reprlib
from collections.abc import Mapping
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
)

from picowatch.errors import SettingsInvalid

FILE_NAME = "picowatch.yaml"
PREFIX = "PICOWATCH_"
FOLDERS = ("inbox", "outbox", "models")
NOT_YET = {
    "hooks": "Hooks are not supported yet.",
    "metrics_address": "Metrics are not supported yet.",
}


def _only_local(value: Any) -> Any:
    if value != "local":
        raise ValueError("only 'local' (one engine on this machine) is supported yet")
    return value


def _device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
        raise ValueError("it must be auto, cuda, cuda:N (the N-th card), mps or cpu")
    return value


def _batch_size(value: Any) -> Any:
    if value == "auto" or re.fullmatch(r"[1-9]\d?|1\d\d|2[0-4]\d|25[0-6]", str(value)):
        return value
    raise ValueError("it must be auto, or a whole number from 1 to 256")


class Settings(BaseModel):
    """Everything a user can set, with its default. Descriptions go into `init` and the docs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    inbox: Path = Field(Path("inbox"), description="Where recipes are saved.")
    outbox: Path = Field(
        Path("outbox"), description="Where pictures, errors and the log appear; picowatch's own."
    )
    models: Path = Field(
        Path("models"), description="Holds checkpoints/ vae/ loras/ embeddings/ wildcards/."
    )
    checkpoint: str | None = Field(
        None,
        description="Used by recipes that name none. Empty: the only one installed, else the "
        "embedded demo.",
    )
    settle_seconds: float = Field(
        0.5, ge=0.05, le=60, description="A file is read once it has been quiet this long."
    )
    rescan_seconds: float = Field(
        60, ge=1, le=86400, description="The inbox is compared with what is known this often."
    )
    watch: Literal["auto", "events", "polling"] = Field(
        "auto",
        description="How saves are noticed. auto: by events, and by polling where events cannot "
        "be trusted (network and shared folders).",
    )
    when_done: Literal["keep", "archive", "delete"] = Field(
        "keep",
        description="What happens to a recipe whose images all succeeded. archive: it is moved "
        "to its folder in the outbox.",
    )
    interrupt: bool = Field(
        False, description="A newer save stops the image in work that it no longer asks for."
    )
    device: Annotated[str, AfterValidator(_device)] = Field(
        "auto", description="auto, cuda, cuda:N, mps or cpu."
    )
    precision: Literal["auto", "float16", "bfloat16", "float32"] = Field(
        "auto", description="Number format of the model. auto: float16 on CUDA, else float32."
    )
    memory: Literal["auto", "full", "low"] = Field(
        "auto",
        description="How an image starts that may need more memory than there is. auto: with what "
        "worked last; full: with everything on the device; low: with as little as possible.",
    )
    batch_size: Annotated[Literal["auto"] | int, BeforeValidator(_batch_size)] = Field(
        "auto", description="Images made together. auto: by device and size."
    )
    compile: Literal["auto", "never"] = Field(
        "auto", description="Compiling of the model. Nothing is compiled yet, whatever stands here."
    )
    executor: Annotated[str, BeforeValidator(_only_local)] = Field(
        "local", description="Where engines run: local is one engine on this machine."
    )
    unload_after_minutes: float = Field(
        15, ge=0, description="After this long without work the engine gives its memory back."
    )
    stall_seconds: float = Field(
        600, ge=1, description="An engine without a step for this long is ended as hung."
    )
    max_attempts: int = Field(
        2, ge=1, le=1000, description="An image is failed when the engine died on it this often."
    )
    max_images_per_save: int = Field(
        1000, ge=1, le=1_000_000, description="A save that asks for more is refused."
    )
    file_name: str = Field(
        "{number:04}-{seed}",
        description="Names of pictures, without ending. Knows number, seed, recipe, checkpoint, "
        "sampler, steps, cfg_scale, width, height. Must hold {number}.",
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Lines of picowatch.log and of the console."
    )


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
    if file or path.exists():
        for name, (value, line) in _from_file(path).items():
            values[name] = value
            where[name] = f"{path}, line {line}"
    for name in Settings.model_fields:
        if text := environment.get(PREFIX + name.upper()):
            values[name], where[name] = text, f"environment variable {PREFIX}{name.upper()}"
    for name, value in flags.items():
        values[name], where[name] = value, f"--{name.replace('_', '-')}"
    return _validated(values, where)


def _from_file(path: Path) -> dict[str, tuple[Any, int]]:
    """Values and line numbers of a settings file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
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
        raise SettingsInvalid(f"{path} must hold `name: value` lines.")
    lines = {key.value: key.start_mark.line + 1 for key, _ in node.value}
    found = {}
    for name, value in values.items():
        if name not in Settings.model_fields:
            raise SettingsInvalid(f"{path}, line {lines.get(name, 1)}: {_unknown(str(name))}")
        if name in FOLDERS and isinstance(value, str):
            value = path.parent / Path(value).expanduser()
        if value is not None:
            found[str(name)] = (value, lines.get(name, 1))  # 1: merged in by `<<`
    return found


def _unknown(name: str) -> str:
    if name in NOT_YET:
        return NOT_YET[name]
    near = difflib.get_close_matches(name, [*Settings.model_fields], n=1)
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
    _check_file_name(settings.file_name, where.get("file_name", "file_name"))
    return settings


def _shown(value: Any) -> str:
    """A value in a message; repr would write out what aliases only repeat."""
    return reprlib.repr(value)


def _check_file_name(template: str, where: str) -> None:
    names = {_sample_name(template, where, number, seed) for number, seed in ((1, 1), (2, 1))}
    one = min(names)
    if len(names) < 2 or "/" in one or "\0" in one or one.startswith("."):
        raise SettingsInvalid(
            f"{where}: file_name {template!r} must hold {{number}}, no '/', and no '.' in front."
        )
    pairs = [(1, 11), (11, 1), (1000, 11), (10001, 1)]
    if len({_sample_name(template, where, *pair) for pair in pairs}) < len(pairs):
        raise SettingsInvalid(
            f"{where}: file_name {template!r} gives two pictures one name.",
            "Put something between {number} and what stands beside it, as in {number}-{seed}.",
        )


def _sample_name(template: str, where: str, number: int, other: int) -> str:
    """What the template makes of a picture with this number, and this value for all the rest."""
    sample: dict[str, Any] = dict.fromkeys(("checkpoint", "sampler"), str(other))
    sample["recipe"] = "x"  # a folder's pictures are of one recipe
    sample |= dict.fromkeys(("seed", "steps", "width", "height"), other)
    sample |= {"number": number, "cfg_scale": other}
    try:
        return template.format_map(sample)
    except (KeyError, ValueError, IndexError, AttributeError, TypeError) as error:
        raise SettingsInvalid(
            f"{where}: file_name {template!r} cannot be used: {error}."
        ) from error


def settings_text() -> str:
    """The commented picowatch.yaml that `init` writes: every setting with its default."""
    lines = [
        "# picowatch's settings. Every line is optional; those with a # show the default.",
        f"# The same names work as environment variables ({PREFIX}SETTLE_SECONDS=1) and, for the",
        "# folders, as flags (--inbox). Flags beat environment beats this file.",
    ]
    for name, field in Settings.model_fields.items():
        default = field.default
        if isinstance(default, Path):
            default = str(default)
        shown = yaml.safe_dump({name: default}, allow_unicode=True).strip().replace(": null", ":")
        lines += ["", f"# {field.description}", f"# {shown}"]
    return "\n".join(lines) + "\n"
