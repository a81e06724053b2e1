"""Regular expressions for the schema: names as forgivingly as recipes read them.

They are of the kind that JavaScript and Python both understand, without flags: editors match them.
"""

import re
from collections.abc import Iterable

# The expression of a name's beginnings is nested as deep as the name is long.
_MAX_DEPTH = 40
_REST = "\0"  # stands in the tree for whatever follows so long a beginning

_Tree = dict[str, "_Tree"]


def one_of(names: Iterable[str], between: str = "") -> str:
    """Matches these names in any case, with `between` between their characters."""
    tree: _Tree = {}
    for name in names:
        _grow(tree, name)[""] = {}
    return _written(tree, between)


def beginning_of(names: Iterable[str]) -> str:
    """Matches whatever one of these names begins with, in any case, but not nothing."""
    tree: _Tree = {}
    for name in names:
        _grow(tree, name[:_MAX_DEPTH] + _REST * (len(name) > _MAX_DEPTH))
    _end_everywhere(tree)
    return _written(tree, "")


def whole(expression: str) -> str:
    """Matches this with nothing around it but white space."""
    return rf"^\s*(?:{expression})\s*$"


def _grow(tree: _Tree, name: str) -> _Tree:
    """Adds a name to the tree of letters; gives its last branch."""
    for letter in name:
        tree = tree.setdefault(letter.lower(), {})
    return tree


def _end_everywhere(tree: _Tree) -> None:
    for branch in tree.values():
        _end_everywhere(branch)
        branch[""] = {}


def _written(tree: _Tree, between: str) -> str:
    """The tree as an expression; an empty letter in it says that a name may end there."""
    letters = [letter for letter in tree if letter]
    parts = [_any_case(letter) + _following(tree[letter], between) for letter in letters]
    return parts[0] if len(parts) == 1 else f"(?:{'|'.join(parts)})"


def _following(tree: _Tree, between: str) -> str:
    if not any(tree):
        return ""
    rest = between + _written(tree, between)
    return f"(?:{rest})?" if "" in tree else rest


def _any_case(letter: str) -> str:
    if letter == _REST:
        return ".*"
    if letter.upper() != letter and len(letter.upper()) == 1:
        return f"[{letter.upper()}{letter}]"
    return re.sub(r"([\\^$.*+?()\[\]{}|/])", r"\\\1", letter)
