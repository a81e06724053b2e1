"""Puts recipes into the inbox, for commands: atomically, and overwriting nothing."""

import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path, PurePath

from picowatch.files.atomic import allow
from picowatch.inbox.names import is_recipe_name

_SETTLED_NS = 2_000_000_000  # the coarsest file systems have times in steps of two seconds
_TRIES = 20  # while other commands remove the folder


def put(folder: Path, name: str, content: bytes, readers: int = 0) -> tuple[str, bool]:
    """Save a recipe under this name, or with a number after it; the folder is made if missing.

    `readers`: as for `allow`.

    Returns the recipe's name, and whether it is new: if a recipe with the same bytes already
    exists there, that one is saved again instead. Raises OSError.
    """
    assert is_recipe_name(name)
    for _ in range(_TRIES):
        # A `make --rm` may remove the same recipe or the folder, even in the middle of `mkdir`.
        with suppress(FileNotFoundError, FileExistsError):
            return _put(folder, name, content, readers)
    return _put(folder, name, content, readers)


def _put(folder: Path, name: str, content: bytes, readers: int) -> tuple[str, bool]:
    folder.mkdir(parents=True, exist_ok=True)
    # A name that begins with "." is no recipe, so nobody reads a half-written file.
    temporary = folder / f".picowatch-{secrets.token_hex(8)}.tmp"
    try:
        with temporary.open("xb") as file:
            allow(file, readers)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        for own in _names(name):
            target = folder / own
            if _link(temporary, target, content):
                return own, True
            if _holds(target, content):
                save_again(target)
                return own, False
    finally:
        with suppress(OSError):
            temporary.unlink()
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


def _link(temporary: Path, target: Path, content: bytes) -> bool:
    """Give the file its name atomically, unless that name is already taken."""
    try:
        target.hardlink_to(temporary)
    except FileExistsError:
        return False
    except OSError:  # the file system has no hard links
        return _replace(temporary, target)
    return True


def _replace(temporary: Path, target: Path) -> bool:
    """Create an empty file of that name first, which nobody reads, and replace it."""
    try:
        target.open("xb").close()
    except FileExistsError:
        return False
    temporary.replace(target)
    return True
