"""What a prompt holds that is drawn, but was hardly meant to be: warnings, not mistakes."""

import re
from collections.abc import Iterator

from picowatch.recipe.messages.problems import shown

_COMMA_WEIGHT = re.compile(
    r"\((?P<text>[^()\[\]:]{1,200}):\s*(?P<whole>\d{1,2}),(?P<rest>\d{1,3})\s*\)"
)
_BRACKET = re.compile(r"\\.|[()]", re.DOTALL)
_CURLY = ("“”", "„“", "‘’", "«»")


def doubts(text: str) -> Iterator[str]:
    """Sentences about a prompt as it was written."""
    if "," in text and "(" in text:
        for found in _COMMA_WEIGHT.finditer(text):
            instead = f"({found['text']}:{found['whole']}.{found['rest']})"
            yield (
                f"'{shown(found[0])}' is used as literal text, because a weight has a decimal "
                f"point. For the weight, write {shown(instead)}."
            )
    if "(" in text and (opened := _never_closed(text)) is not None:
        yield (
            f"the bracket of '{shown(text[opened:], 30)}' is never closed, so everything after it "
            "gets more weight. Close it, or write \\( for the character."
        )
    stripped = text.strip()
    quotes = stripped[:1] + stripped[-1:]
    if quotes in _CURLY and not any(quote in stripped[1:-1] for quote in quotes):
        yield (
            f"the quotes {stripped[0]} and {stripped[-1]} around the prompt are part of its text. "
            "Remove them, or use straight quotes."
        )


def _never_closed(text: str) -> int | None:
    """Where the first of the round brackets stands that are open at the end."""
    opened: list[int] = []
    for found in _BRACKET.finditer(text):
        if found[0] == "(":
            opened.append(found.start())
        elif found[0] == ")" and opened:
            opened.pop()
    return opened[0] if opened else None
