"""Layers of pictures and other programs, brought to what recipes can have, with warnings."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from picowatch.errors import ValueInvalid
from picowatch.recipe.fields import PICTURE, RANDOM, json_schemas
from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.messages.wording import wrong_value
from picowatch.recipe.resolve.layers import normalised, seed_in
from picowatch.recipe.samplers import SamplerUnknown, find_sampler, find_schedule_type
from picowatch.recipe.written import Layer, number, plain_number


def nearest_possible(layer: Layer, warnings: list[str]) -> Layer:
    """The layer as `normalised` gives it, in which the nearest values stand for impossible ones.

    What no recipe can say is left out. `warnings` tell both.
    """
    problems = Problems()
    found = normalised(_with_known_sampler(_with_sampler(layer), warnings), problems)
    warnings += [f"{problem.message} It was left out." for problem in problems.found]
    return _within_limits(found, warnings)


def _with_sampler(layer: Layer) -> Layer:
    """SD.Next's "Scheduler" is the class of its sampler, and not a schedule type."""
    written = layer.get("schedule_type")
    if written is None or not _is_sampler_alone(written.text):
        return layer
    others = {name: one for name, one in layer.items() if name != "schedule_type"}
    return {"sampler": written, **others}


def _is_sampler_alone(text: str) -> bool:
    """Return whether it names a sampler, but no schedule type."""
    for find in (find_schedule_type, find_sampler):
        with suppress(ValueInvalid):
            find(text)
            return find is find_sampler
    return False


def _with_known_sampler(layer: Layer, warnings: list[str]) -> Layer:
    written = layer.get("sampler")
    if written is None:
        return layer
    try:
        find_sampler(written.text)
    except SamplerUnknown as error:
        if error.instead:
            warnings.append(
                f"picowatch has no sampler '{shown(written.text)}'; {error.instead} is used."
            )
            return {**layer, "sampler": written.with_value(error.instead)}
        warnings.append(f"picowatch has no sampler '{shown(written.text)}'; the usual one is used.")
        return {name: one for name, one in layer.items() if name != "sampler"}
    return layer


def _may_be(word: str, schema: Mapping[str, Any]) -> bool:
    """Return whether a word is a value of a field: a number or a switch would not be one by now."""
    if schema.get("type") in ("integer", "number", "boolean"):
        return word == PICTURE
    return word in schema.get("enum", (word,))


def _within_limits(layer: Layer, warnings: list[str]) -> Layer:
    """Numbers beyond a field's limits become the limit."""
    found = dict(layer)
    for field, written in layer.items():
        schema = json_schemas().get(field, {})
        schema = schema.get("anyOf", [schema])[0]
        value = number(written.value) if isinstance(written.value, str) else written.value
        if field == "seed" and seed_in(written) == RANDOM:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            if isinstance(written.value, str) and not _may_be(written.value, schema):
                warnings.append(f"{wrong_value(field, written)} It was left out.")
                del found[field]
            continue
        least, most = schema.get("minimum", value), schema.get("maximum", value)
        nearest = min(max(value, least), most)
        nearest -= nearest % schema.get("multipleOf", 1) if isinstance(nearest, int) else 0
        if nearest != value:
            warnings.append(
                f"{field.replace('.', ' ')} cannot be {plain_number(value)}; "
                f"{plain_number(nearest)} is used instead."
            )
            found[field] = written.with_value(nearest)
    return found
