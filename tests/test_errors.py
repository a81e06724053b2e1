"""The trees of errors: all exceptions are in them, and each error says what to do."""

import ast
import builtins
import re
from functools import cache
from pathlib import Path

from picowatch import errors
from picowatch.errors import INTERRUPTED, PAUSED, SUCCEEDED, ControlFlow, PicowatchError

PACKAGE = Path(__file__).parents[1] / "picowatch"
PAGE = PACKAGE.parent / "docs/commands.md"
ROOTS = {PicowatchError.__name__, ControlFlow.__name__}


@cache
def nodes() -> list[tuple[Path, ast.AST]]:
    """Return all nodes of the sources, which are parsed without importing torch or Ray."""
    return [
        (path.relative_to(PACKAGE), node)
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef | ast.Raise)
    ]


def test_the_trees_are_shown_as_they_are() -> None:
    """The docstring of errors.py has each exception class below its base, with its module."""
    classes = {
        node.name: (node.bases[0].id, str(path))
        for path, node in nodes()
        if isinstance(node, ast.ClassDef) and node.bases and isinstance(node.bases[0], ast.Name)
    }

    def is_error(name: str) -> bool:
        found = getattr(builtins, name, None)
        if name in classes:
            return is_error(classes[name][0])
        return isinstance(found, type) and issubclass(found, BaseException)

    defined = {
        name: (base if base in classes else "", module)
        for name, (base, module) in classes.items()
        if is_error(name)
    }
    shown: dict[str, tuple[str, str]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        name = line.lstrip("│├└─ ").partition(" ")[0]
        if name in defined or "─" in line:
            depth = (len(line) - len(line.lstrip("│├└─ "))) // 4
            path[depth:] = [name]
            module = line.rpartition("(")[2].removesuffix(")") if line.endswith(".py)") else ""
            assert name not in shown
            shown[name] = (path[depth - 1] if depth else "", module or "errors.py")
    assert shown == defined
    assert {name for name, (above, _) in defined.items() if not above} == ROOTS


def test_every_error_that_a_user_sees_has_an_exit_code_and_a_remedy() -> None:
    """Classes that are defined elsewhere inherit them."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    seen = [
        kind for kind in kinds if issubclass(kind, PicowatchError) and kind is not PicowatchError
    ]
    codes = {kind.exit_code for kind in seen} | {SUCCEEDED, PAUSED, INTERRUPTED}
    assert {*map(int, re.findall(r"^\| (\d+) \|", PAGE.read_text(), re.MULTILINE))} == codes
    assert [kind for kind in seen if not kind.usual_remedy.endswith(".")] == []


def test_nobody_raises_an_error_without_a_class_of_its_own() -> None:
    """The roots have no remedy to give."""
    raised = {
        call.func.id
        for _, node in nodes()
        if isinstance(node, ast.Raise) and isinstance(call := node.exc, ast.Call)
        if isinstance(call.func, ast.Name)
    }
    assert not raised & {*ROOTS, "Exception"}
