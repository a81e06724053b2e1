"""YAML's syntax errors in plain words: what is written there and how to write it."""

import re

import yaml

from picowatch.recipe.messages.problems import shown
from picowatch.recipe.written import Position, Source

_FIELD = re.compile(
    r"^(?P<indent>[ \t]*(?:- +)*)"
    r"(?P<key>[^\s:#'\"\[\]{}-][^:#'\"\[\]{}]*):(?:[ \t]+(?P<value>.*)|$)"
)
# What a character means to YAML at the start of a value.
_MEANINGS = {
    "[": "a list",
    "{": "a mapping",
    "*": "a reference",
    "&": "a name for what follows",
    "!": "a tag",
    "%": "a directive",
    "@": "a reserved character",
    "`": "a reserved character",
    "|": "a block of text below",
    ">": "a block of text below",
    ",": "a separator",
    "?": "a key",
    "-": "a list element",
    "]": "the end of a list",
    "}": "the end of a mapping",
}


def explain_syntax(source: Source, error: yaml.YAMLError) -> tuple[Position, str]:
    """Where a YAML file stops being YAML, and what to do about it."""
    mark = getattr(error, "problem_mark", None)
    context = getattr(error, "context_mark", None)
    if mark is None:
        return Position(source, 1, 1), f"this is not YAML ({shown(str(error), 200)})."
    line, column = _within(source, mark.line + 1, mark.column + 1)
    quote = _quote_mistake(source, context or mark, line, column)
    return (
        quote
        or _tab(source, line)
        or _missing_colon(source, line)
        or _special_start(source, line)
        or _second_colon(source, line)
        or _outside_of_list(source, line)
        or (Position(source, line, column), _general(error))
    )


def quoted(text: str) -> str:
    """The text as a YAML single-quoted scalar."""
    return "'" + text.replace("'", "''") + "'"


def _within(source: Source, line: int, column: int) -> tuple[int, int]:
    """The position, or the end of the last line that holds anything if it lies after that."""
    last = max(
        (number for number, text in enumerate(source.lines, 1) if text.strip()),
        default=1,
    )
    return (line, column) if line <= last else (last, max(1, len(source.line(last).rstrip())))


_Explained = tuple[Position, str] | None


def _tab(source: Source, line: int) -> _Explained:
    found = re.match(r" *(\t+)", source.line(line))
    if not found:
        return None
    position = Position(source, line, found.start(1) + 1, len(found[1]))
    return position, "this line is indented with a tab. YAML requires spaces."


def _quote_mistake(source: Source, start: yaml.Mark, line: int, column: int) -> _Explained:
    """A quote that never closes, text after a closing quote, an escape YAML does not know.

    `start` is where YAML began to read what it could not finish.
    """
    opening = source.line(start.line + 1)[start.column : start.column + 1]
    if opening and opening in "'\"":
        position = Position(source, start.line + 1, start.column + 1)
        unclosed = position, f"the quote {opening} that opens here is never closed."
        return (opening == '"' and _unknown_escape(source, line, column)) or unclosed
    field = _FIELD.match(source.line(line))
    value = (field["value"] or "").rstrip() if field else ""
    if field and value.startswith(("'", '"')):
        return Position(source, line, column), (
            f"there is more text after the closing quote. Put the quotes around all of it: "
            f"{_key(field)}: {shown(quoted(_without_quotes(value)), 200)}"
        )
    return None


def _without_quotes(value: str) -> str:
    """The text that somebody put into quotes which it holds, too."""
    quote = value[0]
    if len(value) < 2 or not value.endswith(quote):
        return value
    return value[1:-1].replace('\\"', '"') if quote == '"' else value[1:-1]


def _unknown_escape(source: Source, line: int, column: int) -> _Explained:
    # libyaml's mark is at the backslash, the Python parser's after it.
    text = source.line(line)
    for at in (column - 1, column - 2):
        if text[max(0, at) :].startswith("\\"):
            return Position(source, line, at + 1, 2), (
                f"in double quotes a backslash begins an escape, and YAML has no "
                f"{shown(text[at : at + 2])}. Use single quotes, or write the backslash twice."
            )
    return None


def _key(field: re.Match[str]) -> str:
    return shown(field["key"].rstrip())


def _missing_colon(source: Source, line: int) -> _Explained:
    """`steps:30` or `steps 30`: YAML only stumbles over the line after it."""
    for number in (line, *_line_before(source, line)):
        text = source.line(number)
        tight = re.match(r"^\s*(?:- +)*([a-z_]+):(?=[^\s/])", text)
        if tight:
            position = Position(source, number, tight.end(1) + 1)
            return position, f"a space is missing after the colon: write '{tight[1]}: …'."
        if number < line and not _FIELD.match(text) and re.match(r"[^\s\"'\[{#.-]", text):
            end = len(text.rstrip())
            return Position(source, number, 1, end), (
                "this line has no 'name: value'. Write 'prompt: …', or for a file with one "
                "prompt per line use the ending .txt."
            )
    return None


def _line_before(source: Source, line: int) -> list[int]:
    before = (n for n in range(line - 1, 0, -1) if source.line(n).strip())
    number = next((n for n in before if not source.line(n).lstrip().startswith("#")), None)
    return [number] if number else []


def _special_start(source: Source, line: int) -> _Explained:
    field = _FIELD.match(source.line(line))
    value = (field["value"] or "").rstrip() if field else ""
    if not field or value[:1] not in _MEANINGS or not value:
        return None
    position = Position(source, line, field.start("value") + 1)
    return position, (
        f"YAML reads {value[0]} at the start of a value as {_MEANINGS[value[0]]}. For text, put "
        f"it in quotes: {_key(field)}: {shown(quoted(value), 200)}"
    )


def _second_colon(source: Source, line: int) -> _Explained:
    text = source.line(line)
    field = _FIELD.match(text)
    if not field:
        return None
    value = (field["value"] or "").rstrip()
    colon = re.search(r":(?=\s|$)", value)
    if colon:
        position = Position(source, line, field.start("value") + colon.start() + 1)
        return position, (
            "YAML reads this ': ' as the start of another field. Put the text in quotes: "
            f"{_key(field)}: {shown(quoted(value), 200)}"
        )
    if field["indent"].strip(" ") == "" and field["indent"]:
        start = field.start("key")
        return Position(source, line, start + 1, len(field["key"].rstrip())), (
            f"'{_key(field)}' is indented deeper than the field above it, so YAML takes "
            "the line as more of that field's text. Put it right below, without the spaces."
        )
    return None


def _outside_of_list(source: Source, line: int) -> _Explained:
    text = source.line(line)
    dash = text.lstrip().startswith("- ")
    earlier = any(other.lstrip().startswith("- ") for other in source.lines[: line - 1])
    if _FIELD.match(text) and not dash and earlier:
        return Position(source, line, 1), (
            "this line is outside the list above. Indent it like the fields of its "
            "element, or begin it with '- ' to start the next recipe."
        )
    if dash:
        return Position(source, line, len(text) - len(text.lstrip()) + 1), (
            "a list begins here in the middle of a mapping. A file holds either one recipe, or "
            "a list in which each recipe begins with '- '."
        )
    return None


def _general(error: yaml.YAMLError) -> str:
    problem = getattr(error, "problem", None) or str(error)
    return (
        f"YAML cannot parse this ({shown(str(problem), 100)}). A recipe has lines like "
        "'steps: 30'; put text with special characters in quotes."
    )
