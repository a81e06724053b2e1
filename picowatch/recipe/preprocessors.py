"""Names around ControlNets: ours of preprocessors, modes and kinds of maps, and A1111's."""

import re
from typing import get_args

from picowatch.recipe.messages.problems import shown
from picowatch.recipe.messages.suggestions import did_you_mean, listed, squeezed
from picowatch.recipe.parts import ControlKind, ControlMode, Preprocessor

PREPROCESSORS: tuple[str, ...] = get_args(Preprocessor)
KINDS: tuple[str, ...] = get_args(ControlKind)[1:]
# A1111's names of preprocessors, where they are others, and of modes.
A1111_MODULES = {
    "invert": "invert (from white bg & black line)",
    "lineart": "lineart_standard (from white bg & black line)",
    "blur": "blur_gaussian",
    "luminance": "recolor_luminance",
    "tile": "tile_resample",
    "depth": "depth_anything_v2",
    "inpaint": "inpaint_global_harmonious",
}
A1111_MODES = {
    "balanced": "Balanced",
    "prompt": "My prompt is more important",
    "control": "ControlNet is more important",
}
# Ours, A1111's, and their numbers in A1111's API.
MODES: dict[str, str] = {
    **{name: name for name in get_args(ControlMode)},
    **{theirs.casefold(): name for name, theirs in A1111_MODES.items()},
    **{str(number): name for number, name in enumerate(A1111_MODES)},
}
# The options of each preprocessor that are numbers, in the order of A1111's thresholds.
THRESHOLDS = {"canny": ("low", "high"), "threshold": ("threshold",), "blur": ("radius",)}
# Which preprocessor an option belongs to.
OPTIONS = {name: one for one, names in THRESHOLDS.items() for name in names} | {"depth": "depth"}
# What a union follows if the map is made here.
KIND_OF = {
    "depth": "depth",
    "canny": "hard edges",
    "lineart": "hard edges",
    "tile": "tile",
    "blur": "tile",
    "inpaint": "inpaint",
}
# Parts of the names of preprocessors that are networks of their own.
_DETECTORS = re.compile(
    "pose|hed|pidi|scribble|softedge|mlsd|normal|seg|oneformer|midas|zoe|leres|lineart|face|teed"
)


def find_preprocessor(written: str) -> str:
    """The preprocessor that is meant, by ours or A1111's name; "" for one that picowatch lacks."""
    module = _squeezed_module(written)
    name = _MODULES.get(module, module)
    return name if name in PREPROCESSORS else ""


def why_no_preprocessor(written: str) -> str:
    """What to do without it."""
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
    """The mode that is meant, or what was written."""
    return MODES.get(written.strip().casefold(), written)


def _squeezed_module(name: str) -> str:
    """What follows in brackets is for people."""
    return squeezed(name.partition("(")[0])


_MODULES = {_squeezed_module(theirs): name for name, theirs in A1111_MODULES.items()}
_MODULES["depthanything"] = "depth"
