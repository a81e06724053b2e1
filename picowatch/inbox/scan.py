"""Finds all recipes and dropped pictures of the inbox, with their sizes and times."""

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from picowatch.files.names import stem_of
from picowatch.inbox.files import MISSING, size_and_time_of
from picowatch.inbox.names import (
    ENDINGS,
    MAX_DEPTH,
    PICTURES_NAME,
    SIDECAR_ENDINGS,
    is_dropped,
    is_recipe_name,
    why_not_dropped,
    why_not_searched,
    why_skipped,
)
from picowatch.inbox.reading import dropped_in
from picowatch.ledger.rows import SizeAndTime

# A sync program may take a template away for a while.
TEXTS_STAY = "texts beside its pictures still belong to them and are not recipes"


def scan(
    root: Path, known: Collection[str], below: str = "", is_under_template: bool = False
) -> "Scan":
    """Find every recipe below `root`/`below`, with its size and time, and what is skipped.

    In a folder with a template for dropped pictures, and below it, pictures are found instead.
    `known` are paths of the ledger: a folder belongs to a template there until its deletion is
    accepted, because editors may move the file away for a moment.
    """
    one = Scan(str(root), known)
    one.look_into(below, is_under_template)
    return one


def requests_in(root: Path) -> Iterator[str]:
    """Yield the paths of all files whose names may be requests; none of them is looked at."""
    for folder, folders, names in os.walk(root):
        folders[:] = [one for one in folders if why_not_searched(one) is None]
        prefix = f"{os.path.relpath(folder, root)}/" if folder != str(root) else ""
        yield from (prefix + one for one in names if is_recipe_name(one) or is_dropped(one))


@dataclass(slots=True)
class Scan:
    """The result of `scan`.

    `found` has recipes and dropped pictures, `skipped` files that cannot be read or are never
    rendered, with reasons, and `texts` those of pictures that were requests.
    """

    root: str
    known: Collection[str]
    found: dict[str, SizeAndTime] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    texts: set[str] = field(default_factory=set)

    def look_into(self, below: str, is_under_template: bool) -> None:
        """Add the contents of a folder and of the folders below it."""
        names: dict[str, None] = {}  # not the entries, which take four times the memory
        others: dict[str, bool] = {}  # links, devices, and folders, which are True
        try:
            with os.scandir(f"{self.root}/{below}") as entries:
                for entry in entries:
                    names[entry.name] = None
                    if not entry.is_file(follow_symlinks=False):
                        others[entry.name] = entry.is_dir(follow_symlinks=False)
        except OSError as error:
            if below and error.errno not in MISSING:
                reason = f"the folder cannot be read ({error.strerror}); nothing is cancelled"
                self.skipped[below] = reason
            return
        prefix = f"{below}/" if below else ""
        template = prefix + PICTURES_NAME
        if PICTURES_NAME in names and (size_and_time := size_and_time_of(self.root, template)):
            self.found[template] = size_and_time
            is_under_template = bool(below)
        is_under_template |= template in self.known and bool(below)
        if is_under_template:
            self.found.update(dropped_in(Path(self.root), below, names))
        elif below:
            _warn_of_pictures(below, names, self.skipped)
        texts = () if is_under_template else self._texts_of_dropped(prefix, names)
        for name in names:
            path = prefix + name
            if name in texts:
                self.texts.add(path)
                self.skipped[below] = f"it had a {PICTURES_NAME}; {TEXTS_STAY}"
            elif others.get(name):
                self._add_folder(name, path, is_under_template)
            elif name in others and os.path.isdir(f"{self.root}/{path}"):  # noqa: PTH112 (never raises)
                self.skipped[path] = "it is a link to a folder; linked folders are not searched"
            else:
                self._add_file(name, path, is_under_template)
        if not (below or self.found or self.known):  # otherwise they may be start images
            _warn_of_pictures("the inbox", names, self.skipped)

    def _texts_of_dropped(self, prefix: str, names: Collection[str]) -> Collection[str]:
        """Return the sidecars of pictures that were requests, if their template has gone."""
        others = [name for name in names if not name.endswith(ENDINGS)]  # few of thousands
        dropped = [name for name in others if is_dropped(name) and prefix + name in self.known]
        return {f"{stem_of(name)}{ending}" for name in dropped for ending in SIDECAR_ENDINGS}

    def _add_folder(self, name: str, path: str, is_under_template: bool) -> None:
        reason = why_not_searched(name)
        if reason is None and path.count("/") >= MAX_DEPTH:
            reason = f"folders are searched {MAX_DEPTH} levels deep"
        if reason is None:
            self.look_into(path, is_under_template)
        elif reason:
            self.skipped[path] = reason

    def _add_file(self, name: str, path: str, is_under_template: bool) -> None:
        if not is_under_template and (path in self.known or is_recipe_name(name)):
            if size_and_time := size_and_time_of(self.root, path):
                self.found[path] = size_and_time
        elif reason := why_not_dropped(name) if is_under_template else why_skipped(name):
            self.skipped[path] = reason


def _warn_of_pictures(folder: str, names: Collection[str], skipped: dict[str, str]) -> None:
    """Warn of a folder with pictures but no recipe, and say what makes pictures requests."""
    if not any(map(is_recipe_name, names)) and any(map(is_dropped, names)):
        skipped[folder] = (
            f"it has pictures, but no recipe and no {PICTURES_NAME} that says what to do with "
            "them. `picowatch init --with photos` makes folders that have one"
        )
