"""All recipes and dropped pictures of the inbox, with size and time of each."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from picowatch.files.picture_names import is_picture_name
from picowatch.inbox.dropped import dropped_in
from picowatch.inbox.files import MISSING, size_and_time_of, size_and_time_of_child
from picowatch.inbox.names import (
    MAX_DEPTH,
    PICTURES_NAME,
    is_recipe_name,
    is_searched,
    why_not_dropped,
    why_not_searched,
    why_skipped,
)
from picowatch.save import SizeAndTime


def scan(
    root: Path,
    below: str,
    found: dict[str, SizeAndTime],
    skipped: dict[str, str],
    known: Collection[str],
    is_under_template: bool = False,
) -> None:
    """Add every recipe file below `root`/`below` to `found`, with its size and time.

    In a folder with a template for dropped pictures, and below, the pictures instead. `known` are
    paths of the ledger: a folder is a template's until it is known that it is gone, which editors
    that move it away for a moment make no different. What cannot be read, and files that are never
    rendered, go into `skipped`, with the reason.
    """
    try:
        with os.scandir(f"{root}/{below}") as entries:
            children = list(filter(_has_kind, entries))
    except OSError as error:
        if below and error.errno not in MISSING:
            skipped[below] = f"the folder cannot be read ({error.strerror}); nothing is cancelled"
        return
    names = {child.name: child for child in children}
    template = f"{below}/{PICTURES_NAME}".lstrip("/")
    if PICTURES_NAME in names and (size_and_time := size_and_time_of(root, template)):
        found[template] = size_and_time
        is_under_template = bool(below)
    is_under_template |= template in known and bool(below)
    if is_under_template:
        found.update(dropped_in(root, below, names))
    elif below:
        _warn_of_pictures(below, names, skipped)
    for child in children:
        path = f"{below}/{child.name}" if below else child.name
        if child.is_dir(follow_symlinks=False):
            if reason := why_not_searched(child.name):
                skipped[path] = reason
            if not is_searched(child.name):
                continue
            if path.count("/") >= MAX_DEPTH:
                skipped[path] = f"folders are searched {MAX_DEPTH} levels deep"
                continue
            scan(root, path, found, skipped, known, is_under_template)
        elif child.is_symlink() and os.path.isdir(f"{root}/{path}"):  # noqa: PTH112 (never raises)
            skipped[path] = "it is a link to a folder; linked folders are not searched"
        elif is_under_template:
            if reason := why_not_dropped(child.name):
                skipped[path] = reason
        elif path in known or is_recipe_name(child.name):
            size_and_time = size_and_time_of_child(child, root, path)
            if size_and_time is not None:
                found[path] = size_and_time
        elif reason := why_skipped(child.name):
            skipped[path] = reason


def _warn_of_pictures(
    folder: str, names: Mapping[str, os.DirEntry[str]], skipped: dict[str, str]
) -> None:
    """Say once of a folder that has nothing but pictures what would make them requests."""
    if not any(map(is_recipe_name, names)) and any(map(is_picture_name, names)):
        skipped[folder] = (
            f"it has pictures, but no {PICTURES_NAME} that says what to do with them, and no recipe"
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
