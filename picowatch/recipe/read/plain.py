"""What YAML 1.1 makes of a plain scalar, and where that is not what it looks like."""

import re

import yaml

from picowatch.recipe.written import Misread

WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)")
DECIMAL = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+][0-9]+)?")
_MAX_DIGITS = 30
# With and without quotes, and after a flag.
TRUE_OR_FALSE = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def plain_value(text: str) -> object:
    """The value of a plain scalar: None, true or false, a number, text, or a Misread.

    What is a number to YAML but does not look like the number it is (012, 1_000, 1:30, 0x20,
    .inf), dates, and numbers too long to be meant are Misread.
    """
    tag = _tag(text)
    if tag == "null":
        return None
    if tag == "bool":
        return TRUE_OR_FALSE[text.lower()]
    if tag in ("int", "float"):
        return _number(text)
    if tag == "timestamp":
        return Misread(text, "a date")
    return text


def number(text: str) -> int | float | None:
    """The number a text is, written plainly: 42, -1, 7.5; None for anything else.

    8.0 is the whole number 8, as in JSON Schema.
    """
    if len(text) > _MAX_DIGITS:
        return None
    if WHOLE.fullmatch(text):
        return int(text)
    value = float(text) if DECIMAL.fullmatch(text) else None
    return int(value) if value is not None and value.is_integer() else value


def plain_number(value: float) -> str:
    """The inverse: 7.0 as "7", 7.5 as "7.5", 1e-07 as "1.0e-07".

    Without a point the last one is text to YAML 1.1.
    """
    text = repr(float(value)).removesuffix(".0")
    mantissa, exponent, power = text.partition("e")
    return text if not exponent or "." in mantissa else f"{mantissa}.0e{power}"


def _tag(text: str) -> str:
    for tag, pattern in _RESOLVERS.get(text[:1], ()):
        if pattern.match(text):
            return str(tag).rpartition(":")[2]
    return "str"


_RESOLVERS = yaml.SafeLoader.yaml_implicit_resolvers


def _number(text: str) -> int | float | Misread:
    if len(text) > _MAX_DIGITS:
        return Misread(text, f"a number of {len(text):,} characters")
    plain = number(text)
    return Misread(text, _understood(text)) if plain is None else plain


def _understood(text: str) -> str:
    digits = text.lower().lstrip("+-").replace("_", "")
    sign = "-" if text.startswith("-") else ""
    if digits in (".inf", ".nan"):
        return "infinity" if digits == ".inf" else "'not a number'"
    if digits in ("0x", "0b"):
        return "an incomplete number"
    if ":" in digits:
        return f"the number {yaml.safe_load(text)} in base 60, like minutes and seconds"
    for prefix, base, name in (("0x", 16, "hexadecimal"), ("0b", 2, "binary"), ("0", 8, "octal")):
        rest = digits.removeprefix(prefix)
        if rest != digits and rest.isalnum():
            return f"the {name} number {sign}{int(rest, base)}"
    return f"the number {sign}{digits}"
