"""The import rules of docs/design.md, held by reading the sources."""

import ast
import re
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests import pythons

PACKAGE = Path(__file__).parents[1] / "picowatch"
MODULES = sorted(PACKAGE.rglob("*.py"))

# Imports point down: a part may import from lower lines and, where it is a folder, itself.
LAYERS: list[set[str]] = [
    {"errors", "streams"},
    {"families", "service", "signals"},
    {"files"},
    {"recipe"},
    {"sources"},
    {"settings"},
    {"metadata", "catalog"},
    {"engine", "outbox"},
    {"ledger", "observers"},
    {"inbox"},
    {"daemon"},
    {"commands"},
    {"cli"},
]
LEVELS = {part: level for level, parts in enumerate(LAYERS) for part in parts}
HEAVY = {"torch", "diffusers", "transformers", "accelerate", "peft", "safetensors"}


def part_of(path: Path) -> str:
    """Return the file or folder directly below picowatch/ that a module belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def imports_of(path: Path) -> set[str]:
    """Return every module that a file imports, anywhere in it, and what it imports from them."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: relative import"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_imports_point_down() -> None:
    upward = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in MODULES
        if (own := part_of(path)) not in {"__init__", "__main__"}
        for name in imports_of(path) - {"picowatch.__version__"}
        if name.startswith("picowatch.")
        if (other := name.split(".")[1]) != own and LEVELS[other] >= LEVELS[own]
    ]
    assert not upward


ENGINE = ("process", "drawing", "networks", "model")  # its folders, from the top
# Modules, and the folders that they do not know.
APART = {
    # From a process down to a loaded checkpoint; the modules beside them are for all.
    **{
        f"engine/{own}/*.py": {f"engine.{other}" for other in ENGINE[:level]}
        for level, own in enumerate(ENGINE)
    },
    "engine/*.py": {f"engine.{own}" for own in ENGINE},
    # One reads what is written, the other finds what it means; reading.py composes them.
    "recipe/read/*.py": {"recipe.resolve"},
    "recipe/resolve/*.py": {"recipe.read"},
    # Resolving makes recipes, and nothing reaches back.
    "recipe/*.py": {"recipe.resolve"},
    "recipe/prompts/*.py": {"recipe.resolve"},
}


@pytest.mark.parametrize("modules", APART)
def test_folders_within_a_part_do_not_know_of_each_other(modules: str) -> None:
    """Or only one way."""
    paths = {*PACKAGE.glob(modules)} - {PACKAGE / "recipe/reading.py"}
    named = {".".join(name.split(".")[1:3]) for path in paths for name in imports_of(path)}
    assert paths and named.isdisjoint(APART[modules])


def _private_names(path: Path) -> tuple[set[str], set[str]]:
    """Return a module's private names and those it uses, not as another object's attribute."""
    own, used = set[str](), {part for name in imports_of(path) for part in name.split(".")}
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                own.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                own.add(name)
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                own.add(name)
            case ast.Attribute(value=ast.Name(id="self"), attr=name) | ast.keyword(arg=str(name)):
                used.add(name)
            case ast.Attribute(attr=name):
                used.add(f"{name} of another")
            case ast.Constant(value=str(name)) if name.isidentifier():
                used.add(name)
    return own, {name for name in used if re.match("_[^_]", name)}


def test_private_names_of_libraries_stand_in_one_module() -> None:
    """Its tests fail when one changes; Ray's stands where the daemon needs no torch."""
    public = {
        *("_replace", "_replace of another", "_asdict"),  # of named tuples
        "_exit of another",  # of os
        *("_1", "_token", "_token_id"),  # ends of names
    }
    found = {path.name: _private_names(path) for path in (PACKAGE / "engine").rglob("*.py")}
    public.update(*(own for own, _ in found.values()))
    elsewhere = {name: used - public for name, (_, used) in found.items() if used - public}
    assert elsewhere.pop("private.py")
    assert elsewhere == {"ray.py": {"_private"}}


def test_no_modules_import_each_other() -> None:
    modules = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in MODULES
    }
    graph = {name: imports_of(path) & modules.keys() for name, path in modules.items()}
    TopologicalSorter(graph).prepare()  # CycleError names them


def test_only_the_engine_imports_torch() -> None:
    """Everything else is quick and works without it."""
    heavy = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in MODULES
        if part_of(path) != "engine"
        for name in imports_of(path)
        if name.split(".")[0] in HEAVY
    ]
    assert not heavy


def test_sql_stands_in_the_ledger_alone() -> None:
    """Tables have one owner; the hashes of models are a cache in another file."""
    users = {path for path in MODULES if "execute(" in path.read_text()}
    assert {part_of(path) for path in users - {PACKAGE / "catalog/hashes.py"}} == {"ledger"}


def test_only_who_builds_a_daemon_knows_all_settings() -> None:
    """Each part gets the values that it needs."""
    builders = {"build", "supervise", "settings_file"}
    whole = {"picowatch.settings.Settings", "picowatch.settings.settings.Settings"}
    users = {path for path in MODULES if whole & imports_of(path)}
    others = users - {PACKAGE / "daemon" / f"{name}.py" for name in builders}
    assert {part_of(path) for path in others} == {"commands", "cli"}


def test_the_tests_that_every_python_runs_exist() -> None:
    """`make test-pythons`: if a file were moved, a Python might have no tests."""
    files = [pythons.PROJECT / "tests" / name for name in (*pythons.TESTS, *pythons.NEED_TORCH)]
    assert [file for file in files if not file.exists()] == []
