"""Finds recipes and pictures by what users write: a name, a stem, a folder or a glob."""

from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase

from picowatch.files.names import stem_of
from picowatch.inbox.names import folders_above
from picowatch.recipe.messages.suggestions import closest


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
    """Return "There is no 'corgy' in the inbox.", with the nearest name, if there is one.

    The same name in another folder is nearer than any other.
    """
    names = dict.fromkeys(paths)
    for path in paths:
        names |= dict.fromkeys(folders_above(path))
    last = written.rstrip("/").rpartition("/")[2]
    others = ((path, path.rpartition("/")[2]) for path in names)
    alike = [path for path, name in others if last in (name, stem_of(name))]
    meant = alike or _nearest(written, names)
    hint = f" Did you mean '{meant[0]}'?" if meant else ""
    return f"There is no '{written}' in {where}.{hint}"


def _nearest(written: str, names: Iterable[str]) -> list[str]:
    """Return the name that is written most alike; case and suffix do not count."""
    spellings: dict[str, str] = {}
    for name in names:
        spellings |= dict.fromkeys((name, stem_of(name)), name)
    near = closest(written, spellings)
    return [spellings[near]] if near else []
