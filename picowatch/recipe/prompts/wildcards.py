"""Wildcards: `{a|b}`, `{2$$a|b|c}` and `__name__`, drawn from an image's seed.

The grammar is dynamicprompts' (https://github.com/adieyal/dynamicprompts, docs/SYNTAX.md):
`{2$$a|b|c}` takes two different ones joined by ", ", `{1-2$$ and $$a|b}` one or two joined by
" and ", `{0.5::a|b}` gives a less weight, `__name__` is a line of models/wildcards/name.txt.
Options and lines may contain wildcards. Braces without `|` or `$$` are text, and so is what a
backslash escapes. The `|` of A1111's `[a|b]` inside an option is text, too. The `~` in `{~a|b}` and
`__~name__` asks for a random draw, which all are here.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import sha256
from itertools import accumulate

from picowatch.errors import ValueInvalid
from picowatch.recipe.prompts.grammar import Bracket, ended, joined

MAX_CHOSEN = 100
# The limit for any prompt, drawn or not: far below the megabyte of text that PNG readers accept.
MAX_LENGTH = 20_000
MAX_DEPTH = 100
# How deep wildcards may be nested in the results of other wildcards.
MAX_ROUNDS = 20

# YAML files of many wildcards.
PACK_ENDINGS = (".yaml", ".yml")

Wildcards = Mapping[str, tuple[str, ...]]

# A name has spaces only inside, and no `__`: so only its longest match can be right, and a name
# without end is read once.
_NAME = r"(?:(?!__)[\w/.*-]| (?!__)(?=[\w/.*-]))+"
_FROM_FILE = rf"__~?(?! ){_NAME}__"
_TOKEN = re.compile(rf"\\.|[{{}}\[\]|]|{_FROM_FILE}|[^\\{{}}\[\]|_]+|.", re.DOTALL)
_REFERENCE = re.compile(rf"\\.|{_FROM_FILE}")
_COUNT = re.compile(r"\s*(?P<low>\d{0,9})(?P<to>-?)(?P<high>\d{0,9})\$\$(?:(?P<join>[^$]*)\$\$)?")
_WEIGHT = re.compile(r"\s*(\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})::")

_MOST_READ = 64


class ExpansionFailed(ValueInvalid):
    """Wildcards that cannot be drawn: nested without end, or giving too long a text."""


@dataclass(frozen=True, slots=True)
class FromFile:
    """`__name__`: a line of the matching files."""

    written: str

    @property
    def name(self) -> str:
        """The name as written, without its underscores."""
        return _name_in(self.written)


def _name_in(written: str) -> str:
    return written[2:-2].removeprefix("~")


@dataclass(frozen=True, slots=True)
class Choice:
    """`{a|b}`: `low` to `high` of the options, joined."""

    options: tuple["Nodes", ...]
    low: int
    high: int
    join: str


Nodes = tuple[str | FromFile | Choice, ...]


def parse(text: str, wildcards: Wildcards) -> Nodes:
    """Parse a text. Never fails: what is no wildcard is text."""
    if "{" not in text and "__" not in text:
        return (text,)
    opened = [Bracket()]
    for token in _TOKEN.finditer(text):
        if token[0].startswith("__") and _is_reference(token, wildcards):
            opened[-1].add(FromFile(token[0]))
        else:
            _take(token[0], opened)
    return ended(opened)


def _is_reference(token: re.Match[str], wildcards: Wildcards) -> bool:
    """Return whether `__name__` is a wildcard; inside a word only if there is such a file."""
    if not any(character.isalnum() for character in token[0]):
        return False
    around = token.string[: token.start()][-1:], token.string[token.end() :][:1]
    within = any(re.match(r"\w", character) for character in around)
    return not within or (
        "*" not in token[0] and bool(matching_files(_name_in(token[0]), wildcards))
    )


def _take(sign: str, opened: list[Bracket]) -> None:
    """Add a sign; brackets deeper than MAX_DEPTH are text."""
    top = opened[-1]
    if sign in ("{", "[") and len(opened) <= MAX_DEPTH:
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


def _close(opened: list[Bracket]) -> None:
    while opened[-1].sign == "[":  # not closed in its option: its bars belong to the brace
        inner = opened.pop()
        opened[-1].add("[", *inner.parts[0])
        for part in inner.parts[1:]:
            opened[-1].separate("|")
            opened[-1].add(*part)
    brace = opened.pop()
    choice = _choice(brace)
    opened[-1].add(*([choice] if choice else brace.as_text("}")))


def _choice(brace: Bracket) -> Choice | None:
    """Return the choice in the braces; None if they are text."""
    first, *others = map(joined, brace.parts)
    start = first[0] if first and isinstance(first[0], str) else ""
    rest = start.removeprefix("~") if others else start
    count = _COUNT.match(rest)
    low, high, join = 1, 1, ", "
    if count:
        low = int(count["low"] or 1)
        high = int(count["high"] or len(brace.parts)) if count["to"] else low
        join = ", " if count["join"] is None else count["join"]
        rest = rest[count.end() :]
    elif not others:
        return None
    if start:
        first = (rest, *first[1:])
    return Choice((first, *others), low, high, join)


def found_in(nodes: Nodes) -> Iterator[FromFile | Choice]:
    """Yield every wildcard in a text, those inside others too."""
    for node in nodes:
        if not isinstance(node, str):
            yield node
        if isinstance(node, Choice):
            for option in node.options:
                yield from found_in(option)


def matching_files(name: str, wildcards: Wildcards) -> list[str]:
    """Return the names of the wildcard files that match, in any case; `*` matches anything."""
    if name in wildcards:
        return [name]
    folded = name.casefold()
    if "*" in name:
        return sorted(n for n in wildcards if fnmatchcase(n.casefold(), folded))
    return sorted(n for n in wildcards if n.casefold() == folded)[:1]


def with_whole_names(wildcards: Wildcards) -> dict[str, tuple[str, ...]]:
    """Replace names in lines by whole ones, where the file is in the same folder or one above.

    `__dogs__` in animals/all.txt means animals/dogs.txt, unless there is a dogs.txt.
    """
    known = {name.casefold() for name in wildcards}
    found = dict(wildcards)
    for name, lines in wildcards.items():
        folder = name.rpartition("/")[0]
        if folder and any("__" in line for line in lines):
            found[name] = tuple(_with_whole_names(line, folder, known) for line in lines)
    return found


def _with_whole_names(line: str, folder: str, known: set[str]) -> str:
    def whole(token: re.Match[str]) -> str:
        name, parent = _name_in(token[0]), folder
        if token[0].startswith("\\") or name.casefold() in known:
            return token[0]
        while parent and f"{parent}/{name}".casefold() not in known:
            parent = parent.rpartition("/")[0]
        return f"__{parent}/{name}__" if parent else token[0]

    return _REFERENCE.sub(whole, line)


@dataclass(frozen=True)
class Options:
    """The texts or nodes of a choice, their weights, and the running sums of these."""

    nodes: tuple[Nodes, ...]
    weights: Sequence[float]
    sums: Sequence[float]

    def index(self, fraction: float, taken: Sequence[int]) -> int:
        """Return the index that a fraction from 0 to 1 selects among those not `taken`."""
        left = self.sums[-1] - sum(self.weights[gone] for gone in taken)
        if left <= 0:
            return next(i for i in range(len(self.nodes)) if i not in taken)
        point = fraction * left
        for gone in sorted(taken):
            if point >= self.sums[gone] - self.weights[gone]:
                point += self.weights[gone]
        return min(bisect_right(self.sums, point), len(self.sums) - 1)


def _weighed(options: Iterable[Nodes]) -> Options:
    nodes, weights = [], []
    for option in options:
        first = option[0] if option else ""
        weight = _WEIGHT.match(first) if isinstance(first, str) else None
        weights.append(float(weight[1]) if weight else 1.0)
        nodes.append((weight.string[weight.end() :], *option[1:]) if weight else option)
    return Options(tuple(nodes), weights, list(accumulate(weights)))


# Files already drawn from, by their ids; the cache holds the files, so that no id is reused.
_READ: dict[tuple[int, ...], tuple[tuple[tuple[str, ...], ...], Options]] = {}


def lines_of(name: str, wildcards: Wildcards) -> Options:
    """Return the lines that `__name__` may become."""
    files = tuple(wildcards[file] for file in matching_files(name, wildcards))
    key = tuple(map(id, files))  # hashing thousands of lines for each draw takes too long
    found = _READ.get(key)
    if not found:
        if len(_READ) >= _MOST_READ:
            _READ.clear()
        found = _READ[key] = files, _weighed((line,) for lines in files for line in lines)
    return found[1]


class Template:
    """A prompt before wildcards, parsed once for all its images."""

    def __init__(self, text: str, wildcards: Wildcards) -> None:
        self.text = text
        self.nodes = parse(text, wildcards)
        self._wildcards = wildcards

    @property
    def is_drawn(self) -> bool:
        """Return whether it has any wildcard."""
        return any(not isinstance(node, str) for node in self.nodes)

    def expand(self, seed: int, stream: str) -> str:
        """Return the text with every wildcard drawn, the same for the same seed on any machine.

        `stream` keeps the draws of several texts of one image apart. Wildcards in what was drawn
        are drawn, too, until none is left. Raises ExpansionFailed.
        """
        draws = _Draws(f"{stream}:{seed}", self._wildcards)
        text, nodes = self.text, self.nodes
        for _ in range(MAX_ROUNDS):
            if all(isinstance(node, str) for node in nodes):
                return text
            text = draws.whole(nodes)
            nodes = parse(text, self._wildcards)
        raise ExpansionFailed(f"its wildcards still contain wildcards after {MAX_ROUNDS} draws")


class _Draws:
    """Random numbers that depend only on seed and stream: the sha256 of a counter.

    Python's own generators promise the same numbers in the next version only for some methods.
    """

    def __init__(self, start: str, wildcards: Wildcards) -> None:
        self._start = start
        self._count = 0
        self._length = 0
        self._wildcards = wildcards

    def whole(self, nodes: Nodes) -> str:
        """Return the text of a whole prompt's nodes, with a draw for each wildcard."""
        self._length = 0
        return self._drawn(nodes)

    def _drawn(self, nodes: Nodes) -> str:
        return "".join(map(self._text, nodes))

    def _text(self, node: str | FromFile | Choice) -> str:
        if isinstance(node, str):
            return self._within_limit(node)
        if isinstance(node, Choice):
            return self._chosen(self._options(node), node.low, node.high, node.join)
        lines = lines_of(node.name, self._wildcards)
        if not lines.nodes:
            raise ExpansionFailed(f"models/wildcards has no lines for {node.written}")
        return self._chosen(lines, 1, 1)

    def _within_limit(self, text: str) -> str:
        self._length += len(text)
        if self._length > MAX_LENGTH:
            raise ExpansionFailed(
                f"its wildcards give a text of more than {MAX_LENGTH:,} characters"
            )
        return text

    def _chosen(self, options: Options, low: int, high: int, join: str = "") -> str:
        high = min(high, len(options.nodes), MAX_CHOSEN)
        low = min(low, high)
        how_many = low + int(self._fraction() * (high - low + 1)) if high > low else low
        chosen: list[str] = []
        taken: list[int] = []
        for _ in range(how_many):
            index = options.index(self._fraction(), taken)
            taken.append(index)
            chosen.append(self._drawn(options.nodes[index]))
        if how_many == 1:
            return chosen[0]
        self._within_limit(join * how_many)
        return join.join(text.strip() for text in chosen)

    def _options(self, choice: Choice) -> Options:
        """Return the options with their weights; `{2$$__name__}` takes two lines of one file."""
        if len(choice.options) == 1:
            meant = [n for n in choice.options[0] if not isinstance(n, str) or n.strip()]
            if len(meant) == 1 and isinstance(meant[0], FromFile):
                return lines_of(meant[0].name, self._wildcards)
        return _weighed(choice.options)

    def _fraction(self) -> float:
        """Return the next number from 0 to 1."""
        self._count += 1
        digest = sha256(f"{self._start}:{self._count}".encode()).digest()
        return (int.from_bytes(digest[:8]) >> 11) / 2**53
