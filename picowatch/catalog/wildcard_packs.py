"""A YAML file with many wildcards, as dynamicprompts and A1111's extensions have them.

Source: https://github.com/adieyal/dynamicprompts, docs/SYNTAX.md and wildcards/collection/
structured.py. A list of texts is a wildcard; its name are the keys that lead to it, joined by "/",
whatever the file is called. A file that is nothing but a list has the file's name.
"""

from dataclasses import dataclass, field

from picowatch.recipe.messages.places import Source
from picowatch.recipe.messages.problems import Problems, RecipeInvalid, shown
from picowatch.recipe.read.decoding import NEVER_IN_NAMES
from picowatch.recipe.read.nodes import Mapping, Node, Scalar, Sequence, compose
from picowatch.recipe.read.plain import number


@dataclass(frozen=True, slots=True)
class Pack:
    """The wildcards of a file with their lines, and what stands at names that are none."""

    lines: dict[str, tuple[str, ...]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def read_pack(file: str, name: str, text: str) -> Pack:
    """The wildcards of a file. ValueError says, after the file's name, why it cannot be used."""
    problems = Problems()
    try:
        documents = compose(Source(file, text), problems)
        problems.raise_if_any()
    except RecipeInvalid as invalid:
        first = invalid.problems[0]
        raise ValueError(f"cannot be used: line {first.line}: {first.message}") from None
    pack = Pack()
    for document in documents:
        _take(document, name, (), pack, file)
    return pack


def _take(node: Node, name: str, keys: tuple[str, ...], pack: Pack, file: str) -> None:
    name = "/".join(keys) or name
    if isinstance(node, Mapping):
        for key, value in node.pairs:
            if isinstance(key, Scalar) and key.text and not NEVER_IN_NAMES.search(key.text):
                _take(value, name, (*keys, key.text), pack, file)
        return
    elements = node.elements if isinstance(node, Sequence) else ()
    lines = [_line(element) for element in elements]
    if isinstance(node, Sequence) and None not in lines:
        pack.lines.setdefault(name, tuple(line for line in lines if line))
        return
    wrong = next((e for e, line in zip(elements, lines, strict=True) if line is None), node)
    pack.refused.setdefault(
        name, f"{shown(file)}, line {wrong.spot.line}: a wildcard is a list of texts."
    )


def _line(element: Node) -> str | None:
    """One choice in a line; None for what is none."""
    if isinstance(element, Scalar):
        return _joined(element.text)
    if not isinstance(element, Mapping):
        return None
    values = {
        key.text: value.text
        for key, value in element.pairs
        if isinstance(key, Scalar) and isinstance(value, Scalar)
    }
    text = values.get("text") or values.get("content")
    weight = values.get("weight", "1")
    return f"{weight}::{_joined(text)}" if text and number(weight) is not None else None


def _joined(text: str) -> str:
    """Several lines as one, without their comments."""
    lines = (line.strip() for line in text.split("\n"))
    return " ".join(line for line in lines if line and not line.startswith("#"))
