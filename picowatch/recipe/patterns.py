"""What may be written for a field, as a JSON Schema with patterns for texts."""

import re
from collections.abc import Iterable
from typing import Any

APART = "[^a-zA-Z0-9+]*"
NUMBER = r"[-+]?(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"


def form(kinds: str, pattern: str = "", **more: Any) -> dict[str, Any]:
    """Return the schema of these types, "false" where true is not meant; a text matches wholly."""
    found = {"type": kinds.replace("false", "boolean").split(), **more}
    found |= {"pattern": rf"^\s*(?:{pattern})\s*$"} if pattern else {}
    return found | ({"not": {"const": True}} if "false" in kinds else {})


def in_any_case(names: Iterable[str], more: str = "") -> str:
    """Return a pattern for names in small letters or capitals, with spaces for underscores."""
    either = "|".join(map(_letters, names)).replace("_", "[_ -]")
    return rf"^\s*({either})\s*{more}$"


def spelt(name: str) -> str:
    """Return a pattern for a name in any case, with any signs between its words."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+|\+\+", name)
    return APART.join("(?:[pP]{2}|\\+\\+)" if word == "++" else _letters(word) for word in words)


def any_of(names: Iterable[str]) -> str:
    """Return a pattern for one of several names, as `spelt` has them."""
    return f"(?:{'|'.join(dict.fromkeys(map(spelt, names)))})"


def _letters(word: str) -> str:
    return re.sub("[a-zA-Z]", lambda letter: f"[{letter[0].lower()}{letter[0].upper()}]", word)


SWITCH = any_of(("true", "false", "yes", "no", "on", "off", "t", "f", "y", "n", "0", "1"))
OFF = f"(?:|{any_of(('none', 'false', 'no', 'off', 'f', 'n', '0'))})"
SEEDS = rf"(?:{spelt('random')}|\[?[-\u2212+\d\s,._eE]+\]?(?:\s+step\s+[\d.]+)?)"
