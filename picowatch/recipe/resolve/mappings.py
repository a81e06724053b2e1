"""Fields that are mappings, `hires` and `upscale`: off, on, one of their parts alone, or a mapping.

In a normalised layer their parts stand under names of their own, `hires.scale` and so on, and
the field itself is true or false. The entries of `control` are mappings, too.
"""

from dataclasses import replace

from picowatch.recipe.fields import MAPPINGS, PARTS
from picowatch.recipe.messages.other_programs import words_for_part
from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.messages.suggestions import listed
from picowatch.recipe.messages.wording import about_cut_number, given_twice, wrong_value
from picowatch.recipe.read.plain import TRUE_OR_FALSE, number
from picowatch.recipe.written import Layer, Written

ALIASES = {
    "hires": {"strength": "denoising_strength", "upscale": "scale"},
    "upscale": {"upscaler": "model", "name": "model"},
    # Names of A1111's API and of ComfyUI's nodes.
    "control": {
        "controlnet": "model",
        "module": "preprocess",
        "preprocessor": "preprocess",
        "strength": "weight",
        "guidance_start": "start",
        "guidance_end": "end",
        "control_mode": "mode",
    },
}
# The part that a text alone is.
TEXT_PARTS = {"upscale": "model"}
_OFF = {"": False, "none": False}


def split_mappings(layer: Layer, problems: Problems) -> None:
    """Split each such field into its parts, within the layer."""
    for field in MAPPINGS:
        if field in layer:
            _split(field, layer, problems)


def _split(field: str, layer: Layer, problems: Problems) -> None:
    written = layer[field]
    value = written.value
    if isinstance(value, str):
        text = value.strip().casefold()
        switch = TRUE_OR_FALSE.get(text, number(text))
        if switch is None and field in TEXT_PARTS:
            switch = _OFF.get(text)
            if switch is None:
                layer[f"{field}.{TEXT_PARTS[field]}"] = written
                switch = True
        value = switch if switch is not None else value
    if isinstance(value, dict):
        parts = read_parts(field, written, problems)
        layer |= {f"{field}.{name}": part for name, part in parts.items()}
        value = True
    elif isinstance(value, int | float) and not isinstance(value, bool):
        layer[f"{field}.scale"] = replace(written, value=value)
        value = True
    if isinstance(value, bool):
        layer[field] = replace(written, value=value)
    else:
        problems.add(written.error_position, wrong_value(field, written))
        del layer[field]


def read_parts(field: str, mapping: Written, problems: Problems) -> Layer:
    """What a mapping says, by the first names of the field's parts."""
    parts: Layer = {}
    known = list(PARTS[field])
    for name, part in mapping.pairs:
        first = ALIASES[field].get(name, name)
        if first not in known:
            meant = words_for_part(field, name, known)
            fields = listed(known, most=len(known))
            message = f"{field} has no '{shown(name)}'. {meant}Its fields are {fields}."
            problems.add(part.name_position, about_cut_number(part.name_position) or message)
        elif first in parts:
            problems.add(part.name_position, given_twice(name, parts[first]))
        else:
            parts[first] = part
    return parts


def parts_in(layer: Layer, field: str) -> Layer:
    """The parts of a field that a normalised layer has, by their own names."""
    found = {name: layer.get(f"{field}.{name}") for name in PARTS[field]}
    return {name: written for name, written in found.items() if written}
