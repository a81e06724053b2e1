"""Moves or copies pictures into a folder of the outbox, with what lies beside them.

A picture is moved by a second name, which then is the only one: a crash loses neither, and a
repetition finds what is there already.
"""

import errno
import os
from collections.abc import Container, Iterable
from contextlib import suppress
from itertools import count
from os.path import lexists
from pathlib import Path
from typing import Any

from picowatch.errors import PictureUnreadable
from picowatch.files.atomic import check_in_place, make_folder, sync_folder, write_atomically
from picowatch.files.names import stem_of
from picowatch.files.safe_paths import link_below, open_below, sha256_of, to_write
from picowatch.metadata.embedded_text import chunk_of
from picowatch.outbox.listing import line_of
from picowatch.outbox.names import ENDINGS, SIDECAR_ENDING
from picowatch.outbox.outbox import Outbox, why_kept

GONE = "It is not there any more", "The gallery shows what is there within a minute."
# What a file system without hard links says, or the system of a file that belongs to others.
_NO_LINK = (errno.EPERM, errno.EXDEV, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)

Stay = dict[str, tuple[str, str]]  # pictures, each with why it stays and what to do


def put_into(
    outbox: Outbox, folder: str, files: Iterable[str], taken: Container[str], *, copies: bool
) -> tuple[dict[str, str], Stay]:
    """Put pictures into a folder, durably; return their new paths, and those that stay.

    `taken` are names of images that are not written yet, or were deleted: no picture gets them.
    """
    placed: dict[str, str] = {}
    stay: Stay = {}
    for file in files:
        try:
            placed[file] = _put(outbox, file, folder, taken, copies=copies)
        except FileNotFoundError:
            stay[file] = GONE
        except OSError as error:
            stay[file] = why_kept(error, "copy" if copies else "move")
    if placed:
        sync_folder(outbox.root / folder)
    return placed, stay


def is_there(root: Path, file: str, folder: str) -> bool:
    """Whether a picture is in a folder of the outbox already, by whatever name or link."""
    with suppress(OSError):
        return (root / file).parent.samefile(root / folder)
    return False


def _put(outbox: Outbox, file: str, folder: str, taken: Container[str], *, copies: bool) -> str:
    root = outbox.root
    check_in_place(root / file)
    if to_write(root, file).is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(root / file))
    to_write(root, f"{folder}/any")
    make_folder(root / folder)
    names = (outbox.names.kept(file, folder, number) for number in count(1))
    target = next(name for name in names if _is_free_for(root, file, name, taken))
    for path in (file, *outbox.beside(file)):
        ending = path.removeprefix(stem_of(file))
        _link_or_copy(root, path, stem_of(target) + ending, copies=copies)
    return target


def _is_free_for(root: Path, file: str, target: str, taken: Container[str]) -> bool:
    """Whether nothing has this name, or this very picture has."""
    if lexists(root / target):
        return not (root / target).is_symlink() and _have_equal_bytes(root, file, target)
    endings = (*ENDINGS, SIDECAR_ENDING)
    is_there = any(lexists(root / f"{stem_of(target)}{ending}") for ending in endings)
    return not is_there and target not in taken


def _have_equal_bytes(root: Path, file: str, other: str) -> bool:
    try:
        with open_below(root, file) as first, open_below(root, other) as second:
            sizes = [os.fstat(opened.fileno()) for opened in (first, second)]
            if os.path.samestat(*sizes):
                return True
            same = sizes[0].st_size == sizes[1].st_size
            return same and sha256_of(first) == sha256_of(second)
    except FileNotFoundError:
        raise
    except OSError:  # a folder, a pipe, a link out of the outbox
        return False


def _link_or_copy(root: Path, file: str, target: str, *, copies: bool) -> None:
    place = to_write(root, target)
    if lexists(place):
        return
    if not copies:
        try:
            link_below(root, file, target)
            return
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
    with open_below(root, file) as opened:
        mtime_ns = os.fstat(opened.fileno()).st_mtime_ns  # the gallery sorts by time
        write_atomically(place, iter(lambda: opened.read(1 << 20), b""), mtime_ns=mtime_ns)


def line_of_moved(
    outbox: Outbox, file: str, target: str, entry_digest: str, ended: float | None
) -> dict[str, Any] | None:
    """Return the line of a listed picture that is at `target` now; None if none can be made."""
    path = outbox.root / target
    try:
        line = line_of(target, chunk_of(path), ended or path.stat().st_mtime, entry_digest)
    except (PictureUnreadable, KeyError, TypeError, AttributeError):
        # Another program wrote it again, without metadata.
        lines = [line for line in outbox.listing.all() if line.get("file") == file]
        line = {**lines[-1], "file": target} if lines else {}
    return {**line, "moved": file} if line else None
