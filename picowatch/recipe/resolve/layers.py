"""Layers of settings: each value read by its field, and layers merged, the nearest one wins.

The layers of an entry are the `_defaults.yaml` from the inbox's root down, a TXT's settings,
and the entry itself.
"""

import re
from collections.abc import Callable, Iterable
from typing import Literal

from picowatch.errors import ValueInvalid
from picowatch.recipe.fields import (
    MAPPINGS,
    MAX_SEED,
    NOISE_NAMES,
    NUMBERS,
    PICTURE,
    RANDOM,
    SIZE,
    SWITCHES,
)
from picowatch.recipe.messages.problems import Problems
from picowatch.recipe.messages.wording import sizes_of_ratio, wrong_value
from picowatch.recipe.resolve.mappings import split_mappings
from picowatch.recipe.resolve.ranges import NumberRange, range_in
from picowatch.recipe.samplers import (
    AUTOMATIC,
    find_prediction,
    find_sampler,
    find_schedule_type,
)
from picowatch.recipe.written import Layer, Written, number, switch

SIZE_AND_SIDE = "size together with width or height: keep one of them."


def normalised(layer: Layer, problems: Problems) -> Layer:
    """The layer with each value as its field has it, and what stands for several fields split.

    A sampler without schedule type takes "automatic" with it, so that a nearer layer's
    sampler is not paired with a farther layer's schedule type. Values that are wrong are left
    out, and are problems; numbers and switches are left as text, for whoever knows their limits.
    """
    result = dict(layer)
    _split_size(result, problems)
    for field, meaning in _MEANINGS.items():
        written = result.pop(field, None)
        if written:
            with problems.caught(written.error_position):
                result[field] = written.with_value(meaning(written))
    _normalise_sampler(result, problems)
    split_mappings(result, problems)
    return {field: typed(field, written) for field, written in result.items()}


def merged(layers: Iterable[Layer]) -> Layer:
    """The fields of all layers, farthest first: the nearest layer wins, field by field.

    Seeds bring their own count.
    """
    result: Layer = {}
    for layer in layers:
        if isinstance(layer["seed"].value if "seed" in layer else None, tuple | NumberRange):
            result.pop("count", None)
        for field in MAPPINGS.keys() & layer.keys():
            result = {name: w for name, w in result.items() if not name.startswith(f"{field}.")}
        result.update(layer)
    return result


def typed(field: str, written: Written) -> Written:
    """A number or a switch that was written as text, as what it is."""
    value: object = None
    if isinstance(written.value, str):
        if field in NUMBERS:
            value = number(written.value)
        elif field in SWITCHES:
            value = switch(written.value)
    return written if value is None else written.with_value(value)


def text_of(field: str, layer: Layer, problems: Problems) -> str | None:
    """The field's text, taken out when it is something else than text."""
    if field not in layer:
        return None
    with problems.caught(layer[field].error_position):
        return _text(field, layer[field])
    del layer[field]
    return None


def _text(field: str, written: Written) -> str:
    if not isinstance(written.value, str):
        raise ValueInvalid(wrong_value(field, written))
    return written.value


def names_none(written: Written) -> bool:
    """Whether nothing is meant, so that a folder's default is set aside."""
    value = written.value
    return isinstance(value, str) and value.strip().casefold() in ("", "none")


def _split_size(layer: Layer, problems: Problems) -> None:
    for side in ("width", "height"):
        # A recipe that says nothing of a side has None there, too.
        if side in layer and layer[side].value is None:
            problems.add(layer[side].error_position, wrong_value(side, layer[side]))
            del layer[side]
    written = layer.pop(SIZE, None)
    if written is None:
        return
    text = written.text.strip()
    sides = _SIDES.fullmatch(text)
    if "width" in layer or "height" in layer:
        problems.add(written.error_position, SIZE_AND_SIDE)
    elif text.casefold() == PICTURE:
        layer["width"] = layer["height"] = written.with_value(PICTURE)
    elif sides:
        layer["width"] = written.with_value(int(sides["width"]))
        layer["height"] = written.with_value(int(sides["height"]))
    else:
        problems.add(written.error_position, _not_a_size(written))


_SIDES = re.compile(r"(?P<width>\d{1,9})\s*[x×*]\s*(?P<height>\d{1,9})", re.IGNORECASE | re.ASCII)


def _not_a_size(written: Written) -> str:
    text = written.text.strip()
    if re.fullmatch(r"\d{1,3} *: *\d{1,3}", text):
        return (
            f"size is width and height in pixels, like 512x768. For {text} write "
            f"{sizes_of_ratio(text)}."
        )
    if re.fullmatch(r"\d{1,9}", text):
        return f"size must be like 512x768. For a square write {text}x{text}."
    return wrong_value(SIZE, written)


def _normalise_sampler(layer: Layer, problems: Problems) -> None:
    text = text_of("sampler", layer, problems)
    if text is None:
        return
    written, schedule_type = layer.pop("sampler"), layer.get("schedule_type")
    with problems.caught(written.position):
        sampler, in_name = find_sampler(text)
        layer["sampler"] = written.with_value(sampler.name)
        if in_name and schedule_type and schedule_type.value not in (AUTOMATIC, in_name):
            problems.add(
                schedule_type.position,
                f"the sampler's name says {in_name}, schedule_type says {schedule_type.value}. "
                "Keep one.",
            )
        if in_name or schedule_type is None:
            layer["schedule_type"] = written.with_value(in_name or AUTOMATIC)


def _noise(written: Written) -> object:
    """The noise source, in any case, and under other programs' names."""
    name = written.text.strip()
    return NOISE_NAMES.get(name.casefold(), name) if name else written.value


def _seeds(written: Written) -> object:
    """`1..8` is a range of seeds."""
    seeds = range_in(written.value)
    ends = (seeds.first, seeds.last) if seeds else ()
    is_range = seeds and seeds.is_whole and min(ends) >= 0 and max(ends) <= MAX_SEED
    return seeds if is_range else written.value


def _variation_seed(written: Written) -> int | None:
    """A whole number, or None for one that is drawn."""
    seed = seed_in(written)
    if seed is None:
        raise ValueInvalid(wrong_value("variation_seed", written))
    return None if seed == RANDOM else seed


def _or_off(written: Written) -> object:
    """A mapping, or false for none."""
    return False if switch(written.text) is False else written.value


def seed_in(written: Written) -> int | Literal["random"] | None:
    """The seed that is meant; None if it is none."""
    value = written.value
    if isinstance(value, str):
        if value.strip().casefold() in _RANDOM_WORDS:
            return RANDOM
        value = number(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    if value == -1:
        return RANDOM
    return value if 0 <= value <= MAX_SEED else None


_RANDOM_WORDS = {"random", "-1", "\N{MINUS SIGN}1"}

# What fields mean that can be written in several ways. Each raises ValueInvalid.
_MEANINGS: dict[str, Callable[[Written], object]] = {
    "schedule_type": lambda written: find_schedule_type(_text("schedule_type", written)),
    "prediction": lambda written: find_prediction(_text("prediction", written)),
    "noise": _noise,
    "seed": _seeds,
    "variation_seed": _variation_seed,
    "control": _or_off,
    "sweep": _or_off,
}
