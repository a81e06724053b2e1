"""All recipes and dropped pictures of the inbox, with size and time of each."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from picowatch.inbox.files import MISSING, size_and_time_of, size_and_time_of_child
from picowatch.inbox.names import (
    MAX_DEPTH,
    PICTURES_NAME,
    ignored_ending,
    is_dropped,
    is_recipe_name,
    is_searched,
    why_not_dropped,
    why_not_searched,
    why_skipped,
)
from picowatch.inbox.reading import dropped_in
from picowatch.ledger.rows import SizeAndTime


def scan(
    root: Path, known: Collection[str], below: str = "", is_under_template: bool = False
) -> "Scan":
    """Find every recipe file below `root`/`below`, with its size and time, and what is skipped.

    In a folder with a template for dropped pictures, and below, the pictures instead. `known` are
    paths of the ledger: a folder is a template's until it is known that it is gone, which editors
    that move it away for a moment make no different. What is skipped is what cannot be read, and
    files that are never rendered, each with the reason. `ignored` are other files under a
    template, by folder and ending.
    """
    one = Scan(root, known)
    one.look_into(below, is_under_template)
    return one


@dataclass(slots=True)
class Scan:
    """What there is; see `scan`."""

    root: Path
    known: Collection[str]
    found: dict[str, SizeAndTime] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    ignored: set[tuple[str, str]] = field(default_factory=set)

    def look_into(self, below: str, is_under_template: bool) -> None:
        """Add what is in a folder, and in the folders in it."""
        try:
            with os.scandir(f"{self.root}/{below}") as entries:
                children = list(filter(_has_kind, entries))
        except OSError as error:
            if below and error.errno not in MISSING:
                reason = f"the folder cannot be read ({error.strerror}); nothing is cancelled"
                self.skipped[below] = reason
            return
        names = {child.name: child for child in children}
        template = f"{below}/{PICTURES_NAME}".lstrip("/")
        if PICTURES_NAME in names and (size_and_time := size_and_time_of(self.root, template)):
            self.found[template] = size_and_time
            is_under_template = bool(below)
        is_under_template |= template in self.known and bool(below)
        if is_under_template:
            self.found.update(dropped_in(self.root, below, names))
        elif below:
            _warn_of_pictures(below, names, self.skipped)
        for child in children:
            path = f"{below}/{child.name}" if below else child.name
            if child.is_dir(follow_symlinks=False):
                self._add_folder(child.name, path, is_under_template)
            else:
                self._add_file(child, path, is_under_template)
        if not (below or self.found or self.known):  # else they may be recipes' start images
            _warn_of_pictures("the inbox", names, self.skipped)

    def _add_folder(self, name: str, path: str, is_under_template: bool) -> None:
        if reason := why_not_searched(name):
            self.skipped[path] = reason
        if not is_searched(name):
            return
        if path.count("/") >= MAX_DEPTH:
            self.skipped[path] = f"folders are searched {MAX_DEPTH} levels deep"
        else:
            self.look_into(path, is_under_template)

    def _add_file(self, child: os.DirEntry[str], path: str, is_under_template: bool) -> None:
        if child.is_symlink() and os.path.isdir(f"{self.root}/{path}"):  # noqa: PTH112 (never raises)
            self.skipped[path] = "it is a link to a folder; linked folders are not searched"
        elif is_under_template:
            if reason := why_not_dropped(child.name):
                self.skipped[path] = reason
            elif ending := ignored_ending(child.name):
                self.ignored.add((path.rpartition("/")[0], ending))
        elif path in self.known or is_recipe_name(child.name):
            if size_and_time := size_and_time_of_child(child, self.root, path):
                self.found[path] = size_and_time
        elif reason := why_skipped(child.name):
            self.skipped[path] = reason


def _warn_of_pictures(
    folder: str, names: Mapping[str, os.DirEntry[str]], skipped: dict[str, str]
) -> None:
    """Say once of a folder that has nothing but pictures what would make them requests."""
    if not any(map(is_recipe_name, names)) and any(map(is_dropped, names)):
        skipped[folder] = (
            f"it has pictures, but no {PICTURES_NAME} that says what to do with them, and no "
            "recipe. `picowatch init --with photos` makes folders that have one"
        )


def _has_kind(child: os.DirEntry[str]) -> bool:
    """Whether the system says what it is: a share that goes away may not.

    Some file systems are asked for that only here; afterwards it is known.
    """
    try:
        child.is_dir(follow_symlinks=False)
    except OSError:
        return False
    return True
