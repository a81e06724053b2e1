"""Reads saved files: recipes and dropped pictures, with everything that belongs to them."""

import hashlib
import os
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from picowatch.errors import PictureUnreadable
from picowatch.files import pictures
from picowatch.files.inside import sha256_of
from picowatch.files.names import ENDINGS, MASK_MARK, stem_of
from picowatch.inbox.files import (
    FileChanged,
    FileUnreadable,
    complete_file,
    defaults_for,
    read_file,
    size_and_time_of,
)
from picowatch.inbox.names import (
    PICTURES_NAME,
    SIDECAR_ENDINGS,
    is_dropped,
    may_be_dropped,
)
from picowatch.ledger.rows import KnownRecipe, Save, SizeAndTime
from picowatch.recipe import DefaultsFile, Dropped, is_empty
from picowatch.recipe.reading import pictures_named

MASK = f"{MASK_MARK}.png"
SIDECARS = (*SIDECAR_ENDINGS, MASK)


def template_above(root: Path, path: str) -> str | None:
    """Return the template that applies to a path below the inbox."""
    folder = path.rpartition("/")[0]
    while folder:
        template = f"{folder}/{PICTURES_NAME}"
        if os.path.lexists(f"{root}/{template}") and size_and_time_of(root, template):
            return template
        folder = folder.rpartition("/")[0]
    return None


def why_no_recipe(root: Path, path: str) -> str | None:
    """Return why a recipe at this path below the inbox is not read; None if it is."""
    template = template_above(root, path)
    if template is None:
        return None
    folder = template.removesuffix(PICTURES_NAME)
    return f"Recipes in {folder} are not read: {template} makes it a folder for dropped pictures."


def is_meant_as_template(root: Path, path: str) -> bool:
    """Whether a recipe has a template's name without its underscore, beside pictures."""
    folder, _, name = path.rpartition("/")
    if not folder or f"_{name.lower().replace('.yml', '.yaml')}" != PICTURES_NAME:
        return False
    with suppress(OSError):
        return any(may_be_dropped(one.name) for one in (root / folder).iterdir())
    return False


def sidecars_of(root: Path, path: str) -> list[str]:
    """Return a picture's sidecars, unless they belong to another picture, too.

    Pictures are looked up by their names, as folders may be large; a name in other letters may be
    that of the same file.
    """
    stem = stem_of(path)
    names = (stem + ending for one in ENDINGS for ending in (one, one.upper()))
    if {*(size_and_time_of(root, name) for name in names)} - {None, size_and_time_of(root, path)}:
        return []
    return [f"{stem}{ending}" for ending in SIDECARS if size_and_time_of(root, f"{stem}{ending}")]


def size_and_time_at(root: Path, path: str) -> SizeAndTime | None:
    """Return the size and time of a recipe, or of a dropped picture with its sidecars."""
    found = size_and_time_of(root, path)
    return with_sidecars(found, root, path) if found and is_dropped(path) else found


def with_sidecars(
    size_and_time: SizeAndTime, root: Path, path: str, names: Collection[str] | None = None
) -> SizeAndTime:
    """Add the sidecars' to a picture's size and time; `names` are the files in its folder."""
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
    root: Path, folder: str, names: Collection[str]
) -> Iterator[tuple[str, SizeAndTime]]:
    """Yield the dropped pictures of a folder under a template, which has files of these names."""
    for name in names:
        path = f"{folder}/{name}"
        if may_be_dropped(name) and (size_and_time := size_and_time_of(root, path)):
            yield path, with_sidecars(size_and_time, root, path, names)


def named_in(root: Path, folder: str) -> set[str]:
    """Return the paths that a folder's template names; some may be pictures."""
    name = f"{folder}/{PICTURES_NAME}"
    try:
        template = DefaultsFile(name, read_file(root, name)[0])
    except (FileChanged, FileUnreadable, OSError):
        return set()  # it is looked at again before its pictures are
    paths = {path.removeprefix("inbox/") for path in pictures_named(template)}
    return paths | {f"{folder}/{path}" for path in paths}


def read_dropped(root: Path, path: str) -> Dropped | None:
    """Return what a picture requests together with its template; None if none applies to it.

    Raises FileUnreadable, FileChanged or FileNotFoundError.
    """
    template = template_above(root, path)
    if template is None:
        return None
    content, _ = read_file(root, template)
    stem = stem_of(path)
    sidecars = []
    for sidecar in (stem + ending for ending in SIDECARS):
        if os.path.lexists(f"{root}/{sidecar}"):
            sidecars.append(DefaultsFile(sidecar, _read_sidecar(root, sidecar)))
    mask = f"{stem}{MASK}" if sidecars and sidecars[-1].name == f"{stem}{MASK}" else ""
    texts = sidecars[:-1] if mask else sidecars
    return Dropped(path, DefaultsFile(template, content), tuple(texts), mask)


def _read_sidecar(root: Path, path: str) -> bytes:
    """Return the text beside a picture; a mask is only opened. Raises FileUnreadable."""
    try:
        if not path.endswith(MASK):
            return read_file(root, path)[0]
        with complete_file(root, path):
            return b""
    except FileNotFoundError as error:
        if os.path.lexists(f"{root}/{path}"):
            raise FileUnreadable(f"{path} is a symbolic link to nothing") from error
        raise
    except FileUnreadable as error:
        raise FileUnreadable(f"{path} beside it: {error}") from error


@dataclass(frozen=True, slots=True)
class Saved(Save):
    """A save, with everything that is read together with it.

    `defaults` are the `_defaults.yaml` that apply to it. `unreadable` says why it, or one of these,
    cannot be read. `old` is the former path of a recipe that was renamed. For a `dropped` picture
    `content` is empty; `damage` says why it cannot be decoded. `is_again`: the file and a picture's
    sidecars are those of the save before, and no command wants them as if saved again.
    """

    content: bytes = b""
    defaults: Sequence[DefaultsFile] = ()
    unreadable: str = ""
    old: str = ""
    dropped: Dropped | None = None
    damage: str = ""
    is_again: bool = False


@dataclass(frozen=True, slots=True)
class Deleted:
    """A recipe or a picture that was deleted."""

    path: str


Change = Saved | Deleted


def read(
    root: Path,
    folder: str,
    path: str,
    noted: SizeAndTime,
    known: KnownRecipe | None,
    *,
    heeds_writers: bool = False,
) -> Saved | None:
    """Read a file as a save; None if it is empty. `folder` identifies the inbox.

    `noted` is the version that was quiet, `known` the ledger's. Raises FileNotFoundError, or
    FileChanged if one of the files that are read is being written, or with `heeds_writers` may be.
    """
    if not noted.size:
        return None
    try:
        if is_dropped(path):
            saved = _picture(root, folder, path, noted, known, heeds_writers=heeds_writers)
        else:
            content, size_and_time = read_file(root, path, heeds_writers=heeds_writers)
            if is_empty(content):
                return None
            digest = hashlib.sha256(content).hexdigest()
            is_again = (
                known is not None
                and (known.digest, known.outcome, known.again) == (digest, "accepted", "read")
                and not size_and_time.written_since(known.size_and_time)
            )
            saved = Saved(path, digest, size_and_time, folder, content=content, is_again=is_again)
    except FileUnreadable as error:
        return Saved(path, "", noted, folder, unreadable=str(error))
    _check_quiet(noted, saved.size_and_time)
    try:
        return replace(saved, defaults=defaults_for(root, path))
    except FileUnreadable as error:
        return replace(saved, unreadable=str(error))


def _picture(
    root: Path,
    folder: str,
    path: str,
    noted: SizeAndTime,
    known: KnownRecipe | None,
    *,
    heeds_writers: bool,
) -> Saved:
    if (dropped := read_dropped(root, path)) is None:
        raise FileChanged  # its template, or the inbox, is away for a moment
    with complete_file(root, path, heeds_writers=heeds_writers) as (file, found):
        size_and_time = with_sidecars(found, root, path)
        _check_quiet(noted, size_and_time)  # before reading, which takes long for a large one
        digest = sha256_of(file)
        damage = _damage_of(file, path)
    same = known if known and known.digest == digest and known.again != "saved" else None
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


def _damage_of(file: IO[bytes], path: str) -> str:
    """Return why a picture cannot be decoded; "" if it can."""
    try:
        pictures.refuse_other_name(path)
        pictures.check_picture(file)
    except PictureUnreadable as error:
        return str(error)
    return ""


def _check_quiet(noted: SizeAndTime, found: SizeAndTime) -> None:
    """Raise FileChanged if somebody began to write after the file was quiet."""
    if found.written_since(noted) or found.sidecars != noted.sidecars:
        raise FileChanged
