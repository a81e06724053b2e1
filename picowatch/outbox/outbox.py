"""The outbox: everything a user gets back. picowatch alone writes here."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from os.path import lexists
from pathlib import Path

from PIL import Image

from picowatch.errors import PictureUnreadable
from picowatch.files.atomic import remove_leftovers, write_atomically
from picowatch.files.inside import open_regular
from picowatch.files.retry import passes
from picowatch.metadata import PICOWATCH, read_chunk, read_texts
from picowatch.outbox.gallery import Gallery
from picowatch.outbox.listing import Listing
from picowatch.outbox.memos import Memos
from picowatch.outbox.names import OutboxNames, picture_files
from picowatch.outbox.png import SHEET_KEYWORD, encode_png
from picowatch.outbox.problems import ProblemFiles
from picowatch.outbox.sheets import Cell, contact_sheet
from picowatch.outbox.status import StatusFiles
from picowatch.recipe.fields import Axis

log = logging.getLogger("picowatch")

LATEST = "latest.png"


class Outbox:
    """One outbox folder: its pictures and archived recipes, and the parts that keep the rest."""

    def __init__(
        self, root: Path, file_name: str, go_on: Callable[[], None] = lambda: None
    ) -> None:
        """`root` exists and is locked; `file_name` is the setting of that name.

        `go_on` is called between the parts of what takes long; what it raises ends it.
        """
        self.root = root
        self.names = OutboxNames(root, file_name)
        self.memos = Memos(root / ".picowatch" / "memos.jsonl")
        self.listing = Listing(root / "images.jsonl")
        self.gallery = Gallery(root, self.listing, go_on)
        self.problems = ProblemFiles(root, self.names)
        self.status = StatusFiles(root, self.problems)
        self._latest_warned = False

    def publish(
        self,
        file: str,
        width: int,
        height: int,
        pixels: bytes,
        texts: Mapping[str, str],
        go_on: Callable[[], None] = lambda: None,
    ) -> None:
        """Write a picture to its path, whole or not at all; durable when this returns.

        `go_on` is called while it is compressed; what it raises leaves the picture unwritten.
        """
        content = encode_png(width, height, pixels, texts, go_on)
        write_atomically(self.root / file, content)
        self._write_latest(content)
        self.gallery.add_thumbnail(file, Image.frombytes("RGB", (width, height), pixels))

    def publish_sheet(
        self,
        file: str,
        cells: Sequence[Cell],
        axes: Sequence[Axis],
        side: int,
        text: str,
        go_on: Callable[[], None] = lambda: None,
    ) -> None:
        """Draw a contact sheet and write it to its path; `text` says what it shows, as JSON.

        Raises SheetTooLarge.
        """
        page = contact_sheet(cells, axes, side, go_on)
        texts = {SHEET_KEYWORD: text}
        content = encode_png(page.width, page.height, page.tobytes(), texts, go_on)
        write_atomically(self.root / file, content)
        self.gallery.add_sheet(file, page, text)

    def show_as_latest(self, file: str) -> None:
        """Let latest.png be this picture, if it still exists."""
        try:
            with os.fdopen(open_regular(self.root / file), "rb") as picture:
                content = picture.read()
        except OSError:
            return
        self._write_latest(content)

    def _write_latest(self, content: bytes) -> None:
        """No picture fails because something else is at that path."""
        try:
            write_atomically(self.root / LATEST, content, durable=False)
        except OSError as error:
            if passes(error):
                raise
            if not self._latest_warned:
                log.warning("%s cannot be written: %s", LATEST, error.strerror)
            self._latest_warned = True

    def repair_latest(self) -> None:
        """A power cut may have emptied latest.png, whose writing does not wait for the disk."""
        for newest in self.listing.newest(1):
            self.show_as_latest(newest)

    def pictures(self) -> Iterator[tuple[str, float, dict[str, str]]]:
        """File, time and texts of every picture in the recipes' folders, oldest first."""
        paths = [(self.root / file, file) for file in picture_files(self.root)]
        found = [(path.stat().st_mtime, file) for path, file in paths if path.is_file()]
        for made_at, file in sorted(found):
            try:
                yield file, made_at, read_texts(self.root / file)
            except PictureUnreadable:
                continue

    def exists(self, file: str) -> bool:
        return (self.root / file).is_file()

    def holds(self, file: str, digest: str) -> bool:
        """Whether `file` is the finished picture of the request with this digest."""
        try:
            texts = read_texts(self.root / file)
            return read_chunk(texts[PICOWATCH]).request.digest == digest
        except (PictureUnreadable, KeyError):
            return False

    def remove_leftovers(self, go_on: Callable[[], None] = lambda: None) -> None:
        """Delete what a crash left half-written anywhere in the outbox."""
        for folder, _, _ in os.walk(self.root):
            go_on()
            remove_leftovers(Path(folder))

    def archive(self, recipe: str, content: bytes) -> str:
        """Keep a recipe's bytes in its folder; returns their path below the outbox.

        Another file of that name is not overwritten, the recipe's gets a number; one that holds
        these very bytes is theirs already, from before a crash.
        """
        number = 1
        while lexists(target := self.root / self.names.archived(recipe, number)):
            if target.is_file() and target.read_bytes() == content:
                break
            number += 1
        else:
            write_atomically(target, content)
        return target.relative_to(self.root).as_posix()
