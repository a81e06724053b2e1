"""The row of a field, and the fields that are mappings: `hires`, `cutout`, `mask`, `control` …"""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, MISSING, dataclass, field
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as pydantic_dataclass

from picowatch.recipe import converters
from picowatch.recipe.converters import NUMBER, file_name, form, plain_text, upscaler_name
from picowatch.recipe.messages.suggestions import squeezed


@dataclass(frozen=True, slots=True)
class Row:
    """A field in the table, beside its name, type, limits and default."""

    does: str = ""  # describes it
    _: KW_ONLY
    aliases: tuple[str, ...] = ()
    # It changes something where the whole picture is drawn, where only details of a given picture
    # are drawn, too, or in any case: where a given picture is only finished.
    acts_in: Literal["whole", "details", "any"] = "details"
    says_what: bool = False  # it says alone what to do with a picture
    changes_pixels: bool = True  # it is part of an image's identity
    same_in_batch: bool = True  # images in a batch must agree on it
    needs: tuple[str, ...] = ()  # it changes nothing unless one of these is set
    part: str = ""  # the part of a mapping that a text alone stands for
    samplers: tuple[str, ...] = ()  # those that use it, if not all do
    off: str | bool | None = None  # what switches it off in a recipe, where that is not its default
    # Gives the value that a text means, if the type does not say it.
    reads: converters.Converter = converters.raw
    # The JSON Schema of that text.
    form: Mapping[str, Any] = field(default_factory=dict, hash=False)
    no_sweep: str = ""  # why no sweep can vary it
    a1111: str = ""  # its key in A1111's text
    writes: Callable[[Any], str] = plain_text  # gives its value there
    wanted: str = ""  # the values in words
    as_text: str = ""  # how a mapping can be one text
    default_text: str = ""  # the default, where the type does not say it
    # It is in the line of an image: always, where it is set, or where images differ in it.
    check: Literal["always", "set", "differs"] = "differs"
    daily: bool = False  # it stands in the first table of the docs


def row(default: Any, does: str, **more: Any) -> Any:
    """Return a field of a table, with its default, or MISSING, and its `Row`."""
    return field(default=default, metadata={"row": Row(does, **more)})


# A picture's own, which others of its batch need not have: of a whole picture, or of any.
own_of_whole = partial(row, same_in_batch=False, acts_in="whole")
own_of_any = partial(row, same_in_batch=False, acts_in="any")
# What changes no picture.
no_pixels = partial(row, changes_pixels=False, acts_in="any")

Share = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
Steps = Annotated[int, Field(strict=True, ge=0, le=150)]
Blur = Annotated[int, Field(strict=True, ge=0, le=64)]
Padding = Annotated[int, Field(strict=True, ge=0, le=256)]

MOST_UPSCALED = 8  # times a side
# The ways to enlarge for the second pass of `hires`, and those that enlarge pixels, not latents.
UPSCALERS = (
    "Latent", "Latent (nearest)", "Latent (nearest-exact)", "Latent (bicubic)",
    "Latent (antialiased)", "Latent (bicubic antialiased)", "Lanczos", "Nearest",
)  # fmt: skip
PIXEL_UPSCALERS = ("Lanczos", "Nearest")


@pydantic_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Hires:
    """The second, larger pass: what the mapping `hires` can say."""

    scale: Annotated[float, Field(strict=True, ge=1, le=4, allow_inf_nan=False)] = row(
        2.0, "How much larger.", aliases=("upscale", "upscale_by"), a1111="Hires upscale"
    )
    steps: Steps = row(0, "Denoising steps; 0: as many as the first pass.", a1111="Hires steps")
    denoising_strength: Share = row(
        0.7,
        "How far to go away from the first pass.",
        aliases=("strength",),
        a1111="Denoising strength",
    )
    upscaler: str = row(
        "Latent",
        f"How it is enlarged: {', '.join(UPSCALERS)}, or a name in models/upscalers.",
        a1111="Hires upscaler",
        writes=upscaler_name,
    )

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Return the size after the second pass: multiples of 8, rounded down as in A1111."""
        return int(width * self.scale) // 8 * 8, int(height * self.scale) // 8 * 8


@pydantic_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Upscale:
    """Enlarging finished pictures: what `upscale` says, resolved to a model's name and a scale."""

    model: str = row(
        "",
        "A name in models/upscalers; by default the only one installed, or demo-compact.",
        aliases=("upscaler", "name"),
        a1111="Postprocess upscaler",
        writes=upscaler_name,
    )
    scale: (
        Annotated[float, Field(strict=True, ge=1, le=MOST_UPSCALED, allow_inf_nan=False)] | None
    ) = row(
        None, "How much larger; by default as the model enlarges.", a1111="Postprocess upscale by"
    )

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        scale = self.scale or 1
        return round(width * scale), round(height * scale)


# What is found in a picture by words, wherever a field looks for something.
_find = partial(
    row,
    does="What is looked for, in words; several things have commas between them.",
    reads=converters.phrase_in,
    wanted="words like the sky, or face, hands: letters, at most "
    f"{converters.MOST_PHRASE} characters",
)
_confidence = partial(
    row, 0.3, "How certain it must be that something is there.", aliases=("threshold",)
)


@pydantic_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Cutout:
    """Removing the background: what the mapping `cutout` can say.

    A resolved recipe has a model's name, and with a size a margin. With `find` it is a finder's.
    """

    model: str = row(
        "",
        "A name in models/cutout, by default the only one installed, or demo-cutout; with find "
        "one in models/segmentation.",
        aliases=("name",),
        a1111="Rembg",
        writes=file_name,
    )
    background: str = row(
        "",
        "What is behind it: transparent, white, black or a colour.",
        reads=converters.colour_in,
        wanted='transparent, white, black, or a colour in quotes like "#f4f4f4"',
        default_text="transparent",
    )
    margin: Annotated[float, Field(strict=True, ge=0, le=45, allow_inf_nan=False)] | None = row(
        None,
        "It is centred, with so many per cent of each side free around it; 8 with a size.",
        reads=converters.percent_in,
        form=form("number string", f"{NUMBER} ?%?", minimum=0, maximum=45),
    )
    size: str = row(
        "",
        "The picture's, of which it fills what the margin leaves.",
        reads=converters.size_in,
        wanted="a size like 1000x1000, with sides of 10 to 9999 pixels",
    )
    shadow: bool = row(False, "true: it casts a soft shadow downwards.")
    find: str = _find("")
    confidence: Share = _confidence()

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


USUAL_MARGIN = 8  # per cent, with a size


@pydantic_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Finder:
    """What is drawn again, found by words: what `mask` and each entry of `detail` can say."""

    find: str = _find(MISSING)
    confidence: Share = _confidence()
    grow: Annotated[int, Field(strict=True, ge=-128, le=128)] = row(
        4, "How much wider it is than what was found, in pixels.", aliases=("dilate_erode",)
    )
    model: str = row("", "A name in models/segmentation.", aliases=("name",))


@pydantic_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Find(Finder):
    """A mask that is found by words: what the mapping `mask` can say."""

    preview: bool = row(False, "true: the mask is written beside the picture.")

    @staticmethod
    def of(value: Any) -> Any:
        """Return the value of a mapping; anything else stays as it is."""
        return Find(**value) if isinstance(value, dict) else value


@pydantic_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Detail(Finder):
    """What is drawn again, each thing apart: an entry of `detail`, resolved to model and size."""

    count: Annotated[int, Field(strict=True, ge=1, le=64)] = row(
        8, "At most so many, the largest.", aliases=("mask_k",)
    )
    denoising_strength: Share = row(
        0.4, "How far to go away from what is there.", aliases=("strength",)
    )
    prompt: str = row("", "What to draw there; by default the picture's prompt.")
    negative_prompt: str = row(
        "", "What to keep out; by default the picture's negative prompt.", aliases=("negative",)
    )
    steps: Steps = row(0, "Denoising steps; 0: as many as the picture.")
    mask_padding: Padding = row(32, "So many pixels around it are drawn, too.")
    mask_blur: Blur = row(4, "Width of its soft edge, in pixels.")
    size: str = row(
        "",
        "In which its part is drawn; by default the checkpoint's.",
        reads=converters.size_in,
        wanted="a size like 512x512",
    )

    @property
    def sides(self) -> tuple[int, int]:
        width, _, height = self.size.partition("x")
        return int(width), int(height)


LEAST_SIDE, MOST_SIDE = 8, 30_000  # pixels that one can ask for
TRANSPARENT = "transparent"

Size = tuple[int, int]
_Side = Annotated[int, Field(strict=True, ge=LEAST_SIDE, le=MOST_SIDE)] | None
_side = partial(row, None, wanted=f"a whole number of pixels from {LEAST_SIDE} to {MOST_SIDE}")


class Placed(NamedTuple):
    """How a picture becomes the result: the part `box` of it, in the size `inner`, on `size`."""

    box: tuple[float, float, float, float]
    inner: Size
    size: Size


@pydantic_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ResizeTo:
    """The size of the result: what the mapping `resize_to` can say. All limits hold at once."""

    longest_side: _Side = _side("The longer side has at most so many pixels.")
    shortest_side: _Side = _side("The shorter side has at most so many pixels.")
    width: _Side = _side("It is at most so wide.")
    height: _Side = _side("It is at most so high.")
    megapixels: Annotated[float, Field(strict=True, gt=0, le=1000, allow_inf_nan=False)] | None = (
        row(None, "It has at most so many million pixels.", aliases=("mp",))
    )
    fit: Literal["inside", "cover", "pad"] = row(
        "inside",
        "inside: all of it, in its own shape; cover: what is too much for width and height is cut "
        "off on two sides; pad: it stands in the middle of width and height.",
    )
    background: str = row(
        "",
        "What is behind it, and around it with pad.",
        reads=converters.ground_in,
        wanted='transparent, white, black, or a colour in quotes like "#f4f4f4"',
        default_text="white; transparent where the picture is",
    )
    enlarge: bool = row(False, "true: smaller pictures become larger, too.")

    def size_of(self, width: int, height: int) -> Size:
        return self.placed(width, height).size

    def is_transparent(self, before: bool) -> bool:
        """Return whether the result may be transparent, if the picture is so, or not."""
        if self.background == TRANSPARENT:
            return before or self.fit == "pad"
        return before and not self.background

    def placed(self, width: int, height: int) -> Placed:
        """Return how a picture of this size becomes the result."""
        whole = (0.0, 0.0, float(width), float(height))
        if self.fit == "inside" or not (self.width and self.height):
            inner = self._inside(width, height)
            return Placed(whole, inner, inner)
        wanted = self.width, self.height
        scales = wanted[0] / width, wanted[1] / height
        most = max(scales) if self.enlarge else 1.0
        if self.fit == "pad":
            inner = _scaled(width, height, min(*scales, most))
            return Placed(whole, (min(inner[0], wanted[0]), min(inner[1], wanted[1])), wanted)
        # The result has the wanted shape even where the picture is too small for its size.
        scale = max(scales)
        size = wanted if scale <= most else _scaled(*wanted, most / scale)
        wide, high = min(width, wanted[0] / scale), min(height, wanted[1] / scale)
        left, top = (width - wide) / 2, (height - high) / 2
        return Placed((left, top, left + wide, top + high), size, size)

    def _inside(self, width: int, height: int) -> Size:
        scales = [
            limit / side
            for limit, side in (
                (self.longest_side, max(width, height)),
                (self.shortest_side, min(width, height)),
                (self.width, width),
                (self.height, height),
            )
            if limit
        ]
        most = round((self.megapixels or 0) * 1_000_000)
        scales += [(most / (width * height)) ** 0.5] if most else []
        scale = min(scales, default=1.0)
        if scale >= 1 and not self.enlarge:
            return width, height
        size = _scaled(width, height, scale)
        if most and size[0] * size[1] > most:  # rounded up
            size = max(1, int(width * scale)), max(1, int(height * scale))
        return size


def _scaled(width: int, height: int, scale: float) -> Size:
    return max(1, round(width * scale)), max(1, round(height * scale))


Preprocessor = Literal[
    "none", "canny", "depth", "lineart", "invert", "threshold", "blur", "luminance", "tile",
    "inpaint",
]  # fmt: skip
PREPROCESSORS: tuple[str, ...] = get_args(Preprocessor)
# The preprocessor that an option belongs to.
OPTIONS = {
    "low": "canny", "high": "canny", "threshold": "threshold", "radius": "blur", "depth": "depth",
}  # fmt: skip
# What a union ControlNet can follow, in the order of its tasks; only the ProMax version knows the
# last two (https://github.com/xinsir6/ControlNetPlus).
ControlKind = Literal[
    "", "pose", "depth", "soft edges", "hard edges", "normals", "segments", "tile", "inpaint"
]
KINDS: tuple[str, ...] = get_args(ControlKind)[1:]
# What a union follows if picowatch makes the map.
KIND_OF = {
    "depth": "depth", "canny": "hard edges", "lineart": "hard edges", "tile": "tile",
    "blur": "tile", "inpaint": "inpaint",
}  # fmt: skip
_Edge = Annotated[int, Field(strict=True, ge=0, le=2000)]


@pydantic_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Control:
    """A ControlNet and what it follows: what each entry of the list `control` can say."""

    image: str = row(MISSING, "The picture to follow; without it the start image.")
    model: str = row(MISSING, "A name in models/controlnet.", aliases=("controlnet",))
    preprocess: Preprocessor = row(
        "none",
        "How the map is made from the picture; none: the picture is a map.",
        aliases=("module", "preprocessor"),
        wanted=f"{', '.join(PREPROCESSORS[1:])}, or none with a map of another program",
    )
    weight: Annotated[float, Field(strict=True, ge=0, le=2, allow_inf_nan=False)] = row(
        1.0, "How strongly.", aliases=("strength",)
    )
    start: Share = row(
        0.0, "The share of the steps after which it begins.", aliases=("guidance_start",)
    )
    end: Share = row(1.0, "The share of the steps after which it ends.", aliases=("guidance_end",))
    mode: Literal["balanced", "prompt", "control"] = row(
        "balanced",
        "What matters more: the prompt, the control, or neither.",
        aliases=("control_mode",),
    )
    kind: ControlKind = row("", "What the map shows, for a union ControlNet.")
    low: _Edge = row(100, "canny: the strength of the weakest edges.")
    high: _Edge = row(200, "canny: the strength that each edge reaches somewhere.")
    threshold: Annotated[int, Field(strict=True, ge=0, le=255)] = row(
        127, "threshold: what is lighter becomes white."
    )
    radius: Annotated[float, Field(strict=True, gt=0, le=64, allow_inf_nan=False)] = row(
        9.0, "blur: in pixels."
    )
    depth: str = row("", "depth: a name in models/depth.")
    preview: bool = row(False, "true: the map is written beside the picture.")


def usual_upscaler(written: str) -> str | None:
    """Return the upscaler without a model that this text names; None if it names none."""
    return next((name for name in UPSCALERS if squeezed(written) == squeezed(name)), None)
