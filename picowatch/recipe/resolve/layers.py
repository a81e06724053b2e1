"""Layers of settings: each value is parsed by its field, and in a merge the nearest layer wins.

The layers of an entry are the `_defaults.yaml` from the inbox's root down, a picture's settings, a
TXT's settings, and the entry itself.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import Literal

from picowatch.errors import ValueInvalid
from picowatch.recipe.fields import (
    CHOICES,
    CUTOUT,
    MAX_SEED,
    MOST_IMAGES,
    NOISE_NAMES,
    NUMBERS,
    PART_ALIASES,
    PART_FIELDS,
    PARTS,
    PICTURE,
    RANDOM,
    SIZE,
    SWITCHES,
)
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.messages.suggestions import did_you_mean, listed
from picowatch.recipe.messages.wording import given_twice, sizes_of_ratio, wrong_value
from picowatch.recipe.resolve.severity import Judge
from picowatch.recipe.samplers import (
    AUTOMATIC,
    THE_SAMPLERS,
    SamplerUnknown,
    find_prediction,
    find_sampler,
    find_schedule_type,
    meaning_of_scheduler,
)
from picowatch.recipe.written import Layer, Origin, Written, number, plain_name, switch

SIZE_AND_SIDE = "size together with width or height: keep one of them."
CONTROL = "control"
_ONE_SEED = f"a whole number from 0 to {MAX_SEED}"
_RANDOM_WORDS = {"random", "-1", "\N{MINUS SIGN}1"}
_NUMBER = r"([-+]?(?:\d{1,10}(?:\.\d{0,9})?|\.\d{1,9}))"
_RANGE = re.compile(rf"\s*{_NUMBER}\s*\.\.\s*{_NUMBER}(?:\s+step\s+{_NUMBER})?\s*")
_SIDES = re.compile(r"(?P<width>\d{1,9})\s*[x×*]\s*(?P<height>\d{1,9})", re.IGNORECASE | re.ASCII)


def normalised(layer: Layer, judge: Judge) -> Layer:
    """Return the layer with values parsed by their fields, and shorthands for several fields split.

    Mappings, and the entries of `control`, get the first names of their parts. A sampler without
    schedule type brings "automatic", so that a nearer layer's sampler is not paired with a farther
    layer's schedule type. Wrong values are reported to the `judge` and left out; text that is no
    number or switch where one is needed is left to the checks of limits.
    """
    result = dict(layer)
    _split_size(result, judge)
    said = result.get("schedule_type")
    if said and said.origin is Origin.OTHERS and meaning_of_scheduler(said.text) == "sampler":
        result.setdefault("sampler", result.pop("schedule_type"))
    for field, meaning in _MEANINGS.items():
        if field in result:
            try:
                result[field] = meaning(result[field], judge)
            except ValueInvalid as error:
                judge.wrong(field, str(error), None)
                del result[field]
    _read_sampler(result, judge)
    return {field: typed(field, written) for field, written in result.items()}


def merged(layers: Iterable[Layer]) -> Layer:
    """Return the fields of all layers, farthest first: the nearest layer wins, field by field.

    Several seeds bring their own count. A sweep's layers also have parts of fields: `hires.scale`.
    """
    result: Layer = {}
    for layer in layers:
        if isinstance(layer["seed"].value if "seed" in layer else None, tuple | range):
            result.pop("count", None)
        for field, written in layer.items():
            result |= (
                with_part(result, field, written) if field in PART_FIELDS else {field: written}
            )
    return result


def with_part(layer: Layer, field: str, part: Written) -> Layer:
    """Return the layer with another value of a part like `hires.scale`, or of a ControlNet."""
    name, _, own_name = field.partition(".")
    whole = layer[name]
    mapping = whole.parts[0] if whole.parts else whole
    changed = mapping.with_pairs(tuple((dict(mapping.pairs) | {own_name: part}).items()))
    if whole.parts:
        changed = replace(whole, value=(changed.value,), parts=(changed,))
    return {**layer, name: replace(changed, origin=part.origin)}


def typed(field: str, written: Written) -> Written:
    """Return text as its field has it: a number, a switch, or one of several words."""
    value: object = None
    if isinstance(written.value, str):
        if field in NUMBERS:
            value = number(written.value)
        elif field in SWITCHES:
            value = switch(written.value)
        elif field in CHOICES:
            value = written.value.strip().casefold()
    return written if value is None else written.with_value(value)


def text_of(field: str, written: Written) -> str:
    """Return the field's text. Raises ValueInvalid if it is something else."""
    if not isinstance(written.value, str):
        raise ValueInvalid(wrong_value(re.sub(r"\.\d+", "", field), written))
    return written.value


def names_none(written: Written) -> bool:
    """Return whether a value means nothing, which overrides a folder's default."""
    value = written.value
    return isinstance(value, str) and value.strip().casefold() in ("", "none")


def range_in(value: object) -> Sequence[int | float] | None:
    """Return the numbers of a text like `4..10 step 2`, ends included, upwards or downwards.

    Returns None for other values. Raises ValueInvalid for a step of 0, and for too many fractions.
    """
    found = _RANGE.fullmatch(value) if isinstance(value, str) else None
    if not found:
        return None
    texts = [text or "1" for text in found.groups()]
    scale = 10 ** max(len(text.partition(".")[2]) for text in texts)
    first, last, step = (int(Decimal(text) * scale) for text in texts)
    if not step:
        raise ValueInvalid("a range's step must not be 0.")
    sign = 1 if last >= first else -1
    numbers = range(first, last + sign, sign * abs(step))
    if not first % scale and not step % scale:  # whole numbers, perhaps billions of them
        return range(first // scale, numbers[-1] // scale + sign, numbers.step // scale)
    if len(numbers) > MOST_IMAGES:
        raise ValueInvalid(f"a range has {len(numbers):,} numbers; the limit is {MOST_IMAGES:,}.")
    return [one / scale if one % scale else one // scale for one in numbers]


def _split_size(layer: Layer, judge: Judge) -> None:
    for side in ("width", "height"):
        # A recipe without a side has None there, too.
        if side in layer and layer[side].value is None:
            judge.wrong(side, wrong_value(side, layer.pop(side)))
    written = layer.pop(SIZE, None)
    text = written.text.strip() if written else ""
    sides = _SIDES.fullmatch(text)
    if written is None:
        return
    if not layer.keys().isdisjoint(("width", "height")):
        judge.wrong(SIZE, SIZE_AND_SIDE)
    elif text.casefold() == PICTURE:
        layer["width"] = layer["height"] = written.with_value(PICTURE)
    elif sides:
        layer["width"] = written.with_value(int(sides["width"]))
        layer["height"] = written.with_value(int(sides["height"]))
    elif re.fullmatch(r"\d{1,3} *: *\d{1,3}", text):
        what = f"size is width and height in pixels, like 512x768. For {text} write"
        judge.wrong(SIZE, f"{what} {sizes_of_ratio(text)}.", None)
    else:
        judge.wrong(SIZE, wrong_value(SIZE, written), None)


def _read_sampler(layer: Layer, judge: Judge) -> None:
    written, schedule_type = layer.pop("sampler", None), layer.get("schedule_type")
    if written is None:
        return
    try:
        sampler, in_name = find_sampler(text_of("sampler", written))
    except SamplerUnknown as error:
        nearest = error.instead
        if not judge.wrong("sampler", error.message, nearest, remedy=THE_SAMPLERS) or not nearest:
            return
        sampler, in_name = find_sampler(nearest)
    except ValueInvalid as error:
        judge.wrong("sampler", str(error), None)
        return
    layer["sampler"] = written.with_value(sampler.name)
    if in_name and schedule_type and schedule_type.value not in (AUTOMATIC, in_name):
        what = f"the sampler's name says {in_name}, schedule_type says {schedule_type.value}."
        judge.wrong("schedule_type", what, in_name, remedy="Keep one.")
    if in_name or schedule_type is None:
        layer["schedule_type"] = written.with_value(in_name or AUTOMATIC)


def _seeds(written: Written, judge: Judge) -> Written:
    """Parse one seed, random, a range, or a list of seeds, with or without its brackets."""
    if re.fullmatch(r"\[?[\d\s,-]+,[\d\s,-]+\]?", written.text):
        texts = written.text.strip("[] ").split(",")
        parts = tuple(map(written.with_value, texts))
        written = replace(written, value=tuple(texts), parts=parts)
    seeds = range_in(written.value)
    if isinstance(seeds, range) and all(0 <= end <= MAX_SEED for end in (seeds[0], seeds[-1])):
        return written.with_value(seeds)
    if not isinstance(written.value, tuple) or not written.parts:
        return _seed("seed", written)
    found: dict[int, None] = {}
    for part in written.parts:
        seed = seed_in(part)
        if isinstance(seed, int):
            found[seed] = None  # without repeats: their images would be the same
        else:
            judge.wrong("seed", wrong_value("seed", part, _ONE_SEED), position=part.position)
    return written.with_value(tuple(found))


def _seed(field: str, written: Written) -> Written:
    seed = seed_in(written)
    if seed is None:
        raise ValueInvalid(wrong_value(field, written))
    return written.with_value(seed)


def seed_in(written: Written) -> int | Literal["random"] | None:
    """Return the seed that a value means; None if it is no seed."""
    text = str(written.value).strip().casefold() if isinstance(written.value, str | int) else ""
    if text in _RANDOM_WORDS:
        return RANDOM
    value = number(text)
    return value if isinstance(value, int) and 0 <= value <= MAX_SEED else None


def _variation_seed(written: Written, judge: Judge) -> Written:
    """Parse a whole number, or None for one that is drawn."""
    seed = _seed("variation_seed", written)
    return seed.with_value(None) if seed.value == RANDOM else seed


def is_off(written: Written) -> bool:
    """Return whether a mapping, or a list of them, is switched off."""
    return written.value in ((), False) or names_none(written) or switch(written.text) is False


def _mapping(field: str, named: str, written: Written, judge: Judge) -> Written:
    """Parse a mapping, a number as its scale, a text as its part `named`, on, or off."""
    text = str(written.value) if isinstance(written.value, str | int | float) else ""
    if isinstance(written.value, dict):
        return _with_first_names(field, written, judge)
    if isinstance(written.value, tuple):  # an empty one, too
        raise ValueInvalid(wrong_value(field, written))
    if is_off(written) or number(text) == 0:
        return written.with_value(False)
    if number(text) is not None:
        return written.with_pairs((("scale", typed(f"{field}.scale", written)),))
    if switch(text):
        return written.with_pairs(())
    if named and isinstance(written.value, str):
        return written.with_pairs(((named, written),))
    raise ValueInvalid(wrong_value(field, written))


def _cutout(written: Written, judge: Judge) -> Written:
    """Parse a model's name, on, or off."""
    if not isinstance(written.value, str | int):
        raise ValueInvalid(wrong_value(CUTOUT, written))
    return written.with_value("" if is_off(written) else str(written.value))


def _controls(written: Written, judge: Judge) -> Written:
    """Parse a list of mappings, or a mapping, or none."""
    if is_off(written):
        return written.with_value(False)
    entries = written.parts if isinstance(written.value, tuple) else (written,)
    for entry in entries:
        if not isinstance(entry.value, dict):
            raise ValueInvalid(wrong_value(CONTROL, entry))
    parts = tuple(_with_first_names(CONTROL, entry, judge) for entry in entries)
    return replace(written, value=tuple(part.value for part in parts), parts=parts, pairs=())


def _references(written: Written, judge: Judge) -> Written:
    """Parse a list of paths, or a path, or none."""
    if isinstance(written.value, tuple):
        for part in written.parts:
            text_of("references", part)
        return written
    if names_none(written):
        return written.with_value(())
    text_of("references", written)
    return replace(written, value=(written.value,), parts=(written,))


def _with_first_names(field: str, mapping: Written, judge: Judge) -> Written:
    """Return a mapping with the first names of its parts, and their values parsed."""
    parts: Layer = {}
    known = list(PARTS[field])
    for name, part in mapping.pairs:
        plain = plain_name(name)
        first = PART_ALIASES[field].get(plain, plain)
        position = part.name_position
        if first not in known:
            words = f"Its fields are {listed(known, most=len(known))}."
            message = f"{field} has no '{shown(name)}'. {did_you_mean(name, known)}{words}"
            judge.wrong(field, message, position=position)
        elif first in parts:
            judge.wrong(field, given_twice(name, parts[first]), position=position)
        else:
            parts[first] = typed(f"{field}.{first}", part)
    return mapping.with_pairs(tuple(parts.items()))


# Parsers of fields that can be written in several ways. They raise ValueInvalid.
_MEANINGS: dict[str, Callable[[Written, Judge], Written]] = {
    "schedule_type": lambda w, _: w.with_value(find_schedule_type(text_of("schedule_type", w))),
    "prediction": lambda w, _: w.with_value(find_prediction(text_of("prediction", w))),
    "noise": lambda w, _: w.with_value(NOISE_NAMES.get(w.text.strip().casefold(), w.value)),
    "seed": _seeds,
    "variation_seed": _variation_seed,
    "hires": partial(_mapping, "hires", ""),
    "upscale": partial(_mapping, "upscale", "model"),
    CUTOUT: _cutout,
    "references": _references,
    "control": _controls,
    "sweep": lambda w, _: w.with_value(False) if is_off(w) else w,
}
