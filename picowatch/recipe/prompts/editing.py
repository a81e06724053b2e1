"""A1111's prompt editing: words that change between the evaluations of the UNet.

`[from:to:when]`, `[to:when]` and `[from::when]` change once, `[a|b]` at each evaluation. After
A1111's modules/prompt_parser.py (get_learned_conditioning_prompt_schedules), where `when` with a
point is a share of the evaluations, else their number. Brackets that are none of these stay text,
and so do all around them. A1111 edits nothing in a prompt with a `|` outside of square brackets;
here it is a character.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from picowatch.recipe.passes import Pass
from picowatch.recipe.prompts.grammar import joined_texts

# Deeper brackets are text.
MAX_DEPTH = 100

_TOKEN = re.compile(r"\\.|[()\[\]:|]|[^\\()\[\]:|]+|\\", re.DOTALL)
_WHEN = re.compile(r"\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*")
_CLOSED_BY = {")": "(", "]": "["}


@dataclass(frozen=True, slots=True)
class Edit:
    """`[…]` whose words change: to the second option at `when`, or without it to the next one.

    `start` and `end` are where it stands in the prompt.
    """

    options: tuple["Nodes", ...]
    when: str
    start: int
    end: int

    def option(self, evaluation: int, one: Pass) -> int:
        """The index of the option at an evaluation, which count from 0 in each pass.

        The first option of a pass holds for one evaluation more than any other: A1111 changes
        after the step `when`, and its steps count from 1.
        """
        step = max(evaluation, 1)
        if not self.when:
            return (step - 1) % len(self.options)
        return int(step > self._last(one))

    def _last(self, one: Pass) -> float:
        """The last step of the first option. In a second pass, 1.5 is the middle."""
        when = float(self.when)
        if "." in self.when:
            last = (when - (one.before is not None)) * one.planned
        else:
            last = when - (one.before or 0)
        return int(min(max(last, -1), one.planned))


Nodes = tuple[str | Edit, ...]


@dataclass(slots=True)
class _Bracket:
    """An open one: where, what stands in it so far, parted by its own colons and bars.

    One that is not `whole` holds brackets that are text, and is text itself.
    """

    opening: str
    start: int
    parts: list[list[str | Edit]] = field(default_factory=lambda: [[]])
    separators: list[str] = field(default_factory=list)
    whole: bool = True

    def as_nodes(self, closing: str = "") -> Iterator[str | Edit]:
        yield self.opening
        for separator, part in zip(["", *self.separators], self.parts, strict=True):
            yield separator
            yield from part
        yield closing

    def closed(self, end: int) -> Edit | None:
        """The edit that it is, now that it is closed."""
        separators = set(self.separators)
        if self.opening != "[" or not self.whole or len(separators) != 1:
            return None
        if separators == {"|"}:
            return Edit(tuple(map(_joined, self.parts)), "", self.start, end)
        *options, last = self.parts
        when = _WHEN.fullmatch("".join(map(str, last)))
        if not when or len(options) > 2:
            return None
        before = options[0] if len(options) == 2 else []
        return Edit((_joined(before), _joined(options[-1])), when[1], self.start, end)

    @property
    def is_emphasis(self) -> bool:
        """Whether it only weighs its words, so that it may stand in an edit."""
        return self.whole and self.separators in ([], [":"] if self.opening == "(" else [])


class _Parser:
    """Brackets are matched on a stack."""

    def __init__(self) -> None:
        self._open = [_Bracket("", 0)]

    def nodes(self, text: str) -> Nodes:
        for token in _TOKEN.finditer(text):
            self._take(token[0], token.start())
        # Brackets that are never closed are text.
        nodes = list(self._open[0].parts[0])
        for bracket in self._open[1:]:
            nodes.extend(bracket.as_nodes())
        return _joined(nodes)

    def _take(self, token: str, offset: int) -> None:
        top = self._open[-1]
        if token in ("(", "[") and len(self._open) <= MAX_DEPTH:
            self._open.append(_Bracket(token, offset))
        elif token in (")", "]") and top.opening == _CLOSED_BY[token]:
            self._close(token, offset + 1)
        elif (token == ":" and top.opening) or (token == "|" and top.opening == "["):
            top.separators.append(token)
            top.parts.append([])
        else:
            top.parts[-1].append(token)
            top.whole = top.whole and token not in ("(", ")", "[", "]")

    def _close(self, token: str, end: int) -> None:
        bracket = self._open.pop()
        around = self._open[-1]
        edit = bracket.closed(end)
        around.parts[-1].extend([edit] if edit else bracket.as_nodes(token))
        around.whole = around.whole and (edit is not None or bracket.is_emphasis)


def _joined(nodes: list[str | Edit]) -> Nodes:
    return tuple(joined_texts(nodes))


@lru_cache(maxsize=64)
def parse_edits(prompt: str) -> Nodes:
    """A prompt without wildcards and LoRA tags, taken apart. Never fails."""
    if "[" not in prompt:
        return (prompt,)
    return _Parser().nodes(prompt)


def edits_in(nodes: Nodes) -> Iterator[Edit]:
    """Every edit, those inside of others after them."""
    for node in nodes:
        if isinstance(node, Edit):
            yield node
            for option in node.options:
                yield from edits_in(option)


def text_at(nodes: Nodes, evaluation: int, one: Pass) -> str:
    """What the prompt says at an evaluation of a pass."""
    return "".join(
        node
        if isinstance(node, str)
        else text_at(node.options[node.option(evaluation, one)], evaluation, one)
        for node in nodes
    )
