"""The outbox: everything that users get. Only picowatch writes here."""

import errno
import json
import logging
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain, count, takewhile
from os.path import lexists
from pathlib import Path
from typing import Any

from PIL import Image

from picowatch.errors import PictureUnreadable
from picowatch.files import atomic
from picowatch.files.decoding import Original
from picowatch.files.essential import Writing
from picowatch.files.names import first_folder, stem_of
from picowatch.files.safe_paths import read_regular, sha256_of, to_write
from picowatch.metadata.embedded_text import PARAMETERS, PICOWATCH, chunk_of, read_texts
from picowatch.outbox.commands import COMMANDS
from picowatch.outbox.encoding import AUTO, SHEET_KEYWORD, How, encode_png
from picowatch.outbox.gallery import Gallery
from picowatch.outbox.listing import Listing
from picowatch.outbox.names import ENDINGS, LATEST, OutboxNames, format_of, map_of, sidecar_of
from picowatch.outbox.photo_metadata import DRAWN, only_marked
from picowatch.outbox.problems import ProblemFiles
from picowatch.outbox.sheets import Cell, contact_sheet
from picowatch.outbox.status import StatusFiles
from picowatch.recipe.chunk import read_chunk
from picowatch.recipe.fields import Axis

log = logging.getLogger("picowatch")

FOLDER_REMEDY = "Give the user that runs picowatch permission to write to its folder."
# Errors that concern one picture and no other; in words, with what to do about it.
_WHY_KEPT = {
    **dict.fromkeys((errno.EACCES, errno.EPERM), ("No permission to {}", FOLDER_REMEDY)),
    errno.EXDEV: (
        "A link in its path leads out of the outbox",
        "Delete it there, or put a folder in the link's place.",
    ),
    errno.EISDIR: ("It is a folder", "Move it away."),
    errno.ELOOP: ("It is a link", "Put the file itself in its place."),
    errno.EINVAL: ("It is no file", "Move it away."),
}


def why_kept(error: OSError, action: str) -> tuple[str, str]:
    """Return why a picture stays as it is, and what to do; raise errors that concern others."""
    if error.errno not in _WHY_KEPT:
        raise error
    why, remedy = _WHY_KEPT[error.errno]
    return why.format(action), remedy


class Outbox:
    """One outbox folder: its pictures and archived recipes, and the parts for everything else."""

    def __init__(
        self,
        root: Path,
        writing: Writing,
        *,
        file_name: str,
        picture_format: str,
        quality: str | int,
        sidecar: str,
        ai_mark: bool,
    ) -> None:
        """Use a folder that exists and is locked."""
        self.root, self._writing, self._sidecar = root, writing, sidecar
        # That of sheets and previews, if pictures are to be marked.
        self.mark = only_marked(DRAWN if ai_mark else "")
        self.names = OutboxNames(root, file_name, picture_format)
        self._quality = {picture_format: quality}
        self.listing = Listing(root / "images.jsonl", follows_links=True)  # it may be elsewhere
        self.failures = Listing(root / "failures.jsonl")
        self.gallery = Gallery(root, self.listing, writing)
        self.problems = ProblemFiles(root, self.names, writing)
        self.status = StatusFiles(root, self.problems, writing)

    def hand_group_on(self, recipe: str, inbox: Path) -> None:
        """Give a new folder of results the group of its inbox folder, if both hand groups on."""
        folder = self.root / self.names.folder(recipe).partition("/")[0]
        with suppress(OSError):
            theirs, own = (inbox / first_folder(recipe)).stat(), self.root.stat()
            hand_on = theirs.st_mode & own.st_mode & stat.S_ISGID
            if hand_on and theirs.st_gid != own.st_gid and not folder.exists():
                atomic.make_folder(folder)
                os.chown(folder, -1, theirs.st_gid)

    def publish(self, file: str, content: bytes) -> None:
        """Write an encoded picture durably. `show` comes next, or `complete` after a crash."""
        atomic.write_atomically(self.root / file, content)

    def show(self, file: str, picture: Image.Image, texts: dict[str, str], content: bytes) -> None:
        """Write what belongs to a published picture; no picture fails because of it."""
        self._write_sidecar(file, texts)
        self._write_latest(file, content)
        self.gallery.add_thumbnail(file, picture)

    def publish_maps(self, file: str, maps: Sequence[Image.Image]) -> None:
        """Write the control maps of a picture beside it, as NAME.control.png."""
        for index, picture in enumerate(maps):
            name = map_of(file, index)
            with self._writing.optional(name):
                content = encode_png(Original(picture), {})
                atomic.write_atomically(self.root / name, content, durable=False)

    def publish_sheet(
        self, file: str, cells: list[Cell], axes: Sequence[Axis], side: int, about: dict[str, Any]
    ) -> None:
        """Draw and write a contact sheet; `about` says what it shows. Raises SheetTooLarge."""
        sheet = contact_sheet(cells, axes, side)
        text = json.dumps(about, ensure_ascii=False)
        how = How(file, {SHEET_KEYWORD: text}, self.quality_of(file), self.mark)
        atomic.write_atomically(self.root / file, how.encode(Original(sheet)))
        self.gallery.add_sheet(file, sheet, text)

    def quality_of(self, file: str) -> str | int:
        """Return the setting `quality`, which counts for the setting `format` alone."""
        # That may have changed since the file's name was reserved.
        return self._quality.get(format_of(file).name, AUTO)

    def complete(self, file: str) -> None:
        """Write the sidecar of a published picture, if it is wanted and missing."""
        with suppress(PictureUnreadable):
            self._write_sidecar(file, read_texts(self.root / file))

    def _write_sidecar(self, file: str, texts: Mapping[str, str]) -> None:
        """Write A1111's text and a line break, as A1111 does, unless something is at that path."""
        if self._sidecar == "none" or PARAMETERS not in texts:
            return
        sidecar, content = sidecar_of(file), f"{texts[PARAMETERS]}\n".encode()
        path, replaces = self.root / sidecar, False
        with self._writing.optional(sidecar):
            if path.is_file():
                with suppress(PictureUnreadable, KeyError):
                    replaces = read_chunk(texts[PICOWATCH]).request.replace
            if replaces or not lexists(path):
                atomic.write_atomically(path, content)
            elif not path.is_file() or path.read_bytes() != content:
                log.warning("%s exists already; it was not overwritten", sidecar)

    def show_as_latest(self, file: str) -> None:
        """Make this picture the latest, if it still exists."""
        with suppress(OSError):
            self._write_latest(file, read_regular(self.root / file))

    def _write_latest(self, file: str, content: bytes) -> None:
        latest = f"latest{format_of(file).ending}"
        with self._writing.optional(latest):
            atomic.write_atomically(self.root / latest, content, durable=False)
            for other in set(LATEST) - {latest}:  # the former picture, in another format
                (self.root / other).unlink(missing_ok=True)

    def delete(self, files: Collection[str]) -> dict[str, tuple[str, str]]:
        """Delete pictures that the gallery shows, durably, with their sidecars and control maps.

        Returns those that stay, each with why and what to do. May be repeated: the gallery forgets
        the pictures last. Their lines stay in images.jsonl, for a ledger that is rebuilt.
        """
        self._replace_latest(files)
        kept: dict[str, tuple[str, str]] = {}
        for file in files:
            try:
                self._unlink(file)
            except OSError as error:
                kept[file] = why_kept(error, "delete")
        gone = [file for file in files if file not in kept]
        self._sync_folders(gone)
        self.gallery.remove(gone)
        return kept

    def _sync_folders(self, files: Iterable[str]) -> None:
        for folder in {(self.root / file).parent for file in files}:
            if folder.is_dir():
                atomic.sync_folder(folder)

    def _unlink(self, file: str) -> None:
        """Delete the picture last, as it tells its sidecar from another text of that name."""
        atomic.check_in_place(self.root / file)
        path = to_write(self.root, file)
        if not path.parent.is_dir():
            return
        formats = {f"{stem_of(file)}{ending}" for ending in ENDINGS} - {file}
        # What also lies beside the same picture in another format stays for that.
        shared = {*chain.from_iterable(map(self.beside, filter(self.exists, formats)))}
        for beside in reversed(self.beside(file)):  # the last map first: a crash leaves no gap
            if beside not in shared:
                (self.root / beside).unlink()
        path.unlink(missing_ok=True)

    def beside(self, file: str) -> list[str]:
        """Return a picture's control maps and its sidecar, but no other text of that name."""
        maps = map(partial(map_of, file), count())
        found = list(takewhile(lambda path: lexists(self.root / path), maps))
        with suppress(PictureUnreadable, OSError):
            texts, sidecar = read_texts(self.root / file), sidecar_of(file)
            if read_regular(self.root / sidecar) == f"{texts.get(PARAMETERS, '')}\n".encode():
                found.append(sidecar)
        return found

    def leave(self, files: Iterable[str]) -> None:
        """Delete pictures that were moved at their former places, durably."""
        for file in files:
            self._unlink(file)
        self._sync_folders(files)

    def _replace_latest(self, deleted: Collection[str]) -> None:
        """Let latest.png show the newest picture that stays, of the last some hundred."""
        for file in reversed(self.listing.recent_files()):
            if file not in deleted and self.exists(file):
                self.show_as_latest(file)
                return
        for name in LATEST:
            with self._writing.optional(name):
                (self.root / name).unlink(missing_ok=True)

    def exists(self, file: str) -> bool:
        return (self.root / file).is_file()

    def holds(self, file: str, digest: str) -> bool:
        """Whether `file` is the finished picture of the request with this digest."""
        with suppress(PictureUnreadable):
            return chunk_of(self.root / file).request.digest == digest
        return False

    def repair(self, recipes: Collection[str], wrong: Collection[str]) -> None:
        """Repair what a crash left; `recipes` are all in the ledger, `wrong` have an error."""
        for folder, _, _ in os.walk(self.root):
            if not folder.endswith(f"/{COMMANDS}"):  # where other processes write
                for leftover in atomic.leftovers(Path(folder)):
                    with self._writing.optional(leftover.name):
                        leftover.unlink(missing_ok=True)
        self._replace_latest(())  # which is not durable
        self.problems.list_existing(recipes, wrong)
        atomic.check_in_place(self.root)  # else all of that was for nothing

    def archived_as(self, files: Mapping[str, str], recipe: str) -> dict[str, str]:
        """Return where a recipe, or a dropped picture with its sidecars, is kept, by path.

        `files` has the sha256 of their bytes. If others have one of their names, all get the same
        number. A file with the same bytes was written before a crash, and is used.
        """
        for number in count(1):
            names = {file: self.names.archived(file, number, recipe) for file in files}
            if all(self._is_free_for(names[file], digest) for file, digest in files.items()):
                break
        return names

    def _is_free_for(self, name: str, digest: str) -> bool:
        """Whether nothing has this name, or a file with these bytes."""
        path = self.root / name
        if not path.is_file():
            return not lexists(path)
        with path.open("rb") as there:
            return sha256_of(there) == digest

    def archive(self, name: str, blocks: Iterator[bytes], mtime_ns: int | None) -> None:
        """Write a file of the inbox where `archived_as` says, with its time, unless it is there."""
        if not lexists(self.root / name):
            atomic.write_atomically(self.root / name, blocks, mtime_ns=mtime_ns)
