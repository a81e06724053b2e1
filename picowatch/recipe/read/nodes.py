"""YAML and JSON text to values that know their positions, within limits.

Scalars stay text: what it means is decided by the field that reads it. Values are built from
PyYAML's events, so that a hostile file is stopped while it is read.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from picowatch.recipe.messages.problems import Problems, refuse, shown
from picowatch.recipe.read.yaml_errors import MAX_DEPTH, TOO_DEEP, explain_syntax
from picowatch.recipe.written import Position, Source, Written, list_at, mapping_at

MAX_NODES = 50_000

_OTHER_SPACES = re.compile("[\u00a0\u202f\u3000]")
_SPACE = "[ \u00a0\u202f\u3000]"
_BEFORE_VALUE = re.compile(f"^{_SPACE}*(?:-{_SPACE}+)*(?:\\w+:{_SPACE}+)?")
_NULLS = ("", "~", "null", "Null", "NULL")
# Half a character outside of the first 65,536: JSON writes two escapes, YAML has one for all of it.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def compose(source: Source, problems: Problems) -> list[Written]:
    """The documents of a YAML file.

    Tags, anchors and references go to `problems`. Raises RecipeInvalid when it is no YAML or
    beyond the limits: then nothing else is known.
    """
    return _composed(source, _with_plain_spaces(source), _yaml_scalar, problems)


def compose_json(source: Source) -> Written:
    """The value of a JSON file. Raises RecipeInvalid when it is no JSON or beyond the limits.

    PyYAML finds the positions, once `json.loads` has accepted the text.
    """
    try:
        json.loads(source.text, parse_int=str)
    except json.JSONDecodeError as error:
        refuse(*_explain_json(source, error))
    except RecursionError:
        refuse(source.whole_line(1), TOO_DEEP)
    text = _SURROGATE.sub("tttttt", source.text.replace("\t", " "))
    return _composed(source, text, _json_scalar, Problems())[0]


def _composed(
    source: Source, text: str, scalar: "_ReadScalar", problems: Problems
) -> list[Written]:
    try:
        return list(_Composer(source, text, scalar, problems).documents())
    except yaml.YAMLError as error:
        refuse(*explain_syntax(source, error))


def _yaml_scalar(event: Any, raw: str) -> str | None:
    text = str(event.value)
    if not event.style and text in _NULLS:
        return None
    if event.style in ("|", ">"):
        # The last line break is how blocks are written, not part of what is meant.
        return text.removesuffix("\n")
    return text


def _json_scalar(event: Any, raw: str) -> str | None:
    if event.style == '"':
        return str(json.loads(raw))
    return None if raw == "null" else raw


_ReadScalar = Callable[[Any, str], str | None]


class _Composer:
    """Reads `text`, which has as many characters as the source's and may differ in spaces."""

    def __init__(
        self, source: Source, text: str, read_scalar: _ReadScalar, problems: Problems
    ) -> None:
        self.source = source
        self.problems = problems
        self.read_scalar = read_scalar
        self.events: Iterator[Any] = yaml.parse(text, _LOADER)
        self.nodes = 0

    def documents(self) -> Iterator[Written]:
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                yield self.node(next(self.events), 0)

    def node(self, event: Any, depth: int, key: Position | None = None) -> Written:
        position = self.position(event)
        self.nodes += 1
        if self.nodes > MAX_NODES:
            refuse(position, f"the file holds more than {MAX_NODES:,} values.")
        if depth > MAX_DEPTH:
            refuse(position, TOO_DEEP)
        if event.anchor is not None or getattr(event, "tag", None) is not None:
            sign = shown(position.text.split(maxsplit=1)[0])
            message = f"{sign} has a meaning of its own in YAML. If it is text, put it in quotes."
            self.problems.add(position, message)
        if isinstance(event, yaml.ScalarEvent | yaml.AliasEvent):
            raw = self.raw(event)
            is_text = isinstance(event, yaml.ScalarEvent)
            return Written(self.read_scalar(event, raw) if is_text else raw, position, raw, key)
        if isinstance(event, yaml.MappingStartEvent):
            pairs, end = self.pairs(depth + 1)
            return mapping_at(self.position(event, end), key, pairs)
        parts, end = self.elements(depth + 1)
        return list_at(self.position(event, end), key, parts)

    def elements(self, depth: int) -> tuple[list[Written], Any]:
        """The elements of a list, and the event of its end."""
        found = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            found.append(self.node(event, depth))
        return found, event

    def pairs(self, depth: int) -> tuple[list[tuple[str, Written]], Any]:
        """The names and values of a mapping, repeated ones too, and the event of its end."""
        found = []
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            name = self.node(event, depth)
            value = self.node(next(self.events), depth, name.position)
            if isinstance(name.value, str):
                found.append((name.value, value))
            else:
                message = "a field's name must be a word, as in 'steps: 30'."
                self.problems.add(name.position, message)
        return found, event

    def raw(self, event: Any) -> str:
        return self.source.text[event.start_mark.index : event.end_mark.index]

    def position(self, first: Any, last: Any = None) -> Position:
        """The first line of what begins and ends with these events."""
        start, end = first.start_mark, (last or first).end_mark
        line = self.source.line(start.line + 1)
        stop = end.column if end.line == start.line else len(line)
        width = len(line[start.column : stop].rstrip())
        return Position(self.source, start.line + 1, start.column + 1, max(1, width))


def _with_plain_spaces(source: Source) -> str:
    """The text with spaces where YAML needs them, and people see no difference.

    Editors leave tabs on otherwise empty lines. Web pages and keyboards give no-break and wide
    spaces, which are meant where lines are indented, and after a dash and a field's name.
    """
    lines = (line if line.strip() else " " * len(line) for line in source.lines)
    if not _OTHER_SPACES.search(source.text):
        return "\n".join(lines)
    return "\n".join(
        _BEFORE_VALUE.sub(lambda start: _OTHER_SPACES.sub(" ", start[0]), line) for line in lines
    )


def _explain_json(source: Source, error: json.JSONDecodeError) -> tuple[Position, str]:
    problem = error.msg.removesuffix(" at").removesuffix(" starting")
    return Position(source, error.lineno, error.colno), (
        f"this is not JSON: {problem[0].lower()}{problem[1:]}. Names and texts have double quotes "
        "in JSON, values have commas between them and none after the last, there are no comments, "
        "and several recipes are a list: [{…}, {…}]."
    )
