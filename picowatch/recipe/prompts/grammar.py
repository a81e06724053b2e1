"""A1111's prompt grammar: attention weights, LoRA tags, embeddings, and mistakes.

A prompt that is a JSON object has none of it: it is taken as it is. editing.py has words that
change between the steps. A backslash makes a bracket or brace literal, and a `|`, `<` or `_` that
would otherwise have a meaning. `parse_attention` follows A1111's parser (modules/prompt_parser.py).
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import Any
from unicodedata import normalize

from picowatch.recipe.messages.problems import shown

# A chunk break comes as ("BREAK", -1.0), the -1 multiplied by the weights around it.
BREAK = "BREAK"
MAX_NESTING = 100
MAX_WEIGHT = 100.0
MAX_LORA_WEIGHT = 10.0

_ROUND = 1.1
_SQUARE = 1 / 1.1
_TOKEN = re.compile(r"\\[()\[\]\\]|\\|\(|\[|:\s*(?P<weight>[+-]?[.\d]+)\s*\)|\)|\]|[^\\()\[\]:]+|:")
# A negative look-behind for an escaped tag: `\\<` is a literal bracket.
_LORA_TAG = re.compile(
    r"(?<!\\)<lora:(?P<name>[^<>:\n]*)(?::(?P<weight>[^<>\n]*))?>", re.IGNORECASE
)
# As A1111's \s*\bBREAK\b\s*, but linear on long stretches of white space.
_BREAK = re.compile(r"(?:(?<!\s)\s+)?\bBREAK\b\s*")
_WEIGHT = re.compile(r":\s*([+-]?[.\d]+)\s*\)")
_BRACKET = re.compile(r"[()\[\]{}]")


@dataclass(slots=True)
class Bracket:
    """An open bracket of wildcards or prompt editing; the whole text has no sign."""

    sign: str = ""
    offset: int = 0
    # Of nodes: texts, and what closed brackets became.
    parts: list[list[Any]] = field(default_factory=lambda: [[]])
    separators: list[str] = field(default_factory=list)

    def add(self, *nodes: Any) -> None:
        self.parts[-1] += nodes

    def separate(self, separator: str) -> None:
        self.separators.append(separator)
        self.parts.append([])

    def as_text(self, closing: str = "") -> list[Any]:
        """Return the nodes of a bracket that is text."""
        parts = zip((self.sign, *self.separators), self.parts, strict=True)
        return [*(node for before, part in parts for node in (before, *part)), closing]


def joined(nodes: Iterable[Any]) -> tuple[Any, ...]:
    """Join neighbouring pieces of text."""
    found: list[Any] = []
    for is_text, group in groupby(nodes, lambda node: isinstance(node, str)):
        if not is_text:
            found += group
        elif text := "".join(group):
            found.append(text)
    return tuple(found)


def ended(opened: Iterable[Bracket]) -> tuple[Any, ...]:
    """Return the nodes of a whole text; brackets that are still open are text."""
    return joined(node for bracket in opened for node in bracket.as_text())


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong in a prompt, and what to do."""

    message: str
    tag: str = ""
    instead: str = ""  # what would do in place of `tag`, if anything
    used: str = ""  # the part of it that a warning names


@dataclass(frozen=True, slots=True)
class LoraTag:
    """`<lora:name:0.8>`: its name, its weight, and the tag as written."""

    name: str
    weight: float
    written: str


def is_json(text: str) -> bool:
    """Return whether a prompt is a JSON object: models that were trained on such read it whole."""
    if not text.lstrip().startswith("{"):
        return False
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def parse_attention(text: str) -> list[tuple[str, float]]:
    """Return the prompt as pieces of text with their weights; equal neighbours are joined.

    `(a)` weighs 1.1, `[a]` 1/1.1, `(a:1.2)` 1.2, `\\(` is a bracket; a bracket that is never
    closed weighs to the end. BREAK comes as ("BREAK", -1.0) times the weights around it.
    """
    if is_json(text):
        return [(text, 1.0)]
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
            # The pattern looks at every space.
            for index, part in enumerate(_BREAK.split(word) if BREAK in word else [word]):
                pieces += [(BREAK, -1.0), (part, 1.0)] if index else [(part, 1.0)]
    for starts, weight in ((open_round, _ROUND), (open_square, _SQUARE)):
        for start in starts:
            _weigh(pieces, start, weight)
    runs = groupby(pieces, itemgetter(1))
    found = [("".join(part for part, _ in run), weight) for weight, run in runs]
    return found or [("", 1.0)]


def _number(text: str | None) -> float | None:
    # A1111 stops at "(a:1.2.3)" with an exception; here it is text.
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _weigh(pieces: list[tuple[str, float]], start: int, factor: float) -> None:
    pieces[start:] = [(text, weight * factor) for text, weight in pieces[start:]]


def without_weights(text: str) -> str:
    """Return only the prompt's words, for text encoders that take no weights and no chunks."""
    return "".join(" " if piece == BREAK else piece for piece, _ in parse_attention(text))


def lora_tags(text: str) -> list[LoraTag]:
    if "<" not in text or is_json(text):  # most have none, and every rule asks
        return []
    return list(filter(None, map(_lora, _LORA_TAG.finditer(text))))


def without_loras(text: str) -> str:
    """Return the prompt without its LoRA tags, those that `unsupported` finds, too."""
    return text if "<" not in text or is_json(text) else _LORA_TAG.sub("", text)


def _lora(tag: re.Match[str]) -> LoraTag | None:
    """Return the tag if its name and weight are valid; without a weight it is 1."""
    name, weight = tag["name"].strip(), (tag["weight"] or "").strip()
    number = 1.0 if tag["weight"] is None else _number(weight)
    if not name or number is None or not abs(number) <= MAX_LORA_WEIGHT:
        return None
    return LoraTag(name, number + 0.0, tag[0])


def plain_prompt(text: str) -> str:
    """Return the text encoder's prompt: without LoRA tags and the backslashes of wildcards."""
    if is_json(text):
        return text
    text = without_loras(text)
    return re.sub(r"\\([{}|<_])|\\.", lambda found: found[1] or found[0], text, flags=re.DOTALL)


def embedding_words(text: str, names: Sequence[str]) -> list[tuple[int, int, str]]:
    """Return the installed embeddings in a text: start, end and name, in order.

    An embedding is called by its file's name as a whole word, in any case, with or without its
    folder; of two that match, the longer name counts. ComfyUI's `embedding:` before the name is a
    part of it, and then the file's ending, too.
    """
    if not names:
        return []
    pattern, by_name = _names_in_prompts(tuple(names))
    # The pattern also matches the Turkish dotted and dotless i as "i"; they are other letters.
    found = ((word, by_name.get(word["name"].casefold())) for word in pattern.finditer(text))
    return [(match.start(), match.end(), name) for match, name in found if name]


@lru_cache(maxsize=8)
def embeddings_in(prompt: str, names: tuple[str, ...]) -> frozenset[str]:
    """Return the installed embeddings that a prompt names, as `embedding_words` finds them."""
    if not names:
        return frozenset()
    pieces = parse_attention(plain_prompt(prompt))
    return frozenset(name for text, _ in pieces for *_, name in embedding_words(text, names))


@lru_cache(maxsize=8)
def _names_in_prompts(names: tuple[str, ...]) -> tuple[re.Pattern[str], dict[str, str]]:
    """Return a pattern for embeddings' names, and what each means: the first in any folder."""
    called = {name.rpartition("/")[2]: name for name in sorted(names, reverse=True)}
    called |= {name: name for name in names}
    # macOS decomposes accents and syllables, keyboards compose them.
    called |= {normalize(form, text): called[text] for text in [*called] for form in ("NFC", "NFD")}
    longest_first = sorted(called, key=lambda text: (-len(text), text))
    pattern = re.compile(
        rf"(?<![\w-])(?P<comfyui>embedding:)?(?P<name>{'|'.join(map(re.escape, longest_first))})"
        r"(?(comfyui)(?:\.safetensors|\.pt|\.bin)?)(?![\w-])",
        re.IGNORECASE,
    )
    return pattern, {text.casefold(): name for text, name in called.items()}


# Only in dynamicprompts: variables, choices in turn or said to be random, values of wildcards.
DYNAMIC = re.compile(
    r"(?<![$\\])\$\{\s*[A-Za-z_]\w*\s*(?:\}|\?=|=|:)|(?<!\\)\{[@~][^{}|]*\|"
    r"|(?<![\w\\])__(?:[@~][^\W_][\w/.* -]*?|(?! )(?:(?!__)[\w/.* -])+\([^()\n]{0,200}\))__"
)
_UNSUPPORTED = {
    re.compile(r"<(?:lyco|hypernet):[^<>\n]*>", re.IGNORECASE): (
        "{} is not supported. For a LoRA write <lora:name:0.8>."
    ),
    re.compile(r"\s*\bAND\b"): (
        "AND (composing prompts) is not supported. Write 'and' in lower case, a comma, "
        "or one recipe for each prompt."
    ),
    DYNAMIC: "{} is dynamicprompts' syntax, which is not supported. Write {{a|b}} or __name__, "
    "drawn at random, or the words themselves.",
}


def unsupported(text: str) -> Iterator[Mistake]:
    """Yield what picowatch does not support; a bracket or brace after a backslash is plain text."""
    if is_json(text):
        return
    # Each escaped character is replaced by a letter, so that offsets stay.
    plain = re.sub(r"\\.", "\\\\x", text, flags=re.DOTALL) if "\\" in text else text
    for pattern, message in _UNSUPPORTED.items():
        for found in pattern.finditer(plain):
            instead = "," if found[0].endswith("AND") else ""
            yield Mistake(message.format(shown(found[0], 40)), text[slice(*found.span())], instead)
    for tag in _LORA_TAG.finditer(plain):
        if not _lora(tag):
            each = (f"<lora:{tag['name']}:{part}>" for part in (tag["weight"] or "").split(":"))
            kept = next(filter(lora_tags, each), "")
            limits = f"from -{MAX_LORA_WEIGHT:.0f} to {MAX_LORA_WEIGHT:.0f}"
            what = f"{shown(tag[0], 40)} is not a LoRA with one weight {limits}."
            written = text[slice(*tag.span())]
            yield Mistake(f"{what} Write one like <lora:name:0.8>.", written, kept, kept)
    for found in _WEIGHT.finditer(plain):
        number = _number(found[1])
        if number is None or abs(number) > MAX_WEIGHT:
            limits = f"from -{MAX_WEIGHT:.0f} to {MAX_WEIGHT:.0f}"
            what = f"the weight '{shown(found[1], 40)}' is not a number {limits}."
            yield Mistake(f"{what} Write one like (word:1.2).", found[0], ")")
    depth = 0
    for bracket in _BRACKET.finditer(plain):
        depth = depth + 1 if bracket[0] in "([{" else max(0, depth - 1)
        if depth > MAX_NESTING:  # parsing the weights would take forever
            yield Mistake(f"more than {MAX_NESTING} brackets are open here.")
            return
