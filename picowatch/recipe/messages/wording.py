"""How a wrong value is described: field, value, limit, remedy, and what YAML made of it."""

import json
import re
from contextlib import suppress
from typing import get_args

from picowatch.recipe.fields import (
    FROM,
    MAX_SIDE,
    NO_SWEEP,
    PICTURE_FIELDS,
    PROMPTS,
    ROWS,
    SHORTHANDS,
    json_schemas,
)
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.messages.suggestions import listed
from picowatch.recipe.parts import Preprocessor
from picowatch.recipe.read.plain import plain_number
from picowatch.recipe.read.yaml_errors import quoted
from picowatch.recipe.written import Misread, Position, Written

TEXT = "text"
_SEVERAL = "For several pictures write a recipe for each, or a _pictures.yaml in their folder."
_RANGE = re.compile(r"[\d.]{1,20}?\.\.[\d.]{1,20}(?: step [\d.]{1,20})?")
MAX_WARNINGS = 50  # of one entry


def wrong_value(field: str, written: Written, wanted: str | None = None) -> str:
    """Why this value does not do for this field; `wanted` where it is not the field's own."""
    wanted = wanted or wanted_for(field)
    field = field.replace(".", " ")
    if written.value is None:
        return _no_value(field, written, wanted)
    if "number" in wanted and (remedy := _without_end(str(written.value).strip())):
        return f"{field} must be {wanted}, not '{shown(str(written.value))}'. {remedy}"
    understood = _understood(written, wanted)
    if swept := _as_sweep(field, written):
        made = f", but YAML reads {_raw(written)} as a list" if understood == "a list" else ""
        if not made or written.position.source.is_json:
            made = f", not {_raw(written)}"
        return f"{field} must be {wanted}{made}. {swept}"
    if understood and written.position.source.is_json:
        is_one = not isinstance(written.value, tuple | dict)
        remedy = f" Write {json.dumps(written.raw)}." if wanted == TEXT and is_one else ""
        if field in PICTURE_FIELDS and isinstance(written.value, tuple):
            remedy = f" {_SEVERAL}"
        return f"{field} must be {wanted}, not {_raw(written)}.{remedy}"
    if understood:
        remedy = _in_quotes(field, written) if wanted == TEXT else _plainly(written, wanted)
        words = f"{field} must be {wanted}, but YAML reads {_raw(written)} as {understood}."
        return f"{words} {remedy}".rstrip()
    comma = re.fullmatch(r"(\d{1,9}),(\d{1,9})", str(written.value))
    if comma and field != "seed":
        return f"{field} must be {wanted}. Write {_without_comma(comma, wanted)}."
    value = _quoted_unless_number(written.value)
    return f"{field} must be {wanted}, not {value}.{_hint(field, written.value)}"


def _without_comma(number: re.Match[str], wanted: str) -> str:
    """The number that was meant: a comma stands for a point, or parts thousands."""
    if "whole number" not in wanted:
        return f"{number[1]}.{number[2]}, with a point"
    if re.fullmatch(r"[1-9]\d?\d?,\d{3}", number[0]):
        return f"{number[1]}{number[2]}, without a comma"
    return f"a whole number, such as {number[1]}"


def cut_number(position: Position) -> tuple[str, str]:
    """Both parts of a number with a decimal comma; to YAML a value begins after the comma.

    Empty where the position is not there, or where the numbers are a list without spaces.
    """
    line, start = position.source.line(position.line), position.column - 1
    before = re.search(r"(?<![\w.,])([-+]?\d{1,9}),$", line[max(0, start - 12) : start])
    after = re.match(r"\d{1,9}(?![\w.]|,\d)", line[start : start + 12])
    return (before[1], after[0]) if before and after else ("", "")


def about_cut_number(position: Position) -> str:
    """What to say where the name of a field is the rest of a number; else ""."""
    whole, rest = cut_number(position)
    if not rest:
        return ""
    thousands = f", or {whole}{rest}" if len(rest) == 3 and whole != "0" else ""
    return (
        f"the comma before this ends the number. Write {whole}.{rest}, with a decimal "
        f"point{thousands}."
    )


def _without_end(text: str) -> str:
    """The remedy for a number with a sign after it, as sentences and programs have it."""
    found = re.fullmatch(r"(?P<number>[-+]?[0-9]{1,12}(?:\.[0-9]{1,12})?)(?P<end>[;,]|\.)", text)
    if not found or (found["end"] == "." and "." not in found["number"]):
        return ""
    names = {";": "semicolon", ",": "comma", ".": "point"}
    return f"Write {found['number']}, without the {names[found['end']]} after it."


def _hint(field: str, value: object) -> str:
    """What somebody may have wanted who wrote a number beyond the limits, a range, or None."""
    if str(value).strip().casefold() == "none":
        default = "random seeds" if field == "seed" else "the default"
        return f" For {default} leave out {field}."
    if isinstance(value, int | float):
        if field == "cfg_scale" and value < 1:
            return " 1 switches guidance off."
        if field in ("width", "height") and value > MAX_SIDE:
            return (
                " For a larger picture write a smaller size, and hires: {scale: 2} to redraw it "
                "larger, or upscale: {scale: 4} to enlarge it."
            )
    if field == "seed":
        return _seeds_hint(str(value).strip())
    if field == "control" and value in get_args(Preprocessor):
        return f" Write control: {{image: photo.png, model: …, preprocess: {value}}}."
    return ""


def _seeds_hint(written: str) -> str:
    if ends := re.fullmatch(r"(\d+) *(?:[-–]|to) *(\d+)", written):
        return f" Write {ends[1]}..{ends[2]} for a range."
    if re.fullmatch(r"\d+( *, *\d+)+", written) and len(written) <= 100:
        return f" Write [{', '.join(re.findall(r'[0-9]+', written))}] for a list."
    return ""


def _no_value(field: str, written: Written, wanted: str) -> str:
    if written.position.source.is_json:
        return f"{field} must be {wanted}, not null. Write a value, or delete the field."
    reads = f"{shown(written.raw)} as null" if written.raw else "an empty value as null"
    remedy = f"Write {wanted}, or delete the line."
    if field in PROMPTS:
        remedy = f"Write {field}: '' for empty text, or delete the line."
    elif wanted == TEXT:
        remedy = "Write a name, or delete the line."
    return f"{field} has no value: YAML reads {reads}. {remedy}"


def given_twice(name: str, before: Written) -> str:
    """About a name whose field has a value already."""
    earlier = before.name_position
    start = earlier.column - 1
    other = earlier.source.line(earlier.line)[start : start + earlier.width]
    same = before.key is None or other.lstrip("-").strip("'\"") == name
    called = "" if same else f" as '{shown(other)}'"
    return f"'{shown(name)}' is given twice: already on line {earlier.line}{called}. Keep one."


def not_multiple_of(multiple: int, field: str, value: int) -> str:
    """The nearest values that would do."""
    below = value - value % multiple
    return f"{field} must be a multiple of {multiple}: {below} or {below + multiple} would do."


def sizes_of_ratio(ratio: str) -> str:
    """Sizes of that aspect: the checkpoint is not known yet, and each kind needs its own."""
    sides = re.fullmatch(r"([1-9]\d{0,2}) *: *([1-9]\d{0,2})", ratio)
    width, height = (int(side) for side in sides.groups()) if sides else (2, 3)
    small, large = 512 / min(width, height), (1024**2 / (width * height)) ** 0.5
    return (
        f"{_size(width * small, height * small, 8)} for SD 1.5, "
        f"{_size(width * large, height * large, 64)} for SDXL, "
        f"{_size(width * small / 4, height * small / 4, 8)} for the demo model"
    )


def _size(width: float, height: float, multiple: int) -> str:
    return f"{round(width / multiple) * multiple}x{round(height / multiple) * multiple}"


def left_out(what: str) -> str:
    """The warning for what another program wrote and a recipe has no field for."""
    return f"Recipes have no '{shown(what)}' setting; it was ignored."


def embedding_missing(name: str) -> str:
    """The warning for words that were, or should be, an embedding's."""
    return (
        f"The prompt's '{shown(name)}' is used as plain words, because no embedding of that name "
        "is in models/embeddings."
    )


def wanted_for(field: str) -> str:
    """What a field takes, in words, from its row or its limits."""
    row = (ROWS | SHORTHANDS).get(field)
    if row and row.wanted:
        return row.wanted
    schema = json_schemas()[field]
    schema = schema.get("anyOf", [schema])[0]
    kind = {"integer": "a whole number", "number": "a number", "boolean": "true or false"}
    if "enum" in schema:
        return listed(schema["enum"], "or")
    words = kind.get(schema.get("type", ""), TEXT)
    if "minimum" in schema and "maximum" in schema:
        words += f" from {schema['minimum']:.10g} to {schema['maximum']:.10g}"
    elif "exclusiveMinimum" in schema and "maximum" in schema:
        words += f" above {schema['exclusiveMinimum']:.10g}, up to {schema['maximum']:.10g}"
    return words


def _understood(written: Written, wanted: str) -> str:
    """What YAML made of a value, if that is not what it looks like or not what was wanted."""
    match written.value:
        case Misread(understood=understood):
            return understood
        case bool(value):
            read = str(value).lower()
            return "" if wanted != TEXT and written.raw.lower() == read else read
        case tuple():
            return "a list"
        case dict():
            return "a mapping"
        case str(text) if written.style == "" and _looks_like_number(text):
            return "text"
        case int() | float() if wanted == TEXT:
            return "a number"
    return ""


def _looks_like_number(text: str) -> bool:
    """1e3 and 089 are text in YAML 1.1."""
    return re.fullmatch(r"[-+]?[0-9.]{1,9}([eE][-+]?[0-9]{1,3})?", text) is not None


def _as_sweep(field: str, written: Written) -> str:
    """How several values of a field are written that can be swept; else ""."""
    is_list = isinstance(written.value, tuple) and written.raw.startswith("[")
    is_range = isinstance(written.value, str) and _RANGE.fullmatch(written.value.strip())
    cannot = field not in ROWS or field in {*PROMPTS, *NO_SWEEP, *PICTURE_FIELDS}
    if cannot or "\n" in written.raw or not (is_list or is_range):
        return ""
    values = shown(written.raw, 200)
    if written.position.source.is_json:
        return f'For one image with each write "sweep": {{"{field}": {values}}}'
    return f"For one image with each write sweep: {{{field}: {values}}}"


def _in_quotes(field: str, written: Written) -> str:
    is_one_line = written.raw.startswith("[") and "\n" not in written.raw
    if field in (*PICTURE_FIELDS, FROM) and isinstance(written.value, tuple):
        one = written.parts[0].raw if is_one_line and len(written.parts) == 1 else ""
        if field == FROM and not one:
            return "Write a recipe for each."
        return f"Write {field}: {shown(one, 200)}" if one else _SEVERAL
    if isinstance(written.value, tuple) and written.raw.startswith("- "):
        return "For several pictures write several recipes, or a .txt with a prompt on each line."
    return f"For text, put it in quotes: {field}: {shown(quoted(written.raw), 200)}"


def _plainly(written: Written, wanted: str) -> str:
    if isinstance(written.value, tuple | dict):
        if wanted.startswith("a mapping"):
            return ""
        return "Write one value; for several pictures write several recipes."
    if isinstance(written.value, str):
        with suppress(ValueError):
            value = float(written.value)
            if abs(value) < 1e9:
                plain = f"{value:.10g}"
                return f"Write {plain_number(value) if 'e' in plain else plain}."
    return "Write the number you mean in plain digits."


def _raw(written: Written) -> str:
    return shown(" ".join(written.raw.split()))


def _quoted_unless_number(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return shown(str(value)) if isinstance(value, int | float) else f"'{shown(str(value))}'"
