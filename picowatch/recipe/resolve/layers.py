"""Raw layers of settings: each field has one form in them, and in a merge the nearest layer wins.

The layers of an entry are the `_defaults.yaml` from the inbox's root down, a picture's settings, a
TXT's settings, and the entry itself. Values stay text until the merged layer is resolved.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from picowatch.errors import ValueInvalid
from picowatch.recipe.converters import Wrong, several_seeds
from picowatch.recipe.fields import (
    CONTROL,
    CUTOUT,
    DETAIL,
    FINISHING,
    FIRST_NAME_OF,
    PART_ALIASES,
    PARTS,
    PICTURE,
    ROWS,
    SIZE,
)
from picowatch.recipe.messages.other_programs import SHAPE, words_for
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.messages.suggestions import closest, did_you_mean, listed
from picowatch.recipe.messages.wording import (
    DECIMAL_POINT,
    given_twice,
    wrong_value,
)
from picowatch.recipe.resolve.loras import LORAS, loras_form
from picowatch.recipe.resolve.severity import Judge
from picowatch.recipe.samplers import (
    AUTOMATIC,
    THE_SAMPLERS,
    SamplerUnknown,
    find_sampler,
    find_schedule_type,
    meaning_of_scheduler,
)
from picowatch.recipe.written import OFF, Layer, Origin, Written, number, plain_name, switch

SIZE_AND_SIDE = "size together with width or height: keep one of them."
_SIDES = re.compile(r"(?P<width>\d{1,9})\s*[x×*]\s*(?P<height>\d{1,9})", re.IGNORECASE | re.ASCII)


def spelt_out(layer: Layer, judge: Judge) -> Layer:
    """Return the layer with every shorthand written out: a form for each field.

    A size is two sides. A mapping has the first names of its parts, and what is off is OFF. A
    sampler without schedule type brings "automatic", so that a nearer layer's sampler is not paired
    with a farther layer's schedule type. Forms that a field does not have are reported to the
    `judge` and left out.
    """
    result = dict(layer)
    if not result:
        return result
    for side in ("width", "height"):
        # A recipe without a side has None there, too.
        if side in result and result[side].value is None:
            judge.wrong(side, wrong_value(side, result.pop(side)))
    if SIZE in result:
        _split_size(result, judge)
    said = result.get("schedule_type")
    if said and said.origin is Origin.OTHERS and meaning_of_scheduler(said.text) == "sampler":
        result.setdefault("sampler", result.pop("schedule_type"))
    for field, form in _FORMS.items():
        if field not in result:
            continue
        try:
            _refuse_quoted(field, result[field])
            result[field] = form(result[field], judge)
        except ValueInvalid as error:
            judge.wrong(field, str(error), None)
            del result[field]
    if "sampler" in result:
        _split_sampler(result, judge)
    return result


def merged(layers: Iterable[Layer]) -> Layer:
    """Return the fields of all layers, farthest first: the nearest layer wins, field by field.

    A count and several seeds say the same thing, so the nearer one of them wins, too.
    """
    result: Layer = {}
    for layer in layers:
        if several_seeds(layer.get("seed")):
            result.pop("count", None)
        elif "count" in layer and several_seeds(result.get("seed")):
            del result["seed"]
        result |= layer
    return result


def with_part(layer: Layer, field: str, part: Written) -> Layer:
    """Return the layer with another value of a part like `hires.scale`, or of a ControlNet."""
    name, _, own_name = field.partition(".")
    whole = layer[name]
    mapping = whole.parts[0] if whole.parts else whole
    changed = mapping.with_pairs(tuple((dict(mapping.pairs) | {own_name: part}).items()))
    if whole.parts:
        changed = whole.with_parts((changed,))
    return {**layer, name: replace(changed, origin=part.origin)}


def read_values(layer: Layer, judge: Judge) -> dict[str, Any]:
    """Return the values that texts mean to their fields; wrong ones are reported and left out.

    What is beyond a field's limits, or names a file that is missing, is found later.
    """
    found = {}
    for name, written in layer.items():
        if name not in ROWS:
            continue
        try:
            found[name] = ROWS[name].reads(written)
        except Wrong as wrong:
            for part in wrong.found:
                message = wrong_value(name, part, wrong.wanted)
                if part is written:
                    judge.wrong(name, message, None)
                else:
                    judge.wrong(name, message, position=part.position)
        except ValueInvalid as error:
            judge.wrong(name, str(error), None)
    return found


def only_finishes(layer: Layer) -> bool:
    """Return whether a layer has a start image, something to finish it with, and no prompt."""
    image = layer.get("image")
    if "prompt" in layer or image is None:
        return False
    finishes = any(not layer[name].is_off for name in FINISHING if name in layer)
    return finishes and not image.is_none and not only_details(layer)


def only_details(layer: Layer) -> bool:
    """Return whether a layer has a start image, details to draw again, and no prompt."""
    image, detail = layer.get("image"), layer.get(DETAIL)
    if "prompt" in layer or image is None or image.is_none:
        return False
    return bool(detail and not detail.is_off)


def text_of(field: str, written: Written) -> str:
    """Return the field's text. Raises ValueInvalid if it is something else."""
    if not isinstance(written.value, str):
        raise ValueInvalid(wrong_value(re.sub(r"\.\d+", "", field), written))
    return written.value


def _split_size(layer: Layer, judge: Judge) -> None:
    written = layer.pop(SIZE)
    text = written.text.strip()
    sides = _SIDES.fullmatch(text)
    if not layer.keys().isdisjoint(("width", "height")):
        judge.wrong(SIZE, SIZE_AND_SIDE)
    elif text.casefold() == PICTURE:
        layer["width"] = layer["height"] = written.with_value(PICTURE)
    elif sides:
        layer["width"] = written.with_value(sides["width"])
        layer["height"] = written.with_value(sides["height"])
    elif re.fullmatch(r"\d{1,3} *: *\d{1,3}", text):
        what = "size is width and height in pixels, like 512x768."
        judge.wrong(SIZE, f"{what} {words_for(SHAPE, (), text)}", None)
    else:
        judge.wrong(SIZE, wrong_value(SIZE, written), None)


def _split_sampler(layer: Layer, judge: Judge) -> None:
    """Give the schedule type in a sampler's name its own field."""
    written, said = layer.pop("sampler"), _schedule_type(layer, judge)
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
    if in_name and said not in ("", AUTOMATIC, in_name):
        what = f"the sampler's name says {in_name}, schedule_type says {said}."
        judge.wrong("schedule_type", what, in_name, remedy="Keep one.")
    if in_name or not said:
        layer["schedule_type"] = written.with_value(in_name or AUTOMATIC)


def _schedule_type(layer: Layer, judge: Judge) -> str:
    """Return the schedule type that a layer says; a wrong one is reported and removed."""
    if "schedule_type" in layer:
        try:
            return find_schedule_type(text_of("schedule_type", layer["schedule_type"]))
        except ValueInvalid as error:
            judge.wrong("schedule_type", str(error), None)
            del layer["schedule_type"]
    return ""


def _refuse_quoted(field: str, written: Written) -> None:
    """Raise ValueInvalid for a mapping that is text, as flags and cells of tables are."""
    if field in PARTS and re.fullmatch(r"\s*\{.*\}\s*", written.text):
        raise ValueInvalid(
            f"{field} is text here, not a mapping. Write it in YAML or JSON, without quotes "
            "around it, or in a TXT between two lines --- above the prompts."
        )


def _says_off(written: Written) -> bool:
    return written.is_off or switch(written.text) is False


def _mapping(field: str, named: str, written: Written, judge: Judge) -> Written:
    """Write out a number as its scale, a text as its part `named`, on, or off."""
    if isinstance(written.value, dict):
        return _with_first_names(field, written, judge)
    if isinstance(written.value, tuple):  # an empty one, too
        raise ValueInvalid(wrong_value(field, written))
    if _says_off(written) or number(written.text) == 0:
        return written.with_value(OFF)
    if number(written.text) is not None and "scale" in PARTS[field]:
        return written.with_pairs((("scale", written),))
    if switch(written.text):
        return written.with_pairs(())
    if named and isinstance(written.value, str):
        return written.with_pairs(((named, written),))
    raise ValueInvalid(wrong_value(field, written))


def _mask(written: Written, judge: Judge) -> Written:
    """Write out what to find; a path stays as it is."""
    if isinstance(written.value, tuple):
        raise ValueInvalid(wrong_value("mask", written))
    if isinstance(written.value, dict):
        return _with_first_names("mask", written, judge)
    return _picture(written)


def _picture(written: Written) -> Written:
    """Return `none` for false, and a path as it is written."""
    return written.with_value("none") if switch(written.text) is False else written


def _list(field: str, named: str, written: Written, judge: Judge) -> Written:
    """Write out one mapping as a list of it, and texts as their part `named`."""
    if _says_off(written):
        return written.with_value(OFF)
    entries = []
    for entry in written.parts if isinstance(written.value, tuple) else (written,):
        if named and entry.text and switch(entry.text) is None:
            entries.append(entry.with_pairs(((named, entry),)))
        elif isinstance(entry.value, dict):
            entries.append(_with_first_names(field, entry, judge))
        else:
            raise ValueInvalid(wrong_value(field, entry))
    return written.with_parts(tuple(entries))


def _references(written: Written, judge: Judge) -> Written:
    """Write out one path as a list of it."""
    parts = written.parts if isinstance(written.value, tuple) else (written,)
    for part in parts:
        text_of("references", part)
    return written.with_value(OFF) if written.is_none else written.with_parts(parts)


def _with_first_names(field: str, mapping: Written, judge: Judge) -> Written:
    parts: Layer = {}
    meant: Layer = {}  # under names that are misspelt: they are not called missing, too
    known = list(PARTS[field])
    for name, part in mapping.pairs:
        plain = plain_name(name)
        first = PART_ALIASES[field].get(plain, plain)
        position = part.name_position
        if first not in known:
            words = f"Its fields are {listed(known, most=len(known))}."
            hint = f"{DECIMAL_POINT} " if name.isdigit() else did_you_mean(name, known)
            if FIRST_NAME_OF.get(first) == first:
                words = f"Write {first} beside {field}, not in it."
            message = f"{field} has no '{shown(name)}'. {hint}{words}"
            judge.wrong(field, message, position=position)
            if similar := closest(name, known):
                meant[similar] = part
        elif first in parts:
            judge.wrong(field, given_twice(name, parts[first]), position=position)
        else:
            parts[first] = part
    return mapping.with_pairs(tuple((meant | parts).items()))


# The fields that can be written in several forms. These raise ValueInvalid for any other form.
_FORMS: dict[str, Callable[[Written, Judge], Written]] = {
    "hires": partial(_mapping, "hires", ""),
    "upscale": partial(_mapping, "upscale", "model"),
    CUTOUT: partial(_mapping, CUTOUT, "model"),
    "image": lambda written, _: _picture(written),
    "mask": _mask,
    "references": _references,
    CONTROL: partial(_list, CONTROL, ""),
    DETAIL: partial(_list, DETAIL, "find"),
    LORAS: loras_form,
    "sweep": lambda written, _: written.with_value(OFF) if _says_off(written) else written,
}
