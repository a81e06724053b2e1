"""YAML's syntax errors in plain words: what is written there and how to write it."""

import re

import yaml

from picowatch.recipe.fields import FIRST_NAME_OF, PROMPTS
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.written import Position, Source

_FIELD = re.compile(
    r"^(?P<indent>[ \t]*(?:- +)*)"
    r"(?P<key>[^\s:#'\"\[\]{}-][^:#'\"\[\]{}]*):(?:[ \t]+(?P<value>.*)|$)"
)
# A field as JSON writes it: a comma follows its value, at the line's end or before the next name.
_COMMA_AFTER = re.compile(
    r"""[ \t]*(?:- +)*["']?\w+["']?[ \t]*:[ \t]*"""
    r"""(?:"(?:[^"\\]|\\.)*"|'[^']*'|\[[^\]]*\]|\{[^}]*\})"""
    r"""[ \t]*(?P<comma>,)[ \t]*(?:$|"\w+"[ \t]*:)"""
)
# Before the place where YAML finds a digit missing, or the number wrong.
_HALF_ESCAPE = re.compile(r"\\(?:x[0-9A-Fa-f]?|u[0-9A-Fa-f]{0,3}|U[0-9A-Fa-f]{0,7})$")
# A sweep over a piece of something without the quotes around its name: `prompt: red: [a, b]`. What
# follows spaces never begins with one, or a line of spaces would be tried at each of them.
_PIECE = re.compile(r"(?P<piece>.+?):(?:[ \t]+(?P<values>\[.*|[^:\[ \t][^:\[]*|))?")
_PIECE_IN_BRACES = re.compile(
    r"[{,]\s*(?P<name>[a-z_]+:[ \t]+[^:,\[\]{} \t][^:,\[\]{}]{0,199}):"
    r"[ \t]+(?P<values>\[[^\]]{0,500}\])"
)
FENCE = "```"
ABOUT_FENCE = f"{FENCE} is how chats and web pages mark a text. Delete the lines that have it."
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


_Explained = tuple[Position, str] | None


def explain_syntax(source: Source, error: yaml.YAMLError) -> tuple[Position, str]:
    """Where a YAML file stops being YAML, and what to do about it."""
    mark = getattr(error, "problem_mark", None)
    context = getattr(error, "context_mark", None)
    if mark is None:
        return Position(source, 1, 1), f"this is not YAML ({shown(str(error), 200)})."
    line = _Line(source, *_within(source, mark.line + 1, mark.column + 1))
    return (
        line.fence()
        or line.comma_after_field()
        or line.quote_mistake(context or mark)
        or line.tab()
        or line.missing_colon()
        or line.piece_in_sweep()
        or _bracket_mistake(line, error)
        or line.special_start()
        or line.second_colon()
        or line.outside_of_list()
        or (line.at(line.column), _general(error))
    )


def quoted(text: str) -> str:
    """The text as a YAML single-quoted scalar."""
    return "'" + text.replace("'", "''") + "'"


def quoted_name(text: str) -> str:
    """The text as a field's name in quotes."""
    return quoted(text) if '"' in text or "\\" in text else f'"{text}"'


def without_colon(text: str) -> tuple[int, str] | None:
    """The column where a colon is missing, and what to say; None for a text that is no field."""
    found = re.fullmatch(
        r"\s*(?:- +)*(?P<name>[a-z_]+)\s+(?P<value>[-+]?\d\S*|(?<=prompt )\S.*?)\s*", text
    )
    if not found or found["name"] not in FIRST_NAME_OF:
        return None
    instead = f"{found['name']}: {shown(found['value'], 200)}"
    return found.end("name") + 1, f"a colon is missing: write '{instead}'."


def wide_colon(instead: str) -> str:
    """What to say of the colon that Chinese and Japanese keyboards type."""
    return f"this colon is full-width. Write a plain colon and a space after it: '{instead}'."


def _within(source: Source, line: int, column: int) -> tuple[int, int]:
    """The position, or the end of the last line that holds anything if it lies after that."""
    last = max(
        (number for number, text in enumerate(source.lines, 1) if text.strip()),
        default=1,
    )
    return (line, column) if line <= last else (last, max(1, len(source.line(last).rstrip())))


class _Line:
    """The line at which a parser stumbled, and its explanations in words."""

    def __init__(self, source: Source, number: int, column: int) -> None:
        self.source = source
        self.number = number
        self.column = column
        self.text = source.line(number)
        self.field = _FIELD.match(self.text)
        self.value = (self.field["value"] or "").rstrip() if self.field else ""

    def at(self, column: int, width: int = 1) -> Position:
        return Position(self.source, self.number, column, width)

    @property
    def key(self) -> str:
        return shown(self.field["key"].rstrip()) if self.field else ""

    @property
    def is_prompt(self) -> bool:
        return FIRST_NAME_OF.get(self.key) in PROMPTS

    def fence(self) -> _Explained:
        if not self.text.startswith(FENCE):
            return None
        return self.at(1, len(self.text.rstrip())), ABOUT_FENCE

    def comma_after_field(self) -> _Explained:
        """JSON without its braces; within them commas belong there."""
        for number, text in enumerate(self.source.lines[: self.number], 1):
            if text.lstrip().startswith(("{", "[")) or text.rstrip().endswith(("{", "[")):
                return None
            comma = _COMMA_AFTER.match(text)
            if comma and number >= self.number - 1:
                return Position(self.source, number, comma.start("comma") + 1), (
                    "YAML fields do not end with a comma. Write each field on its own line "
                    "without the comma, or put the whole recipe into braces as in JSON: {…}."
                )
        return None

    def tab(self) -> _Explained:
        found = re.match(r" *(\t+)", self.text)
        if not found:
            return None
        position = self.at(found.start(1) + 1, len(found[1]))
        return position, "this line is indented with a tab. YAML requires spaces."

    def quote_mistake(self, start: yaml.Mark) -> _Explained:
        """A quote that never closes, text after a closing quote, an escape YAML does not know.

        `start` is where YAML began to read what it could not finish.
        """
        opening = self.source.line(start.line + 1)[start.column : start.column + 1]
        if opening and opening in "'\"":
            position = Position(self.source, start.line + 1, start.column + 1)
            unclosed = position, f"the quote {opening} that opens here is never closed."
            return (opening == '"' and self.unknown_escape()) or unclosed
        if self.value.startswith(("'", '"')):
            return self.at(self.column), (
                f"there is more text after the closing quote. Put the quotes around all of it: "
                f"{self.key}: {shown(quoted(_without_quotes(self.value)), 200)}"
            )
        return None

    def unknown_escape(self) -> _Explained:
        # libyaml's mark is at the backslash, the Python parser's after it.
        for at in (self.column - 1, self.column - 2):
            if self.text[max(0, at) :].startswith("\\"):
                return self.at(at + 1, 2), (
                    f"in double quotes a backslash begins an escape, and YAML has no "
                    f"{shown(self.text[at : at + 2])}. Use single quotes, or write the backslash "
                    "twice."
                )
        if found := _HALF_ESCAPE.search(self.text[: self.column - 1]):
            return self.at(found.start() + 1, 2), (
                f"in double quotes {found[0][:2]} begins the hexadecimal number of a character, "
                "but this is not one. Use single quotes, or write the backslash twice."
            )
        return None

    def missing_colon(self) -> _Explained:
        """`steps:30`, `steps 30` or `-steps: 30`: YAML only stumbles over the line after it."""
        for number in (self.number, *self._number_before()):
            text = self.source.line(number)
            tight = re.match(r"^\s*(?:- +)*([a-z_]+):(?=[^\s/])", text)
            dash = re.match(r"^\s*-([a-z_]+):(?:\s|$)", text)
            if dash:
                position = Position(self.source, number, dash.start(1))
                return position, f"a space is missing after the dash: write '- {dash[1]}: …'."
            wide = re.match(r"^\s*(?:- +)*([a-z_]+)\s*\N{FULLWIDTH COLON}", text)
            if wide:
                return Position(self.source, number, wide.end()), wide_colon(f"{wide[1]}: …")
            if tight:
                position = Position(self.source, number, tight.end(1) + 1)
                return position, f"a space is missing after the colon: write '{tight[1]}: …'."
            if without := without_colon(text):
                return Position(self.source, number, without[0]), without[1]
            is_bare = not _FIELD.match(text) and re.match(r"[^\s\"'\[{#.-]", text)
            if number < self.number and is_bare:
                return Position(self.source, number, 1, len(text.rstrip())), (
                    "this line has no 'name: value'. Write 'prompt: …', or for a file with one "
                    "prompt per line use the ending .txt."
                )
        return None

    def _number_before(self) -> list[int]:
        """The nearest line above that is neither empty nor a comment, if any."""
        before = ((n, self.source.line(n).lstrip()) for n in range(self.number - 1, 0, -1))
        return next(([n] for n, text in before if text and not text.startswith("#")), [])

    def piece_in_sweep(self) -> _Explained:
        found = self.field and self._piece()
        if not found:
            return None
        column, name, values = found
        if values and not values.startswith("[") and ".." not in values:
            values = f"[{values}]"
        return self.at(column), (
            "YAML reads this ': ' as the start of another field. Put the name in quotes: "
            f"{shown(quoted_name(name), 100)}: {shown(values, 200)}".rstrip()
        )

    def _piece(self) -> tuple[int, str, str] | None:
        """The column of the second colon, the name that ends there, and its values."""
        if self.key == "sweep":
            found = _PIECE_IN_BRACES.search(self.text)
            return (found.end("name") + 1, found["name"], found["values"]) if found else None
        if not re.fullmatch(r"(?:- +)*sweep:\s*(?:#.*)?", self._mapping_around()):
            return None
        found = _PIECE.fullmatch(re.sub(r"[ \t]#.*", "", self.value).rstrip())
        if not found or not self.field:
            return None
        column = self.field.start("value") + found.end("piece") + 1
        return column, f"{self.key}: {found['piece']}", found["values"] or ""

    def _mapping_around(self) -> str:
        """The nearest line above that is indented less, without its indentation."""
        indent = _indent(self.text)
        above = reversed(self.source.lines[: self.number - 1])
        lines = (line for line in above if line.strip() and not line.lstrip().startswith("#"))
        return next((line.strip() for line in lines if _indent(line) < indent), "")

    def special_start(self) -> _Explained:
        if not self.field or self.value[:1] not in _MEANINGS or not self.value:
            return None
        return self.at(self.field.start("value") + 1), (
            f"YAML reads {self.value[0]} at the start of a value as {_MEANINGS[self.value[0]]}. "
            f"For text, put it in quotes: {self.key}: {shown(quoted(self.value), 200)}"
        )

    def second_colon(self) -> _Explained:
        if not self.field:
            return None
        colon = re.search(r":(?=\s|$)", self.value)
        if colon:
            return self.at(self.field.start("value") + colon.start() + 1), (
                "YAML reads this ': ' as the start of another field. Put the text in quotes: "
                f"{self.key}: {shown(quoted(self.value), 200)}"
            )
        if self.field["indent"].strip(" ") == "" and self.field["indent"]:
            position = self.at(self.field.start("key") + 1, len(self.field["key"].rstrip()))
            return position, f"'{self.key}' {self._other_indentation()}"
        return None

    def _other_indentation(self) -> str:
        """The fields above that this one may be indented like, nearest first."""
        fields: list[tuple[str, int]] = []
        for text in reversed(self.source.lines[: self.number - 1]):
            above = _FIELD.match(text) if not text.lstrip().startswith("#") else None
            if above and (not fields or above.end("indent") < fields[-1][1]):
                fields.append((shown(above["key"].rstrip()), above.end("indent")))
            if fields and fields[-1][1] <= _indent(self.text):
                break
        name, spaces = fields[0] if fields else ("", 0)
        remedy = f"Indent it exactly like {name}, with {spaces} space{'s' * (spaces != 1)}"
        if spaces > _indent(self.text):
            for other, fewer in fields[1:]:
                remedy += f", or like {other}, {f'with {fewer}' if fewer else 'without spaces'}"
            return f"is not indented like a field above it. {remedy}."
        return (
            "is indented deeper than the field above it, so YAML takes the line as more of that "
            f"field's text. {remedy if spaces else 'Put it right below, without the spaces'}."
        )

    def outside_of_list(self) -> _Explained:
        dash = self.text.lstrip().startswith("- ")
        above = self.source.lines[: self.number - 1]
        if self.field and not dash and any(text.lstrip().startswith("- ") for text in above):
            return self.at(1), (
                "this line is outside the list above. Indent it like the fields of its "
                "element, or begin it with '- ' to start the next recipe."
            )
        if dash:
            return self.at(len(self.text) - len(self.text.lstrip()) + 1), (
                "a list begins here in the middle of a mapping. A file holds either one recipe, "
                "or a list in which each recipe begins with '- '."
            )
        return None


def _bracket_mistake(line: _Line, error: yaml.YAMLError) -> _Explained:
    """A bracket that is never closed, or one too many. In a prompt they are text, in quotes."""
    start = getattr(error, "context_mark", None)
    if start is not None and "flow" in str(getattr(error, "context", "")):
        first = _Line(line.source, start.line + 1, start.column + 1)
        if first.is_prompt:
            return first.special_start()
        if _is_closed(line.source.text[start.index :]):
            return None
        opening = first.text[start.column : start.column + 1]
        return first.at(start.column + 1), f"the {opening} that opens here is never closed."
    closing = line.text[line.column - 1 : line.column]
    if line.is_prompt or closing not in ("]", "}") or not line.value.startswith(("[", "{")):
        return None
    if not _is_closed(line.text[line.text.index(line.value[0]) : line.column - 1]):
        return None
    return line.at(line.column), f"nothing is open here that this {closing} could close. Delete it."


def _is_closed(text: str) -> bool:
    """Whether the bracket that a text begins with is closed in it, and all within."""
    opened: list[str] = []
    for character in text:
        if character in "[{":
            opened.append(character)
        elif character in "]}":
            if opened.pop() + character not in ("[]", "{}"):
                return False
            if not opened:
                return True
    return False


def _indent(line: str) -> int:
    """How far in the line's text stands, after the dashes of lists."""
    return len(line) - len(re.sub(r"^[ \t]*(?:- +)*", "", line))


def _without_quotes(value: str) -> str:
    """The text that somebody put into quotes which it holds, too."""
    quote = value[0]
    if len(value) < 2 or not value.endswith(quote):
        return value
    return value[1:-1].replace('\\"', '"') if quote == '"' else value[1:-1]


def _general(error: yaml.YAMLError) -> str:
    problem = getattr(error, "problem", None) or str(error)
    if "<document start>" in problem:
        return "the recipe before this line has ended. Write a line --- between two recipes."
    return (
        f"YAML cannot parse this ({shown(str(problem), 100)}). A recipe has lines like "
        "'steps: 30'; put text with special characters in quotes."
    )
