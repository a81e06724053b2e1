"""Wildcards: `{a|b}`, `{2$$a|b|c}` and `__name__`, drawn from an image's seed.

The grammar is dynamicprompts' (https://github.com/adieyal/dynamicprompts, docs/SYNTAX.md):
`{2$$a|b|c}` takes two different ones joined by ", ", `{1-2$$ and $$a|b}` one or two joined by
" and ", `{0.5::a|b}` weighs a less, `__name__` is a line of models/wildcards/name.txt. Options and
lines may hold wildcards again. Braces without `|` or `$$` are text, and so is what a backslash
escapes. The `|` of A1111's `[a|b]` within an option is text, too. `{~a|b}` and `__~name__` say that
they are drawn at random, as all are here. Its variables, its draws in turn (`@`) and its parameters
are not supported: each is a Mistake.
"""

import re
from bisect import bisect_right, insort
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from hashlib import sha256
from itertools import accumulate

from picowatch.errors import ValueInvalid
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.prompts.grammar import Mistake, joined_texts

MAX_WILDCARDS = 1000
MAX_SIGNS = 20_000
MAX_CHOSEN = 100
# Of any prompt, drawn or not: far below the megabyte that readers take of a PNG's text.
MAX_LENGTH = 20_000
MAX_DEPTH = 100
# How deep wildcards may stand in what other wildcards gave.
MAX_ROUNDS = 20

# Files of YAML that hold many wildcards.
PACK_ENDINGS = (".yaml", ".yml")

Wildcards = Mapping[str, tuple[str, ...]]

_VARIABLE = r"\$\{\s*[A-Za-z_]\w*\s*(?:\}|\?=|=|:)"
# Spaces stand within a name only. No letter of it begins a `__`: so none but the longest name is
# ever the right one, and a name without end is read once.
_NAME = r"(?:(?!__)[\w/.*-]| (?!__)(?=[\w/.*-]))+"
_FROM_FILE = rf"__[~@]?(?! ){_NAME}(?:\([^()\n]{{0,200}}\))?__"
_TOKEN = re.compile(rf"\\.|{_VARIABLE}|[{{}}|]|{_FROM_FILE}|[^\\{{}}|_$]+|.", re.DOTALL)
_COUNT = re.compile(r"\s*(?P<low>\d{0,9})(?P<to>-?)(?P<high>\d{0,9})\$\$(?:(?P<join>[^$]*)\$\$)?")
_BRACKET = re.compile(r"\\.|[\[\]{}|]", re.DOTALL)
_WEIGHT = re.compile(r"\s*(\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})::")


class ExpansionFailed(ValueInvalid):
    """Wildcards that cannot be drawn: without end, or to a text without end."""


@dataclass(frozen=True, slots=True)
class FromFile:
    """`__name__`: a line of the files that are meant, and where it stands."""

    written: str
    offset: int

    @property
    def name(self) -> str:
        """The name as written, without its underscores."""
        return self.written[2:-2].removeprefix("~")


@dataclass(frozen=True, slots=True)
class Choice:
    """`{a|b}`: `low` to `high` of the options, joined; where it stands and how long it is."""

    options: tuple["Nodes", ...]
    low: int
    high: int
    join: str
    offset: int
    length: int


_Node = str | FromFile | Choice | Mistake
Nodes = tuple[_Node, ...]


def parse(text: str, wildcards: Wildcards) -> Nodes:
    """The text taken apart. Never fails: what is no wildcard is text."""
    if "{" not in text and "__" not in text:
        return (text,)
    return tuple(_Parser(text, wildcards).nodes())


class _Parser:
    """Braces are matched on a stack; more than MAX_DEPTH open ones are text."""

    def __init__(self, text: str, wildcards: Wildcards) -> None:
        self.text = text
        self.wildcards = wildcards
        self.alternations = _bars_of_alternations(text)
        # One level for each open brace: where it stands, and its options so far.
        self.levels: list[tuple[int, list[list[_Node]]]] = [(0, [[]])]

    def nodes(self) -> list[_Node]:
        for token in _TOKEN.finditer(self.text):
            self.take(token[0], token.start())
        while len(self.levels) > 1:
            _, options = self.levels.pop()
            self.add("{", *_as_text(options))
        return joined_texts(self.levels[0][1][0])

    def take(self, token: str, offset: int) -> None:
        if token == "{" and len(self.levels) <= MAX_DEPTH:
            self.levels.append((offset, [[]]))
        elif token == "}" and len(self.levels) > 1:
            self.close(offset + 1)
        elif token == "|" and len(self.levels) > 1 and offset not in self.alternations:
            self.levels[-1][1].append([])
        elif token.startswith("__") and self.is_wildcard(token, offset):
            self.add(_from_file(token, offset))
        elif token.startswith("${"):
            self.add(_variable(token, offset))
        else:
            self.add(token)

    def is_wildcard(self, token: str, offset: int) -> bool:
        """Within a word only if there is such a file: long__snake__case is a word."""
        if not any(character.isalnum() for character in token):
            return False
        around = self.text[max(0, offset - 1) : offset], self.text[offset + len(token) :][:1]
        within = any(re.fullmatch(r"\w", character) for character in around)
        name = token[2:-2].strip("~@").casefold()
        return not within or any(name == known.casefold() for known in self.wildcards)

    def close(self, end: int) -> None:
        start, parts = self.levels.pop()
        options = [joined_texts(part) for part in parts]
        first = options[0][0] if options[0] and isinstance(options[0][0], str) else ""
        if len(options) > 1 and first.startswith("~"):
            options[0][0] = first = first[1:]
        count = _COUNT.match(first)
        if len(options) == 1 and not count:
            self.add("{", *_as_text(options), "}")
            return
        if first.startswith("@"):
            self.add(Mistake(start, len("{@"), _in_turn("{@…}", "{…}")))
        low, high, join = 1, 1, ", "
        if count:
            options[0][0] = first[count.end() :]
            low, high, join = _bounds(count, len(options))
        self.add(Choice(tuple(map(tuple, options)), low, high, join, start, end - start))

    def add(self, *nodes: _Node) -> None:
        self.levels[-1][1][-1].extend(nodes)


def _bars_of_alternations(text: str) -> set[int]:
    """Where each `|` of a closed `[a|b]` stands; not those of wildcards within."""
    found: set[int] = set()
    opened: list[tuple[str, list[int]]] = []
    for token in _BRACKET.finditer(text):
        sign = token[0]
        if sign in "[{":
            opened.append((sign, []))
        elif sign == "|" and opened:
            opened[-1][1].append(token.start())
        elif sign == "]" and opened and opened[-1][0] == "[":
            found.update(opened.pop()[1])
        elif sign == "}":
            # A bracket that is not closed within its option is text.
            while opened and opened.pop()[0] == "[":
                pass
    return found


def _from_file(token: str, offset: int) -> FromFile | Mistake:
    name = token[2:-2].removeprefix("~")
    if name.startswith("@"):
        return Mistake(offset, len(token), _in_turn(token, f"__{name[1:]}__"))
    if name.endswith(")"):
        plain = name.partition("(")[0]
        return Mistake(
            offset,
            len(token),
            f"{shown(token)} passes values to a wildcard, but picowatch does not support "
            f"variables. Write __{shown(plain)}__, and the values themselves into its lines.",
        )
    return FromFile(token, offset)


def _in_turn(written: str, instead: str) -> str:
    return (
        f"{shown(written)} would be used in turn, but picowatch draws at random. "
        f"Write {shown(instead)}, or sweep the choices."
    )


def _variable(token: str, offset: int) -> Mistake:
    name = re.sub(r"[${}=?:\s]", "", token)
    return Mistake(
        offset,
        len(token),
        f"${{{shown(name)}}} is a variable of Dynamic Prompts, which picowatch does not support. "
        "Write its value where it is used.",
    )


def _as_text(options: list[list[_Node]]) -> Iterator[_Node]:
    for index, option in enumerate(options):
        if index:
            yield "|"
        yield from joined_texts(option)


def _bounds(count: re.Match[str], options: int) -> tuple[int, int, str]:
    low = int(count["low"] or 1)
    high = int(count["high"] or options) if count["to"] else low
    return low, high, ", " if count["join"] is None else count["join"]


def found_in(nodes: Nodes) -> Iterator[FromFile | Choice | Mistake]:
    """Every wildcard in a text, those inside of others too."""
    waiting: list[_Node] = list(reversed(nodes))
    while waiting:
        node = waiting.pop()
        if not isinstance(node, str):
            yield node
        if isinstance(node, Choice):
            waiting += [inner for option in reversed(node.options) for inner in reversed(option)]


def matching_files(name: str, wildcards: Wildcards) -> list[str]:
    """The names of the wildcard files that are meant: in any case, `*` stands for anything."""
    if name in wildcards:
        return [name]
    folded = name.casefold()
    if "*" in name:
        return sorted(n for n in wildcards if fnmatchcase(n.casefold(), folded))
    return sorted(n for n in wildcards if n.casefold() == folded)[:1]


class Options:
    """What is chosen from: texts or nodes, with their weights."""

    def __init__(self, weighed: Sequence[tuple[float, Nodes]]) -> None:
        self.nodes = tuple(nodes for _, nodes in weighed)
        weights = [weight for weight, _ in weighed]
        # Most lists have no weights, and thousands of lines that are drawn from a thousand times.
        self._weights = weights if any(weight != 1 for weight in weights) else None

    def index(self, fraction: float, taken: Sequence[int]) -> int:
        """Which one a fraction from 0 to 1 means when those at the sorted indexes are gone."""
        if self._weights is None:
            index = int(fraction * (len(self.nodes) - len(taken)))
            for gone in taken:
                index += gone <= index
            return index
        left = [i for i in range(len(self.nodes)) if i not in taken]
        weights = [self._weights[i] for i in left]
        sums = list(accumulate(weights if any(weights) else [1.0] * len(weights)))
        return left[min(bisect_right(sums, fraction * sums[-1]), len(sums) - 1)]


@dataclass(frozen=True, eq=False, slots=True)
class SameLines:
    """Files' lines as a key: equal only if they are the same objects, which is quick to see."""

    files: tuple[tuple[str, ...], ...]

    def __hash__(self) -> int:
        return hash(tuple(map(id, self.files)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SameLines) and tuple(map(id, self.files)) == tuple(
            map(id, other.files)
        )


def lines_of(name: str, wildcards: Wildcards) -> Options:
    """The lines that `__name__` may become; comments and empty ones do not count."""
    files = tuple(wildcards[file] for file in matching_files(name, wildcards))
    return _weighed_lines(SameLines(files))


@lru_cache(maxsize=64)
def _weighed_lines(same: SameLines) -> Options:
    lines = (line.strip() for file in same.files for line in file)
    weighed = (_weighed(line) for line in lines if line and not line.startswith("#"))
    return Options([(weight, (text,)) for weight, text in weighed])


class Template:
    """A prompt before wildcards, taken apart once for all its images."""

    def __init__(self, text: str, wildcards: Wildcards) -> None:
        self.text = text
        self.nodes = parse(text, wildcards)
        self._wildcards = wildcards

    @property
    def is_drawn(self) -> bool:
        """Whether it holds any wildcard."""
        return any(not isinstance(node, str) for node in self.nodes)

    def expand(self, seed: int, stream: str) -> str:
        """The text with every wildcard drawn, the same for the same seed on any machine.

        `stream` keeps the draws of several texts of one image apart. What was drawn is drawn
        from again until no wildcard is left. Raises ExpansionFailed.
        """
        draws = _Draws(f"{stream}:{seed}", self._wildcards)
        text, nodes = self.text, self.nodes
        for _ in range(MAX_ROUNDS):
            if all(isinstance(node, str) for node in nodes):
                return text
            text = draws.drawn_whole(nodes)
            nodes = parse(text, self._wildcards)
        raise ExpansionFailed(f"its wildcards still contain wildcards after {MAX_ROUNDS} draws")


class _Draws:
    """Numbers that depend on seed and stream alone: a counter through sha256.

    Python's own generators promise the same numbers in the next version only for some methods.
    """

    def __init__(self, start: str, wildcards: Wildcards) -> None:
        self._start = start
        self._count = 0
        self._length = 0
        self._wildcards = wildcards

    def drawn_whole(self, nodes: Nodes) -> str:
        """The text of a whole prompt's nodes, a draw for each wildcard."""
        self._length = 0
        return self._drawn(nodes)

    def _drawn(self, nodes: Nodes) -> str:
        return "".join(self._text(node) for node in nodes)

    def _text(self, node: _Node) -> str:
        if isinstance(node, Choice):
            return self._chosen(node)
        if isinstance(node, Mistake):
            raise ExpansionFailed(node.message.removesuffix("."))
        text = node if isinstance(node, str) else self._line(node)
        self._grow(len(text))
        return text

    def _grow(self, letters: int) -> None:
        self._length += letters
        if self._length > MAX_LENGTH:
            raise ExpansionFailed(
                f"its wildcards give a text of more than {MAX_LENGTH:,} characters"
            )

    def _line(self, node: FromFile) -> str:
        lines = lines_of(node.name, self._wildcards)
        if not lines.nodes:
            raise ExpansionFailed(f"there is no line for the wildcard {node.written}")
        (text,) = lines.nodes[self._index(lines)]
        return str(text)

    def _chosen(self, choice: Choice) -> str:
        options = self._options(choice)
        high = min(choice.high, len(options.nodes))
        low = min(choice.low, high)
        how_many = low + int(self._fraction() * (high - low + 1)) if high > low else low
        chosen = []
        taken: list[int] = []
        for _ in range(how_many):
            index = self._index(options, taken)
            insort(taken, index)
            chosen.append(self._drawn(options.nodes[index]))
        if how_many == 1:
            return chosen[0]
        self._grow(len(choice.join) * how_many)
        return choice.join.join(text.strip() for text in chosen)

    def _options(self, choice: Choice) -> Options:
        """The options with their weights; `{2$$__name__}` takes two lines of one file."""
        if len(choice.options) == 1:
            meant = [n for n in choice.options[0] if not isinstance(n, str) or n.strip()]
            if len(meant) == 1 and isinstance(meant[0], FromFile):
                return lines_of(meant[0].name, self._wildcards)
        return Options([_weighed_nodes(option) for option in choice.options])

    def _index(self, options: Options, taken: Sequence[int] = ()) -> int:
        return options.index(self._fraction(), taken)

    def _fraction(self) -> float:
        """The next number from 0 to 1."""
        self._count += 1
        digest = sha256(f"{self._start}:{self._count}".encode()).digest()
        return (int.from_bytes(digest[:8]) >> 11) / 2**53


def _weighed(text: str) -> tuple[float, str]:
    weight = _WEIGHT.match(text)
    return (float(weight[1]), text[weight.end() :]) if weight else (1.0, text)


def _weighed_nodes(option: Nodes) -> tuple[float, Nodes]:
    if not option or not isinstance(option[0], str):
        return 1.0, option
    weight, text = _weighed(option[0])
    return weight, (text, *option[1:])
