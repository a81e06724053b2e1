"""Puts recipes into the inbox, for commands: atomically, and overwriting nothing."""

import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path, PurePath

from picowatch.files.atomic import write_atomically
from picowatch.inbox.names import is_recipe_name

_SETTLED_NS = 2_000_000_000  # the coarsest file systems have times in steps of two seconds


def put(folder: Path, name: str, content: bytes, readers: int = 0) -> tuple[str, bool]:
    """Save a recipe under this name, or with a number after it; the folder is made if missing.

    `readers`: as for `write_atomically`. An empty file, which nobody reads, takes the name first.

    Returns the recipe's name, and whether it is new: if a recipe with the same bytes already
    exists there, that one is saved again instead. Raises OSError.
    """
    assert is_recipe_name(name)
    folder.mkdir(parents=True, exist_ok=True)
    for own in _names(name):
        target = folder / own
        try:
            target.open("xb").close()
        except FileExistsError:
            if _holds(target, content):
                save_again(target)
                return own, False
            continue
        try:
            write_atomically(target, content, readers=readers)
        except BaseException:
            with suppress(OSError):
                target.unlink()
            raise
        return own, True
    raise AssertionError("names do not end")


def save_again(recipe: Path) -> None:
    """Save a recipe again without a change; two saves always have different times."""
    before = recipe.stat().st_mtime_ns
    os.utime(recipe)
    if recipe.stat().st_mtime_ns == before:
        os.utime(recipe, ns=(before + _SETTLED_NS, before + _SETTLED_NS))


def _names(name: str) -> Iterator[str]:
    """Yield `corgi.yaml`, `corgi-2.yaml`, …"""
    path = PurePath(name)
    yield name
    for number in count(2):
        yield f"{path.stem}-{number}{path.suffix}"


def _holds(file: Path, content: bytes) -> bool:
    try:
        return file.is_file() and file.read_bytes() == content
    except OSError:
        return False
