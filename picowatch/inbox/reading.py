"""Reads what was saved: a recipe or a dropped picture, with all that belongs to it."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import IO

from picowatch.errors import PictureUnreadable
from picowatch.files import pictures
from picowatch.files.blocks import sha256_of
from picowatch.inbox.changes import Saved
from picowatch.inbox.dropped import read_dropped, with_sidecars
from picowatch.inbox.files import (
    FileChanged,
    FileUnreadable,
    complete_file,
    defaults_for,
    read_file,
)
from picowatch.inbox.names import is_dropped
from picowatch.recipe import is_empty
from picowatch.save import KnownRecipe, SizeAndTime


def read(
    root: Path, folder: str, path: str, noted: SizeAndTime, known: KnownRecipe | None
) -> Saved | None:
    """The save that a file is; None if it is empty. `folder` identifies the inbox.

    `noted` is the version that was quiet, `known` the one that the ledger has. Raises FileChanged
    if it, or one of the files read with it, is being written, or FileNotFoundError.
    """
    if not noted.size:
        return None
    try:
        if is_dropped(path):
            saved = _picture(root, folder, path, noted, known)
        else:
            content, size_and_time = read_file(root, path)
            if is_empty(content):
                return None
            digest = hashlib.sha256(content).hexdigest()
            saved = Saved(path, digest, size_and_time, folder, content=content)
    except FileUnreadable as error:
        return Saved(path, "", noted, folder, unreadable=str(error))
    _check_quiet(noted, saved.size_and_time)
    try:
        return replace(saved, defaults=defaults_for(root, path))
    except FileUnreadable as error:
        return replace(saved, unreadable=str(error))


def _picture(
    root: Path, folder: str, path: str, noted: SizeAndTime, known: KnownRecipe | None
) -> Saved:
    """The dropped picture as it is now."""
    if (dropped := read_dropped(root, path)) is None:
        raise FileChanged  # its template is away for a moment, or the inbox
    with complete_file(root, path) as (file, found):
        size_and_time = with_sidecars(found, root, path)
        _check_quiet(noted, size_and_time)  # to read a large one takes long
        digest = sha256_of(file, pictures.MAX_BYTES)
        damage = _damage_of(file)
    same = known if known and known.digest == digest else None
    return Saved(
        path,
        digest,
        size_and_time,
        folder,
        template=hashlib.sha256(dropped.template.content).hexdigest(),
        dropped=dropped,
        damage=damage,
        is_again=same is not None and same.size_and_time.sidecars == size_and_time.sidecars,
    )


def _damage_of(file: IO[bytes]) -> str:
    """Why it is no picture; "" if it is one."""
    try:
        pictures.check_picture(file)
    except PictureUnreadable as error:
        return str(error)
    return ""


def _check_quiet(noted: SizeAndTime, found: SizeAndTime) -> None:
    """Raises FileChanged if a writer began after it was quiet and nobody had it open."""
    if found.written_since(noted) or found.sidecars != noted.sidecars:
        raise FileChanged
