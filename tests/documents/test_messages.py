"""The messages that docs/troubleshooting.md explains are those of the code."""

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest

from tests.test_docs import PROJECT

PAGE = (PROJECT / "docs/troubleshooting.md").read_text()
MESSAGES = re.findall(r"^### (?:`)?(.+?)(?:`)?$", PAGE, re.MULTILINE)
# What stands for a value: in the page, in f-strings, and in the texts of the log.
VALUE = "…"
LOG_VALUE = re.compile(r"%[sd]")


@pytest.mark.parametrize("message", MESSAGES)
def test_every_message_that_is_explained_still_exists(message: str) -> None:
    """To the letter, with … for a value."""
    assert any(message in text for text in texts_of_the_code())


@cache
def texts_of_the_code() -> tuple[str, ...]:
    """Every text in picowatch's source, with … for each value."""
    sources = sorted((PROJECT / "picowatch").rglob("*.py"))
    return tuple(text for path in sources for text in _texts(ast.parse(path.read_text())))


def _texts(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (
                str(part.value) if isinstance(part, ast.Constant) else VALUE for part in node.values
            )
            yield "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield LOG_VALUE.sub(VALUE, node.value)
