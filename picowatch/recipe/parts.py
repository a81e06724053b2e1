"""The row of a field, and the fields that are mappings: `hires`, `upscale` and `control`."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as pydantic_dataclass

from picowatch.recipe.messages.problems import shown
from picowatch.recipe.messages.suggestions import did_you_mean, listed, squeezed
from picowatch.recipe.written import plain_number


@dataclass(frozen=True, slots=True)
class A1111:
    """A field in A1111's text: its key there, and its value's text; a text of "" is left out.

    `also` are other spellings of the key. They are compared in lower case: A1111 writes
    "CFG scale", ComfyUI's nodes and Forge "CFG Scale".
    """

    key: str
    write: Callable[[Any], str] = str
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """A field in the table, beside its name, type, limits and default.

    `changes_pixels`: the field is part of an image's identity. `batch`: whether images that differ
    in it may share a batch. `needs` are the fields without all of which this one changes nothing,
    `samplers` those that look at it, if not all do. A
    default that is empty, 0 or false is left out of digests and metadata; `left_out`: this one is,
    too.
    `no_sweep` says why no sweep can vary it. `wanted` are the values in the words of an error,
    `takes_text` and `default_text` in those of the docs, where the type does not say it.
    """

    description: str
    aliases: tuple[str, ...] = ()
    changes_pixels: bool = True
    batch: Literal["same", "may differ"] = "same"
    needs: tuple[str, ...] = ()
    samplers: tuple[str, ...] = ()
    left_out: bool = False
    no_sweep: str = ""
    a1111: A1111 | None = None
    wanted: str = ""
    takes_text: str = ""
    default_text: str = ""


def unless(off: object, write: Callable[[Any], str] = str) -> Callable[[Any], str]:
    """Return a function that writes a value, and "" for the one at which its field is off."""
    return lambda value: "" if value == off else write(value)


Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)]
DENOISING_STRENGTH = A1111("Denoising strength", plain_number, ("strength",))

# What the second pass of `hires` is enlarged with, and those that enlarge pixels, not latents.
UPSCALERS = (
    "Latent",
    "Latent (nearest)",
    "Latent (nearest-exact)",
    "Latent (bicubic)",
    "Latent (antialiased)",
    "Latent (bicubic antialiased)",
    "Lanczos",
    "Nearest",
)
PIXEL_UPSCALERS = ("Lanczos", "Nearest")


@pydantic_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Hires:
    """The second, larger pass: what the mapping `hires` can say."""

    scale: Annotated[
        float,
        Field(ge=1, le=4, allow_inf_nan=False, strict=True),
        Row(
            "How much larger.",
            ("upscale",),
            a1111=A1111("Hires upscale", plain_number, ("hires scale",)),
        ),
    ] = 2.0
    steps: Annotated[
        int,
        Field(ge=0, le=150, strict=True),
        Row(
            "Denoising steps; 0: as many as the first pass.",
            a1111=A1111("Hires steps", unless(0)),
        ),
    ] = 0
    denoising_strength: Annotated[
        Share,
        Row(
            "How far to go away from the first pass.",
            aliases=("strength",),
            a1111=replace(DENOISING_STRENGTH, also=("hires strength",)),
        ),
    ] = 0.7
    # One of UPSCALERS, or an installed model.
    upscaler: Annotated[
        str, Field(strict=True), Row("How it is enlarged.", a1111=A1111("Hires upscaler"))
    ] = "Latent"

    @property
    def model(self) -> str:
        """The installed model that enlarges; "" for none."""
        return "" if self.upscaler in UPSCALERS else self.upscaler


@pydantic_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Upscale:
    """Enlarging finished pictures: what the mapping `upscale` can say.

    A resolved recipe has a model's name, and a scale.
    """

    model: Annotated[
        str,
        Field(strict=True),
        Row(
            "A name in models/upscalers.", ("upscaler", "name"), a1111=A1111("Postprocess upscaler")
        ),
    ] = ""
    scale: Annotated[
        Annotated[float, Field(ge=1, le=8, allow_inf_nan=False, strict=True)] | None,
        Row(
            "How much larger; by default as the model enlarges.",
            a1111=A1111("Postprocess upscale by", lambda scale: plain_number(scale or 0)),
        ),
    ] = None

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Return the size that a picture of this size becomes."""
        scale = self.scale or 1
        return round(width * scale), round(height * scale)


def usual_upscaler(written: str) -> str | None:
    """Return the upscaler without a model that this text names; None if it names none."""
    return next((name for name in UPSCALERS if squeezed(written) == squeezed(name)), None)


def final_side(side: int, scale: float) -> int:
    """A side after the second pass: a multiple of 8, rounded down as A1111 does."""
    return int(side * scale) // 8 * 8


Preprocessor = Literal[
    "none",
    "canny",
    "depth",
    "lineart",
    "invert",
    "threshold",
    "blur",
    "luminance",
    "tile",
    "inpaint",
]
ControlMode = Literal["balanced", "prompt", "control"]
# What a union ControlNet can follow, in the order of its tasks; the last two only its ProMax
# (https://github.com/xinsir6/ControlNetPlus).
ControlKind = Literal[
    "", "pose", "depth", "soft edges", "hard edges", "normals", "segments", "tile", "inpaint"
]
KINDS: tuple[str, ...] = get_args(ControlKind)[1:]


@pydantic_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Control:
    """A ControlNet and what it follows: what each entry of the list `control` can say."""

    image: Annotated[
        str, Field(strict=True), Row("The picture to follow; without it the start image.")
    ]
    model: Annotated[str, Field(strict=True), Row("A name in models/controlnet.", ("controlnet",))]
    preprocess: Annotated[
        Preprocessor,
        Row("How the map is made of the picture; none: it is a map.", ("module", "preprocessor")),
    ] = "none"
    weight: Annotated[
        float,
        Field(ge=0, le=2, allow_inf_nan=False, strict=True),
        Row("How strongly.", ("strength",)),
    ] = 1.0
    start: Annotated[
        Share, Row("The share of the steps after which it begins.", ("guidance_start",))
    ] = 0.0
    end: Annotated[Share, Row("The share of the steps after which it ends.", ("guidance_end",))] = (
        1.0
    )
    mode: Annotated[
        ControlMode,
        Row("What is more important: the prompt, the control, or neither.", ("control_mode",)),
    ] = "balanced"
    kind: Annotated[ControlKind, Row("What the map shows, for a union ControlNet.")] = ""
    low: Annotated[int, Field(ge=0, le=2000, strict=True), Row("canny: of the weakest edges.")] = (
        100
    )
    high: Annotated[
        int, Field(ge=0, le=2000, strict=True), Row("canny: where each edge is stronger.")
    ] = 200
    threshold: Annotated[
        int, Field(ge=0, le=255, strict=True), Row("threshold: what is lighter becomes white.")
    ] = 127
    radius: Annotated[
        float, Field(gt=0, le=64, allow_inf_nan=False, strict=True), Row("blur: in pixels.")
    ] = 9.0
    depth: Annotated[str, Field(strict=True), Row("depth: a name in models/depth.")] = ""
    preview: Annotated[
        bool, Field(strict=True), Row("true: the map is written beside the picture.")
    ] = False


PREPROCESSORS: tuple[str, ...] = get_args(Preprocessor)
# Which preprocessor an option belongs to.
OPTIONS = {
    "low": "canny",
    "high": "canny",
    "threshold": "threshold",
    "radius": "blur",
    "depth": "depth",
}
# What a union follows if the map is made here.
KIND_OF = {
    "depth": "depth",
    "canny": "hard edges",
    "lineart": "hard edges",
    "tile": "tile",
    "blur": "tile",
    "inpaint": "inpaint",
}
# A1111's names of preprocessors, where they are others, without what stands in brackets; and its
# words and numbers for modes.
_MODULES = {
    "lineartstandard": "lineart",
    "blurgaussian": "blur",
    "recolorluminance": "luminance",
    "tileresample": "tile",
    "inpaintglobalharmonious": "inpaint",
    "depthanythingv2": "depth",
    "depthanything": "depth",
}
_MODES: dict[str, str] = {
    "my prompt is more important": "prompt",
    "controlnet is more important": "control",
    **{str(number): name for number, name in enumerate(get_args(ControlMode))},
}
# Parts of the names of preprocessors that are networks of their own.
_DETECTORS = re.compile(
    "pose|hed|pidi|scribble|softedge|mlsd|normal|seg|oneformer|midas|zoe|leres|lineart|face|teed"
)


def find_preprocessor(written: str) -> str:
    """The preprocessor that is meant, by ours or A1111's name; "" for one that picowatch lacks."""
    module = squeezed(written.partition("(")[0])
    name = _MODULES.get(module, module)
    return name if name in PREPROCESSORS else ""


def why_no_preprocessor(written: str) -> str:
    """Say what to do without it."""
    known = listed(PREPROCESSORS, most=20)
    if _DETECTORS.search(squeezed(written)):
        return (
            f"the preprocessor '{shown(written)}' is a network of its own, which picowatch does "
            "not have. Make the map with another program and use it with 'preprocess: none'. The "
            f"preprocessors here are {known}."
        )
    meant = did_you_mean(written, PREPROCESSORS)
    return f"unknown preprocessor '{shown(written)}'. {meant}The preprocessors are {known}."


def find_mode(written: str) -> str:
    """The mode that is meant, or what was written, in lower case."""
    mode = written.strip().casefold()
    return _MODES.get(mode, mode)
