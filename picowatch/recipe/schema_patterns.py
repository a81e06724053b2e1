"""Regular expressions for the schema: names as forgivingly as recipes read them.

They are of the kind that JavaScript and Python both understand, without flags: editors match them.
"""

import re
from collections.abc import Iterable
from functools import reduce

# The expression of a name's beginnings is nested as deep as the name is long.
_MAX_DEPTH = 40


def one_of(names: Iterable[str], between: str = "") -> str:
    """Matches these names in any case, with `between` between their characters."""
    spelled = dict.fromkeys(between.join(map(_any_case, name)) for name in names)
    return f"(?:{'|'.join(spelled)})"


def beginning_of(names: Iterable[str]) -> str:
    """Matches whatever one of these names begins with, in any case, but not nothing."""
    return f"(?:{'|'.join(dict.fromkeys(map(_beginning, names)))})"


def whole(expression: str) -> str:
    """Matches this with nothing around it but white space."""
    return rf"^\s*(?:{expression})\s*$"


def _beginning(name: str) -> str:
    *letters, last = map(_any_case, name[:_MAX_DEPTH])
    rest = ".*" if len(name) > _MAX_DEPTH else ""
    return reduce(lambda tail, letter: f"{letter}(?:{tail})?", reversed(letters), last + rest)


def _any_case(letter: str) -> str:
    if letter.upper() != letter.lower() and len(letter.upper()) == len(letter.lower()) == 1:
        return f"[{letter.upper()}{letter.lower()}]"
    return re.sub(r"([\\^$.*+?()\[\]{}|/])", r"\\\1", letter)
