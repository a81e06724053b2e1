"""Dropped pictures on disk: which template holds for them, and what lies beside them.

A picture is a request if there is a `_pictures.yaml` in its folder or above it; the nearest one
holds. The inbox itself has no such template: its pictures belong to recipes.
"""

import os
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from picowatch.files.picture_names import ENDINGS, MASK_MARK, stem_of
from picowatch.inbox.files import is_gone, read_file, size_and_time_of, size_and_time_of_child
from picowatch.inbox.names import (
    PICTURES_NAME,
    UNREADABLE_NAME,
    is_dropped,
    may_be_dropped,
    may_be_unreadable,
    stands_for_unreadable,
)
from picowatch.recipe import DefaultsFile, Dropped
from picowatch.recipe.messages.problems import shown
from picowatch.save import SizeAndTime

TXT = ".txt"
SIDECARS = (".yaml", ".yml", TXT)
MASK = f"{MASK_MARK}.png"
COMPANIONS = (*SIDECARS, MASK)
NAMED = 20  # unreadable pictures of a folder


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


def companions_of(root: Path, path: str) -> list[str]:
    """What lies beside a picture, unless it belongs to another picture, too."""
    stem = stem_of(path)
    if any(other != path for other in pictures_named(root, stem)):
        return []
    return [f"{stem}{ending}" for ending in COMPANIONS if size_and_time_of(root, f"{stem}{ending}")]


def size_and_time_at(root: Path, path: str) -> SizeAndTime | None:
    """`size_and_time_of` for any path that the inbox reports."""
    if stands_for_unreadable(path):
        return unreadable_size_and_time(_unreadable_in(root, path))
    size_and_time = size_and_time_of(root, path)
    if size_and_time and is_dropped(path):
        return with_companions(size_and_time, root, path)
    return size_and_time


def is_gone_at(root: Path, path: str) -> bool:
    """`is_gone` for any path that the inbox reports."""
    if stands_for_unreadable(path):
        return not _unreadable_in(root, path)
    return is_gone(root, path)


def with_companions(
    size_and_time: SizeAndTime, root: Path, path: str, names: Collection[str] | None = None
) -> SizeAndTime:
    """Add those of its companions to a picture's own; `names` are the files in its folder."""
    found = []
    stem = stem_of(path)
    for ending in COMPANIONS:
        if names is not None and f"{stem}{ending}".rpartition("/")[2] not in names:
            continue
        companion = size_and_time_of(root, f"{stem}{ending}")
        if companion and companion.size:
            found.append(f"{ending} {companion.size} {companion.mtime_ns}")
    companions = zlib.crc32(" ".join(found).encode()) or 1 if found else 0
    return SizeAndTime(size_and_time.size, size_and_time.mtime_ns, size_and_time.inode, companions)


def dropped_in(
    root: Path, folder: str, entries: Mapping[str, os.DirEntry[str]]
) -> Iterator[tuple[str, SizeAndTime]]:
    """The dropped pictures of a folder under a template; one path for all unreadable ones."""
    for name, entry in entries.items():
        path = f"{folder}/{name}"
        if may_be_dropped(name) and (size_and_time := size_and_time_of_child(entry, root, path)):
            yield path, with_companions(size_and_time, root, path, entries.keys())
    unreadable = [name for name in entries if may_be_unreadable(name)]
    if size_and_time := unreadable_size_and_time(unreadable):
        yield unreadable_path(folder), size_and_time


def unreadable_size_and_time(names: Collection[str]) -> SizeAndTime | None:
    """Of the unreadable pictures of a folder, None if there are none."""
    return (
        SizeAndTime(len(names), zlib.crc32("/".join(sorted(names)).encode()), 0) if names else None
    )


def unreadable_path(folder: str) -> str:
    """What stands for the unreadable pictures of a folder."""
    return f"{folder}/{UNREADABLE_NAME}"


def why_unreadable(root: Path, path: str) -> str:
    """Which they are, and what to do."""
    names = sorted(_unreadable_in(root, path))
    more = f"\nAnd {len(names) - NAMED} more." if len(names) > NAMED else ""
    one, several = "1 file in this folder is", f"{len(names)} files in this folder are"
    listed = "\n".join(map(shown, names[:NAMED]))
    return (
        f"{several if len(names) > 1 else one} in a format that cannot be read.\n\n"
        f"{listed}{more}\n\nConvert them to PNG, JPEG, WebP, AVIF, TIFF, BMP or GIF (films to "
        "single frames), or move them elsewhere. The other pictures are not affected."
    )


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
    for ending in SIDECARS:
        if os.path.lexists(f"{root}/{stem}{ending}"):
            text, _ = read_file(root, f"{stem}{ending}")
            sidecars.append(DefaultsFile(f"{stem}{ending}", text))
    mask = f"{stem}{MASK}" if size_and_time_of(root, f"{stem}{MASK}") else ""
    return Dropped(path, DefaultsFile(template, content), tuple(sidecars), mask)


def _unreadable_in(root: Path, path: str) -> list[str]:
    folder = path.rpartition("/")[0]
    if template_above(root, path) is None:
        return []
    try:
        return [name for name in os.listdir(root / folder) if may_be_unreadable(name)]  # noqa: PTH208
    except OSError:
        return []
