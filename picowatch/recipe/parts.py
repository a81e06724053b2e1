"""The fields that are mappings: what `hires`, `upscale` and each entry of `control` can say."""

from dataclasses import replace
from typing import Annotated, Literal, get_args

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as pydantic_dataclass

from picowatch.recipe.messages.suggestions import squeezed
from picowatch.recipe.numbers import plain_number
from picowatch.recipe.row import A1111, DENOISING_STRENGTH, Row, Share, unless

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
