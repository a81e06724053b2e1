"""The gallery: outbox/index.html and the data below .picowatch/gallery/ that it shows.

A page opened from disk may not fetch files, but it may load scripts, so the data are scripts:

    page-00001.js …   250 pictures each, one call a line           (pages.py)
    pages.js          the version of each page                     (pages.py)
    now.js            what is running, queued and wrong             (status.py)
    thumbs/           a small WebP of each picture

All of them are a cache: a start makes missing or damaged files again from images.jsonl and the
pictures, and shows what exists.
"""

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from importlib import resources
from io import BytesIO
from os.path import lexists
from pathlib import Path
from typing import Any

from PIL import Image

from picowatch.files.atomic import write_atomically
from picowatch.files.attempt import unneeded
from picowatch.files.inside import open_regular
from picowatch.outbox.listing import Listing
from picowatch.outbox.names import MAP, PILLOW_NAMES, picture_files
from picowatch.outbox.pages import (
    Pages,
    entry_from_picture,
    picture_entry,
    sheet_entry,
    thumbnail_of,
)

PAGE = "index.html"
ASSETS = resources.files("picowatch").joinpath("assets/gallery")
LOADED = re.compile(rb"\.picowatch/gallery/(\w+\.(?:js|css))")  # what the page loads
SIDE = 384  # a thumbnail's longer side in pixels: sharp in rows of 190 on a dense display
QUALITY = 80
METHOD = 2  # of libwebp, 0 to 6: slower ones save a twentieth
MOST_PIXELS = 20_000_000  # of a picture that is decoded for a missing thumbnail


class Gallery:
    """The gallery of one outbox. Safe to use from several threads."""

    def __init__(self, root: Path, listing: Listing) -> None:
        """Use the gallery as it is on disk; `show_existing` makes what is missing."""
        self._root = root
        self._listing = listing
        self._folder = root / ".picowatch" / "gallery"
        self._lock = threading.Lock()
        self._write_page()
        self._pages = Pages(self._folder)

    def add(self, line: dict[str, Any]) -> None:
        """Show a listed picture, unless it is shown already."""
        with self._lock:
            if line["file"] not in self._pages:
                self._pages.append(picture_entry(self._root, line))

    def add_sheet(self, file: str, page: Image.Image, text: str) -> None:
        """Show a contact sheet, possibly instead of an earlier one; `text` is its description."""
        entry = sheet_entry(self._root, file, page.size, text)
        self.add_thumbnail(file, page)
        if entry is not None:
            with self._lock:
                self._pages.remove({file})
                self._pages.append(entry)

    def add_thumbnail(self, file: str, picture: Image.Image) -> None:
        """Write a picture's thumbnail, which changes `picture`.

        It never delays a picture: if it cannot be written now, the next start writes it, and until
        then the page shows the picture itself.
        """
        picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
        small = BytesIO()
        picture.save(small, "WEBP", quality=QUALITY, method=METHOD)
        with suppress(OSError):
            write_atomically(self._thumbnail(file), small.getvalue(), durable=False)

    def shown(self, name: str) -> list[str]:
        """Return the picture or contact sheet of this name, or all in the folder of this name."""
        with self._lock:
            if name in self._pages:
                return [name]
            return [file for file in self._pages.files() if file.startswith(f"{name}/")]

    def remove(self, files: Collection[str]) -> None:
        """Remove pictures that were deleted, and their thumbnails."""
        for file in files:
            self._thumbnail(file).unlink(missing_ok=True)
        with self._lock:
            self._pages.remove(files)

    def show_existing(self, ends: Callable[[], bool] = lambda: False) -> None:
        """Show all existing pictures and no others, unless picowatch `ends` meanwhile.

        Users delete and restore pictures by hand, and clean-up programs the gallery's own files.
        """
        there = {file for file in picture_files(self._root) if not MAP.search(file)}
        shown = self._pages.files()
        # What lies behind a link is not in `there`.
        gone = {file for file in shown if file not in there and not lexists(self._root / file)}
        if gone:
            self.remove(gone)
        for entry in self._entries_of(there.difference(shown)):
            with self._lock:
                self._pages.append(entry)
            if ends():
                return

    def make_missing_thumbnails(self, rest: Callable[[float], bool]) -> None:
        """Make missing thumbnails, newest first, until `rest(seconds)` returns true.

        It rests as long as each thumbnail took, so that rendering keeps the processor.
        """
        for file in reversed(self._pages.files()):
            began = time.monotonic()
            with suppress(OSError):
                # A power cut may have left an empty file.
                if not (path := self._thumbnail(file)).is_file() or not path.stat().st_size:
                    self._make_thumbnail(file)
            if rest(time.monotonic() - began):
                return

    def _make_thumbnail(self, file: str) -> None:
        """Write the thumbnail of an existing picture, unless it is unreadable or very large."""
        with (
            suppress(SyntaxError, ValueError, Image.DecompressionBombError),
            os.fdopen(open_regular(self._root / file), "rb") as opened,
            Image.open(opened, formats=PILLOW_NAMES) as picture,
        ):
            if picture.width * picture.height <= MOST_PIXELS:
                mode = "RGBA" if picture.has_transparency_data else "RGB"
                self.add_thumbnail(file, picture.convert(mode))

    def _thumbnail(self, file: str) -> Path:
        return self._folder / "thumbs" / thumbnail_of(file)

    def _entries_of(self, files: Collection[str]) -> Iterator[dict[str, Any]]:
        """Yield the entries of pictures: of listed ones from their lines, then of the others."""
        others = set(files)
        for line in self._listing.all() if files else ():
            if line["file"] in others:
                others.remove(line["file"])
                yield picture_entry(self._root, line)
        yield from filter(None, (entry_from_picture(self._root, file) for file in sorted(others)))

    def _write_page(self) -> None:
        """Write index.html and, beside the data, the files that it loads.

        A folder that is in the place of one of them stays, and does no harm.
        """
        for source in ASSETS.iterdir():
            target = (self._root if source.name == PAGE else self._folder) / source.name
            content = LOADED.sub(_address, source.read_bytes())
            if not target.is_file() or target.read_bytes() != content:
                with unneeded(source.name):
                    write_atomically(target, content)


def _address(loaded: re.Match[bytes]) -> bytes:
    """Return an address that changes with the content: browsers cache files for days."""
    content = ASSETS.joinpath(loaded[1].decode()).read_bytes()
    return loaded[0] + b"?" + hashlib.sha256(content).hexdigest()[:8].encode()
