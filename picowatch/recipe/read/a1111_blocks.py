"""Where A1111's "generation parameters" begin and end in a text.

The format: the prompt, a line `Negative prompt: …`, a line `Steps: 24, Sampler: …, …`. Programs
and web pages change it on the way, so these are understood, too:

- indented lines, and lines below the `Steps:` line that go on with it (a mail program's);
- what extensions and A1111's page write below it: `Template:` and `Negative Template:`
  (https://github.com/adieyal/sd-dynamic-prompts, pnginfo_saver), `Version:`, `Time taken:`,
  `Used embeddings:` (A1111's sd_hijack);
- all in one line: exiftool shows each line break as a dot
  (https://github.com/daveschumaker/artbot-for-stable-diffusion/pull/147), pages as a space.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import NamedTuple

from picowatch.recipe.written import Source

# Ten thousand prompts of twenty lines.
MAX_LINES = 200_000
_NEGATIVE = re.compile(r"\s*Negative [Pp]rompt:")
# Two values at least, or the word Sampler: a prompt does not begin like that.
_UNMISTAKABLE = r"Steps:\s*\d+\s*,\s*[A-Za-z][\w \-/.]*:|Steps:.*\bSampler:"
_UNMISTAKABLE_STEPS = re.compile(rf"\s*(?:{_UNMISTAKABLE})")
# Within A1111's text the line may lack all other values.
_STEPS = re.compile(rf"\s*(?:Steps:\s*\d+\s*(?:,|$)|{_UNMISTAKABLE})")
_MIDDLE_STEPS = re.compile(r"\bSteps:\s*\d+\s*,\s*[A-Za-z][\w \-/.]*:")
_MIDDLE_NEGATIVE = re.compile(r"Negative [Pp]rompt:")
_MIDDLE_TEMPLATE = re.compile(r"(?:Negative )?Template:")
_HEADING = re.compile(r"\s*(?:Parameters|User Comment)\s*:\s*")
_TEMPLATE = re.compile(r"\s*(?:Negative )?Template:")
_REMARK = re.compile(
    r"\s*(?:(?:Negative )?Template|Version|Time taken|Used embeddings|Torch active/reserved"
    r"|Sys VRAM):|\s*A: [\d.]+ GB, R: "
)
_KEY = re.compile(r"\s*(?P<key>\w[\w \-/.]*):")


class Line(NamedTuple):
    """A line of such a text, or the part of a file's line that would be one: where it begins.

    `is_whole`: all of the block stands in the file's line that this part begins. There may be
    many, and a frozen dataclass takes four times as long to make.
    """

    number: int
    column: int
    text: str
    is_whole: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """The lines of one picture: prompts, the `Steps:` line and those that go on with it."""

    text: tuple[Line, ...]
    values: tuple[Line, ...] = ()


def holds_parameters(text: str) -> bool:
    """Whether a text is A1111's: a `Negative prompt:` line, or values that begin with `Steps:`."""
    return any(
        _NEGATIVE.match(line) or _UNMISTAKABLE_STEPS.match(line) or _MIDDLE_STEPS.search(line)
        for line in text.split("\n")
    )


def names_parameters(text: str) -> bool:
    """The same for the text of a prompt, also where line breaks were lost."""
    return ":" in text and bool(_MIDDLE_NEGATIVE.search(text) or holds_parameters(text))


def begins_parameters(text: str) -> bool:
    """The same for a text that could be YAML, in which prompts are indented."""
    return any(
        not line[:1].isspace() and (_NEGATIVE.match(line) or _UNMISTAKABLE_STEPS.match(line))
        for line in text.split("\n")
    )


def negative_in(line: Line) -> Line | None:
    """What a `Negative prompt:` line says; None for other lines."""
    found = _NEGATIVE.match(line.text)
    return _part(line, found.end()) if found else None


def blocks(source: Source, known_keys: frozenset[str]) -> Iterator[Block]:
    """The blocks of a file. A `Steps:` line, and what belongs below it, ends one.

    Without such lines between them, `Negative prompt:` lines are separated by blank lines.
    `known_keys` are those of values, in lower case.
    """
    lines = _lines(source)
    start = number = 0
    while number < len(lines):
        if lines[number].is_whole:
            yield from _blocks_without_steps(lines[start:number])
            start = number
        if _STEPS.match(lines[number].text):
            *before, last = _parted(lines[start:number])
            yield from (Block(tuple(part)) for part in before)
            start, values = _values(lines, number, known_keys)
            yield Block(tuple(last), values)
            number = start
        else:
            number += 1
    yield from _blocks_without_steps(lines[start:])


def block_of_picture(source: Source) -> Block:
    """The one block of a picture's text: all below its last `Steps:` line belongs to that."""
    lines = _lines(source)
    steps = [number for number, line in enumerate(lines) if _STEPS.match(line.text)]
    if not steps:
        return Block(tuple(lines))
    values = []
    for line in lines[steps[-1] :]:
        if _TEMPLATE.match(line.text):
            break
        if not _REMARK.match(line.text):
            values.append(line)
    return Block(tuple(lines[: steps[-1]]), tuple(values))


def _lines(source: Source) -> list[Line]:
    lines: list[Line] = []
    for number, text in enumerate(source.lines, 1):
        line = Line(number, 1, text)
        if ":" in text:
            lines += _split(line)
        else:
            lines.append(line)
    return lines


def _split(line: Line) -> Iterator[Line]:
    """The lines that one line was made of, without a heading before them."""
    heading = _HEADING.match(line.text)
    if heading:
        line = _part(line, heading.end())
    steps = _MIDDLE_STEPS.search(line.text) if "Steps:" in line.text else None
    if not steps or not line.text[: steps.start()].strip():
        yield line
        return
    starts = {0, steps.start()}
    if not _NEGATIVE.match(line.text):
        negative = _MIDDLE_NEGATIVE.search(line.text, 0, steps.start())
        starts |= {negative.start()} if negative else set()
    starts |= {found.start() for found in _MIDDLE_TEMPLATE.finditer(line.text, steps.end())}
    for start, end in pairwise([*sorted(starts), len(line.text)]):
        part = _part(line, start, end)
        is_last = end == len(line.text)
        text = part.text if is_last else part.text.removesuffix(".")
        yield part._replace(text=text, is_whole=start == 0 and not _NEGATIVE.match(text))


def _part(line: Line, start: int, end: int | None = None) -> Line:
    return Line(line.number, line.column + start, line.text[start:end])


def _values(
    lines: Sequence[Line], number: int, known_keys: frozenset[str]
) -> tuple[int, tuple[Line, ...]]:
    """The index after a `Steps:` line with all that belongs below it, and the lines of values."""
    values = [lines[number]]
    number += 1
    while number < len(lines):
        following = number
        while following < len(lines) and not lines[following].text.strip():
            following += 1
        line = lines[number]
        key = None if line.is_whole or _STEPS.match(line.text) else _KEY.match(line.text)
        if following < len(lines) and _REMARK.match(lines[following].text):
            number = _end_of_remark(lines, following)
        elif key and key["key"].casefold() in known_keys:
            values.append(line)
            number += 1
        else:
            break
    return number, tuple(values)


def _end_of_remark(lines: Sequence[Line], number: int) -> int:
    """The index after it. A template has as many lines as its prompt had, other remarks one.

    A template goes on to the next one, to a blank line or to the end. If the next block's
    `Steps:` line comes before all of these, one line of it is all that is certain.
    """
    if not _TEMPLATE.match(lines[number].text):
        return number + 1
    blank = None
    for index in range(number + 1, len(lines)):
        if _TEMPLATE.match(lines[index].text):
            return index
        if _STEPS.match(lines[index].text):
            return blank or number + 1
        if blank is None and not lines[index].text.strip():
            blank = index
    return blank or len(lines)


def _blocks_without_steps(lines: Sequence[Line]) -> Iterator[Block]:
    yield from (Block(tuple(paragraph)) for paragraph in _paragraphs(lines))


def _parted(lines: Sequence[Line]) -> list[Sequence[Line]]:
    """The prompts' lines above a `Steps:` line, and before them those of blocks without one."""
    if sum(bool(_NEGATIVE.match(line.text)) for line in lines) <= 1:
        return [lines]
    paragraphs = _paragraphs(lines)
    last = max(
        index
        for index, paragraph in enumerate(paragraphs)
        if any(_NEGATIVE.match(line.text) for line in paragraph)
    )
    return [*paragraphs[:last], lines[lines.index(paragraphs[last][0]) :]]


def _paragraphs(lines: Sequence[Line]) -> list[list[Line]]:
    runs = groupby(lines, lambda line: bool(line.text.strip()))
    return [list(run) for is_filled, run in runs if is_filled]
