"""Values as somebody wrote them, with their positions, so that an error can point at them."""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import chain

from pydantic import FiniteFloat, TypeAdapter, ValidationError


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A file as it was read."""

    name: str  # relative to the inbox
    text: str  # with "\n" between lines
    warning: str = ""  # how it was decoded, if that is a guess
    lines: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "lines", tuple(self.text.split("\n")))

    def line(self, number: int) -> str:
        """Return the text of a 1-based line; empty after the end of the file."""
        return self.lines[number - 1] if 0 < number <= len(self.lines) else ""

    def whole_line(self, number: int) -> "Position":
        return Position(self, number, 1, max(1, len(self.line(number).rstrip())))


@dataclass(frozen=True, slots=True)
class Position:
    """A stretch of one line."""

    source: Source
    line: int  # from 1; 0 is the whole file
    column: int  # from 1, in characters
    width: int = 1
    note: str = ""  # ends every message about it: where a value comes from if not from this file

    @property
    def text(self) -> str:
        return self.source.line(self.line)[self.column - 1 :][: self.width]


class Origin(Enum):
    """The author of a value."""

    OWN = "the recipe itself"
    FOLDER = "the defaults of its folder"
    FOREIGN = "a picture, or another program"


# What stands in a file: text, None for an empty value, a tuple for a list, a dict for a mapping.
Raw = str | None | tuple["Raw", ...] | dict[str, "Raw"]
# The text of a field that is switched off, whichever word says so.
OFF = "none"


@dataclass(frozen=True, slots=True)
class SourceValue:
    """A value that somebody wrote, and its position."""

    value: Raw  # stays as written: the field's converter gives the value that it means
    position: Position
    raw: str = ""  # a text as it stands in the file, with its quotes
    key: Position | None = None  # the position of the field's name
    parts: tuple["SourceValue", ...] = ()  # the elements of a list
    pairs: tuple[tuple[str, "SourceValue"], ...] = ()  # of a mapping, repeated names included
    origin: Origin = Origin.OWN  # set in the layers of an entry

    @property
    def text(self) -> str:
        """The value if it is text, otherwise ""."""
        return self.value if isinstance(self.value, str) else ""

    @property
    def is_none(self) -> bool:
        """Return whether it means nothing, which overrides a folder's default."""
        return self.text.strip().casefold() in ("", "none") and isinstance(self.value, str)

    @property
    def is_off(self) -> bool:
        """Return whether it switches its field off."""
        return self.value == () or self.is_none

    @property
    def says_off(self) -> bool:
        """Return whether it switches its field off, `false` included."""
        return self.is_off or switch(self.text) is False

    def with_value(self, value: Raw) -> "SourceValue":
        """Return another value in the same place; `replace` would take three times as long."""
        return SourceValue(
            value, self.position, self.raw, self.key, self.parts, self.pairs, self.origin
        )

    def with_pairs(self, pairs: tuple[tuple[str, "SourceValue"], ...]) -> "SourceValue":
        value = {name: written.value for name, written in pairs}
        return SourceValue(value, self.position, self.raw, self.key, (), pairs, self.origin)

    def with_parts(self, parts: tuple["SourceValue", ...]) -> "SourceValue":
        return replace(self, value=tuple(part.value for part in parts), parts=parts, pairs=())

    @property
    def error_position(self) -> Position:
        """The position to point at: the value, or the field's name if no value is written."""
        return self.key if self.key and self.value is None and not self.raw else self.position

    @property
    def name_position(self) -> Position:
        """The position of the field's name, or of the value if it has no name."""
        return self.key or self.position


def mapping_at(
    position: Position, key: Position | None, pairs: Iterable[tuple[str, SourceValue]]
) -> SourceValue:
    return SourceValue({}, position, position.text, key).with_pairs(tuple(pairs))


def written_at(position: Position, value: object) -> SourceValue:
    """Return a value from another file as if it stood at this position."""
    if isinstance(value, dict):
        pairs = ((str(k), written_at(position, v)) for k, v in value.items())
        return mapping_at(position, None, pairs)
    if isinstance(value, list | tuple):
        parts = tuple(written_at(position, part) for part in value)
        return SourceValue((), position, position.text).with_parts(parts)
    if isinstance(value, float):
        return SourceValue(plain_number(value), position)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return SourceValue(None if value is None else text, position)


def plain_name(name: str) -> str:
    """Return a name as fields have it: in lower case, with underscores for spaces and hyphens."""
    return "_".join(name.lower().replace("-", " ").replace("_", " ").split())


# A table's columns that begin so are not fields: layers keep them for the metadata.
NOTE = "_"
# One layer of settings: a _defaults.yaml, a TXT's settings, or what an entry itself says.
Layer = dict[str, SourceValue]


def find_in(layer: Layer, field: str) -> SourceValue | None:
    """Return the value of a field or a part (`hires.scale`, `control.0.weight`), or None."""
    name, *path = field.split(".")
    found = layer.get(name)
    for step in path:
        if found is None:
            return None
        parts = {str(index): part for index, part in enumerate(found.parts)}
        found = (parts | dict(found.pairs)).get(step)
    return found


def repeated(written: SourceValue) -> Iterator[tuple[str, SourceValue, SourceValue]]:
    """Yield the names that a mapping or a mapping inside has twice, with both values."""
    found: Layer = {}
    for name, value in written.pairs:
        if name in found:
            yield name, found[name], value
        found.setdefault(name, value)
    for part in chain(written.parts, found.values()):
        yield from repeated(part)


def is_on(layer: Layer, field: str) -> bool:
    """Return whether a layer has the field, and does not switch it off."""
    return field in layer and not layer[field].is_off


@dataclass(frozen=True, slots=True)
class Entry:
    """One recipe of a file as written: its own settings, and where it begins."""

    layer: Layer
    position: Position
    warnings: tuple[str, ...] = ()  # of what cannot be honoured
    # Settings that change nothing or that the checkpoint cannot do are warnings, not mistakes.
    by_another_program: bool = False
    # Override its own settings: a template's entry for one dropped picture has them.
    nearer: tuple[Layer, ...] = ()
    dropped: SourceValue | None = None  # that picture, if the checkpoint decides what it is for
    checkpoint_hash: str = ""  # of the file that another program used
    embeddings: str = ""  # that another program used, with commas between


_MOST_DIGITS = 30
_NUMBER = TypeAdapter[int | float](int | FiniteFloat)
_SWITCH = TypeAdapter(bool)


def number(text: str) -> int | float | None:
    """Return a text's number: 42, 7.5, and 8 for 8.0, as in JSON Schema; None for others."""
    if len(text) > _MOST_DIGITS:
        return None
    try:
        value = _NUMBER.validate_python(text)
    except ValidationError:
        return None
    return int(value) if value == int(value) else value


def switch(text: str) -> bool | None:
    """Return whether a text means true or false; None for neither."""
    try:
        return _SWITCH.validate_python(text.strip())
    except ValidationError:
        return None


def plain_number(value: float) -> str:
    """Return the text of a number: 7.0 as "7", 7.5 as "7.5", 1e-07 as "1.0e-07"."""
    text = repr(float(value)).removesuffix(".0")
    mantissa, exponent, power = text.partition("e")
    # Without its point, the last would be text to other readers of YAML 1.1.
    return text if not exponent or "." in mantissa else f"{mantissa}.0e{power}"


# Control characters other than tab and line break, further line breaks of YAML and Unicode (with
# which lines would be counted differently than in an editor), and non-characters.
_HIDDEN = "\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff"
FORBIDDEN = re.compile(f"[{_HIDDEN}]")
NEVER_IN_NAMES = re.compile(f"[\t\n{_HIDDEN}]")


def invisible(character: str) -> str:
    """Return a description of a character that cannot be seen."""
    code = f"U+{ord(character):04X}"
    if character == "\0":
        return f"the NUL character ({code})"
    name = unicodedata.name(character, "")
    return f"the invisible character {code}" + (f" ({name.lower()})" if name else "")
