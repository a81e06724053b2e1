"""Patterns of picture names, like `frames/*.png`: what matches them below a folder.

`*` stands for any text within a name, `?` for one character of it, and `**` for any folders. Case
does not matter. Brackets mean themselves: they are common in names.
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator
from fnmatch import translate
from pathlib import Path

from picowatch.files.inside import leads_out
from picowatch.files.natural import natural_key
from picowatch.files.picture_names import is_picture_name

ANY_FOLDERS = "**"
SIGNS = "*?"
MAX_DEPTH = 64  # of folders, as in the inbox


def pictures_below(root: Path, pattern: str, start: str = "") -> list[str]:
    """The pictures below `root` that match, as paths below it, in natural order.

    The pattern begins at the folder `start`, which is "" or ends with a slash. Hidden files and
    folders never match. Neither do links to folders, but for those that the pattern names; nothing
    outside of `root` does. Raises OSError if a folder cannot be listed.
    """
    *folders, name = pattern.split("/")
    reached = {start}
    for part in folders:
        reached = set(_next_folders(root, reached, part))
    fits = _expression(name)
    found = (
        f"{folder}{entry.name}"
        for folder in reached
        for entry in _listed(root, folder)
        if fits.match(entry.name) and is_picture_name(entry.name) and _is_file(entry)
    )
    return sorted(found, key=natural_key)


def _next_folders(root: Path, reached: Iterable[str], part: str) -> Iterator[str]:
    """The folders that this part of a pattern leads to, each with a slash after its path."""
    for folder in reached:
        if part == ANY_FOLDERS:
            yield folder
            yield from _all_below(root, folder)
        elif set(part) & set(SIGNS):
            fits = _expression(part)
            for entry in _listed(root, folder):
                if fits.match(entry.name) and entry.is_dir(follow_symlinks=False):
                    yield f"{folder}{entry.name}/"
        elif not leads_out(root, f"{folder}{part}"):
            yield f"{folder}{part}/"


def _all_below(root: Path, folder: str) -> Iterator[str]:
    if folder.count("/") >= MAX_DEPTH:
        return
    for entry in _listed(root, folder):
        if entry.is_dir(follow_symlinks=False):
            inner = f"{folder}{entry.name}/"
            yield inner
            yield from _all_below(root, inner)


def _listed(root: Path, folder: str) -> Iterator[os.DirEntry[str]]:
    """What is in a folder and not hidden; nothing if there is no such folder."""
    try:
        with os.scandir(root / folder) as entries:
            yield from (entry for entry in entries if not entry.name.startswith((".", "~", "#")))
    except (FileNotFoundError, NotADirectoryError):
        return


def _is_file(entry: os.DirEntry[str]) -> bool:
    """A link's target is checked when it is opened."""
    try:
        return stat.S_ISREG(entry.stat().st_mode)
    except OSError:
        return False


def _expression(name: str) -> re.Pattern[str]:
    """`fnmatch` without its brackets."""
    return re.compile(translate(name.replace("[", "[[]")), re.IGNORECASE)
