"""Layers of settings: what each says, brought to the fields that decide, nearest one wins.

The layers of an entry are the `_defaults.yaml` from the inbox's root down, a TXT's settings,
and the entry itself.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Literal

from picowatch.errors import ValueInvalid
from picowatch.recipe.fields import (
    FIRST_NAME_OF,
    MAPPINGS,
    MAX_SEED,
    NOISE_NAMES,
    NUMBERS,
    PICTURE,
    RANDOM,
    SIZE,
    SWITCHES,
)
from picowatch.recipe.messages.other_programs import words_for
from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.messages.wording import (
    about_cut_number,
    given_twice,
    sizes_of_ratio,
    wrong_value,
)
from picowatch.recipe.read.plain import TRUE_OR_FALSE, number
from picowatch.recipe.resolve.mappings import split_mappings
from picowatch.recipe.resolve.ranges import NumberRange, range_in
from picowatch.recipe.samplers import (
    AUTOMATIC,
    SamplerUnknown,
    ScheduleUnknown,
    find_prediction,
    find_sampler,
    find_schedule_type,
)
from picowatch.recipe.written import Layer, Written

SIZE_AND_SIDE = "size together with width or height: keep one of them."


def put(layer: Layer, name: str, written: Written, problems: Problems) -> None:
    """Add a field under its first name; unknown ones and repetitions are problems."""
    if problems.is_full:
        return
    position = written.name_position
    if name == "scheduler":
        name = meaning_of_scheduler(written.value)
    first = FIRST_NAME_OF.get(name)
    if first is None:
        words = words_for(name, FIRST_NAME_OF)
        if name[:1] == "-" and (bare := name[1:]) in FIRST_NAME_OF and not position.source.is_json:
            words = f"Write '{bare}: …', or for a list of recipes '- {bare}: …' with a space."
        message = f"unknown field '{shown(name)}'. {words}".rstrip()
        problems.add(position, about_cut_number(position) or message)
    elif first in layer:
        problems.add(position, given_twice(name, layer[first]))
    else:
        layer[first] = written


def meaning_of_scheduler(value: object) -> str:
    """ComfyUI's and Fooocus' scheduler is a schedule type, diffusers' is a sampler."""
    try:
        find_schedule_type(str(value))
    except ScheduleUnknown:
        return "sampler" if _is_sampler(str(value)) else "scheduler"
    return "schedule_type"


def _is_sampler(text: str) -> bool:
    try:
        find_sampler(text)
    except SamplerUnknown:
        return False
    return True


def normalised(layer: Layer, problems: Problems) -> Layer:
    """The layer with `size` split into width and height, sampler's name and mappings taken apart.

    A sampler without schedule type takes "automatic" with it, so that a nearer layer's
    sampler is not paired with a farther layer's schedule type. Values that are wrong are left
    out, and are problems.
    """
    result = dict(layer)
    _split_size(result, problems)
    for field, meaning in _MEANINGS.items():
        written = result.pop(field, None)
        if written:
            with problems.caught(written.error_position):
                result[field] = replace(written, value=meaning(written))
    _normalise_sampler(result, problems)
    split_mappings(result, problems)
    return result


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


def unquoted(field: str, written: Written) -> Written:
    """Numbers, true and false in quotes or after flags mean the same as without."""
    if not isinstance(written.value, str):
        return written
    text = written.value.strip()
    value: object = None
    if field in NUMBERS:
        value = number(text)
    elif field in SWITCHES:
        value = TRUE_OR_FALSE.get(text.casefold())
    return written if value is None else replace(written, value=value)


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
    if "width" in layer or "height" in layer:
        problems.add(written.error_position, SIZE_AND_SIDE)
        return
    if isinstance(written.value, str) and written.value.strip().casefold() == PICTURE:
        layer["width"] = layer["height"] = replace(written, value=PICTURE)
        return
    sides = _SIDES.fullmatch(str(written.value).strip())
    if not sides or not isinstance(written.value, str):
        problems.add(written.error_position, _not_a_size(written))
        return
    for name in ("width", "height"):
        # The sides' offsets in the text, which may be quoted in the file.
        offset = max(0, written.raw.find(written.value)) + sides.start(name)
        position = written.position.shifted(offset, len(sides[name]))
        layer[name] = Written(int(sides[name]), position, sides[name], written.key)


_SIDES = re.compile(r"(?P<width>\d{1,9})\s*[x×*]\s*(?P<height>\d{1,9})", re.IGNORECASE | re.ASCII)


def _not_a_size(written: Written) -> str:
    if re.fullmatch(r"\d{1,3} *: *\d{1,3}", ratio := written.raw.strip("'\" ")):
        return (
            f"size is width and height in pixels, like 512x768. For {ratio} write "
            f"{sizes_of_ratio(ratio)}."
        )
    value = number(written.value) if isinstance(written.value, str) else written.value
    if isinstance(value, int) and not isinstance(value, bool):
        return f"size must be like 512x768. For a square write {value}x{value}."
    if isinstance(value, tuple) and len(value) == 2 and all(isinstance(v, int) for v in value):
        return f"size must be like 512x768. Write {value[0]}x{value[1]}."
    if isinstance(written.value, str):
        return f"size must be like 512x768, not '{shown(written.value)}'."
    return wrong_value(SIZE, written)


def _normalise_sampler(layer: Layer, problems: Problems) -> None:
    text = text_of("sampler", layer, problems)
    if text is None:
        return
    written, schedule_type = layer.pop("sampler"), layer.get("schedule_type")
    with problems.caught(written.position):
        sampler, in_name = find_sampler(text)
        layer["sampler"] = replace(written, value=sampler.name)
        if in_name and schedule_type and schedule_type.value not in (AUTOMATIC, in_name):
            problems.add(
                schedule_type.position,
                f"the sampler's name says {in_name}, schedule_type says {schedule_type.value}. "
                "Keep one.",
            )
        if in_name or schedule_type is None:
            layer["schedule_type"] = replace(written, value=in_name or AUTOMATIC)


def _noise(written: Written) -> object:
    """In any case, and under other programs' names."""
    name = written.value.strip() if isinstance(written.value, str) else ""
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


def seed_in(written: Written) -> int | Literal["random"] | None:
    """The seed that is meant; None if it is none."""
    value = written.value
    if isinstance(value, str):
        if value.strip().casefold() in _RANDOM_WORDS:
            return RANDOM
        value = number(value.strip())
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
}
