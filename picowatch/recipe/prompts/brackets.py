"""Brackets of a prompt, matched on a stack: wildcards and prompt editing are parsed with them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any


@dataclass(slots=True)
class Bracket:
    """An open bracket: its sign, where it stands, and what follows, parted by separators.

    A text as a whole is one without a sign. Nodes are texts and what brackets became.
    """

    sign: str = ""
    offset: int = 0
    parts: list[list[Any]] = field(default_factory=lambda: [[]])
    separators: list[str] = field(default_factory=list)

    def add(self, *nodes: Any) -> None:
        self.parts[-1] += nodes

    def separate(self, separator: str) -> None:
        self.separators.append(separator)
        self.parts.append([])

    def as_text(self, closing: str = "") -> list[Any]:
        """Return the nodes of a bracket that means nothing but itself."""
        nodes = [self.sign, *self.parts[0]]
        for separator, part in zip(self.separators, self.parts[1:], strict=True):
            nodes += [separator, *part]
        return [*nodes, closing]


def joined(nodes: Iterable[Any]) -> tuple[Any, ...]:
    """Join neighbouring pieces of text."""
    found: list[Any] = []
    for is_text, group in groupby(nodes, lambda node: isinstance(node, str)):
        if not is_text:
            found += group
        elif text := "".join(group):
            found.append(text)
    return tuple(found)


def ended(opened: Iterable[Bracket]) -> tuple[Any, ...]:
    """Return a whole text's nodes at its end, where brackets that are still open are text."""
    return joined(node for bracket in opened for node in bracket.as_text())
