"""Fields that are mappings, `hires` and `upscale`: on, off, one of their parts, or a mapping.

In a normalised layer their parts stand under names of their own, `hires.scale` and so on, and
the field itself is true or false. The entries of `control` are mappings, too.
"""

from picowatch.recipe.fields import MAPPINGS, PART_ALIASES, PARTS
from picowatch.recipe.messages.other_programs import words_for_part
from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.messages.suggestions import listed
from picowatch.recipe.messages.wording import DECIMAL_POINT, given_twice, wrong_value
from picowatch.recipe.written import Layer, Written, number, plain_name, switch

ALIASES = PART_ALIASES
# The part that a text alone is.
TEXT_PARTS = {"upscale": "model"}


def split_mappings(layer: Layer, problems: Problems) -> None:
    """Split each such field into its parts, within the layer."""
    for field in MAPPINGS:
        if field in layer:
            _split(field, layer, problems)


def _split(field: str, layer: Layer, problems: Problems) -> None:
    written = layer[field]
    text = str(written.value) if isinstance(written.value, str | int | float) else ""
    number_in, switch_in = number(text), switch(text)
    parts: Layer = {}
    is_on: bool | None = None
    if isinstance(written.value, dict):
        parts, is_on = read_parts(field, written, problems), True
    elif number_in is not None:  # 0 is off, and 1 as large as it is
        parts, is_on = {"scale": written}, number_in != 0
    elif switch_in is not None:
        is_on = switch_in
    elif field in TEXT_PARTS and isinstance(written.value, str):
        is_on = text.strip().casefold() not in ("", "none")
        parts = {TEXT_PARTS[field]: written}
    if is_on is None:
        problems.add(written.error_position, wrong_value(field, written))
        del layer[field]
        return
    layer[field] = written.with_value(is_on)
    if is_on:
        layer |= {f"{field}.{name}": part for name, part in parts.items()}


def read_parts(field: str, mapping: Written, problems: Problems) -> Layer:
    """What a mapping says, by the first names of the field's parts."""
    parts: Layer = {}
    known = list(PARTS[field])
    for name, part in mapping.pairs:
        plain = plain_name(name)
        first = PART_ALIASES[field].get(plain, plain)
        if first not in known:
            words = f"Its fields are {listed(known, most=len(known))}."
            words = DECIMAL_POINT if name.isdigit() else words_for_part(field, name, known) + words
            message = f"{field} has no '{shown(name)}'. {words}"
            problems.add(part.name_position, message)
        elif first in parts:
            problems.add(part.name_position, given_twice(name, parts[first]))
        else:
            parts[first] = part
    return parts


def parts_in(layer: Layer, field: str) -> Layer:
    """The parts of a field that a normalised layer has, by their own names."""
    found = {name: layer.get(f"{field}.{name}") for name in PARTS[field]}
    return {name: written for name, written in found.items() if written}
