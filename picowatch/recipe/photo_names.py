"""Patterns that name a photo's results: the field `name` of a `_pictures.yaml`."""

import re
from datetime import datetime
from typing import Any

from picowatch.errors import ValueInvalid
from picowatch.recipe.written import NEVER_IN_NAMES, SourceValue, invisible

# Formats of numbers and dates are few, so that no pattern makes a name of gigabytes.
_PLACEHOLDER = re.compile(
    r"\{(?:(?P<word>stem|folder)|(?P<number>number)(?::(?P<digits>0[1-9]))?"
    r"|(?P<date>date)(?::(?P<format>(?:%[YymdHMS]|[^%{}])+))?)\}"
)
MOST_CHARACTERS = 100


def name_in(written: SourceValue) -> Any:
    """Return a pattern. Raises ValueInvalid if it names no file, or many photos alike."""
    if not isinstance(written.value, str):
        return written.value  # a pattern without quotes is a mapping, which the field refuses
    pattern, rest = written.text, _PLACEHOLDER.sub("", written.text)
    if len(pattern) > MOST_CHARACTERS:
        raise ValueInvalid(f"it is too long; the limit is {MOST_CHARACTERS} characters.")
    if "{" in rest or "}" in rest:
        raise ValueInvalid("only {stem}, {folder}, {date} and {number:04} may have braces.")
    if hidden := NEVER_IN_NAMES.search(pattern):
        raise ValueInvalid(f"it contains {invisible(hidden[0])}. Remove it.")
    if "/" in pattern or "\\" in pattern or pattern.startswith("."):
        raise ValueInvalid("it must not contain / or \\, or begin with a dot.")
    if pattern and not has_number(pattern) and "{stem}" not in pattern:
        raise ValueInvalid(
            "several photos would have the same name: add {stem}, the photo's own, or {number:04}. "
            "Recipes' pictures have none: write _name for a note, or the setting file_name."
        )
    return pattern


def has_number(pattern: str) -> bool:
    """Return whether each result gets the next number of its folder."""
    return "{number" in pattern


def filled(pattern: str, **values: str | int | datetime) -> str:
    """Return the pattern with these values of placeholders; a date without a format is a day."""

    def of(found: re.Match[str]) -> str:
        name = found["word"] or found["number"] or found["date"]
        how = found["digits"] or found["format"] or ("%Y-%m-%d" if name == "date" else "")
        return format(values[name], how) if name in values else found[0]

    return _PLACEHOLDER.sub(of, pattern)
