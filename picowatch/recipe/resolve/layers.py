"""Raw layers of settings: each field has one form in them, and in a merge the nearest layer wins.

The layers of an entry are the `_defaults.yaml` from the inbox's root down, a picture's settings, a
TXT's settings, and the entry itself. Values stay text until the merged layer is resolved.
"""

import json
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

from pydantic import ValidationError

from picowatch.errors import ValueInvalid
from picowatch.recipe import fields, samplers
from picowatch.recipe.converters import several_seeds
from picowatch.recipe.files import PLACES
from picowatch.recipe.messages import wording
from picowatch.recipe.messages.other_programs import FIELDS_MEANT, SHAPE, words_for
from picowatch.recipe.messages.problems import NOTHING, Problems, Reporter, shown
from picowatch.recipe.messages.suggestions import closest, did_you_mean, listed
from picowatch.recipe.resolve.loras import loras_form
from picowatch.recipe.written import (
    OFF,
    Layer,
    Origin,
    SourceValue,
    is_on,
    number,
    plain_name,
    repeated,
    switch,
)

_TWO_PROMPTS = {"positive", "negative", *fields.PROMPTS}
SIZE_AND_SIDE = "size together with width or height: keep one of them."
_SIDES = re.compile(r"(?P<width>\d{1,9})\s*[x×*]\s*(?P<height>\d{1,9})", re.IGNORECASE | re.ASCII)


def normalised(
    layer: Layer, problems: Problems, warnings: list[str] | None = None, origin: Origin = Origin.OWN
) -> Layer:
    """Return the layer with every shorthand written out: a form for each field.

    A size is two sides. A mapping has the first names of its parts, and what is off is OFF. A
    sampler without schedule type brings "automatic", so that a nearer layer's sampler is not paired
    with a farther layer's schedule type. Other forms are reported, and left out. `origin` is the
    author of all values, if it is not the recipe itself.
    """
    if origin is not Origin.OWN:
        layer = {name: replace(value, origin=origin) for name, value in layer.items()}
    result = dict(layer)
    reporter = Reporter(layer, problems, warnings=[] if warnings is None else warnings)
    for field in filter(result.__contains__, fields.PROMPTS):
        result[field] = _json_prompt(field, result[field], reporter)
    for side in ("width", "height"):
        # A recipe without a side has None there, too.
        if side in result and result[side].value is None:
            reporter.wrong(side, wording.wrong_value(side, result.pop(side)))
    if "size" in result:
        _split_size(result, reporter)
    said = result.get("schedule_type")
    theirs = said.text if said and said.origin is Origin.FOREIGN else ""
    if theirs and samplers.meaning_of_scheduler(theirs) == "sampler":
        result.setdefault("sampler", result.pop("schedule_type"))
    for field, form in _FORMS.items():
        if field not in result:
            continue
        written = result[field]
        try:
            _refuse_quoted(field, written)
            is_off = isinstance(written.value, str) and written.says_off
            result[field] = written.with_value(OFF) if is_off else form(written, reporter)
        except ValueInvalid as error:
            reporter.wrong(field, str(error), None)
            del result[field]
    if "sampler" in result:
        _split_sampler(result, reporter)
    return result


def merged(layers: Iterable[Layer]) -> Layer:
    """Return the fields of all layers, farthest first: the nearest layer wins, field by field."""
    result: Layer = {}
    for layer in layers:
        # A count and several seeds say the same thing, so the nearer of them wins, too.
        if several_seeds(layer.get("seed")):
            result.pop("count", None)
        elif "count" in layer and several_seeds(result.get("seed")):
            del result["seed"]
        result |= layer
    return result


def with_swept(layer: Layer) -> Layer:
    """Return the layer with the first value of each whole field that its sweep varies."""
    pairs = layer["sweep"].pairs if "sweep" in layer else ()
    named = ((fields.FIRST_NAME_OF.get(plain_name(name)), values) for name, values in pairs)
    return layer | {field: (said.parts or (said,))[0] for field, said in named if field}


def with_part(layer: Layer, field: str, part: SourceValue) -> Layer:
    """Return the layer with another `hires.scale`, ControlNet etc.; what is off stays off."""
    name, _, own_name = field.partition(".")
    if not (mappings := mappings_in(layer, name)):
        return layer
    whole, mapping = layer[name], mappings[0]
    changed = mapping.with_pairs(tuple((dict(mapping.pairs) | {own_name: part}).items()))
    if whole.parts:
        changed = whole.with_parts((changed,))
    return {**layer, name: replace(changed, origin=part.origin)}


def mappings_in(layer: Layer, field: str) -> tuple[SourceValue, ...]:
    """Return the mapping that a field is in a normalised layer, or those of its list, if any."""
    written = layer.get(field)
    if not written or not isinstance(written.value, dict | tuple):
        return ()
    return written.parts if field in fields.LISTS else (written,)


def read_layer(layer: Layer, reporter: Reporter) -> tuple[dict[str, Any], list[str]]:
    """Return a layer's values, of mappings by part, and the places of mistakes, now reported."""
    elsewhere = LOOKED_UP | fields.KINDS.keys()
    names = [name for name in layer if name in fields.ROWS and name not in elsewhere]
    # Another program's value that changes nothing is told as that, right or wrong.
    idle = {name for name, needs in fields.NEEDS.items() if not any(is_on(layer, n) for n in needs)}
    names = [n for n in names if n not in idle or layer[n].origin is not Origin.FOREIGN]
    found = _values_of(names, layer, reporter)
    wrong = [name for name in names if name not in found]
    for field in fields.KINDS:
        entries = []
        for place, mapping in enumerate(mappings_in(layer, field)):
            at = f"{field}.{place}" if field in fields.LISTS else field
            parts = dict(mapping.pairs)
            entries.append(_values_of(parts, parts, reporter, f"{at}."))
            wrong += [f"{at}.{name}" for name in parts.keys() - entries[-1].keys()]
        if entries:
            found[field] = entries if field in fields.LISTS else entries[0]
    return found, [at for at in wrong if reporter.origin_of(at) is not Origin.FOREIGN]


def _values_of(
    names: Iterable[str], layer: Layer, reporter: Reporter, place: str = ""
) -> dict[str, Any]:
    """Return the values of these fields, or of parts at a place, without wrong values."""
    read = {name: _read_value(f"{place}{name}", layer[name], reporter) for name in names}
    return {name: value for name, value in read.items() if value is not NOTHING}


def _read_value(place: str, written: SourceValue, reporter: Reporter) -> Any:
    """Return what a text means to a field or part, within its limits; NOTHING for a wrong text."""
    name = place if place in fields.ROWS else re.sub(r"\.\d+", "", place)
    try:
        value = (fields.ROWS.get(name) or fields.PART_FIELDS[name]).reads(written)
        is_of_picture = value == fields.PICTURE and name in ("width", "height")
        is_later = is_of_picture or isinstance(value, range)
        return value if is_later else fields.adapter(name).validate_python(value)
    except ValueInvalid as error:
        reporter.wrong(place, str(error), None)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        first = errors[0]
        indexes = chain.from_iterable(mistake["loc"] for mistake in errors)
        elements = sorted({at for at in indexes if isinstance(at, int)})
        for at in elements:  # of a list, of which each is right or wrong
            part = written.parts[at] if written.parts else written.with_value(value[at])
            what = wording.wrong_value(name, part, wording.limits_in_words(name))
            reporter.wrong(place, what, position=part.position)
        if elements:
            return NOTHING
        limits = {} if first["loc"] else first.get("ctx", {})  # of one of several types
        nearest = limits.get("ge", limits.get("le"))
        is_replaced = reporter.wrong(place, wording.wrong_value(name, written), nearest)
        return nearest if is_replaced and nearest is not None else NOTHING
    return NOTHING


def only_finishes(layer: Layer) -> bool:
    """Return whether a layer has a start image, something to finish it with, and no prompt."""
    finishes = _finishes(layer) or only_writes(layer)
    return _keeps_image(layer) and finishes and not is_on(layer, "detail")


def _finishes(layer: Layer) -> bool:
    return any(is_on(layer, field) for field in fields.FINISHING)


def only_writes(layer: Layer) -> bool:
    """Whether a layer only writes a start image again, which a folder's format does not ask for."""
    own = {name: said for name, said in layer.items() if said.origin is not Origin.FOLDER}
    is_said = any(is_on(own, field) for field in fields.WRITING)
    return _keeps_image(layer) and is_said and not (_finishes(layer) or says_drawing(layer))


def says_drawing(layer: Layer) -> bool:
    return any(map(is_about_drawing, layer, layer.values()))


def is_about_drawing(field: str, written: SourceValue) -> bool:
    """Return whether a field asks for something that only drawing does."""
    stays = field == "denoising_strength" and number(written.text) == 0
    says_nothing = written.value == fields.PICTURE or written.is_none or stays
    return field in fields.ROWS and field not in fields.ON_FINISHED and not says_nothing


def only_details(layer: Layer) -> bool:
    """Return whether a layer has a start image, details to draw again, and no prompt."""
    return _keeps_image(layer) and is_on(layer, "detail")


def _keeps_image(layer: Layer) -> bool:
    return "prompt" not in layer and is_on(layer, "image")


def text_of(field: str, written: SourceValue) -> str:
    """Return the field's text. Raises ValueInvalid if it is something else."""
    if not isinstance(written.value, str):
        raise ValueInvalid(wording.wrong_value(re.sub(r"\.\d+", "", field), written))
    return written.value


def _json_prompt(field: str, written: SourceValue, reporter: Reporter) -> SourceValue:
    """Write a mapping as JSON, unless it is two prompts, or `{a|b}` without its quotes."""
    is_meant = any(value.value is not None for _, value in written.pairs)
    names = {plain_name(name) for name, _ in written.pairs}
    if not (written.pairs and is_meant) or names & _TWO_PROMPTS:
        return written
    for name, first, again in repeated(written):
        reporter.wrong(field, wording.given_twice(name, first), position=again.name_position)
    text = json.dumps(_as_json(written), ensure_ascii=False)
    return replace(written.with_value(text), pairs=())


def _as_json(written: SourceValue) -> Any:
    """Return a value as JSON has it: what is not in quotes may be a number, true, false or null."""
    if written.parts:
        return [_as_json(part) for part in written.parts]
    if written.pairs:
        return {name: _as_json(value) for name, value in written.pairs}
    if isinstance(written.value, str) and written.raw == written.value:
        with suppress(ValueError):
            return json.loads(written.value, parse_constant=str)
    return written.value


def _split_size(layer: Layer, reporter: Reporter) -> None:
    written = layer.pop("size")
    text, sides = written.text.strip(), dict(_two_sides("size", written))
    if not layer.keys().isdisjoint(("width", "height")):
        reporter.wrong("size", SIZE_AND_SIDE)
    elif text.casefold() == fields.PICTURE:
        layer["width"] = layer["height"] = written.with_value(fields.PICTURE)
    elif "size" not in sides:
        layer |= sides
    elif re.fullmatch(r"\d{1,3} *: *\d{1,3}", text):
        what = "size is width and height in pixels, like 512x768."
        reporter.wrong("size", f"{what} {words_for(SHAPE, (), text)}", None)
    else:
        reporter.wrong("size", wording.wrong_value("size", written), None)


def _split_sampler(layer: Layer, reporter: Reporter) -> None:
    """Give the schedule type in a sampler's name its own field."""
    written, said = layer.pop("sampler"), ""
    try:
        if "schedule_type" in layer:
            said = samplers.find_schedule_type(text_of("schedule_type", layer["schedule_type"]))
    except ValueInvalid as error:
        reporter.wrong("schedule_type", str(error), None)
        del layer["schedule_type"]
    try:
        sampler, in_name = samplers.find_sampler(text_of("sampler", written))
    except samplers.SamplerUnknown as error:
        the = samplers.THE_SAMPLERS
        is_replaced = reporter.wrong("sampler", error.message, error.instead, remedy=the)
        if not is_replaced or not error.instead:
            return
        sampler, in_name = samplers.find_sampler(error.instead)
    except ValueInvalid as error:
        reporter.wrong("sampler", str(error), None)
        return
    layer["sampler"] = written.with_value(sampler.name)
    if in_name and said not in ("", samplers.AUTOMATIC, in_name):
        what = f"the sampler's name says {in_name}, schedule_type says {said}."
        reporter.wrong("schedule_type", what, in_name, remedy="Keep one.")
    if in_name or not said:
        layer["schedule_type"] = written.with_value(in_name or samplers.AUTOMATIC)


def _refuse_quoted(field: str, written: SourceValue) -> None:
    """Raise ValueInvalid for a mapping that is text, as flags and cells of tables are."""
    is_mapping = field in fields.PARTS or "object" in fields.ROWS[field].form.get("type", ())
    if is_mapping and re.fullmatch(r"\s*\{.*\}\s*", written.text):
        as_text = fields.ROWS[field].as_text
        instead = f"Write {as_text}, or write it" if as_text else "Write it"
        raise ValueInvalid(
            f"{field} is text here, not a mapping. {instead} in YAML or JSON, without quotes "
            "around it, or in a TXT between two lines --- above the prompts."
        )


def _mapping(field: str, named: str, written: SourceValue, reporter: Reporter) -> SourceValue:
    """Write out a number as its scale, a text as its part `named`, on, or off."""
    if isinstance(written.value, dict):
        return _with_first_names(field, written, reporter)
    if isinstance(written.value, tuple):  # an empty tuple, too
        raise ValueInvalid(wording.wrong_value(field, written))
    if number(written.text) == 0:
        return written.with_value(OFF)
    if number(written.text) is not None and "scale" in fields.PARTS[field]:
        return written.with_pairs((("scale", written),))
    if switch(written.text):
        return written.with_pairs(())
    if named and isinstance(written.value, str):
        return written.with_pairs(((named, written),))
    raise ValueInvalid(wording.wrong_value(field, written))


def _resize_to(written: SourceValue, reporter: Reporter) -> SourceValue:
    """Write out a number as the longest side, and a size as width and height."""
    if isinstance(written.value, dict):
        pairs = [own for pair in written.pairs for own in _two_sides(*pair)]
        written = written.with_pairs(tuple(pairs))
    if isinstance(written.value, dict | tuple) or number(written.text) == 0:
        return _mapping("resize_to", "", written, reporter)
    ((name, _), *_) = pairs = _two_sides("size", written)
    return written.with_pairs(
        ((fields.ROWS["resize_to"].part, written),) if name == "size" else tuple(pairs)
    )


def _two_sides(name: str, written: SourceValue) -> list[tuple[str, SourceValue]]:
    """Return width and height of a part that is a size like 800x600, any other part as it is."""
    sides = _SIDES.fullmatch(written.text.strip()) if plain_name(name) == "size" else None
    if not sides:
        return [(name, written)]
    return [(side, written.with_value(sides[side])) for side in ("width", "height")]


def _list(field: str, named: str, written: SourceValue, reporter: Reporter) -> SourceValue:
    """Write out one mapping or path as a list of it, and texts as their part `named`."""
    entries = []
    for entry in written.parts if isinstance(written.value, tuple) else (written,):
        if named and entry.text and switch(entry.text) is None:
            entries.append(entry.with_pairs(((named, entry),)))
        elif field in fields.PARTS and isinstance(entry.value, dict):
            entries.append(_with_first_names(field, entry, reporter))
        elif field in fields.PARTS or not isinstance(entry.value, str):
            raise ValueInvalid(wording.wrong_value(field, entry))
        else:
            entries.append(entry)
    if len(entries) > fields.json_schemas()[field]["maxItems"]:
        raise ValueInvalid(wording.wrong_value(field, written))
    return written.with_parts(tuple(entries))


def _with_first_names(field: str, mapping: SourceValue, reporter: Reporter) -> SourceValue:
    parts: Layer = {}
    meant: Layer = {}  # under names that are misspelt: they are not called missing, too
    known = list(fields.PARTS[field])
    for name, part in mapping.pairs:
        plain = plain_name(name)
        first = fields.PART_ALIASES[field].get(plain, plain)
        position = part.name_position
        if first not in known:
            words = f"Its fields are {listed(known, most=len(known))}."
            is_cut = name.isdigit() and part.value is None
            hint = f"{wording.DECIMAL_POINT} " if is_cut else did_you_mean(name, known)
            if FIELDS_MEANT.get(plain) in known:
                hint = f"Write {FIELDS_MEANT[plain]}. "
            before, colon, after = name.partition(":")
            if colon and before in fields.PART_ALIASES[field] | dict.fromkeys(known):
                hint = f"A space is missing after the colon: write {shown(f'{before}: {after}')}. "
            if field == "upscale" and first in ("size", "width", "height"):
                hint = "Write scale, or resize_to beside upscale. "
            elif field == "resize_to" and first == "size":
                hint = "Write width and height. "
            elif fields.FIRST_NAME_OF.get(first) == first:
                words = f"Write {first} beside {field}, not in it."
            message = f"{field} has no '{shown(name)}'. {hint}{words}"
            reporter.wrong(field, message, position=position)
            if similar := closest(name, known):
                meant[similar] = part
        elif first in parts:
            reporter.wrong(field, wording.given_twice(name, parts[first]), position=position)
        else:
            parts[first] = part
    return mapping.with_pairs(tuple((meant | parts).items()))


# The fields whose values name files.
LOOKED_UP = {field for _, field, *_ in PLACES} | {"loras"}
# The fields that can be written in several forms. These raise ValueInvalid for any other form.
_FORMS: dict[str, Callable[[SourceValue, Reporter], SourceValue]] = {
    **{field: partial(_mapping, field, fields.ROWS[field].part) for field in fields.MAPPINGS},
    "resize_to": _resize_to,
    **{field: partial(_list, field, fields.ROWS[field].part) for field in fields.LISTS},
    **dict.fromkeys(("image", "extend", "sweep"), lambda written, _: written),
    # A path stays as it is.
    "mask": lambda written, reporter: (
        written
        if isinstance(written.value, str | None)
        else _mapping("mask", "", written, reporter)
    ),
    "references": partial(_list, "references", ""),
    "loras": loras_form,
}
