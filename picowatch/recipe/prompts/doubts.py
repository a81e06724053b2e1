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
                f"'{shown(found[0])}' is drawn as these characters, because a weight has a point. "
                f"For the weight write {shown(instead)}."
            )
    if "(" in text and (opened := _never_closed(text)) is not None:
        yield (
            f"the bracket of '{shown(text[opened:], 30)}' is never closed, so all that follows "
            "weighs more. Close it, or write \\( for the character."
        )
    stripped = text.strip()
    quotes = stripped[:1] + stripped[-1:]
    if quotes in _CURLY and not any(quote in stripped[1:-1] for quote in quotes):
        yield (
            f"the quotes {stripped[0]} and {stripped[-1]} around the prompt belong to its text. "
            "Take them out, or write straight ones."
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
