"""The entries of a YAML or JSON recipe, of a `_defaults.yaml`, and of a TXT's settings.

Values know their positions. Scalars stay text: the field that reads them decides what they mean.
Values are built from PyYAML's events, so that reading a hostile file can be stopped. Errors are
PyYAML's own sentences, with hints for the most frequent causes.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from picowatch.recipe.fields import PICTURE_FIELDS, PROMPTS
from picowatch.recipe.messages.other_programs import FENCE, MERGED, words_of_others
from picowatch.recipe.messages.problems import Problems, refuse, shown
from picowatch.recipe.messages.wording import quoted
from picowatch.recipe.read import names
from picowatch.recipe.read.names import field_named
from picowatch.recipe.written import Entry, Layer, Position, Source, SourceValue, mapping_at

MAX_NODES = 50_000
MAX_DEPTH = 20
_MAX_AFTER = 300
TOO_DEEP = f"this is nested more than {MAX_DEPTH} levels deep. A recipe needs three."
TOO_MANY = f"the file holds more than {MAX_NODES:,} values."
_GENERAL = (
    "A recipe has lines like 'steps: 30', without commas and all indented alike; put text with "
    "special characters in quotes."
)
# Web pages and keyboards produce no-break and wide spaces, which look like ordinary spaces.
_OTHER_SPACES = re.compile("[\u00a0\u202f\u3000]")
_NULLS = ("", "~", "null", "Null", "NULL")
# Of valid JSON: texts, brackets, numbers and words, and line breaks; commas and colons say no more.
_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]|[^\s\[\]{},:"]+|\n')
_STARTS = {"{": yaml.MappingStartEvent, "[": yaml.SequenceStartEvent}
_ENDS = {"}": yaml.MappingEndEvent, "]": yaml.SequenceEndEvent}
_SINGLE = (yaml.ScalarEvent, yaml.AliasEvent)
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# A name and a colon without a space after it, another sign, or no sign before a number.
_NEARLY_FIELD = re.compile(
    r"\s*(?:- +)*(?P<name>\w+)"
    r"(?P<sign>:(?=\S)|\s*[=\N{FULLWIDTH COLON}]\s*|\s+(?=[-+]?\d)|(?<=prompt)\s+)"
    r"(?P<value>[^/\s].*)"
)
_FIELD = re.compile(r"\s*(?:- +)*(?P<name>[^\s:#'\"\[\]{}-][^:#'\"\[\]{}]*):[ \t]+(?P<value>.*)")
_COLOUR = re.compile(r"[:,\[{]\s+(#[0-9a-fA-F]{3,8})\s*(?:[,}\]]|$)")  # a whole value
_CONFLICT = re.compile(r"<{7} |={7}$|>{7} ")
# Characters with a meaning of their own in text without quotes, at its beginning or inside.
_SPECIAL = re.compile(r"[\[{*&!%@`|>,?\]}\"']|- |.*(?::(?:\s|$)|\s#)")


def yaml_entries(source: Source, problems: Problems) -> list[Entry]:
    """Return a YAML file's recipes: mappings, alone, in lists or in several documents."""
    documents = _compose(source, problems)
    return [entry for document in documents for entry in _entries_of(document, problems)]


def json_entries(source: Source, problems: Problems) -> list[Entry]:
    """Return a JSON file's recipes. RecipeInvalid if it is not JSON or beyond the limits."""
    # `json.loads` has the words for what is wrong; it knows no positions of values.
    try:
        json.loads(source.text, parse_int=str)
    except json.JSONDecodeError as error:
        if _CONFLICT.match(source.line(error.lineno)):
            refuse(source.whole_line(error.lineno), MERGED)
        problem = error.msg.removesuffix(" at").removesuffix(" starting")
        refuse(
            Position(source, error.lineno, error.colno),
            f"this is not JSON: {problem[0].lower()}{problem[1:]}. Names and texts have double "
            "quotes in JSON, values have commas between them and none after the last, there are no "
            "comments, and several recipes are a list: [{…}, {…}].",
        )
    except RecursionError:
        refuse(source.whole_line(1), TOO_DEEP)
    events = _json_events(source.text)
    document = _Composer(source, events, Problems(), keeps_nulls=False).node(next(events), 0)
    value = document.value if isinstance(document.value, dict) else {}
    # ComfyUI's API maps numbers to nodes, perhaps below "prompt"; its editor has a list of them.
    prompt = value.get("prompt")
    nodes = (value, *(prompt if isinstance(prompt, dict) else value).values())
    is_listed = isinstance(value.get("nodes"), tuple)
    if is_listed or any(isinstance(node, dict) and "class_type" in node for node in nodes):
        what = "this is a workflow of ComfyUI, which picowatch cannot run. To start from a picture"
        remedy = 'that it made, save the picture beside a recipe {"from": "picture.png"}.'
        problems.add(_start_of(document), f"{what} {remedy}")
        return []
    return _entries_of(document, problems)


def _entries_of(document: SourceValue, problems: Problems) -> list[Entry]:
    entries = []
    for element in document.parts if isinstance(document.value, tuple) else (document,):
        if isinstance(element.value, dict):
            entries.append(Entry(_layer_of(element, problems), _start_of(element)))
        elif element.value is not None or element is not document:
            _refuse(element, problems)
    return entries


def yaml_layer(source: Source, problems: Problems) -> Layer:
    """Return the one mapping of a `_defaults.yaml` or of a TXT's settings; {} without a mapping."""
    documents = [node for node in _compose(source, problems) if node.value is not None]
    for node in documents[1:]:
        problems.add(node.position, "settings are one mapping; this is a second document.")
    if not documents:
        return {}
    if isinstance(documents[0].value, dict):
        return _layer_of(documents[0], problems)
    problems.add(documents[0].position, "settings are lines like 'steps: 30', one per line.")
    return {}


def _layer_of(mapping: SourceValue, problems: Problems) -> Layer:
    layer: Layer = {}
    for name, value in mapping.pairs:
        if name == "$schema":  # no field: editors look there for the schema, above all in JSON
            continue
        if field := names.field_called(name, value.text):
            names.add(layer, field, name, value, problems)
        else:
            problems.add(value.name_position, names.unknown(name, value.text))
            names.excuse_prompt(layer, name, value)
    names.check_notes(layer, problems)
    return layer


def _start_of(mapping: SourceValue) -> Position:
    """Return the position of the first field's name, to point at for missing fields."""
    return mapping.pairs[0][1].name_position if mapping.pairs else mapping.position


def _refuse(node: SourceValue, problems: Problems) -> None:
    """Report text that is not a mapping: lines that are almost fields, or anything else."""
    source, line = node.position.source, node.position.line
    while found := _nearly_field(source.line(line)):
        problems.add(Position(source, line, found[0]), found[1])
        line += 1
    if line > node.position.line:
        return
    name = source.name.rpartition("/")[2].rpartition(".")[0]
    text = shown(node.position.text) if node.text else '"…"'
    instead = f"'prompt: {text}'"
    other = f", or rename the file to {name}.txt: there each line is a prompt"
    if source.name.lower().endswith(".json"):
        instead, other = f'{{"prompt": {text}}}', ""
    problems.add(node.position, f"this is not a recipe. Write {instead}{other}.")


def _compose(source: Source, problems: Problems) -> list[SourceValue]:
    """Return a YAML file's documents; report tags, anchors and references. Raises RecipeInvalid."""
    try:
        events = yaml.parse(_OTHER_SPACES.sub(" ", source.text), _LOADER)
        composer, starts = _Composer(source, events, problems), yaml.DocumentStartEvent
        return [composer.node(next(events), 0) for event in events if isinstance(event, starts)]
    except yaml.YAMLError as error:
        refuse(*_explained(source, error))


def _json_events(text: str) -> Iterator[Any]:
    """Yield the events that YAML would have for valid JSON."""
    # YAML itself allows no line break before a colon, and no names of over 1,024 characters.
    line = start = 0
    for token in _JSON_TOKEN.finditer(text):
        sign = token[0]
        if sign == "\n":
            line, start = line + 1, token.end()
            continue
        begin, end = (yaml.Mark("", at, line, at - start, None, 0) for at in token.span())
        if sign in _STARTS:
            yield _STARTS[sign](None, None, True, begin, end)
        elif sign in _ENDS:
            yield _ENDS[sign](begin, end)
        else:
            style = '"' if sign.startswith('"') else None
            value = json.loads(sign) if style else sign
            yield yaml.ScalarEvent(None, None, (True, True), value, begin, end, style)


def _nearly_field(line: str) -> tuple[int, str] | None:
    """Return the column and the remedy for a line like `steps:30`; None for any other."""
    found = _NEARLY_FIELD.fullmatch(line)
    if not found or not field_named(found["name"]):
        return None
    instead = f"{found['name']}: {shown(found['value'].rstrip(' ,'), 200)}"
    return found.start("sign") + 1, f"a field has a colon and a space: write '{instead}'."


@dataclass(slots=True)
class _Composer:
    """Builds values from events, whose marks are positions in the source."""

    source: Source
    events: Iterator[Any]
    problems: Problems
    keeps_nulls: bool = True  # without it, a null is as good as no field, unless in a prompt
    nodes: int = 0

    def node(self, event: Any, depth: int, key: Position | None = None) -> SourceValue:
        position = self.position(event)
        self.nodes += 1
        if self.nodes > MAX_NODES:
            refuse(position, TOO_MANY)
        if depth > MAX_DEPTH:
            refuse(position, TOO_DEEP)
        if event.anchor is not None and isinstance(event, yaml.CollectionStartEvent):
            refuse(position, words_of_others("<<"))  # what refers to it would be further mistakes
        if event.anchor is not None or getattr(event, "tag", None) is not None:
            sign = shown(position.text.split(maxsplit=1)[0])
            message = f"{sign} has a meaning of its own in YAML. For text, put it in quotes."
            self.problems.add(position, message)
        raw = self.source.text[event.start_mark.index : event.end_mark.index]
        if isinstance(event, _SINGLE):
            value: str | None = raw
            if isinstance(event, yaml.ScalarEvent):
                value = str(event.value)
                if event.style in ("|", ">"):  # whose last line break is syntax, not text
                    value = value.removesuffix("\n")
                elif not event.style and value in _NULLS:
                    value = None
            return SourceValue(value, position, raw, key)
        if isinstance(event, yaml.MappingStartEvent):
            pairs, end = self.pairs(depth + 1)
            return mapping_at(self.position(event, end), key, pairs)
        parts = []
        while not isinstance(inner := next(self.events), yaml.SequenceEndEvent):
            parts.append(self.node(inner, depth + 1))
        whole = self.position(event, inner)
        return SourceValue((), whole, whole.text, key).with_parts(tuple(parts))

    def pairs(self, depth: int) -> tuple[list[tuple[str, SourceValue]], Any]:
        """Return names and values of a mapping, repeated names too, and the event of its end."""
        found = []
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            name = self.node(event, depth)
            event = next(self.events)
            keeps_nulls = self.keeps_nulls
            self.keeps_nulls |= field_named(str(name.value)) in PROMPTS
            value = self.node(event, depth, name.position)
            self.keeps_nulls = keeps_nulls
            if field_named(str(name.value)) in PROMPTS and isinstance(event, yaml.ScalarEvent):
                value = self.whole(event, str(name.value), value)
            if not isinstance(name.value, str):
                message = "a field's name must be a word, as in 'steps: 30'."
                self.problems.add(name.position, message)
            elif value.value is not None or self.keeps_nulls:
                found.append((name.value, value))
        return found, event

    def whole(self, event: Any, name: str, value: SourceValue) -> SourceValue:
        """Return a prompt; "" if YAML silently drops a part of it, which is reported."""
        if event.style in ("|", ">") and not value.text.strip():
            what = f"{name} is empty: the lines of the text below {event.style} must be indented."
            self.problems.add(value.position, what)
            return value.with_value("")
        line = self.source.line(event.end_mark.line + 1)
        # A piece is enough for an error, and a line may be a megabyte with thousands of scalars.
        after = line[event.end_mark.column :][:_MAX_AFTER]
        comment = after.strip()
        if event.style or not comment.startswith("#"):
            return value
        column = event.end_mark.column + after.index("#") + 1
        text = shown(quoted(" ".join(f"{value.text}{after}".split())), 200)
        self.problems.add(
            Position(self.source, event.end_mark.line + 1, column, len(comment)),
            f"everything from this # on is a comment. If it belongs to the text, write {name}: "
            f"{text}; if it is a comment, give it a line of its own.",
        )
        return value.with_value("")

    def position(self, first: Any, last: Any = None) -> Position:
        """Return the first line of what begins and ends with these events."""
        start, end = first.start_mark, (last or first).end_mark
        line = self.source.line(start.line + 1)
        stop = end.column if end.line == start.line else len(line)
        width = len(line[start.column : stop].rstrip())
        return Position(self.source, start.line + 1, start.column + 1, max(1, width))


def _explained(source: Source, error: yaml.YAMLError) -> tuple[Position, str]:
    """Return the position where a file stops being YAML, and a message with the remedy."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or ""
    if mark is None:
        return Position(source, 1, 1), f"this is not YAML: {shown(str(error), 200)}."
    context, start = getattr(error, "context", None) or "", getattr(error, "context_mark", None)
    opened = start and Position(source, start.line + 1, start.column + 1)
    if opened and "quoted scalar" in context and "unexpected" in problem:
        return opened, f"the quote {opened.text} that opens here is never closed."
    number, column = mark.line + 1, mark.column + 1
    last = max((n for n, text in enumerate(source.lines, 1) if text.strip()), default=1)
    if number > last:  # the end of the file
        number, column = last, max(1, len(source.line(last).rstrip()))
    position = Position(source, number, column)
    if "maximum nesting depth" in problem:  # libyaml of PyYAML 6.0.4 reads ahead of the events
        return position, TOO_DEEP
    if source.line(number).startswith("```"):
        return position, FENCE
    if tabs := re.match(r" *(\t+)", source.line(number)):
        position = Position(source, number, tabs.start(1) + 1, len(tabs[1]))
        return position, "this line is indented with a tab. YAML requires spaces."
    for before in (number, number - 1):  # YAML may report only the line after it
        if found := _nearly_field(source.line(before)):
            return Position(source, before, found[0]), found[1]
    for line in (opened.line if opened else number, number, number - 1):
        if colour := _COLOUR.search(source.line(line)):
            what = f'# begins a comment here. Write "{colour[1]}" in quotes.'
            return Position(source, line, colour.start(1) + 1, len(colour[1])), what
        if _CONFLICT.match(source.line(line)):
            return source.whole_line(line), MERGED
    hint = _quotes(source.line(number))
    if opened and "flow" in context and "expected ','" in problem:
        position = opened
        hint = _quotes(source.line(opened.line)) or f"Is the {opened.text} that opens here closed?"
    return position, f"YAML cannot parse this: {shown(problem, 100)}. {hint or _GENERAL}"


def _quotes(line: str) -> str:
    """Return the hint to put a value in quotes; "" where that would not help."""
    field = _FIELD.fullmatch(line)
    value = field["value"].rstrip() if field else ""
    if not field or not _SPECIAL.match(value) or re.fullmatch(r"([\"']).*\1,", value):
        return ""
    if value[0] in "[{" and field_named(field["name"]) not in (*PROMPTS, "name"):
        return ""
    if re.search(r": +(?:\[|[\d.]+\.\.)", value):
        return "In a sweep, quote a name with a colon, as in 'prompt: red': [green, blue]."
    if field_named(field["name"]) in PICTURE_FIELDS and "\\" in value:
        return "Save the picture beside the recipe, and write its name alone."
    inner = re.fullmatch(r"([\"'])(.*)\1", value)
    text = inner[2].replace('\\"', '"') if inner else value
    return f"For text, put it in quotes: {field['name'].rstrip()}: {shown(quoted(text), 200)}"
