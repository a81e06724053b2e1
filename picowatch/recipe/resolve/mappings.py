"""Fields that are mappings, `hires` and `upscale`: off, on, one of their parts alone, or a mapping.

In a normalised layer their parts stand under names of their own, `hires.scale` and so on, and
the field itself is true or false.
"""

from dataclasses import replace

from picowatch.recipe.fields import PARTS
from picowatch.recipe.messages.other_programs import words_for_part
from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.messages.suggestions import listed
from picowatch.recipe.messages.wording import about_cut_number, wrong_value
from picowatch.recipe.read.plain import TRUE_OR_FALSE, number
from picowatch.recipe.written import Layer, Written

ALIASES = {
    "hires": {"strength": "denoising_strength", "upscale": "scale"},
    "upscale": {"upscaler": "model", "name": "model"},
}
# The part that a text alone is.
TEXT_PARTS = {"upscale": "model"}
_OFF = {"": False, "none": False}


def split_mappings(layer: Layer, problems: Problems) -> None:
    """Split each such field into its parts, within the layer."""
    for field in PARTS:
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
        _split_parts(field, layer, written, problems)
        value = True
    elif isinstance(value, int | float) and not isinstance(value, bool):
        layer[f"{field}.scale"] = replace(written, value=value)
        value = True
    if isinstance(value, bool):
        layer[field] = replace(written, value=value)
    else:
        problems.add(written.error_position, wrong_value(field, written))
        del layer[field]


def _split_parts(field: str, layer: Layer, written: Written, problems: Problems) -> None:
    parts = PARTS[field]
    for name, part in written.pairs:
        name = ALIASES[field].get(name, name)
        if name not in parts:
            meant = words_for_part(field, name, list(parts))
            message = (
                f"{field} has no '{shown(name)}'. {meant}Its fields are {listed(list(parts))}."
            )
            problems.add(part.name_position, about_cut_number(part.name_position) or message)
        elif f"{field}.{name}" in layer:
            problems.add(part.name_position, f"'{shown(name)}' is given twice. Keep one.")
        else:
            layer[f"{field}.{name}"] = part
