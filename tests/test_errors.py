"""The trees of errors: nothing stands outside of them, and each error says what to do."""

import ast
import builtins
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from picowatch import errors
from picowatch.errors import EXIT_CODES, FAILED, INTERRUPTED, SUCCEEDED

PACKAGE = Path(__file__).parents[1] / "picowatch"
VISIBLE, UNSEEN = "PicowatchError", "ControlFlow"


@dataclass(frozen=True)
class ErrorClass:
    """What the sources say of a class, read without importing torch or Ray."""

    name: str
    module: Path
    bases: tuple[str, ...]
    values: dict[str, object] = field(default_factory=dict)


def _is_builtin_error(name: str) -> bool:
    found = getattr(builtins, name, None)
    return isinstance(found, type) and issubclass(found, BaseException)


def _classes() -> Iterator[ErrorClass]:
    """Every exception class of the package, its bases first."""
    known = set()
    pending = [
        (path.relative_to(PACKAGE), node)
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    ]
    found = True
    while found:
        found = False
        for module, node in list(pending):
            bases = tuple(base.id for base in node.bases if isinstance(base, ast.Name))
            if any(base in known or _is_builtin_error(base) for base in bases):
                found = True
                known.add(node.name)
                pending.remove((module, node))
                yield ErrorClass(node.name, module, bases, dict(_values(node)))


def _values(node: ast.ClassDef) -> Iterator[tuple[str, object]]:
    for line in node.body:
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
            name = line.targets[0].id
            written = ast.unparse(line.value)
            yield name, getattr(errors, written, None) or ast.literal_eval(line.value)


@cache
def classes() -> dict[str, ErrorClass]:
    """By name; once for all tests, and not while they are collected."""
    return {one.name: one for one in _classes()}


def _ancestors(name: str) -> list[ErrorClass]:
    """The class itself and those above it in its tree."""
    found = [classes()[name]]
    while above := [base for base in found[-1].bases if base in classes()]:
        found.append(classes()[above[0]])
    return found


def _below(root: str) -> list[ErrorClass]:
    return [one for one in classes().values() if _ancestors(one.name)[-1].name == root]


def test_every_exception_class_is_in_a_tree() -> None:
    """Whatever picowatch defines and raises, somebody finds it in errors.py."""
    assert {one.name for one in [*_below(VISIBLE), *_below(UNSEEN)]} == classes().keys()


def test_the_trees_are_shown_as_they_are() -> None:
    """The docstring of errors.py has each class, below its base, with its module."""
    shown: dict[str, tuple[str, str]] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        name = line.lstrip("│├└─ ").partition(" ")[0]
        if name in classes() or "─" in line:
            depth = (len(line) - len(line.lstrip("│├└─ "))) // 4
            above[depth:] = [name]
            module = line.rpartition("(")[2].removesuffix(")") if line.endswith(".py)") else ""
            shown[name] = (above[depth - 1] if depth else "", module or "errors.py")
    assert shown == {
        one.name: (next(iter(b for b in one.bases if b in classes()), ""), str(one.module))
        for one in classes().values()
    }


def test_every_error_that_a_user_sees_has_an_exit_code_and_a_remedy() -> None:
    """A remedy of its own, or that of the class it is a kind of."""
    names = [one.name for one in _below(VISIBLE) if one.name != VISIBLE]
    assert len(names) > 15
    for name in names:
        inherited = [one.values for one in _ancestors(name)]
        codes = [values["exit_code"] for values in inherited if "exit_code" in values]
        remedies = [values["usual_remedy"] for values in inherited if values.get("usual_remedy")]
        assert codes and codes[0] in EXIT_CODES.keys() - {SUCCEEDED, INTERRUPTED}, name
        assert remedies and str(remedies[0]).endswith("."), name


def test_every_exit_code_has_a_class() -> None:
    """But for success and the signal that Python itself makes an exception of."""
    codes = {one.values["exit_code"] for one in _below(VISIBLE) if "exit_code" in one.values}
    assert codes == EXIT_CODES.keys() - {SUCCEEDED, INTERRUPTED}
    assert FAILED in codes


def test_nobody_raises_an_error_without_a_class_of_its_own() -> None:
    """The roots have no remedy to give."""
    raised = {
        call.func.id
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Raise) and isinstance(call := node.exc, ast.Call)
        if isinstance(call.func, ast.Name)
    }
    assert not raised & {VISIBLE, UNSEEN, "Exception"}
