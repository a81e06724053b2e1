"""The row of a field, and the fields that are mappings: `hires`, `upscale`, `cutout`, `mask` …"""

from dataclasses import KW_ONLY, asdict, dataclass, fields
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as pydantic_dataclass

from picowatch.recipe.converters import (
    MOST_PHRASE,
    Converter,
    colour_in,
    percent_in,
    phrase_in,
    raw,
    size_in,
)
from picowatch.recipe.messages.suggestions import squeezed


@dataclass(frozen=True, slots=True)
class Row:
    """A field in the table, beside its name, type, limits and default; `does` describes it.

    `changes_pixels`: the field is part of an image's identity. `same_in_batch`: images that differ
    in it can share a batch only if it is false. `needs`: the field changes nothing unless one of
    these is set. `samplers` are those that use it, if not all do. Defaults that are empty, 0 or
    false are left out of digests and metadata; with `left_out`, this field's other default is, too.
    `reads` gives the value that a text means, if the type does not say it. `no_sweep` says why no
    sweep can vary it. `a1111` is its key in A1111's text. `wanted` are the
    values in words, and `default_text` is the default, where the type does not say it.
    """

    does: str = ""
    _: KW_ONLY
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
        Row("How much larger.", aliases=("upscale", "upscale_by"), a1111="Hires upscale"),
    ] = 2.0

    steps: Annotated[
        int,
        Field(strict=True, ge=0, le=150),
        Row("Denoising steps; 0: as many as the first pass.", a1111="Hires steps"),
    ] = 0

    denoising_strength: Annotated[
        Share,
        Row(
            "How far to go away from the first pass.",
            aliases=("strength",),
            a1111="Denoising strength",
        ),
    ] = 0.7

    upscaler: Annotated[
        str,
        Row("How it is enlarged: one of UPSCALERS, or an installed model.", a1111="Hires upscaler"),
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
        Row(
            "A name in models/upscalers.",
            aliases=("upscaler", "name"),
            a1111="Postprocess upscaler",
        ),
    ] = ""

    scale: Annotated[
        Annotated[float, Field(strict=True, ge=1, le=8, allow_inf_nan=False)] | None,
        Row("How much larger; by default as the model enlarges.", a1111="Postprocess upscale by"),
    ] = None

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Return the size that a picture of this size becomes."""
        scale = self.scale or 1
        return round(width * scale), round(height * scale)


# What is found in a picture by words, wherever a field looks for something.
Phrase = Annotated[
    str,
    Row(
        "What is looked for, in words; several things have commas between them.",
        reads=phrase_in,
        wanted=f"words like the sky, or face, hands: letters, at most {MOST_PHRASE} characters",
    ),
]
Confidence = Annotated[
    Share, Row("How certain it must be that something is there.", aliases=("threshold",))
]
Grow = Annotated[
    int,
    Field(strict=True, ge=-128, le=128),
    Row("How much wider it is than what was found, in pixels.", aliases=("dilate_erode",)),
]
FinderName = Annotated[str, Row("A name in models/segmentation.", aliases=("name",))]


@pydantic_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Cutout:
    """Removing the background: what the mapping `cutout` can say.

    A resolved recipe has a model's name, and with a size a margin. With `find` it is a finder's.
    """

    model: Annotated[
        str,
        Row(
            "A name in models/cutout; with find one in models/segmentation.",
            aliases=("name",),
            a1111="Rembg",
        ),
    ] = ""

    background: Annotated[
        str,
        Row(
            "What is behind it: transparent, white, black or a colour.",
            reads=colour_in,
            wanted='transparent, white, black, or a colour in quotes like "#f4f4f4"',
            default_text="transparent",
        ),
    ] = ""

    margin: Annotated[
        Annotated[float, Field(strict=True, ge=0, le=45, allow_inf_nan=False)] | None,
        Row("It is centred, with so many per cent of each side free around it.", reads=percent_in),
    ] = None

    size: Annotated[
        str,
        Row(
            "The picture's, of which it fills what the margin leaves.",
            reads=size_in,
            wanted="a size like 1000x1000, with sides of 10 to 9999 pixels",
        ),
    ] = ""

    shadow: Annotated[bool, Row("true: it casts a soft shadow downwards.")] = False

    find: Phrase = ""

    confidence: Confidence = 0.3

    @property
    def sides(self) -> tuple[int, int] | None:
        """Width and height of the picture; None if they stay."""
        width, _, height = self.size.partition("x")
        return (int(width), int(height)) if self.size else None

    @property
    def file(self) -> tuple[Literal["segmentation", "cutout"], str]:
        """The kind and the name of its model."""
        return ("segmentation" if self.find else "cutout"), self.model

    @staticmethod
    def of(value: Any) -> Any:
        """Return the value of a mapping, or of a model's name alone, as it is stored."""
        return {"model": value} if isinstance(value, str) and value else value or None

    def stored(self) -> Any:
        """Return the values that are not defaults, or the name if that is all."""
        values = without_defaults(self)
        return self.model if [*values] == ["model"] else values


USUAL_MARGIN = 8  # per cent, with a size


@pydantic_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Find:
    """A mask that is found by words: what the mapping `mask` can say."""

    find: Phrase

    confidence: Confidence = 0.3

    grow: Grow = 4

    model: FinderName = ""

    preview: Annotated[bool, Row("true: the mask is written beside the picture.")] = False

    @staticmethod
    def of(value: Any) -> Any:
        """Return the value of a mapping; anything else stays as it is."""
        return Find(**value) if isinstance(value, dict) else value


@pydantic_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Detail:
    """What is drawn again, each thing in its own part: what each entry of `detail` can say.

    A resolved recipe has a model's name and a size.
    """

    find: Phrase

    confidence: Confidence = 0.3

    grow: Grow = 4

    model: FinderName = ""

    count: Annotated[
        int,
        Field(strict=True, ge=1, le=64),
        Row("At most so many, the largest.", aliases=("mask_k",)),
    ] = 8

    denoising_strength: Annotated[
        Share,
        Row(
            "How far to go away from what is there.",
            aliases=("strength",),
        ),
    ] = 0.4

    prompt: Annotated[str, Row("What to draw there; by default the picture's prompt.")] = ""

    negative_prompt: Annotated[
        str,
        Row(
            "What to keep out; by default the picture's negative prompt.",
            aliases=("negative",),
        ),
    ] = ""

    steps: Annotated[
        int,
        Field(strict=True, ge=0, le=150),
        Row("Denoising steps; 0: as many as the picture."),
    ] = 0

    mask_padding: Annotated[
        int,
        Field(strict=True, ge=0, le=256),
        Row("So many pixels around it are drawn, too."),
    ] = 32

    mask_blur: Annotated[
        int,
        Field(strict=True, ge=0, le=64),
        Row("Width of its soft edge, in pixels."),
    ] = 4

    size: Annotated[
        str,
        Row(
            "In which its part is drawn; by default the checkpoint's.",
            reads=size_in,
            wanted="a size like 512x512",
        ),
    ] = ""

    @property
    def sides(self) -> tuple[int, int]:
        """Width and height of what is drawn."""
        width, _, height = self.size.partition("x")
        return int(width), int(height)


def without_defaults(part: Any) -> dict[str, Any]:
    """Return the values that are not defaults, so that options added later change no digest."""
    plain = asdict(part)
    return {f.name: plain[f.name] for f in fields(part) if getattr(part, f.name) != f.default}


def usual_upscaler(written: str) -> str | None:
    """Return the upscaler without a model that this text names; None if it names none."""
    return next((name for name in UPSCALERS if squeezed(written) == squeezed(name)), None)


def final_side(side: int, scale: float) -> int:
    """Return a side after the second pass: a multiple of 8, rounded down as in A1111."""
    return int(side * scale) // 8 * 8
