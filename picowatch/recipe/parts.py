"""The row of a field, and the fields that are mappings: `hires`, `upscale` and `control`."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as pydantic_dataclass

from picowatch.recipe.converters import Converter, raw
from picowatch.recipe.messages.suggestions import squeezed


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A field in the table, beside its name, type, limits, default and description.

    `changes_pixels`: the field is part of an image's identity. `same_in_batch`: images that differ
    in it can share a batch only if it is false. `needs`: the field changes nothing unless one of
    these is set. `samplers` are those that use it, if not all do. Defaults that are empty, 0 or
    false are left out of digests and metadata; with `left_out`, this field's other default is, too.
    `reads` gives the value that a text means, if the type does not say it. `no_sweep` says why no
    sweep can vary it. `a1111` is its key in A1111's text. `wanted` are the
    values in words, and `default_text` is the default, where the type does not say it.
    """

    aliases: tuple[str, ...] = ()
    changes_pixels: bool = True
    same_in_batch: bool = True
    needs: tuple[str, ...] = ()
    samplers: tuple[str, ...] = ()
    left_out: bool = False
    reads: Converter = raw
    no_sweep: str = ""
    a1111: str = ""
    wanted: str = ""
    default_text: str = ""


Share = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]

# The ways to enlarge for the second pass of `hires`, and those that enlarge pixels, not latents.
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
        Field(strict=True, ge=1, le=4, allow_inf_nan=False),
        Row(aliases=("upscale", "upscale_by"), a1111="Hires upscale"),
    ] = 2.0
    """How much larger."""

    steps: Annotated[int, Field(strict=True, ge=0, le=150), Row(a1111="Hires steps")] = 0
    """Denoising steps; 0: as many as the first pass."""

    denoising_strength: Annotated[Share, Row(aliases=("strength",), a1111="Denoising strength")] = (
        0.7
    )
    """How far to go away from the first pass."""

    upscaler: Annotated[str, Row(a1111="Hires upscaler")] = "Latent"
    """How it is enlarged: one of UPSCALERS, or an installed model."""

    @property
    def model(self) -> str:
        """The installed model that enlarges; "" for none."""
        return "" if self.upscaler in UPSCALERS else self.upscaler


@pydantic_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Upscale:
    """Enlarging finished pictures: what the mapping `upscale` can say.

    A resolved recipe has a model's name, and a scale.
    """

    model: Annotated[str, Row(aliases=("upscaler", "name"), a1111="Postprocess upscaler")] = ""
    """A name in models/upscalers."""

    scale: Annotated[
        Annotated[float, Field(strict=True, ge=1, le=8, allow_inf_nan=False)] | None,
        Row(a1111="Postprocess upscale by"),
    ] = None
    """How much larger; by default as the model enlarges."""

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Return the size that a picture of this size becomes."""
        scale = self.scale or 1
        return round(width * scale), round(height * scale)


def usual_upscaler(written: str) -> str | None:
    """Return the upscaler without a model that this text names; None if it names none."""
    return next((name for name in UPSCALERS if squeezed(written) == squeezed(name)), None)


def final_side(side: int, scale: float) -> int:
    """Return a side after the second pass: a multiple of 8, rounded down as in A1111."""
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
PREPROCESSORS: tuple[str, ...] = get_args(Preprocessor)
# The preprocessor that an option belongs to.
OPTIONS = {
    "low": "canny",
    "high": "canny",
    "threshold": "threshold",
    "radius": "blur",
    "depth": "depth",
}
# What a union ControlNet can follow, in the order of its tasks; only the ProMax version knows the
# last two (https://github.com/xinsir6/ControlNetPlus).
ControlKind = Literal[
    "", "pose", "depth", "soft edges", "hard edges", "normals", "segments", "tile", "inpaint"
]
KINDS: tuple[str, ...] = get_args(ControlKind)[1:]
# What a union follows if picowatch makes the map.
KIND_OF = {
    "depth": "depth",
    "canny": "hard edges",
    "lineart": "hard edges",
    "tile": "tile",
    "blur": "tile",
    "inpaint": "inpaint",
}
_Edge = Annotated[int, Field(strict=True, ge=0, le=2000)]


@pydantic_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Control:
    """A ControlNet and what it follows: what each entry of the list `control` can say."""

    image: Annotated[str, Row()]
    """The picture to follow; without it the start image."""

    model: Annotated[str, Row(aliases=("controlnet",))]
    """A name in models/controlnet."""

    preprocess: Annotated[
        Preprocessor,
        Row(
            aliases=("module", "preprocessor"),
            wanted=f"{', '.join(PREPROCESSORS[1:])}, or none with a map of another program",
        ),
    ] = "none"
    """How the map is made from the picture; none: the picture is a map."""

    weight: Annotated[
        float, Field(strict=True, ge=0, le=2, allow_inf_nan=False), Row(aliases=("strength",))
    ] = 1.0
    """How strongly."""

    start: Annotated[Share, Row(aliases=("guidance_start",))] = 0.0
    """The share of the steps after which it begins."""

    end: Annotated[Share, Row(aliases=("guidance_end",))] = 1.0
    """The share of the steps after which it ends."""

    mode: Annotated[Literal["balanced", "prompt", "control"], Row(aliases=("control_mode",))] = (
        "balanced"
    )
    """What matters more: the prompt, the control, or neither."""

    kind: Annotated[ControlKind, Row()] = ""
    """What the map shows, for a union ControlNet."""

    low: Annotated[_Edge, Row()] = 100
    """canny: the strength of the weakest edges."""

    high: Annotated[_Edge, Row()] = 200
    """canny: the strength that each edge reaches somewhere."""

    threshold: Annotated[int, Field(strict=True, ge=0, le=255), Row()] = 127
    """threshold: what is lighter becomes white."""

    radius: Annotated[float, Field(strict=True, gt=0, le=64, allow_inf_nan=False), Row()] = 9.0
    """blur: in pixels."""

    depth: Annotated[str, Row()] = ""
    """depth: a name in models/depth."""

    preview: Annotated[bool, Row()] = False
    """true: the map is written beside the picture."""
