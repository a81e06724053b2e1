"""YAML text to values that know their positions, within limits.

Built from the parser's events instead of its composer, so that a hostile file is stopped while
it is read: deep nesting, thousands of aliases and anchors that multiply (YAML bombs) never
take more than a moment. Nothing is ever constructed but text, lists and mappings.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import yaml

from picowatch.recipe.messages.problems import Problems, refuse, shown
from picowatch.recipe.read.plain import plain_value
from picowatch.recipe.read.yaml_errors import explain_syntax
from picowatch.recipe.written import Position, Source, Written, list_at, mapping_at

MAX_DEPTH = 20
MAX_ALIASES = 200
MAX_NODES = 50_000

_OTHER_SPACES = re.compile("[\u00a0\u202f\u3000]")
_SPACE = "[ \u00a0\u202f\u3000]"
_BEFORE_VALUE = re.compile(f"^{_SPACE}*(?:-{_SPACE}+)*(?:[a-z_]+:{_SPACE}+)?")

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def compose(source: Source, problems: Problems) -> list[Written]:
    """The documents of a YAML file; tags, and undefined aliases, go to `problems`.

    Raises RecipeInvalid when it is no YAML or beyond the limits: then nothing else is known.
    """
    try:
        return list(_Composer(source, problems).documents())
    except yaml.YAMLError as error:
        refuse(*explain_syntax(source, error))


class _Composer:
    def __init__(self, source: Source, problems: Problems) -> None:
        self.source = source
        self.problems = problems
        self.events: Iterator[Any] = yaml.parse(_with_plain_spaces(source), _LOADER)
        # With how many values each holds; None while it is read.
        self.anchors: dict[str, tuple[Written, int] | None] = {}
        self.unused: dict[str, Position] = {}
        self.aliases = 0
        self.nodes = 0

    def documents(self) -> Iterator[Written]:
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                self.anchors, self.unused = {}, {}
                yield self.node(next(self.events), 0)
            elif isinstance(event, yaml.DocumentEndEvent):
                self.refuse_unused_anchors()

    def node(self, event: Any, depth: int, key: Position | None = None) -> Written:
        position = self.position(event)
        if isinstance(event, yaml.AliasEvent):
            return self.alias(str(event.anchor), position, key)
        before = self.nodes
        self.count(1, position)
        if event.tag is not None:
            self.problems.add(position, _about_tag(self.raw(event)))
        if depth > MAX_DEPTH:
            refuse(position, f"this is nested more than {MAX_DEPTH} deep. A recipe needs three.")
        if event.anchor is not None:
            self.anchors[event.anchor] = None
            self.unused[event.anchor] = position
        node = self.built(event, position, depth, key)
        if event.anchor is not None:
            self.anchors[event.anchor] = node, self.nodes - before
        return node

    def built(self, event: Any, position: Position, depth: int, key: Position | None) -> Written:
        if isinstance(event, yaml.ScalarEvent):
            return self.scalar(event, position, key)
        is_mapping = isinstance(event, yaml.MappingStartEvent)
        children: list[Written] = []
        for child in self.events:
            if isinstance(child, yaml.SequenceEndEvent | yaml.MappingEndEvent):
                break
            has_name = is_mapping and len(children) % 2
            name = children[-1].position if has_name else None
            children.append(self.node(child, depth + 1, name))
        raw = self.source.text[event.start_mark.index : child.end_mark.index].strip()
        if is_mapping:
            return mapping_at(position, raw, key, children[::2], children[1::2])
        return list_at(position, raw, key, children)

    def scalar(self, event: Any, position: Position, key: Position | None) -> Written:
        value: object = event.value
        if not event.style:
            value = plain_value(event.value)
        elif event.style in "|>":
            # Its last line break is how blocks are written, not part of what is meant.
            value = event.value.removesuffix("\n")
        return Written(value, position, self.raw(event), key, style=event.style or "")

    def alias(self, name: str, position: Position, key: Position | None) -> Written:
        self.aliases += 1
        if self.aliases > MAX_ALIASES:
            refuse(position, f"more than {MAX_ALIASES} aliases (*name) in one file.")
        self.unused.pop(name, None)
        anchor = self.anchors.get(name)
        if anchor is None:
            self.problems.add(position, _about_alias(name, name in self.anchors))
            return Written("", position, f"*{name}", key, style="'")
        node, size = anchor
        self.count(size, position)
        return replace(node, key=key)

    def count(self, size: int, position: Position) -> None:
        """Count what is added: an alias adds all that its anchor holds."""
        self.nodes += size
        if self.nodes > MAX_NODES:
            refuse(position, f"the file holds more than {MAX_NODES:,} values.")

    def refuse_unused_anchors(self) -> None:
        for name, position in self.unused.items():
            self.problems.add(
                position,
                f"YAML reads &{shown(name)} as the name of what follows, not as text, and nothing "
                "in the file refers to that name. Put the text in quotes.",
            )

    def raw(self, event: Any) -> str:
        return self.source.text[event.start_mark.index : event.end_mark.index]

    def position(self, event: Any) -> Position:
        first_line = self.raw(event).partition("\n")[0].rstrip()
        mark = event.start_mark
        return Position(self.source, mark.line + 1, mark.column + 1, max(1, len(first_line)))


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


def _about_tag(raw: str) -> str:
    tag = raw.split(maxsplit=1)[0] if raw.split() else "!"
    return (
        f"YAML reads {shown(tag)} as a tag, and picowatch reads plain values only, without tags. "
        "If it is text, put it in quotes."
    )


def _about_alias(name: str, inside_itself: bool) -> str:
    if inside_itself:
        return f"*{shown(name)} is inside what it refers to, which would never end."
    return (
        f"YAML reads *{shown(name)} as a reference to something named &{shown(name)}, and there "
        "is nothing of that name. If it is text, put it in quotes."
    )
