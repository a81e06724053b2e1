"""Wildcards: `{a|b}`, `{2$$a|b|c}` and `__name__`, drawn from an image's seed.

The grammar is a part of dynamicprompts' (https://github.com/adieyal/dynamicprompts,
docs/SYNTAX.md): `{2$$a|b|c}` takes two different ones joined by ", ", `{1-2$$ and $$a|b}` one or
two joined by " and ", `__name__` is a line of models/wildcards/name.txt. Options and lines may
contain wildcards. Braces around one name, `{__name__}`, mean the name alone; others without `|` or
`$$` are text, and so is what a backslash escapes. The `|` of A1111's `[a|b]` inside an option is
text, too. Weights (`{2::a|b}`) and names of several files (`__animals/*__`) are errors.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from unicodedata import category, normalize

from picowatch.errors import ValueInvalid
from picowatch.recipe.prompts.grammar import MAX_NESTING, Bracket, ended, is_json, joined

MAX_CHOSEN = 100
# The limit for any prompt, drawn or not: far below the megabyte of text that PNG readers accept.
MAX_LENGTH = 20_000
# How deep wildcards may be nested in the results of other wildcards.
MAX_ROUNDS = 20

Wildcards = Mapping[str, tuple[str, ...]]

# What `[\w/.*-]` matches, and the signs of other scripts' letters.
_SIGN = r"[^\s\x00-)+,:-@\[-^`{-\x7f]"
# A name has spaces only inside, and no `__`: so only its longest match can be right, and a name
# without end is read once.
_NAME = rf"(?:(?!__){_SIGN}| (?!__)(?={_SIGN}))+"
_FROM_FILE = rf"__(?! ){_NAME}__"
_TOKEN = re.compile(rf"\\.|[{{}}\[\]|]|{_FROM_FILE}|[^\\{{}}\[\]|_]+|.", re.DOTALL)
_COUNT = re.compile(r"\s*(?P<low>\d{0,9})(?P<to>-?)(?P<high>\d{0,9})\$\$(?:(?P<join>[^$]*)\$\$)?")
# Between its `$$` stand bars, so that these separate no options: {2$$|$$a|b}.
_JOINED_BY_BARS = re.compile(r"\s*\d{0,9}-?\d{0,9}\$\$[^\w$]*\|[^\w$]*\$\$")
_WEIGHT = re.compile(r"\s*(?:\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})::")


@dataclass(frozen=True, slots=True)
class FromFile:
    """`__name__`: a line of the file with that name."""

    name: str


@dataclass(frozen=True, slots=True)
class Choice:
    """`{a|b}`: `low` to `high` of the options, joined."""

    options: tuple["Nodes", ...]
    low: int
    high: int
    join: str

    @property
    def weight(self) -> str:
        """The first weight of an option, such as "2::", which cannot be used; or ""."""
        starts = (option[0] for option in self.options if option)
        found = (_WEIGHT.match(start) for start in starts if isinstance(start, str))
        return next((weight[0].strip() for weight in found if weight), "")


class NoLines(ValueInvalid):
    """No line of a wildcard can be drawn, because its file is missing, refused or empty."""

    def __init__(self, name: str) -> None:
        super().__init__(f"models/wildcards has no lines for __{name}__")
        self.name = name


Nodes = tuple[str | FromFile | Choice, ...]


def parse(text: str, wildcards: Wildcards) -> Nodes:
    """Parse a text. Never fails: what is not a wildcard is text, of which all is one node."""
    if ("{" not in text and "__" not in text) or is_json(text):
        return (text,)
    opened = [Bracket()]
    for token in _TOKEN.finditer(text):
        sign, top = token[0], opened[-1]
        if sign.startswith("__") and _is_reference(token, wildcards):
            top.add(FromFile(sign[2:-2]))
        elif sign in ("{", "[") and len(opened) <= MAX_NESTING:  # deeper ones are text
            opened.append(Bracket(sign))
        elif sign == "]" and top.sign == "[":
            opened.pop()
            opened[-1].add(*top.as_text("]"))
        elif sign == "}" and any(bracket.sign == "{" for bracket in opened):
            _close(opened)
        elif sign == "|" and top.sign:
            top.separate("|")
        else:
            top.add(sign)
    return ended(opened)


def _is_reference(token: re.Match[str], wildcards: Wildcards) -> bool:
    """Return whether `__name__` is a wildcard: in a word or with quotes only if it is a file."""
    if not any(character.isalnum() for character in token[0]):
        return False
    around = token.string[: token.start()][-1:], token.string[token.end() :][:1]
    is_odd = any(re.match(r"\w", character) for character in around)
    is_odd |= any(not sign.isascii() and category(sign)[0] in "PS" for sign in token[0])
    return not is_odd or file_called(token[0][2:-2], wildcards) is not None


def _close(opened: list[Bracket]) -> None:
    while opened[-1].sign == "[":  # not closed in its option: its bars belong to the brace
        inner = opened.pop()
        opened[-1].add("[", *inner.parts[0])
        opened[-1].separators += inner.separators
        opened[-1].parts += inner.parts[1:]
    brace = opened.pop()
    choice = _choice(brace)
    opened[-1].add(*([choice] if choice else brace.as_text("}")))


def _choice(brace: Bracket) -> Choice | None:
    """Return the choice in the braces; None if they are text."""
    options = [joined(part) for part in brace.parts]
    if not (options[0] and isinstance(options[0][0], str) and "$$" in options[0][0]):
        is_choice = len(options) > 1 or _only_file(options[0])
        return Choice(tuple(options), 1, 1, "") if is_choice else None
    starts = [option[0] if option and isinstance(option[0], str) else "" for option in options]
    bars = _JOINED_BY_BARS.match("|".join(starts))
    end = bars[0].count("|") if bars else 0
    if all(option in ((), (start,)) for option, start in zip(options[:end], starts, strict=False)):
        starts[: end + 1] = ["|".join(starts[: end + 1])]
        options[: end + 1] = [(starts[0], *options[end][1:])] if end else options[:1]
    count = _COUNT.match(starts[0])
    if not count:
        return Choice(tuple(options), 1, 1, "") if len(options) > 1 else None
    low = int(count["low"] or 1)
    high = int(count["high"] or len(options)) if count["to"] else low
    join = ", " if count["join"] is None else count["join"]
    first = (starts[0][count.end() :], *options[0][1:])
    return Choice((first, *options[1:]), low, high, join)


def _only_file(option: Nodes) -> FromFile | None:
    """Return the file whose name is all that an option says; None for any other option."""
    meant = [node for node in option if not isinstance(node, str) or node.strip()]
    return meant[0] if len(meant) == 1 and isinstance(meant[0], FromFile) else None


def found_in(nodes: Nodes) -> Iterator[FromFile | Choice]:
    """Yield every wildcard in a text, those inside others too."""
    for node in nodes:
        if not isinstance(node, str):
            yield node
        if isinstance(node, Choice):
            for option in node.options:
                yield from found_in(option)


def file_called(name: str, wildcards: Wildcards) -> str | None:
    """Return the wildcard file that has this name, composed, in any case; None if none has."""
    name = normalize("NFC", name)
    if name in wildcards:
        return name
    folded = name.casefold()
    return min((file for file in wildcards if file.casefold() == folded), default=None)


def expand(nodes: Nodes, wildcards: Wildcards, stream: str) -> str:
    """Return a parsed text with every wildcard drawn, the same for a stream on any machine.

    Wildcards in what was drawn are drawn, too, until none is left. Raises ValueInvalid.
    """
    draws = _Draws(stream, wildcards)
    for _ in range(MAX_ROUNDS):
        texts = [node for node in nodes if isinstance(node, str)]
        if len(texts) == len(nodes):
            return "".join(texts)
        draws.length = 0
        nodes = parse(draws.drawn(nodes), wildcards)
    raise ValueInvalid(f"its wildcards still contain wildcards after {MAX_ROUNDS} draws")


@dataclass(slots=True)
class _Draws:
    """Random numbers that depend only on the stream's name: the sha256 of a counter."""

    stream: str
    wildcards: Wildcards
    count: int = 0
    length: int = 0  # of the text so far

    def drawn(self, nodes: Nodes) -> str:
        """Return the text of nodes, with a draw for each wildcard."""
        return "".join(map(self._text, nodes))

    def _text(self, node: str | FromFile | Choice) -> str:
        if isinstance(node, str):
            return self._within_limit(node)
        if isinstance(node, FromFile):
            return self._chosen(self._lines(node), 1, 1)
        if node.weight:
            raise ValueInvalid(f"a weight in braces, '{node.weight}', is not supported")
        # `{2$$__name__}` takes two lines of one file.
        file = _only_file(node.options[0]) if len(node.options) == 1 else None
        options = self._lines(file) if file else node.options
        return self._chosen(options, node.low, node.high, node.join)

    def _within_limit(self, text: str) -> str:
        self.length += len(text)
        if self.length > MAX_LENGTH:
            raise ValueInvalid(f"its wildcards give a text of more than {MAX_LENGTH:,} characters")
        return text

    def _chosen(self, options: Sequence[str | Nodes], low: int, high: int, join: str = "") -> str:
        high = min(high, len(options), MAX_CHOSEN)
        low = min(low, high)
        how_many = low + int(self._fraction() * (high - low + 1)) if high > low else low
        chosen: list[str] = []
        taken: list[int] = []
        for _ in range(how_many):
            index = int(self._fraction() * (len(options) - len(taken)))
            for gone in sorted(taken):
                index += index >= gone
            taken.append(index)
            option = options[index]
            chosen.append(self.drawn((option,) if isinstance(option, str) else option))
        if how_many == 1:
            return chosen[0]
        self._within_limit(join * how_many)
        return join.join(text.strip() for text in chosen)

    def _lines(self, node: FromFile) -> Sequence[str]:
        lines = self.wildcards.get(file_called(node.name, self.wildcards) or "")
        if not lines:
            raise NoLines(node.name)
        return lines

    def _fraction(self) -> float:
        # Python's own generators promise the same numbers in the next version for few methods only.
        self.count += 1
        digest = sha256(f"{self.stream}:{self.count}".encode()).digest()
        return (int.from_bytes(digest[:8]) >> 11) / 2**53
