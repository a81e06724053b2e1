"""Puts recipes into the inbox, for commands: atomically, and overwriting nothing."""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path, PurePath

from picowatch.files.atomic import write_atomically
from picowatch.files.safe_paths import open_below
from picowatch.inbox.files import FileChanged, FileUnreadable
from picowatch.inbox.folder import InboxFolder
from picowatch.inbox.names import is_recipe_path

_SETTLED_NS = 2_000_000_000  # the coarsest file systems have times in steps of two seconds


def put(
    inbox: InboxFolder, path: str, content: bytes, readers: int = 0
) -> tuple[str, list[Path] | None]:
    """Save a recipe at this path, or with a number after its name; missing folders are made.

    `readers`: as for `write_atomically`; they may enter new folders. An empty file, which nobody
    reads, takes the name first.

    Returns the recipe's path and the folders made for it, the inner ones first, or None if a recipe
    with the same bytes exists there that we may save again instead. Raises OSError.
    """
    assert is_recipe_path(path)
    folder = inbox.shown(path).parent
    made = [above for above in (folder, *folder.parents) if not above.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for new in made:
        with suppress(OSError):  # as for files
            new.chmod(stat.S_IMODE(new.stat().st_mode) | readers | readers >> 2)
    for own in _paths(path):
        target = inbox.shown(own)
        try:
            target.open("xb").close()
        except FileExistsError:
            if _holds(inbox, own, content):
                with suppress(PermissionError):  # it is another user's
                    save_again(inbox, own)
                    return own, None
            continue
        try:
            write_atomically(target, content, readers=readers)
        except BaseException:
            with suppress(OSError):
                target.unlink()
            raise
        return own, made
    raise AssertionError("names do not end")


def save_again(inbox: InboxFolder, path: str) -> None:
    """Save a recipe again without a change; two saves always have different times."""
    try:
        with open_below(inbox.root, path) as file:
            before = os.fstat(file.fileno()).st_mtime_ns
            os.utime(file.fileno())
            if os.fstat(file.fileno()).st_mtime_ns == before:
                os.utime(file.fileno(), ns=(before + _SETTLED_NS, before + _SETTLED_NS))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(inbox.shown(path))) from error


def _paths(path: str) -> Iterator[str]:
    """Yield `corgi.yaml`, `corgi-2.yaml`, …"""
    first = PurePath(path)
    yield path
    for number in count(2):
        yield first.with_stem(f"{first.stem}-{number}").as_posix()


def _holds(inbox: InboxFolder, path: str, content: bytes) -> bool:
    try:
        return inbox.read(path) == content
    except (FileUnreadable, FileChanged, OSError):
        return False
