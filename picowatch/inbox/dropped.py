"""Dropped pictures on disk: which template holds for them, and what lies beside them.

A picture is a request if there is a `_pictures.yaml` in its folder or above it; the nearest one
holds. The inbox itself has no such template: its pictures belong to recipes.
"""

import os
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from picowatch.files.picture_names import ENDINGS, MASK_MARK, stem_of
from picowatch.inbox.files import read_file, size_and_time_of, size_and_time_of_child
from picowatch.inbox.names import (
    PICTURES_NAME,
    is_dropped,
    may_be_dropped,
)
from picowatch.recipe import DefaultsFile, Dropped
from picowatch.save import SizeAndTime

TEXTS = (".yaml", ".yml", ".txt")
MASK = f"{MASK_MARK}.png"
SIDECARS = (*TEXTS, MASK)


def template_above(root: Path, path: str) -> str | None:
    """The template that holds for a path below the inbox."""
    folder = path.rpartition("/")[0]
    while folder:
        template = f"{folder}/{PICTURES_NAME}"
        if os.path.lexists(f"{root}/{template}") and size_and_time_of(root, template):
            return template
        folder = folder.rpartition("/")[0]
    return None


def why_no_recipe(root: Path, path: str) -> str | None:
    """Why a recipe at this path below the inbox is not read; None if it is."""
    template = template_above(root, path)
    if template is None:
        return None
    folder = template.rpartition("/")[0]
    where = f"{folder}/" if folder else "the inbox"
    return f"Recipes in {where} are not read: {template} makes it a folder for dropped pictures."


def pictures_named(root: Path, stem: str) -> Iterator[str]:
    """The pictures with this path without ending: asked for one by one, as folders are large."""
    if not may_be_dropped(f"{stem.rpartition('/')[2]}{ENDINGS[0]}"):
        return  # macOS's ._x.png, beside ._x.txt, and the conflict copies of sync tools
    for ending in ENDINGS:
        for path in (stem + ending, stem + ending.upper()):
            if size_and_time_of(root, path):
                yield path


def sidecars_of(root: Path, path: str) -> list[str]:
    """What lies beside a picture, unless it belongs to another picture, too."""
    stem = stem_of(path)
    if any(other != path for other in pictures_named(root, stem)):
        return []
    return [f"{stem}{ending}" for ending in SIDECARS if size_and_time_of(root, f"{stem}{ending}")]


def size_and_time_at(root: Path, path: str) -> SizeAndTime | None:
    """`size_and_time_of` for any path that the inbox reports."""
    found = size_and_time_of(root, path)
    return with_sidecars(found, root, path) if found and is_dropped(path) else found


def with_sidecars(
    size_and_time: SizeAndTime, root: Path, path: str, names: Collection[str] | None = None
) -> SizeAndTime:
    """Add those of its sidecars to a picture's own; `names` are the files in its folder."""
    found = []
    stem = stem_of(path)
    for ending in SIDECARS:
        if names is not None and f"{stem}{ending}".rpartition("/")[2] not in names:
            continue
        sidecar = size_and_time_of(root, f"{stem}{ending}")
        if sidecar and sidecar.size:
            found.append(f"{ending} {sidecar.size} {sidecar.mtime_ns}")
    sidecars = zlib.crc32(" ".join(found).encode()) or 1 if found else 0
    return SizeAndTime(size_and_time.size, size_and_time.mtime_ns, size_and_time.inode, sidecars)


def dropped_in(
    root: Path, folder: str, entries: Mapping[str, os.DirEntry[str]]
) -> Iterator[tuple[str, SizeAndTime]]:
    """The dropped pictures of a folder under a template."""
    for name, entry in entries.items():
        path = f"{folder}/{name}"
        if may_be_dropped(name) and (size_and_time := size_and_time_of_child(entry, root, path)):
            yield path, with_sidecars(size_and_time, root, path, entries.keys())


def read_dropped(root: Path, path: str) -> Dropped | None:
    """What a picture requests together with its template; None if none holds for it.

    Raises FileUnreadable, FileChanged or FileNotFoundError.
    """
    template = template_above(root, path)
    if template is None:
        return None
    content, _ = read_file(root, template)
    stem = stem_of(path)
    sidecars = []
    for ending in TEXTS:
        if os.path.lexists(f"{root}/{stem}{ending}"):
            text, _ = read_file(root, f"{stem}{ending}")
            sidecars.append(DefaultsFile(f"{stem}{ending}", text))
    mask = f"{stem}{MASK}" if size_and_time_of(root, f"{stem}{MASK}") else ""
    return Dropped(path, DefaultsFile(template, content), tuple(sidecars), mask)
