"""Messages about wrong values: field, value, limit, remedy."""

import re
from typing import get_args

from picowatch.recipe.fields import (
    FROM,
    MAX_SIDE,
    NO_SWEEP,
    PART_FIELDS,
    PICTURE_FIELDS,
    PROMPTS,
    ROWS,
    SHORTHANDS,
    json_schemas,
)
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.messages.suggestions import listed
from picowatch.recipe.parts import Preprocessor
from picowatch.recipe.written import Written, number

TEXT = "text"
_RANGE = re.compile(r"[\d.]{1,20}?\.\.[\d.]{1,20}(?: step [\d.]{1,20})?")
MAX_WARNINGS = 50  # of one entry
# For digits in place of a name: `{scale: 1,5}` has a scale of 1, and a 5 without a value.
DECIMAL_POINT = "A comma ends a number here; a decimal number has a point, like 1.5."


def wrong_value(field: str, written: Written, wanted: str | None = None) -> str:
    """Return why a field cannot have this value; `wanted` overrides the field's own words."""
    wanted = wanted or wanted_for(field)
    name = field.replace(".", " ")
    if written.value is None:
        value = "a name" if wanted == TEXT else wanted
        value = f"{name}: '' for empty text" if field in PROMPTS else value
        return f"{name} has no value. Write {value}, or delete the field."
    if point := _without_comma(str(written.value).strip(), wanted):
        return f"{name} must be {wanted}. {point}"
    value = shown(str(written.value).strip())
    if isinstance(written.value, tuple | dict):
        value = shown(written.position.text)
    elif number(value) is None and not isinstance(written.value, bool):
        value = f"'{value}'"
    return f"{name} must be {wanted}, not {value}. {_remedy(field, written)}".rstrip()


def _without_comma(text: str, wanted: str) -> str:
    """Return the remedy for a comma as a decimal point or between thousands."""
    if "whole number" in wanted and re.fullmatch(r"[1-9]\d?\d?,\d{3}", text):
        return f"Write {text.replace(',', '')}, without a comma."
    if wanted.startswith("a number") and re.fullmatch(r"\d{1,9},\d{1,9}", text):
        return f"Write {text.replace(',', '.')}, with a point."
    return ""


def _remedy(field: str, written: Written) -> str:
    if isinstance(written.value, tuple | dict):
        return _instead_of_several(field, written)
    text = str(written.value).strip()
    if field == "seed" and (ends := re.fullmatch(r"(\d+) *(?:[-–]|to) *(\d+)", text)):
        return f"Write {ends[1]}..{ends[2]} for a range."
    if _RANGE.fullmatch(text) and field in ROWS and field not in NO_SWEEP:
        return _as_sweep(field, written)
    if text.casefold() == "none":
        return f"Leave out {field} for the default."
    value = number(text)
    if field == "cfg_scale" and value is not None and value < 1:
        return "1 switches guidance off."
    if field in ("width", "height") and value is not None and value > MAX_SIDE:
        return (
            "For a larger picture, write a smaller size, and hires: {scale: 2} to redraw it "
            "larger, or upscale: {scale: 4} to enlarge it."
        )
    if field == "control" and text in get_args(Preprocessor):
        return f"Write control: {{image: photo.png, model: …, preprocess: {text}}}."
    return ""


def _instead_of_several(field: str, written: Written) -> str:
    text = written.position.text
    if field in PROMPTS and text.startswith(("[", "{")) and not written.position.source.is_json:
        return f"For text, put it in quotes: {field}: {shown(quoted(text), 200)}"
    if field in (*PICTURE_FIELDS, *PROMPTS, FROM):
        return "For several pictures, write a recipe for each."
    if field in ROWS and field not in NO_SWEEP and text.startswith("["):
        return _as_sweep(field, written)
    return ""


def _as_sweep(field: str, written: Written) -> str:
    """Return the remedy for several values of a field that a sweep can vary."""
    values = shown(written.position.text, 200)
    if written.position.source.is_json:
        return f'For an image with each value, write "sweep": {{"{field}": {values}}}'
    return f"For an image with each value, write sweep: {{{field}: {values}}}"


def quoted(text: str) -> str:
    """Return the text as a YAML single-quoted scalar."""
    return "'" + text.replace("'", "''") + "'"


def given_twice(name: str, before: Written) -> str:
    """Return the message about a name whose field has a value already."""
    position = before.name_position
    other = position.text.strip("-'\"")
    called = f" as '{shown(other)}'" if before.key and other != name.strip("-") else ""
    return f"'{shown(name)}' is given twice: already on line {position.line}{called}. Keep one."


def not_multiple_of(multiple: int, field: str, value: int) -> str:
    """Return the message about a size that is no multiple, with the nearest that are."""
    below = value - value % multiple
    return f"{field} must be a multiple of {multiple}: {below} or {below + multiple} would do."


def sizes_of_ratio(ratio: str) -> str:
    """Return sizes of that aspect ratio for each kind of checkpoint: which one is not known yet."""
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
    """Return the warning about another program's setting that recipes do not have."""
    return f"Recipes have no '{shown(what)}' setting; it was ignored."


def embedding_missing(name: str) -> str:
    """Return the warning about a word of a prompt that should name an embedding."""
    return (
        f"The prompt's '{shown(name)}' is used as plain words, because no embedding of that name "
        "is in models/embeddings."
    )


def wanted_for(field: str) -> str:
    """Return the values of a field in words, from its row or its limits."""
    row = (ROWS | SHORTHANDS | PART_FIELDS).get(field)
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
