"""Finds recipes and pictures by what users write: a name, a stem, a folder or a glob."""

import os
from collections.abc import Collection, Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from picowatch.files.names import stem_of
from picowatch.inbox.names import folders_above, is_dropped, is_recipe_name, why_not_searched
from picowatch.recipe.messages.suggestions import closest


def requests_in(root: Path) -> Iterator[str]:
    """Yield the paths of all files whose names may be requests; none of them is looked at."""
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if why_not_searched(name) is None]
        prefix = f"{os.path.relpath(folder, root)}/" if folder != str(root) else ""
        yield from (prefix + name for name in names if is_recipe_name(name) or is_dropped(name))


def matching(pattern: str, paths: Iterable[str]) -> list[str]:
    """Return the recipe of this name, else those with this stem, folder or glob."""
    every, folder = list(paths), pattern.rstrip("/")
    if pattern in every:
        return [pattern]
    return (
        [path for path in every if path.rpartition(".")[0] == pattern]
        or [path for path in every if folder == "." or path.startswith(f"{folder}/")]
        or [path for path in every if fnmatchcase(path, pattern)]
    )


def no_such(written: str, paths: Collection[str], where: str) -> str:
    """Return "There is no 'corgy' in the inbox.", with the nearest name, if there is one."""
    return f"There is no '{written}' in {where}.{nearest(written, paths)}"


def nearest(written: str, paths: Collection[str]) -> str:
    """Return " Did you mean 'corgi.yaml'?", or ""; the same name in another folder is nearest."""
    names = dict.fromkeys(paths)
    for path in paths:
        names |= dict.fromkeys(folders_above(path))
    last = written.rstrip("/").rpartition("/")[2]
    others = ((path, path.rpartition("/")[2]) for path in names)
    alike = [path for path, name in others if last in (name, stem_of(name))]
    spellings = {"": ""}  # case and suffix do not count
    for name in names:
        spellings |= dict.fromkeys((name, stem_of(name)), name)
    meant = alike[0] if alike else spellings[closest(written, spellings) or ""]
    return f" Did you mean '{meant}'?" if meant else ""
