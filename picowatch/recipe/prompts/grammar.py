"""A1111's prompt grammar: attention weights, LoRA tags, embeddings, what is refused, and what is
probably a mistake. editing.py has words that change between the steps.

A backslash makes a bracket or brace literal, and a `|`, `<` or `_` that would mean something.
`parse_attention` follows A1111's parser (modules/prompt_parser.py, parse_prompt_attention).
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import Any

from picowatch.recipe.messages.problems import shown

# A chunk break comes as ("BREAK", -1.0), the -1 multiplied by the weights around it.
BREAK = "BREAK"
MAX_NESTING = 100
MAX_WEIGHT = 100.0
MAX_LORA_WEIGHT = 10.0
MAX_FOUND = 20

_ROUND = 1.1
_SQUARE = 1 / 1.1
_TOKEN = re.compile(r"\\[()\[\]\\]|\\|\(|\[|:\s*(?P<weight>[+-]?[.\d]+)\s*\)|\)|\]|[^\\()\[\]:]+|:")
# A negative look-behind for an escaped tag: `\\<` is a literal bracket.
_LORA_TAG = re.compile(
    r"(?<!\\)<lora:(?P<name>[^<>:\n]*)(?::(?P<weight>[^<>\n]*))?>", re.IGNORECASE
)
# As A1111's \s*\bBREAK\b\s*, but linear on long stretches of white space.
_BREAK = re.compile(r"(?:(?<!\s)\s+)?\bBREAK\b\s*")


_COMMA_WEIGHT = re.compile(
    r"\((?P<text>[^()\[\]:]{1,200}):\s*(?P<whole>\d{1,2}),(?P<rest>\d{1,3})\s*\)"
)
_COMMA_STEP = re.compile(
    r"\[(?P<text>[^()\[\]{}]{0,200}):\s*(?P<whole>\d{1,3}),(?P<rest>\d{1,3})\s*\]"
)
# `[a|b:0.5]` changes nothing, `[[a|b]:c:0.5]` would.
_BAR_AND_STEP = re.compile(r"\[[^()\[\]{}\\|]{0,200}\|[^()\[\]{}\\]{0,200}:\s*[\d.]{1,5}\s*\]")
_BRACKET = re.compile(r"\\.|[(){}|]", re.DOTALL)
_CURLY = ("“”", "„“", "„”", "””", "‘’", "‚‘", "«»", "»«", '„"', '“"')


@dataclass(frozen=True, slots=True)
class Mistake:
    """Something wrong in a prompt: its offset and length there, and what to do."""

    offset: int
    length: int
    message: str


@dataclass(frozen=True, slots=True)
class LoraTag:
    """`<lora:name:0.8>`: the name and weight it holds, and where it stands."""

    name: str
    weight: float
    offset: int
    written: str

    def mistake(self, message: str) -> Mistake:
        """Something wrong with this tag."""
        return Mistake(self.offset, len(self.written), message)


def parse_attention(text: str) -> list[tuple[str, float]]:
    """The prompt as pieces of text with their weights, neighbours of equal weight joined.

    `(a)` weighs 1.1, `[a]` 1/1.1, `(a:1.2)` 1.2, `\\(` is a bracket; a bracket that is never
    closed weighs to the end. BREAK comes as ("BREAK", -1.0) times the weights around it.
    """
    pieces: list[tuple[str, float]] = []
    open_round: list[int] = []
    open_square: list[int] = []
    for token in _TOKEN.finditer(text):
        word, weight = token[0], _number(token["weight"])
        if word.startswith("\\"):
            pieces.append((word[1:], 1.0))
        elif word == "(":
            open_round.append(len(pieces))
        elif word == "[":
            open_square.append(len(pieces))
        elif open_round and (word == ")" or weight is not None):
            _weigh(pieces, open_round.pop(), _ROUND if weight is None else weight)
        elif open_square and word == "]":
            _weigh(pieces, open_square.pop(), _SQUARE)
        else:
            pieces.extend(_broken(word))
    for starts, weight in ((open_round, _ROUND), (open_square, _SQUARE)):
        for start in starts:
            _weigh(pieces, start, weight)
    return _joined(pieces) or [("", 1.0)]


def _number(text: str | None) -> float | None:
    # A1111 stops at "(a:1.2.3)" with an exception; here it is text.
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _weigh(pieces: list[tuple[str, float]], start: int, factor: float) -> None:
    pieces[start:] = [(text, weight * factor) for text, weight in pieces[start:]]


def _broken(text: str) -> Iterator[tuple[str, float]]:
    if BREAK not in text:  # the pattern would look at every space
        yield text, 1.0
        return
    for index, part in enumerate(_BREAK.split(text)):
        if index:
            yield BREAK, -1.0
        yield part, 1.0


def _joined(pieces: list[tuple[str, float]]) -> list[tuple[str, float]]:
    runs = groupby(pieces, itemgetter(1))
    return [("".join(text for text, _ in run), weight) for weight, run in runs]


def joined_texts(nodes: Iterable[Any]) -> list[Any]:
    """The nodes of a prompt, with neighbouring pieces of text in one."""
    joined: list[Any] = []
    for is_text, group in groupby(nodes, lambda node: isinstance(node, str)):
        if not is_text:
            joined += group
        elif text := "".join(group):
            joined.append(text)
    return joined


def without_weights(text: str) -> str:
    """The prompt's words alone, for text encoders that take no weights and no chunks."""
    return "".join(" " if piece == BREAK else piece for piece, _ in parse_attention(text))


def split_loras(text: str) -> tuple[str, list[tuple[str, float]]]:
    """The prompt without its LoRA tags, and their names and weights in order.

    `<lora:name>` weighs 1. An invalid tag (see `unsupported`) stays text.
    """
    without = _LORA_TAG.sub(lambda tag: "" if _lora(tag) else tag[0], text)
    return without, [(tag.name, tag.weight) for tag in lora_tags(text)]


def lora_tags(text: str) -> list[LoraTag]:
    """Every LoRA tag of a text, in order."""
    return list(filter(None, map(_lora, _LORA_TAG.finditer(text))))


def _lora(tag: re.Match[str]) -> LoraTag | None:
    """The tag, if it has a name, and a weight or none."""
    name, weight = tag["name"].strip(), (tag["weight"] or "").strip()
    number = 1.0 if tag["weight"] is None else _number(weight)
    if not name or number is None:
        return None
    return LoraTag(name, number + 0.0, tag.start(), tag[0])


def plain_prompt(text: str) -> str:
    """What the text encoder is given: no LoRA tags, and what only wildcards escape unescaped."""
    without, _ = split_loras(text)
    return re.sub(r"\\(.)", _unescaped, without, flags=re.DOTALL)


def _unescaped(escape: re.Match[str]) -> str:
    return escape[1] if escape[1] in "{}|<_" else escape[0]


def embedding_words(text: str, names: Sequence[str]) -> list[tuple[int, int, str]]:
    """Where installed embeddings stand in a text: start, end and name, in order.

    An embedding is called by its file's name as a whole word, in any case, with its folder or
    without; of two that fit the longer one is meant. ComfyUI's `embedding:` before it belongs to
    it, and then the file's ending, too.
    """
    if not names:
        return []
    by_name = _by_name(tuple(names))
    found = []
    for m in _words_pattern(tuple(names)).finditer(text):
        # The pattern takes the Turkish i with and without a dot for "i"; it is another letter.
        for called in (m["name"].casefold(), m["word"].casefold()):
            if called in by_name:
                found.append((m.start(), m.end(), by_name[called]))
                break
    return found


@lru_cache(maxsize=8)
def embeddings_in(prompt: str, names: tuple[str, ...]) -> frozenset[str]:
    """The installed embeddings that a prompt names, as `embedding_words` finds them."""
    if not names:
        return frozenset()
    pieces = parse_attention(plain_prompt(prompt))
    return frozenset(name for text, _ in pieces for *_, name in embedding_words(text, names))


@lru_cache(maxsize=8)
def _by_name(names: tuple[str, ...]) -> dict[str, str]:
    """Embeddings by their names, and by the last part: the first of several of one name."""
    last = {name.rpartition("/")[2].casefold(): name for name in sorted(names, reverse=True)}
    return last | {name.casefold(): name for name in names}


@lru_cache(maxsize=8)
def _words_pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    parts = [name.rpartition("/") for name in names]
    folders = _any_of(folder + slash for folder, slash, _ in parts)
    words = _any_of(word for *_, word in parts)
    return re.compile(
        rf"(?<![\w-])(?P<comfyui>embedding:)?(?P<name>(?:{folders})?(?P<word>{words}))"
        r"(?(comfyui)(?:\.safetensors|\.pt|\.bin)?)(?![\w-])",
        re.IGNORECASE,
    )


def _any_of(texts: Iterable[str]) -> str:
    """A pattern for any of them, the longest first."""
    longest_first = sorted(set(texts), key=lambda text: (-len(text), text))
    return "|".join(map(re.escape, longest_first))


def unsupported(text: str) -> list[Mistake]:
    """What in a prompt picowatch cannot do yet, in the order of the text: the first 20.

    A backslash before a bracket or brace makes it plain text, which is never refused.
    """
    plain = _without_escapes(text)
    found = [
        *_constructs(plain),
        *_lora_tags(plain),
        *_brackets(plain),
        *_weights(plain),
    ]
    return sorted(found, key=lambda construct: construct.offset)[:MAX_FOUND]


def _without_escapes(text: str) -> str:
    """The text with each escaped character replaced by a letter, so that offsets stay."""
    return re.sub(r"\\.", "\\\\x", text, flags=re.DOTALL)


_CONSTRUCTS = (
    (
        re.compile(r"<(?:lyco|hypernet):[^<>\n]*>", re.IGNORECASE),
        "{} is not supported. For a LoRA write <lora:name:0.8>.",
    ),
    (
        re.compile(r"\bAND\b"),
        "AND (composing prompts) is not supported yet. Write 'and' in lower case, a comma, "
        "or one recipe for each prompt.",
    ),
)


def _constructs(text: str) -> Iterator[Mistake]:
    for pattern, message in _CONSTRUCTS:
        for found in pattern.finditer(text):
            yield Mistake(found.start(), len(found[0]), message.format(_cut(found[0])))


def _lora_tags(text: str) -> Iterator[Mistake]:
    for tag in _LORA_TAG.finditer(text):
        lora = _lora(tag)
        if lora is None and ":" in (tag["weight"] or ""):
            why = "has more than one weight, and picowatch applies one to the whole LoRA"
        elif lora is None:
            why = "is not a LoRA with a weight"
        elif not abs(lora.weight) <= MAX_LORA_WEIGHT:
            why = f"has a weight beyond {MAX_LORA_WEIGHT:.0f}"
        else:
            continue
        message = f"{_cut(tag[0])} {why}. Write one like <lora:name:0.8>."
        yield Mistake(tag.start(), len(tag[0]), message)


def _weights(text: str) -> Iterator[Mistake]:
    for found in re.finditer(r":\s*([+-]?[.\d]+)\s*\)", text):
        number = _number(found[1])
        if number is None or abs(number) > MAX_WEIGHT:
            why = "is not a number" if number is None else f"is beyond {MAX_WEIGHT:.0f}"
            message = f"the weight '{_cut(found[1])}' {why}. Write one like (word:1.2)."
            yield Mistake(found.start(1), len(found[1]), message)


def _brackets(text: str) -> Iterator[Mistake]:
    """Too deep nesting, which would take the text encoder forever."""
    opened: list[str] = []
    for found in re.finditer(r"[()\[\]{}]", text):
        if found[0] in "([{":
            opened.append(found[0])
        elif opened and opened[-1] + found[0] in ("()", "[]", "{}"):
            opened.pop()
        if len(opened) > MAX_NESTING:
            yield Mistake(found.start(), 1, f"more than {MAX_NESTING} brackets are open here.")
            return


def _cut(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"


def probable_mistakes(text: str, may_be_quoted: bool = True) -> Iterator[str]:
    """Warnings about a prompt as written: what is drawn, but was hardly meant to be.

    `may_be_quoted`: straight quotes around it would not be part of it.
    """
    if "," in text and "(" in text:
        for found in _COMMA_WEIGHT.finditer(text):
            instead = f"({found['text']}:{found['whole']}.{found['rest']})"
            yield (
                f"'{shown(found[0])}' is used as literal text, because a weight has a decimal "
                f"point. For the weight, write {shown(instead)}."
            )
    if "[" in text:
        yield from _failed_edits(text)
    for start, _ in _never_closed(text, "(", ")")[:1]:
        yield (
            f"the bracket of '{shown(text[start:], 30)}' is never closed, so everything after it "
            "gets more weight. Close it, or write \\( for the character."
        )
    choices = [start for start, has_bar in _never_closed(text, "{", "}") if has_bar]
    for start in choices[-1:]:
        yield (
            f"the brace in '{shown(text[start:], 30)}' is never closed, so it is used as literal "
            "text. Close it, or write \\{ for the character."
        )
    stripped = text.strip()
    quotes = stripped[:1] + stripped[1:][-1:]
    if quotes in _CURLY and not any(quote in stripped[1:-1] for quote in quotes):
        remedy = "Remove them, or use straight quotes." if may_be_quoted else "Remove them."
        yield (
            f"the quotes {stripped[0]} and {stripped[-1]} around the prompt are part of its text. "
            f"{remedy}"
        )


def _failed_edits(text: str) -> Iterator[str]:
    """Brackets that look like prompt editing, but are text."""
    for found in _COMMA_STEP.finditer(text):
        instead = f"[{found['text']}:{found['whole']}.{found['rest']}]"
        yield (
            f"'{shown(found[0])}' is used as literal text, because numbers have a decimal point. "
            f"To change words between the steps, write {shown(instead)}."
        )
    for found in _BAR_AND_STEP.finditer(text):
        yield (
            f"'{shown(found[0])}' is used as literal text, because | and : cannot share a bracket. "
            "Write [a|b] in a bracket of its own, as in [[a|b]:c:0.5]."
        )


def _never_closed(text: str, opening: str, closing: str) -> list[tuple[int, bool]]:
    """Where brackets stand that are open at the end, and whether there is a bar in each."""
    opened: list[tuple[int, bool]] = []
    for found in _BRACKET.finditer(text):
        if found[0] == opening:
            opened.append((found.start(), False))
        elif found[0] == closing and opened:
            opened.pop()
        elif found[0] == "|" and opened:
            opened[-1] = (opened[-1][0], True)
    return opened
