"""A1111's prompt editing: words that change between the evaluations of the UNet.

`[from:to:when]`, `[to:when]` and `[from::when]` change once, `[a|b]` at each evaluation. After
A1111's modules/prompt_parser.py (get_learned_conditioning_prompt_schedules), where `when` with a
point is a share of the evaluations, otherwise their number. Other brackets stay text, and so do all
brackets around them. A1111 edits nothing in a prompt with a `|` outside square brackets; here such
a `|` is text.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from picowatch.recipe.passes import Sampling
from picowatch.recipe.prompts import grammar

_TOKEN = re.compile(r"\\.|[()\[\]:|]|[^\\()\[\]:|]+|\\", re.DOTALL)
_WHEN = re.compile(r"\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*")
_CLOSED_BY = {")": "(", "]": "["}
_SEPARATORS = {"": "", "(": ":", "[": ":|"}


@dataclass(frozen=True, slots=True)
class Edit:
    """`[…]` whose words change: to the second option at `when`, or without `when` at each step."""

    options: tuple["Nodes", ...]
    when: str
    start: int
    end: int

    def option(self, evaluation: int, sampling: Sampling) -> int:
        """Return the index of the option at an evaluation, counted from 0 in each pass."""
        # The first option of a pass holds for one evaluation more than any other: A1111 changes
        # after the step `when`, and its steps count from 1. In a second pass, 1.5 is the middle.
        step = max(evaluation, 1)
        if not self.when:
            return (step - 1) % len(self.options)
        last = float(self.when)  # step of the first option
        if "." in self.when:
            # Infinity times no evaluations is no number.
            last = sampling.planned and (last - (sampling.before is not None)) * sampling.planned
        else:
            last -= sampling.before or 0
        return int(step > int(min(max(last, -1), sampling.planned)))

    @property
    def last_words(self) -> str:
        """The words that hold at the last step."""
        last = self.options[-1]
        return "".join(node if isinstance(node, str) else node.last_words for node in last)


Nodes = tuple[str | Edit, ...]


class _Open(grammar.Bracket):
    """An open bracket; it is text itself unless `whole`: no bracket inside it is text."""

    whole = True

    def closed(self, end: int) -> Edit | None:
        """Return the edit that ends here; None for brackets that are text."""
        if self.sign != "[" or not self.whole:
            return None
        parts = list(map(grammar.joined, self.parts))
        if set(self.separators) == {"|"}:
            return Edit(tuple(parts), "", self.offset, end)
        when = _WHEN.fullmatch("".join(map(str, parts[-1])))
        if not when or self.separators not in ([":"], [":", ":"]):
            return None
        before = parts[0] if len(parts) == 3 else ()
        return Edit((before, parts[-2]), when[1], self.offset, end)


@lru_cache(maxsize=64)
def parse_edits(prompt: str) -> Nodes:
    """Parse a prompt without wildcards and LoRA tags; deeper brackets than MAX_NESTING are text."""
    if "[" not in prompt or grammar.is_json(prompt):
        return (prompt,)
    opened = [_Open()]
    for token in _TOKEN.finditer(prompt):
        sign, top = token[0], opened[-1]
        if sign in ("(", "[") and len(opened) <= grammar.MAX_NESTING:
            opened.append(_Open(sign, token.start()))
        elif sign in (")", "]") and top.sign == _CLOSED_BY[sign]:
            opened.pop()
            edit = top.closed(token.end())
            opened[-1].add(*([edit] if edit else top.as_text(sign)))
            # Inside an edit, brackets may only weight words.
            weighs = top.whole and top.separators in ([], [":"] if top.sign == "(" else [])
            opened[-1].whole &= edit is not None or weighs
        elif sign in tuple(_SEPARATORS[top.sign]):
            top.separate(sign)
        else:
            top.add(sign)
            top.whole &= sign not in ("(", ")", "[", "]")
    return grammar.ended(opened)


def text_at(nodes: Nodes, evaluation: int, sampling: Sampling) -> str:
    """Return the prompt's text at an evaluation of a pass."""
    return "".join(
        node
        if isinstance(node, str)
        else text_at(node.options[node.option(evaluation, sampling)], evaluation, sampling)
        for node in nodes
    )


def edits_in(prompt: str) -> Iterator[tuple[str, Edit]]:
    """Yield the edits of a prompt, each as written and as parsed."""
    text = grammar.without_loras(prompt)
    for node in parse_edits(text) if "[" in text else ():
        if isinstance(node, Edit):
            yield text[node.start : node.end], node
