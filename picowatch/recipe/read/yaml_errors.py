"""Why a file is no YAML: PyYAML's own sentence, and a hint for what most often causes it."""

import re

import yaml

from picowatch.recipe.fields import PROMPTS
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.messages.wording import quoted
from picowatch.recipe.read.names import field_named
from picowatch.recipe.written import Position, Source

MAX_DEPTH = 20
TOO_DEEP = f"this is nested more than {MAX_DEPTH} deep. A recipe needs three."
FENCE = "```"
ABOUT_FENCE = f"{FENCE} is how chats and web pages mark a text. Delete the lines that have it."
_GENERAL = (
    "A recipe has lines like 'steps: 30', without commas and all indented alike; put text with "
    "special characters in quotes."
)
# A name, and a colon without a space after it, or another sign or none before a number.
_NEARLY_FIELD = re.compile(
    r"\s*(?:- +)*(?P<name>\w+)"
    r"(?P<sign>:(?=\S)|\s*[=\N{FULLWIDTH COLON}]\s*|\s+(?=[-+]?\d)|(?<=prompt)\s+)"
    r"(?P<value>[^/\s].*)"
)
_FIELD = re.compile(r"\s*(?:- +)*(?P<name>[^\s:#'\"\[\]{}-][^:#'\"\[\]{}]*):[ \t]+(?P<value>.*)")
# A sweep over a piece of something, without the quotes around its name.
_PIECE = re.compile(r"\s*(?P<name>\w+: +(?! )[^:\[{]+):(?P<values> +(?:\[.*|[\d.]+\.\..*))")
# What has a meaning of its own in a text without quotes, at its beginning or within.
_SPECIAL = re.compile(r"[\[{*&!%@`|>,?\]}\"']|- |.*(?::(?:\s|$)|\s#)")


def explain_syntax(source: Source, error: yaml.YAMLError) -> tuple[Position, str]:
    """Where a YAML file stops being YAML, and what to do about it."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or ""
    if mark is None:
        return Position(source, 1, 1), f"this is not YAML: {shown(str(error), 200)}."
    context, start = getattr(error, "context", None) or "", getattr(error, "context_mark", None)
    if start and "quoted scalar" in context and "unexpected" in problem:
        position = Position(source, start.line + 1, start.column + 1)
        return position, f"the quote {position.text} that opens here is never closed."
    position = _within(source, mark.line + 1, mark.column + 1)
    if "maximum nesting depth" in problem:  # libyaml of PyYAML 6.0.4 reads ahead of the events
        return position, TOO_DEEP
    if source.line(position.line).startswith(FENCE):
        return source.whole_line(position.line), ABOUT_FENCE
    if known := _tab(position) or _space_after_colon(position):
        return known
    hint = _quotes(position)
    if start and "flow" in context and "expected ','" in problem:
        position = Position(source, start.line + 1, start.column + 1)
        hint = _quotes(position) or f"Is the {position.text} that opens here closed?"
    return position, f"YAML cannot parse this: {shown(problem, 100)}. {hint or _GENERAL}"


def nearly_field(line: str) -> tuple[int, str] | None:
    """The column and the remedy for a line like `steps:30`; None for any other."""
    found = _NEARLY_FIELD.fullmatch(line)
    name = field_named(found["name"]) if found else None
    if not found or not name:
        return None
    instead = f"{found['name']}: {shown(found['value'].rstrip(), 200)}"
    return found.start("sign") + 1, f"a field has a colon and a space: write '{instead}'."


def quoted_name(text: str) -> str:
    """The text as a field's name in quotes."""
    return quoted(text) if '"' in text or "\\" in text else f'"{text}"'


def _within(source: Source, line: int, column: int) -> Position:
    """The position, or the end of the last line that holds anything if it lies after that."""
    last = max((n for n, text in enumerate(source.lines, 1) if text.strip()), default=1)
    if line > last:
        line, column = last, max(1, len(source.line(last).rstrip()))
    return Position(source, line, column)


def _tab(position: Position) -> tuple[Position, str] | None:
    found = re.match(r" *(\t+)", position.source.line(position.line))
    if not found:
        return None
    tabs = Position(position.source, position.line, found.start(1) + 1, len(found[1]))
    return tabs, "this line is indented with a tab. YAML requires spaces."


def _space_after_colon(position: Position) -> tuple[Position, str] | None:
    """YAML may only stumble over the line after it."""
    for number in (position.line, position.line - 1):
        if found := nearly_field(position.source.line(number)):
            return Position(position.source, number, found[0]), found[1]
    return None


def _quotes(position: Position) -> str:
    line = position.source.line(position.line)
    if piece := _PIECE.fullmatch(line):
        written = f"{quoted_name(piece['name'])}:{piece['values']}"
        return f"For a sweep, put the name in quotes: {shown(written, 200)}"
    field = _FIELD.fullmatch(line)
    value = field["value"].rstrip() if field else ""
    if not field or not _SPECIAL.match(value) or re.fullmatch(r"([\"']).*\1,", value):
        return ""
    if value[0] in "[{" and field_named(field["name"]) not in PROMPTS:
        return ""
    inner = re.fullmatch(r"([\"'])(.*)\1", value)
    text = inner[2].replace('\\"', '"') if inner else value
    return f"For text, put it in quotes: {field['name'].rstrip()}: {shown(quoted(text), 200)}"
