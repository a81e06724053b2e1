"""The entries of a JSON recipe: an object is one, a list of them are several.

JSON text (RFC 8259) gives the values that YAML does, with positions and within the same limits.

PyYAML would read most of it, but takes commas and comments that JSON forbids, two surrogates for
two characters, and 1e5 for text. A file that other programs cannot read should not pass here.
"""

import json
import re
from bisect import bisect_left
from typing import NoReturn

from picowatch.recipe.messages.problems import Problems, refuse, shown
from picowatch.recipe.read.decoding import invisible
from picowatch.recipe.read.no_prompts import is_comfyui_workflow
from picowatch.recipe.read.nodes import MAX_DEPTH, MAX_NODES
from picowatch.recipe.read.plain import number, plain_number, plain_value
from picowatch.recipe.read.yaml_entries import elements_of, layer_of, start_of
from picowatch.recipe.written import Entry, Position, Source, Written, list_at, mapping_at

_SPACE = re.compile(r"[ \t\n]*")
_WORD = re.compile(r"[^\s,:\[\]{}\"']+")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_WORDS = ("true", "false", "null")
_DECODER = json.JSONDecoder()
_COMMENT = re.compile(r"#|//|/\*")
_CLOSING = {"{": "}", "[": "]"}
_SURROGATES = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F]")


def json_entries(source: Source, problems: Problems) -> list[Entry]:
    """The recipes of a file. Raises RecipeInvalid where it is not JSON, or beyond the limits."""
    document = _Composer(source).document()
    if is_comfyui_workflow(json.loads(source.text, parse_int=str)):
        problems.add(
            start_of(document),
            "this is a workflow of ComfyUI, which picowatch cannot run. To start from a picture "
            'that it made, save the picture beside a recipe {"from": "picture.png"}.',
        )
        return []
    entries = []
    for element in elements_of(document):
        if isinstance(element.value, dict):
            entries.append(Entry(layer_of(element, problems), start_of(element)))
        else:
            text = shown(element.raw.partition("\n")[0])
            message = f'{text} is not a recipe. A recipe is like {{"prompt": "a corgi"}}.'
            problems.add(element.position, message)
    return entries


def has_surrogates(text: str) -> bool:
    """Whether it is JSON with emoji as scripts write them: two escapes each, which YAML refuses."""
    if not _SURROGATES.search(text):
        return False
    try:
        json.loads(text, parse_int=str)
    except (ValueError, RecursionError):
        return False
    return True


class _Composer:
    """Reads from `self.at` on."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.text = source.text
        self.breaks = [found.start() for found in re.finditer("\n", source.text)]
        self.at = 0
        self.nodes = 0

    def document(self) -> Written:
        self.skip_space()
        node = self.node(0)
        self.skip_space()
        if self.at < len(self.text):
            self.refuse(
                "the value ends before this, and a JSON file has one. For several recipes write a "
                "list: [{…}, {…}]."
            )
        return node

    def node(self, depth: int, key: Position | None = None) -> Written:
        position = self.position()
        self.nodes += 1
        if self.nodes > MAX_NODES:
            refuse(position, f"the file holds more than {MAX_NODES:,} values.")
        if depth > MAX_DEPTH:
            refuse(position, f"this is nested more than {MAX_DEPTH} deep. A recipe needs three.")
        match self.text[self.at : self.at + 1]:
            case "{":
                return self.mapping(depth, key)
            case "[":
                return self.sequence(depth, key)
            case '"':
                return self.string(key)
        return self.word(key)

    def mapping(self, depth: int, key: Position | None) -> Written:
        start = self.at
        keys: list[Written] = []
        values: list[Written] = []
        while self.goes_on(start, len(keys)):
            if self.text[self.at : self.at + 1] != '"':
                self.refuse_name()
            keys.append(name := self.string(None))
            self.skip_space()
            if self.text[self.at : self.at + 1] != ":":
                self.refuse(f"a colon is missing after the name {shown(name.raw)}.")
            self.at += 1
            self.skip_space()
            values.append(self.node(depth + 1, name.position))
        return mapping_at(self.position(start), self.text[start : self.at], key, keys, values)

    def sequence(self, depth: int, key: Position | None) -> Written:
        start = self.at
        parts: list[Written] = []
        while self.goes_on(start, len(parts)):
            parts.append(self.node(depth + 1))
        return list_at(self.position(start), self.text[start : self.at], key, parts)

    def goes_on(self, start: int, count: int) -> bool:
        """Whether another element follows: go to it; else after the closing bracket."""
        closing = _CLOSING[self.text[start]]
        self.at += not count  # after the opening one
        self.skip_space()
        comma = self.at
        found = self.text[comma : comma + 1]
        if not found:
            self.refuse(f"the {self.text[start]} that opens here is never closed.", start)
        if found == closing:
            self.at += 1
            return False
        if not count:
            return True
        if found in "}]":
            self.refuse(f"this closes a {self.text[start]}, so it must be a {closing}.")
        if found != ",":
            self.refuse("a comma is missing before this.")
        self.at += 1
        self.skip_space()
        if self.text[self.at : self.at + 1] in ("}", "]"):
            self.refuse("JSON has no comma after the last value. Delete it.", comma)
        return True

    def string(self, key: Position | None) -> Written:
        start = self.at
        try:
            text, self.at = _DECODER.raw_decode(self.text, start)
        except json.JSONDecodeError as error:
            self.refuse_string(start, error)
        return Written(text, self.position(start), self.text[start : self.at], key, style='"')

    def word(self, key: Position | None) -> Written:
        """A number, true, false or null."""
        start = self.at
        found = _WORD.match(self.text, start)
        raw = found[0] if found else ""
        if not (raw in _WORDS or _NUMBER.fullmatch(raw)):
            self.refuse_word(raw)
        self.at += len(raw)
        # 1e3 is a number to JSON alone.
        is_plain = raw in _WORDS or number(raw) is not None or len(raw) > 30
        text = raw if is_plain else plain_number(float(raw))
        return Written(plain_value(text), self.position(start), raw, key, style="")

    def skip_space(self) -> None:
        found = _SPACE.match(self.text, self.at)
        self.at = found.end() if found else self.at
        if (other := self.text[self.at : self.at + 1]).isspace():
            self.refuse(f"{invisible(other)} is not a space in JSON. Replace it with a plain one.")
        if comment := _COMMENT.match(self.text, self.at):
            self.refuse(
                "JSON has no comments. Delete it, or write the recipe in YAML, where # begins one.",
                width=len(comment[0]),
            )

    # -- what is wrong

    def refuse(self, message: str, offset: int | None = None, width: int = 1) -> NoReturn:
        refuse(self.position(offset, width), message)

    def refuse_curly(self) -> None:
        """Word processors and web pages make them of straight ones."""
        if self.text[self.at : self.at + 1] in tuple("“”„‟«»‘’"):
            self.refuse('JSON needs straight quotes: ".')

    def refuse_name(self) -> NoReturn:
        self.refuse_curly()
        single = self.text[self.at : self.at + 1] == "'"
        found = _WORD.match(self.text, self.at + single)
        if found:
            quoted = json.dumps(found[0], ensure_ascii=False)
            width = len(found[0]) + 2 * single
            self.refuse(f"names have double quotes in JSON: {shown(quoted)}.", width=width)
        self.refuse('a name in double quotes is missing here, as in "steps": 30.')

    def refuse_string(self, start: int, error: json.JSONDecodeError) -> NoReturn:
        if "control character" in error.msg and self.text[error.pos : error.pos + 1] == "\n":
            self.refuse(
                "the quote that opens here is not closed on its line. Close it, or write \\n for "
                "a line break inside the text.",
                start,
            )
        if "control character" in error.msg:
            self.refuse("JSON has no tabs inside texts. Write \\t.", error.pos)
        if "escape" in error.msg:
            at = self.text.rfind("\\", start, error.pos + 1)
            self.refuse("JSON does not have this escape. For a backslash write two.", at, 2)
        self.refuse('the quote " that opens here is never closed.', start)

    def refuse_word(self, raw: str) -> NoReturn:
        self.refuse_curly()
        if raw.lower() in _WORDS:
            self.refuse(f"JSON writes {raw.lower()}.", width=len(raw))
        if raw == "None":
            self.refuse("JSON writes null.", width=len(raw))
        if re.match(r"[-+.0-9]", raw):
            self.refuse("JSON's numbers are like -1, 30 or 7.5.", width=len(raw))
        if self.text[self.at : self.at + 1] == "'":
            self.refuse("JSON's quotes are double quotes.")
        if raw in ("NaN", "Infinity"):
            self.refuse(f"JSON has no {raw}. Write a number.", width=len(raw))
        if not raw:
            self.refuse("a value is missing here.")
        self.refuse("texts have double quotes in JSON.", width=len(raw))

    def position(self, offset: int | None = None, width: int | None = None) -> Position:
        """Of a character; a value is as wide as its first line."""
        offset = self.at if offset is None else offset
        line = bisect_left(self.breaks, offset)
        line_start = self.breaks[line - 1] + 1 if line else 0
        if width is None:
            first_line = self.text[offset : self.at].partition("\n")[0]
            width = max(1, len(first_line.rstrip()))
        return Position(self.source, line + 1, offset - line_start + 1, width)
