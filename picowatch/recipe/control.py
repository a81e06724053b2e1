"""The part `control`: a ControlNet, and what it follows."""

from dataclasses import MISSING
from typing import Annotated, Literal, get_args

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as pydantic_dataclass

from picowatch.recipe.parts import Share, row

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
