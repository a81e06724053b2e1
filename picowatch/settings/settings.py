"""Settings: flags beat environment (PICOWATCH_…) beats picowatch.yaml beats the defaults here."""

import os
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from picowatch import sources
from picowatch.errors import SettingsInvalid
from picowatch.recipe.messages.suggestions import closest
from picowatch.settings import values
from picowatch.sources import PREFIX

WITH_LOSSLESS = ("png", "webp")
_YEAR_MINUTES = 365 * 24 * 60
_WEEK_SECONDS = 7 * 24 * 60 * 60

# Shown in `init`'s picowatch.yaml and in the first table of the docs.
DAILY = (
    "inbox", "outbox", "models", "checkpoint", "device", "executor", "when_done", "file_name",
    "format", "quality", "preview_seconds", "hooks",
)  # fmt: skip

Folder = Annotated[Path, AfterValidator(sources.folder_value)]
_Limit = TypeVar("_Limit")
ByFolder = Annotated[dict[str, _Limit], BeforeValidator(values.folders_value)]


class Settings(BaseModel):
    """Everything a user can set, DAILY settings first; descriptions go into `init` and the docs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    inbox: Folder = Field(Path("inbox"), description="Where recipes are saved.")
    outbox: Folder = Field(
        Path("outbox"),
        description="Where pictures, errors and the log appear. Only picowatch writes there.",
    )
    models: Folder = Field(
        Path("models"),
        description="Contains checkpoints/ vae/ text_encoders/ loras/ embeddings/ wildcards/ "
        "controlnet/ depth/ upscalers/ cutout/ segmentation/.",
    )
    checkpoint: str | None = Field(
        None,
        description="For recipes that name none. Empty: the only one installed, or the embedded "
        "demo model if there are none.",
    )
    device: Annotated[str, AfterValidator(values.device_value)] = Field(
        "auto", description="auto, cuda, cuda:N, xpu, mps or cpu."
    )
    executor: Annotated[
        values.Executor,
        BeforeValidator(values.executor_value),
        PlainSerializer(lambda on: str(on) if str(on) != "ray" else {"ray": on.model_dump()}),
        WithJsonSchema(values.EXECUTOR_SCHEMA),
    ] = Field(
        values.LocalSettings(),
        description="Where engines run. local: one on this machine; local:N: N of them (one "
        "for each GPU); ray: on a Ray cluster. See docs/scale.md.",
    )
    when_done: Literal["keep", "archive", "delete"] = Field(
        "keep",
        description="What happens to a recipe whose images all succeeded. archive: it is moved "
        "to its folder in the outbox. With archive or delete, no other picowatch may watch the "
        "same inbox.",
    )
    file_name: Annotated[str, AfterValidator(values.file_name_value)] = Field(
        "{number:04}-{seed}",
        description="Names of pictures, without ending. Placeholders: number, seed, recipe, "
        "checkpoint, sampler, steps, cfg_scale, width, height, picture (the start image). {number} "
        "is required. Variations have their variation seed added.",
    )
    format: Annotated[
        Literal["png", "jpeg", "webp", "avif", "tiff"], BeforeValidator(values.format_value)
    ] = Field("png", description="Format of pictures and contact sheets.")
    quality: Literal["auto", "lossless"] | Annotated[values.Int, Field(ge=1, le=100)] = Field(
        "auto",
        description="1 to 100 for jpeg, webp and avif; lossless for webp. auto: 92 for jpeg, 90 "
        "for webp, 80 for avif. png and tiff are always lossless.",
    )
    preview_seconds: values.Float = Field(
        1,
        ge=0,
        le=3600,
        description="Shortest time between updates of outbox/preview.png, the picture in progress. "
        "0: no preview.",
    )
    hooks: Annotated[
        dict[values.Hook, values.Program],
        BeforeValidator(values.hooks_value),
        WithJsonSchema(values.HOOKS_SCHEMA),
    ] = Field(
        {},
        description="Programs to run: {picture: …, failed: …, idle: …, on_finished: …}. See "
        "docs/hooks.md.",
    )
    settle_seconds: values.Float = Field(
        0.5, ge=0.05, le=60, description="A file is read when it has not changed for this long."
    )
    precision: Literal["auto", "float16", "bfloat16", "float32"] = Field(
        "auto",
        description="Number format of the model. auto: float16 on CUDA; on CPUs that support it, "
        "bfloat16 for the UNet of a full-size checkpoint; otherwise float32.",
    )
    memory: Literal["auto", "full", "low"] = Field(
        "auto",
        description="Memory-saving level to start with. auto: the one that last worked, else the "
        "first that may be enough; full: everything is on the device; low: weights are in main "
        "memory until they are needed.",
    )
    batch_size: Literal["auto"] | Annotated[values.Int, Field(ge=1, le=256)] = Field(
        "auto", description="Images rendered together. auto: measured for each checkpoint and size."
    )
    compile: bool = Field(
        False,
        description="true: models are compiled for each size and batch: slower once, then faster. "
        "Needs OpenVINO on a CPU, a C++ compiler on a card. See docs/speed.md.",
    )
    graphs: bool = Field(
        True,
        description="A card records a step of each size and batch, and starts it as one: the same "
        "pixels, faster where the card waits for the processor.",
    )
    unload_after_minutes: values.Float = Field(
        15,
        ge=0,
        le=_YEAR_MINUTES,
        description="The engine frees its memory after this long without work. "
        f"{_YEAR_MINUTES} (a year) is the limit.",
    )
    stall_seconds: values.Float = Field(
        600,
        ge=1,
        le=_WEEK_SECONDS,
        description="An engine that finishes no step for this long is ended as hung; while it "
        "loads a checkpoint, for ten times as long.",
    )
    max_attempts: values.Int = Field(
        2,
        ge=1,
        le=1000,
        description="An image fails when the engine has died on it this many times.",
    )
    max_images_per_save: values.Int = Field(
        1000, ge=1, le=1_000_000, description="A save that requests more images is refused."
    )
    shares: ByFolder[Annotated[values.Float, Field(gt=0, le=1000)]] = Field(
        {},
        description="Folders in the inbox itself take turns, a batch each. {ada: 2}: ada has two "
        "turns where others have one. `.`: recipes in the inbox itself.",
    )
    max_priority: ByFolder[Annotated[values.Int, Field(ge=-1_000_000, le=1_000_000)]] = Field(
        {}, description="{ada: 0}: a higher priority in the folder ada is lowered to this."
    )
    max_queued: ByFolder[Annotated[values.Int, Field(ge=1)]] = Field(
        {},
        description="{ada: 1000}: a save in the folder ada is refused while it would have more "
        "images waiting.",
    )
    keep_exif: Literal["all", "no_place", "none"] = Field(
        "all",
        description="What a picture made of a photo keeps of its EXIF, XMP and IPTC: all, no_place "
        "(all but where it was taken), or none.",
    )
    ai_mark: bool = Field(
        True,
        description="true: pictures say in their XMP that a model drew, changed or enlarged them. "
        "See docs/metadata.md.",
    )
    max_picture_megapixels: values.Float = Field(
        2, gt=0, le=16, description="With size: picture, larger pictures are reduced to this."
    )
    max_photo_megapixels: values.Float = Field(
        250,
        gt=0,
        le=1000,
        description="Larger photos, and larger results of upscale and resize_to, are refused.",
    )
    sidecar: Literal["none", "txt"] = Field(
        "none",
        description="txt: A1111's text of prompt and settings is also saved beside each picture.",
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Format of picowatch.log and of console lines."
    )
    hook_seconds: values.Float = Field(
        30, gt=0, le=3600, description="A hook's program is ended after this long."
    )
    metrics_address: Annotated[str, BeforeValidator(values.metrics_address_value)] | None = Field(
        None, description="Address that serves Prometheus metrics, like 127.0.0.1:9464, or off."
    )

    @field_validator("quality")
    @classmethod
    def _is_lossless_where_that_exists(cls, quality: Any, field: ValidationInfo) -> Any:
        form = field.data.get("format", "png")
        if quality == values.LOSSLESS and form not in WITH_LOSSLESS:
            raise ValueError(
                f"{form} has no lossless. Use format: webp or png, or a quality from 1 to 100"
            )
        return quality

    @cached_property
    def file(self) -> str:
        """Where the settings file is, if there is one. What is set elsewhere may be equal."""
        return ""

    @property
    def most_picture_pixels(self) -> int:
        """The most pixels that `size: picture` allows."""
        return int(self.max_picture_megapixels * 1_000_000)

    @property
    def most_photo_pixels(self) -> int:
        """The most pixels of a photo, and of a result that is enlarged."""
        return int(self.max_photo_megapixels * 1_000_000)

    @property
    def named_folders(self) -> dict[str, str]:
        """The inbox's folders that settings name, each with a setting that does."""
        by_folder = ("shares", "max_priority", "max_queued")
        return {folder: name for name in by_folder for folder in getattr(self, name) if folder}

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
        return self.state_folder / "hashes.sqlite"

    @property
    def names_models(self) -> bool:
        """Whether somebody has named the models folder, so that it must be there."""
        return "models" in self.model_fields_set


def settings_text() -> str:
    """The commented picowatch.yaml that `init` writes: the DAILY settings with their defaults."""
    lines = [
        "# picowatch's settings. Every line is optional. Lines with a # show the default.",
        f"# The same names work as environment variables ({PREFIX}SETTLE_SECONDS=1) and, for the",
        "# folders, as flags (--inbox). Flags override the environment, which overrides this file.",
        "# docs/settings.md lists the other settings, which hardly anybody needs.",
    ]
    for name in DAILY:
        field = Settings.model_fields[name]
        default = field.default
        if isinstance(default, Path | values.LocalSettings):
            default = str(default)
        shown = yaml.safe_dump({name: default}, allow_unicode=True).strip().replace(": null", ":")
        lines += ["", f"# {field.description}", f"# {shown}"]
    return "\n".join(lines) + "\n"


def load_settings(
    flags: Mapping[str, Any], environment: Mapping[str, str], file: Path | None = None
) -> Settings:
    """Merge flags, environment and the settings file; raises SettingsInvalid with all problems.

    `flags` has only flags that were given. `file` None means ./picowatch.yaml, if it exists; a
    named file must exist. Folders in either are relative to the file's, flags' and the
    environment's to the working directory.
    """
    path, names = file or Path(sources.FILE_NAME), Settings.model_fields
    is_there = file or os.path.lexists(path)
    given, problems = sources.from_file(path, names) if is_there else ({}, {})
    given |= sources.from_outside(flags, environment, names)
    try:
        settings = Settings.model_validate({name: value for name, (value, *_) in given.items()})
    except ValidationError as error:
        for name, words in values.problems_of(error).items():
            value, where, line = given[name]
            # repr would write out everything that aliases repeat.
            shown = reprlib.repr(str(value) if isinstance(value, Path) else value)
            problems[f"{where}: {name} {shown}: {words}."] = line
    if problems:
        raise SettingsInvalid("\n".join(sorted(problems, key=problems.__getitem__)))
    vars(settings)["file"] = str(path)
    return settings


def unknown_variables(environment: Iterable[str]) -> Iterator[str]:
    """Yield a sentence for each variable that looks like a setting but is none."""
    known = [name.upper() for name in Settings.model_fields]
    for variable in sources.other_variables(environment):
        if (name := variable.removeprefix(PREFIX)) not in known:
            near = closest(name, known)
            meant = f" Did you mean {PREFIX}{near}?" if near else " docs/settings.md lists them."
            yield f"The environment variable {variable} is not a setting.{meant}"
