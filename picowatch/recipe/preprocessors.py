"""Preprocessors, which make the map that a ControlNet follows, and A1111's names of them."""

import re
from typing import get_args

from picowatch.recipe.messages.problems import shown
from picowatch.recipe.messages.suggestions import did_you_mean, listed, squeezed
from picowatch.recipe.parts import ControlMode, Preprocessor

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
