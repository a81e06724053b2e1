"""The outbox: everything a user gets back. picowatch alone writes here."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from os.path import lexists
from pathlib import Path

from PIL import Image

from picowatch.errors import PictureUnreadable
from picowatch.files.atomic import remove_leftovers, write_atomically
from picowatch.files.inside import open_regular
from picowatch.files.retry import passes
from picowatch.metadata import PARAMETERS, PICOWATCH, read_chunk, read_texts
from picowatch.outbox.encoding import Output
from picowatch.outbox.formats import format_of, sidecar_of
from picowatch.outbox.gallery import Gallery
from picowatch.outbox.listing import Listing
from picowatch.outbox.memos import Memos
from picowatch.outbox.names import LATEST, OutboxNames, map_of, picture_files
from picowatch.outbox.png import SHEET_KEYWORD, encode_png
from picowatch.outbox.problems import ProblemFiles
from picowatch.outbox.sheets import Cell, contact_sheet
from picowatch.outbox.status import StatusFiles
from picowatch.recipe.fields import Axis

log = logging.getLogger("picowatch")


class Outbox:
    """One outbox folder: its pictures and archived recipes, and the parts that keep the rest."""

    def __init__(
        self,
        root: Path,
        file_name: str,
        go_on: Callable[[], None] = lambda: None,
        output: Output | None = None,
    ) -> None:
        """`root` exists and is locked; `file_name` is the setting of that name.

        `go_on` is called between the parts of what takes long; what it raises ends it.
        """
        self.root = root
        self._output = output or Output()
        self.names = OutboxNames(root, file_name, self._output.format)
        self.memos = Memos(root / ".picowatch" / "memos.jsonl")
        self.listing = Listing(root / "images.jsonl")
        self.gallery = Gallery(root, self.listing, go_on)
        self.problems = ProblemFiles(root, self.names)
        self.status = StatusFiles(root, self.problems)
        self._latest_warned = False

    def publish(
        self,
        file: str,
        picture: Image.Image,
        texts: Mapping[str, str],
        go_on: Callable[[], None] = lambda: None,
    ) -> None:
        """Write an RGB or RGBA picture to its path, whole or not at all; durable when this returns.

        Its sidecar follows, and is written by `complete` if a crash came between. `go_on` is
        called while the picture is compressed; what it raises leaves it unwritten.
        """
        content = self._output.encoded(file, picture, texts, go_on)
        write_atomically(self.root / file, content)
        self._write_sidecar(file, texts)
        self._write_latest(file, content)
        self.gallery.add_thumbnail(file, picture)

    def publish_maps(self, file: str, maps: Sequence[Image.Image]) -> None:
        """Write what ControlNets followed beside a picture: NAME.control.png, for a look at it.

        No picture fails because of it.
        """
        for index, picture in enumerate(maps):
            name = map_of(file, index)
            try:
                write_atomically(self.root / name, encode_png(picture, {}), durable=False)
            except OSError as error:
                if passes(error):
                    raise
                log.error("%s cannot be written: %s", name, error.strerror)

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
        content = self._output.encoded(file, page, {SHEET_KEYWORD: text}, go_on)
        write_atomically(self.root / file, content)
        self.gallery.add_sheet(file, page, text)

    def complete(self, file: str) -> None:
        """Write the sidecar of a published picture, if it is wanted and not there."""
        with suppress(PictureUnreadable):
            self._write_sidecar(file, read_texts(self.root / file))

    def _write_sidecar(self, file: str, texts: Mapping[str, str]) -> None:
        """A1111's text and a line break, as A1111 writes it; what is at that path already stays.

        No picture fails because of it.
        """
        path = self.root / sidecar_of(file)
        if not self._output.has_sidecars or PARAMETERS not in texts:
            return
        content = f"{texts[PARAMETERS]}\n".encode()
        try:
            if not lexists(path):
                write_atomically(path, content)
            elif not path.is_file() or path.read_bytes() != content:
                log.warning("%s exists already; it was not overwritten", sidecar_of(file))
        except OSError as error:
            if passes(error):
                raise
            log.error("%s cannot be written: %s", sidecar_of(file), error.strerror)

    def show_as_latest(self, file: str) -> None:
        """Let the latest picture be this one, if it still exists."""
        try:
            with os.fdopen(open_regular(self.root / file), "rb") as picture:
                content = picture.read()
        except OSError:
            return
        self._write_latest(file, content)

    def _write_latest(self, file: str, content: bytes) -> None:
        """latest.png, or latest.jpg and so on; no picture fails because of what is at that path."""
        latest = f"latest{format_of(file).ending}"
        try:
            write_atomically(self.root / latest, content, durable=False)
            for other in set(LATEST) - {latest}:  # of another format, from before
                (self.root / other).unlink(missing_ok=True)
        except OSError as error:
            if passes(error):
                raise
            if not self._latest_warned:
                log.warning("%s cannot be written: %s", latest, error.strerror)
            self._latest_warned = True

    def repair_latest(self) -> None:
        """A power cut may have emptied latest.png: its writing does not wait for the disk."""
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
