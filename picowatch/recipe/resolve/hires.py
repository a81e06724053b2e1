"""The field `hires`: off, on, a scale, or a mapping.

In a normalised layer its parts stand under names of their own, `hires.scale` and so on, and
`hires` itself is true or false.
"""

import re
from dataclasses import replace

from picowatch.errors import ValueInvalid
from picowatch.recipe.fields import HIRES_FIELDS, HIRES_PARTS
from picowatch.recipe.fields import HIRES_PREFIX as PREFIX
from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.messages.suggestions import did_you_mean, listed
from picowatch.recipe.messages.wording import wrong_value
from picowatch.recipe.read.plain import TRUE_OR_FALSE, number
from picowatch.recipe.written import Layer, Written

UPSCALERS = (
    "Latent",
    "Latent (nearest)",
    "Latent (nearest-exact)",
    "Latent (bicubic)",
    "Latent (antialiased)",
    "Lanczos",
    "Nearest",
)
# Those that enlarge pixels, not latents.
PIXEL_UPSCALERS = ("Lanczos", "Nearest")
ALIASES = {"strength": "denoising_strength", "upscale": "scale"}


def split_hires(layer: Layer, problems: Problems) -> None:
    """Split the field into its parts, within the layer."""
    written = layer.get("hires")
    if written is None:
        return
    value = written.value
    if isinstance(value, str):
        value = TRUE_OR_FALSE.get(value.strip().casefold(), number(value.strip()))
    if isinstance(value, dict):
        _split_parts(layer, written, problems)
        value = True
    elif isinstance(value, int | float) and not isinstance(value, bool):
        layer[f"{PREFIX}scale"] = replace(written, value=value)
        value = True
    if isinstance(value, bool):
        layer["hires"] = replace(written, value=value)
    else:
        problems.add(written.error_position, wrong_value("hires", written))
        del layer["hires"]


def _split_parts(layer: Layer, written: Written, problems: Problems) -> None:
    for name, part in written.pairs:
        name = ALIASES.get(name, name)
        if f"{PREFIX}{name}" not in HIRES_FIELDS:
            known = list(HIRES_PARTS)
            meant = did_you_mean(name, known)
            message = f"hires has no '{shown(name)}'. {meant}Its fields are {listed(known)}."
            problems.add(part.name_position, message)
        elif f"{PREFIX}{name}" in layer:
            problems.add(part.name_position, f"'{shown(name)}' is given twice. Keep one.")
        else:
            layer[f"{PREFIX}{name}"] = part


class UpscalerUnknown(ValueInvalid):
    """No upscaler of this name; the text says which there are."""


def find_upscaler(written: str) -> str:
    """The upscaler somebody means. Raises UpscalerUnknown."""
    for name in UPSCALERS:
        if _squeezed(written) == _squeezed(name):
            return name
    raise UpscalerUnknown(
        f"unknown upscaler '{shown(written)}'. {did_you_mean(written, UPSCALERS)}"
        f"The upscalers are {listed(UPSCALERS)}."
    )


def final_side(side: int, scale: float) -> int:
    """A side after the second pass: a multiple of 8, rounded down as A1111 does."""
    return int(side * scale) // 8 * 8


def _squeezed(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.casefold())
