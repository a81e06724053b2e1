"""Numbers as people write them, and the texts they are written as."""

import math

from pydantic import TypeAdapter, ValidationError

_MOST_DIGITS = 30
_NUMBER = TypeAdapter[int | float](int | float)
_SWITCH = TypeAdapter(bool)


def number(text: str) -> int | float | None:
    """The number a text is: 42, -1, 7.5; None for anything else.

    8.0 is the whole number 8, as in JSON Schema.
    """
    if len(text) > _MOST_DIGITS:
        return None
    try:
        value = _NUMBER.validate_python(text)
    except ValidationError:
        return None
    if isinstance(value, float) and math.isfinite(value):
        return int(value) if value.is_integer() else value
    return value if isinstance(value, int) else None


def switch(text: str) -> bool | None:
    """Whether a text means true or false; None if neither."""
    try:
        return _SWITCH.validate_python(text.strip())
    except ValidationError:
        return None


def plain_number(value: float) -> str:
    """The inverse: 7.0 as "7", 7.5 as "7.5", 1e-07 as "1.0e-07".

    Without a point the last one is text to other readers of YAML 1.1.
    """
    text = repr(float(value)).removesuffix(".0")
    mantissa, exponent, power = text.partition("e")
    return text if not exponent or "." in mantissa else f"{mantissa}.0e{power}"
