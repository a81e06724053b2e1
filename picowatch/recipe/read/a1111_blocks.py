"""Where A1111's "generation parameters" begin and end in a text.

A block is the prompt, a line `Negative prompt: …`, and a line of values, `Steps: 24, Sampler: …`.
Capitals do not count: people write the lines by hand. A line of values may go on in the next one.
Below it stand remarks of A1111's page and of extensions, which are no prompts: `Template:`
(https://github.com/adieyal/sd-dynamic-prompts), `Time taken:`, `Used embeddings:`.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from picowatch.recipe.a1111_keys import KNOWN
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.written import Source

_NEGATIVE = re.compile(r"\s*Negative prompt:", re.IGNORECASE)
_STEPS = re.compile(r"\s*Steps:", re.IGNORECASE)
_STEPS_ALONE = re.compile(r"\s*Steps:\s*\d+\s*,?\s*", re.IGNORECASE)
# A key; longer ones are no keys, and would take long to be sure of.
KEY = r"(?P<key>\w[\w \-/.]{0,60}):"
_KEY = re.compile(rf"\s*{KEY}")
_NEXT_KEY = re.compile(rf",\s*{KEY}")
_WITHIN = re.compile(rf"\bSteps:\s*\d+\s*,\s*{KEY}")
_REMARK = re.compile(
    r"\s*(?:(?:Negative )?Template:|Time taken:|Used embeddings:|Torch active/reserved:|Sys VRAM:"
    r"|A: [\d.]+ GB, R: )"
)


# Ten thousand prompts of twenty lines.
MAX_LINES = 200_000


class Line(NamedTuple):
    """A line of such a text, or what of it follows `Negative prompt:`: where that begins."""

    number: int
    column: int
    text: str


class Block(NamedTuple):
    """The lines of one picture: its prompts, and its values."""

    text: Sequence[Line]
    values: Sequence[Line] = ()


def holds_parameters(text: str) -> bool:
    """Whether a text is A1111's: one of its lines says values, or begins the negative prompt."""
    return any(_NEGATIVE.match(line) or _says_values(line) for line in text.split("\n"))


def begins_parameters(text: str) -> bool:
    """Whether a text that could be YAML, in which prompts are indented, has a line of values."""
    return any(not line[:1].isspace() and _says_values(line) for line in text.split("\n"))


def why_no_prompt(line: str) -> str | None:
    """What to say of a line that has values within it; None for a prompt."""
    for found in _WITHIN.finditer(line):
        if _is_known(found):
            return (
                f"'{shown(found[0])} …' looks like A1111's settings within a prompt. Write the "
                "prompt, 'Negative prompt: …' and 'Steps: …' in a line each."
            )
    return None


def negative_in(line: Line) -> Line | None:
    """What a line says of the negative prompt; None for other lines."""
    found = _NEGATIVE.match(line.text)
    if found is None:
        return None
    return Line(line.number, line.column + found.end(), line.text[found.end() :])


def blocks(source: Source) -> Iterator[Block]:
    """The blocks of a file: each ends with its values.

    Without values between them, `Negative prompt:` lines are parted by blank lines.
    """
    lines = _lines(source)
    start = number = 0
    while number < len(lines):
        if _begins_values(lines[number]):
            *before, text = _parted(lines[start:number])
            yield from map(Block, before)
            end = _end_of_values(lines, number)
            yield Block(text, lines[number:end])
            start = number = _end_of_remarks(lines, end)
        else:
            number += 1
    yield from map(Block, _paragraphs(lines[start:]))


def block_of_picture(source: Source) -> Block:
    """The one block of a picture's text, whose last values are the picture's."""
    lines = _lines(source)
    starts = [number for number, line in enumerate(lines) if _begins_values(line)]
    if not starts:
        return Block(lines)
    return Block(lines[: starts[-1]], lines[starts[-1] : _end_of_values(lines, starts[-1])])


def _lines(source: Source) -> list[Line]:
    return [Line(number, 1, text) for number, text in enumerate(source.lines, 1)]


def _says_values(line: str) -> bool:
    """Whether a line begins with steps, and another of A1111's keys follows."""
    found = _STEPS.match(line)
    return found is not None and any(map(_is_known, _NEXT_KEY.finditer(line, found.end())))


def _is_known(found: re.Match[str]) -> bool:
    return found["key"].rstrip().casefold() in KNOWN


def _begins_values(line: Line) -> bool:
    return bool(_STEPS_ALONE.fullmatch(line.text)) or _says_values(line.text)


def _end_of_values(lines: Sequence[Line], number: int) -> int:
    """The index after the values that begin there.

    They go on in a line that begins with a known key, or, after a comma, with any.
    """
    number += 1
    while number < len(lines) and _goes_on(lines[number - 1].text, lines[number].text):
        number += 1
    return number


def _goes_on(before: str, line: str) -> bool:
    key = _KEY.match(line)
    if not key or _STEPS.match(line) or _NEGATIVE.match(line) or _REMARK.match(line):
        return False
    return _is_known(key) or before.rstrip().endswith(",")


def _end_of_remarks(lines: Sequence[Line], number: int) -> int:
    """The index after the remarks below the values.

    Each goes on to the next blank line, but where values come before that, it is one line.
    """
    while True:
        first = number
        while first < len(lines) and not lines[first].text.strip():
            first += 1
        if first == len(lines) or not _REMARK.match(lines[first].text):
            return number
        number = first + 1
        while number < len(lines) and lines[number].text.strip():
            if _begins_values(lines[number]):
                return first + 1
            number += 1


def _parted(lines: Sequence[Line]) -> list[Sequence[Line]]:
    """The prompts' lines above values, and before them those of blocks that have none."""
    if sum(bool(_NEGATIVE.match(line.text)) for line in lines) <= 1:
        return [lines]
    paragraphs = _paragraphs(lines)
    last = max(
        index
        for index, paragraph in enumerate(paragraphs)
        if any(_NEGATIVE.match(line.text) for line in paragraph)
    )
    return [*paragraphs[:last], lines[lines.index(paragraphs[last][0]) :]]


def _paragraphs(lines: Sequence[Line]) -> list[Sequence[Line]]:
    runs = groupby(lines, lambda line: bool(line.text.strip()))
    return [list(run) for is_filled, run in runs if is_filled]
