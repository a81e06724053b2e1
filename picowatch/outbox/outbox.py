"""The outbox: everything that users get. Only picowatch writes here."""

import errno
import json
import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import count
from os.path import lexists
from pathlib import Path
from typing import Any

from PIL import Image

from picowatch.errors import PictureUnreadable
from picowatch.files.atomic import (
    check_in_place,
    copy_atomically,
    leftovers,
    sync_folder,
    write_atomically,
)
from picowatch.files.attempt import unneeded
from picowatch.files.inside import leads_out, open_regular, sha256_of
from picowatch.metadata import PARAMETERS, PICOWATCH, read_chunk, read_texts
from picowatch.outbox.commands import COMMANDS
from picowatch.outbox.encoding import SHEET_KEYWORD, encode_png, encoded
from picowatch.outbox.gallery import Gallery
from picowatch.outbox.listing import Listing
from picowatch.outbox.names import LATEST, OutboxNames, format_of, map_of, sidecar_of
from picowatch.outbox.photo_metadata import DRAWN, NONE, marked
from picowatch.outbox.problems import ProblemFiles
from picowatch.outbox.sheets import Cell, contact_sheet
from picowatch.outbox.status import StatusFiles
from picowatch.recipe.fields import Axis
from picowatch.settings import Settings

log = logging.getLogger("picowatch")


class Outbox:
    """One outbox folder: its pictures and archived recipes, and the parts for everything else."""

    def __init__(self, settings: Settings) -> None:
        """Use a folder that exists and is locked."""
        self._settings = settings
        # That of sheets and previews, if pictures are to be marked.
        self.mark = marked(NONE, DRAWN if settings.ai_mark else "")
        self.root = root = settings.outbox
        self.names = OutboxNames(settings)
        self.listing = Listing(root / "images.jsonl")
        self.failures = Listing(root / "failures.jsonl", "recipe")
        self.gallery = Gallery(root, self.listing)
        self.problems = ProblemFiles(root, self.names)
        self.status = StatusFiles(root, self.problems)

    def publish(
        self, file: str, picture: Image.Image, texts: Mapping[str, str], content: bytes
    ) -> None:
        """Write an encoded picture atomically; it is durable when this returns.

        Its sidecar is written next; after a crash in between, `complete` writes it.
        """
        write_atomically(self.root / file, content)
        self._write_sidecar(file, texts)
        self._write_latest(file, content)
        self.gallery.add_thumbnail(file, picture)

    def publish_maps(self, file: str, maps: Sequence[Image.Image]) -> None:
        """Write the control maps of a picture beside it, as NAME.control.png.

        No picture fails because of them.
        """
        for index, picture in enumerate(maps):
            name = map_of(file, index)
            with unneeded(name):
                write_atomically(self.root / name, encode_png(picture, {}), durable=False)

    def publish_sheet(
        self,
        file: str,
        cells: Sequence[Cell],
        axes: Sequence[Axis],
        side: int,
        about: Mapping[str, Any],
    ) -> None:
        """Draw a contact sheet and write it; `about` says what it shows.

        Raises SheetTooLarge.
        """
        sheet = contact_sheet(cells, axes, side)
        text = json.dumps(about, ensure_ascii=False)
        content = encoded(file, sheet, {SHEET_KEYWORD: text}, self._settings, photo=self.mark)
        write_atomically(self.root / file, content)
        self.gallery.add_sheet(file, sheet, text)

    def complete(self, file: str) -> None:
        """Write the sidecar of a published picture, if it is wanted and missing."""
        with suppress(PictureUnreadable):
            self._write_sidecar(file, read_texts(self.root / file))

    def _write_sidecar(self, file: str, texts: Mapping[str, str]) -> None:
        """Write A1111's text and a line break, as A1111 does, unless something is at that path.

        No picture fails because of it.
        """
        sidecar = sidecar_of(file)
        path = self.root / sidecar
        if self._settings.sidecar == "none" or PARAMETERS not in texts:
            return
        content = f"{texts[PARAMETERS]}\n".encode()
        with unneeded(sidecar):
            if not lexists(path):
                write_atomically(path, content)
            elif not path.is_file() or path.read_bytes() != content:
                log.warning("%s exists already; it was not overwritten", sidecar)

    def show_as_latest(self, file: str) -> None:
        """Make this picture the latest one, if it still exists."""
        try:
            with os.fdopen(open_regular(self.root / file), "rb") as picture:
                content = picture.read()
        except OSError:
            return
        self._write_latest(file, content)

    def _write_latest(self, file: str, content: bytes) -> None:
        """Write latest.png, latest.jpg and so on; no picture fails if that is impossible."""
        latest = f"latest{format_of(file).ending}"
        with unneeded(latest):
            write_atomically(self.root / latest, content, durable=False)
            for other in set(LATEST) - {latest}:  # the former one, in another format
                (self.root / other).unlink(missing_ok=True)

    def delete(self, files: Collection[str]) -> list[str]:
        """Delete pictures that the gallery shows, durably, with their sidecars and control maps.

        Returns those in folders without write permission. May be repeated: the gallery forgets the
        pictures last. Their lines stay in images.jsonl, so that a rebuilt ledger knows that they
        were rendered.
        """
        self._replace_latest(files)
        kept = []
        for file in files:
            try:
                self._unlink(file)
            except PermissionError:
                kept.append(file)
        for folder in {(self.root / file).parent for file in files}:
            if folder.is_dir():
                sync_folder(folder)
        self.gallery.remove([file for file in files if file not in kept])
        return kept

    def _unlink(self, file: str) -> None:
        """Delete the picture last, as it tells its sidecar from another text of that name."""
        path = self.root / file
        check_in_place(path)
        if leads_out(self.root, str(path.parent)):
            raise OSError(errno.EXDEV, "its folder is a link that leads out of the outbox")
        if not path.parent.is_dir():
            return
        for index in count():
            map_path = self.root / map_of(file, index)
            if not lexists(map_path):
                break
            map_path.unlink()
        with suppress(PictureUnreadable, OSError):
            texts, sidecar = read_texts(path), self.root / sidecar_of(file)
            if sidecar.read_bytes() == f"{texts.get(PARAMETERS)}\n".encode():
                sidecar.unlink()
        path.unlink(missing_ok=True)

    def _replace_latest(self, deleted: Collection[str]) -> None:
        """Let latest.png show the newest picture that stays, of the last some hundred."""
        for file in reversed(self.listing.recent_files()):
            if file not in deleted and self.exists(file):
                self.show_as_latest(file)
                return
        for name in LATEST:
            with unneeded(name):
                (self.root / name).unlink(missing_ok=True)

    def exists(self, file: str) -> bool:
        return (self.root / file).is_file()

    def holds(self, file: str, digest: str) -> bool:
        """Whether `file` is the finished picture of the request with this digest."""
        try:
            texts = read_texts(self.root / file)
            return read_chunk(texts[PICOWATCH]).request.digest == digest
        except (PictureUnreadable, KeyError):
            return False

    def repair(
        self, recipes: Collection[str], wrong: Collection[str], ends: Callable[[], bool]
    ) -> None:
        """Repair what a crash or a power cut left, and show in the gallery what exists.

        `recipes` are all in the ledger, `wrong` those with an error. latest.png is not durable.
        """
        for folder, _, _ in os.walk(self.root):
            if not folder.endswith(f"/{COMMANDS}"):  # where other processes write
                for leftover in leftovers(Path(folder)):
                    leftover.unlink(missing_ok=True)
        self._replace_latest(())
        self.problems.list_existing(recipes, wrong)
        self.gallery.show_existing(ends)

    def archive(self, file: str, digest: str, blocks: Iterator[bytes], recipe: str) -> str:
        """Keep a file's bytes in its recipe's folder; return their path below the outbox.

        The file is the recipe itself, or a dropped picture's sidecar. `digest` is the sha256 of its
        bytes. If another file has that name, a number is added; one with the same bytes was written
        before a crash, and is used.
        """
        number = 1
        while lexists(target := self.root / self.names.archived(file, number, recipe)):
            if _holds(target, digest):
                break
            number += 1
        else:
            copy_atomically(target, blocks)
        return target.relative_to(self.root).as_posix()


def _holds(path: Path, digest: str) -> bool:
    """Whether a path is a regular file whose bytes have this sha256."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return sha256_of(file) == digest
