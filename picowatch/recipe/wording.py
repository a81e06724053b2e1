"""How a wrong value is told: field, value, limit, remedy, and what YAML made of it."""

import re
from functools import cache
from typing import Any

from picowatch.recipe.places import Misread, Written
from picowatch.recipe.plain import number
from picowatch.recipe.problems import shown
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.yaml_errors import quoted

TEXT = "text"


def wrong_value(field: str, written: Written) -> str:
    """Why this value does not do for this field."""
    wanted = wanted_for(field)
    if written.value is None:
        reads = f"{shown(written.raw)} as null" if written.raw else "an empty value as null"
        return (
            f"{field} has no value (YAML reads {reads}). Write {wanted}, or delete the line"
            f"{', or write two quotes for empty text' if wanted == TEXT else ''}."
        )
    understood = _understood(written)
    if understood:
        return f"{field} must be {wanted}, but YAML reads {_raw(written)} as {understood}. " + (
            _in_quotes(field, written) if wanted == TEXT else _plainly(written)
        )
    if isinstance(written.value, str) and re.fullmatch(r"\d+,\d+", written.value):
        return f"{field} must be {wanted}. Write a point instead of the comma."
    return f"{field} must be {wanted}, not {_quoted_or_number(written)}."


def not_multiple_of_8(field: str, value: int) -> str:
    """The nearest values that would do."""
    below = value - value % 8
    return f"{field} must be a multiple of 8: {below} or {below + 8} would do."


def wanted_for(field: str) -> str:
    """What a field takes, in words, from the model's own limits."""
    if field == "size":
        return "text like 512x768"
    if field == "seed":
        return "a whole number from 0 to 4294967295, 'random' or a list of numbers"
    schema = _properties()[field]
    schema = schema.get("anyOf", [schema])[0]
    kind = {"integer": "a whole number", "number": "a number", "boolean": "true or false"}
    words = kind.get(schema.get("type", ""), TEXT)
    if "minimum" in schema and "maximum" in schema:
        words += f" from {schema['minimum']:g} to {schema['maximum']:g}"
    return words


@cache
def _properties() -> dict[str, Any]:
    properties: dict[str, Any] = Recipe.model_json_schema()["properties"]
    return properties


def _understood(written: Written) -> str:
    """What YAML made of a value if that is not what it looks like or not what was wanted."""
    match written.value:
        case Misread(understood=understood):
            return understood
        case bool(value):
            return str(value).lower()
        case tuple():
            return "a list"
        case dict():
            return "a mapping"
        case str(text) if written.yaml_plain and _exponent(text):
            return "text"
        case int() | float() if written.yaml_plain:
            return "a number"
    return ""


def _exponent(text: str) -> bool:
    return bool(re.fullmatch(r"[-+]?[0-9.]+([eE][-+]?[0-9]+)?", text)) and number(text) is None


def _in_quotes(field: str, written: Written) -> str:
    return f"For text, put it in quotes: {field}: {shown(quoted(written.raw), 200)}"


def _plainly(written: Written) -> str:
    if isinstance(written.value, tuple | dict):
        return "Write one value; for several pictures write several recipes."
    if isinstance(written.value, str):
        try:
            value = float(written.value[:40])
        except ValueError:
            return "Write it in plain digits."
        if abs(value) < 1e9:
            return f"Write {int(value) if value == int(value) else value}."
    if isinstance(written.value, bool):
        return "Write a number."
    return "Write the number you mean in plain digits."


def _raw(written: Written) -> str:
    return shown(" ".join(written.raw.split()))


def _quoted_or_number(written: Written) -> str:
    value = written.value
    return shown(str(value)) if isinstance(value, int | float) else f"'{shown(str(value))}'"
