"""Reads saved files: recipes and dropped pictures, with everything that belongs to them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from picowatch.errors import PictureUnreadable
from picowatch.files import safe_paths
from picowatch.files.looking import look
from picowatch.files.pictures import refuse_other_name
from picowatch.inbox.folder import MAX_BYTES, FileChanged, FileUnreadable, InboxFolder
from picowatch.inbox.names import PICTURES_NAME, is_dropped
from picowatch.ledger.rows import Save, SizeAndTime
from picowatch.recipe.read.decoding import is_empty
from picowatch.recipe.reading import DefaultsFile, Dropped, pictures_named


def names_in(template: str, content: bytes) -> set[str]:
    """Return the paths that a template with this content names; some may be pictures."""
    named = pictures_named(DefaultsFile(template, content))
    paths = {path.removeprefix("inbox/") for path in named}
    return paths | {f"{template.removesuffix(PICTURES_NAME)}{path}" for path in paths}


@dataclass(frozen=True, slots=True)
class Saved(Save):
    """A save, with everything that is read together with it."""

    content: bytes = b""
    defaults: Sequence[DefaultsFile] = ()  # the `_defaults.yaml` that apply to it
    unreadable: str = ""  # why it, or one of these, cannot be read
    dropped: Dropped | None = None  # a picture, which has no `content`
    damage: str = ""  # why that cannot be decoded
    # For a new ledger: the sha256 of what is at its `rebuild.former_paths`, None where nothing is.
    formers: Mapping[str, str | None] = field(default_factory=dict)


def read(
    inbox: InboxFolder, inbox_id: str, path: str, noted: SizeAndTime, *, heeds_writers: bool = False
) -> Saved | None:
    """Read a file as a save; None if it is empty. `inbox_id` identifies the inbox.

    `noted` is the version that was quiet. Raises FileNotFoundError, or FileChanged if one of the
    files that are read is being written, or with `heeds_writers` may be.
    """
    try:
        if is_dropped(path):
            saved = _picture(inbox, inbox_id, path, noted, heeds_writers=heeds_writers)
        else:
            with inbox.opened(path, heeds_writers=heeds_writers) as (file, size_and_time):
                content = b"".join(safe_paths.blocks_of(file, MAX_BYTES))
            if is_empty(content):
                return None
            digest = hashlib.sha256(content).hexdigest()
            saved = Saved(path, digest, size_and_time, inbox_id, content=content)
    except FileUnreadable as error:
        return Saved(path, "", noted, inbox_id, unreadable=str(error))
    _check_quiet(noted, saved.size_and_time)
    try:
        defaults = inbox.defaults_for(path)
        return replace(saved, defaults=defaults) if defaults else saved
    except FileUnreadable as error:
        return replace(saved, unreadable=str(error))


def _picture(
    inbox: InboxFolder, inbox_id: str, path: str, noted: SizeAndTime, *, heeds_writers: bool
) -> Saved:
    if (dropped := inbox.read_dropped(path)) is None:
        raise FileChanged  # its template, or the inbox, is away for a moment
    with inbox.opened(path, heeds_writers=heeds_writers) as (file, found):
        size_and_time = inbox.with_sidecars(found, path)
        _check_quiet(noted, size_and_time)  # before reading, which takes long for a large picture
        damage = ""
        try:
            refuse_other_name(path)
            look("check", file, inbox.most_pixels)
        except PictureUnreadable as error:
            damage = str(error)
        template = hashlib.sha256(dropped.template.content).hexdigest()
        saved = Saved(path, safe_paths.sha256_of(file), size_and_time, inbox_id, template)
        return replace(saved, dropped=dropped, damage=damage)


def _check_quiet(noted: SizeAndTime, found: SizeAndTime) -> None:
    """Raise FileChanged if somebody began to write after the file was quiet."""
    if found.written_since(noted) or found.sidecars != noted.sidecars:
        raise FileChanged
