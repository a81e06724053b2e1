"""The part `control`: a ControlNet, and what it follows."""

from typing import Annotated, Literal, get_args

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as pydantic_dataclass

from picowatch.recipe.parts import Row, Share

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

    image: Annotated[str, Row("The picture to follow; without it the start image.")]

    model: Annotated[str, Row("A name in models/controlnet.", aliases=("controlnet",))]

    preprocess: Annotated[
        Preprocessor,
        Row(
            "How the map is made from the picture; none: the picture is a map.",
            aliases=("module", "preprocessor"),
            wanted=f"{', '.join(PREPROCESSORS[1:])}, or none with a map of another program",
        ),
    ] = "none"

    weight: Annotated[
        float,
        Field(strict=True, ge=0, le=2, allow_inf_nan=False),
        Row("How strongly.", aliases=("strength",)),
    ] = 1.0

    start: Annotated[
        Share, Row("The share of the steps after which it begins.", aliases=("guidance_start",))
    ] = 0.0

    end: Annotated[
        Share, Row("The share of the steps after which it ends.", aliases=("guidance_end",))
    ] = 1.0

    mode: Annotated[
        Literal["balanced", "prompt", "control"],
        Row("What matters more: the prompt, the control, or neither.", aliases=("control_mode",)),
    ] = "balanced"

    kind: Annotated[ControlKind, Row("What the map shows, for a union ControlNet.")] = ""

    low: Annotated[_Edge, Row("canny: the strength of the weakest edges.")] = 100

    high: Annotated[_Edge, Row("canny: the strength that each edge reaches somewhere.")] = 200

    threshold: Annotated[
        int, Field(strict=True, ge=0, le=255), Row("threshold: what is lighter becomes white.")
    ] = 127

    radius: Annotated[
        float, Field(strict=True, gt=0, le=64, allow_inf_nan=False), Row("blur: in pixels.")
    ] = 9.0

    depth: Annotated[str, Row("depth: a name in models/depth.")] = ""

    preview: Annotated[bool, Row("true: the map is written beside the picture.")] = False
