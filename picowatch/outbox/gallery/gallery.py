"""The gallery of one outbox: adds new pictures, removes those that the user deleted."""

import hashlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from importlib import resources
from pathlib import Path
from threading import Lock
from typing import Any

from PIL import Image

from picowatch.files.atomic import write_atomically
from picowatch.outbox.gallery.entries import entry_from_picture, picture_entry, sheet_entry
from picowatch.outbox.gallery.pages import Pages
from picowatch.outbox.gallery.thumbnails import Thumbnails
from picowatch.outbox.listing import Listing
from picowatch.outbox.names import picture_files
from picowatch.outbox.problems import ProblemFiles

log = logging.getLogger("picowatch")

PAGE = "index.html"
ASSETS = resources.files("picowatch").joinpath("assets/gallery")
LOADED = re.compile(rb"\.picowatch/gallery/(\w+\.(?:js|css))")  # by the page
CHECK_SECONDS = 60.0  # between checks for pictures that the user deleted, at least
CHECK_REST = 100.0  # times as long as a check takes


class Gallery:
    """Safe to use from several threads."""

    def __init__(self, root: Path, listing: Listing) -> None:
        """Take up the gallery as it is, or make it from the list and the pictures."""
        self._root = root
        self._listing = listing
        self._folder = root / ".picowatch" / "gallery"
        self._lock = Lock()
        self._pages = Pages(self._folder)
        self._thumbnails = Thumbnails(root, self._folder)
        self._write_page()
        if self._pages.read():
            self._add_recent()
        else:
            self._rebuild()

    def add(self, line: dict[str, Any]) -> None:
        """Show a listed picture; nothing happens if it is shown already."""
        with self._lock:
            self._rebuild_if_deleted()
            if line["file"] not in self._pages:
                self._pages.append(picture_entry(self._root, line))

    def add_sheet(self, file: str, page: Image.Image, text: str) -> None:
        """Show a contact sheet, which may have been drawn again; `text` is its description."""
        entry = sheet_entry(self._root, file, page.width, page.height, text)
        self.add_thumbnail(file, page)
        if entry is None:
            return
        with self._lock:
            self._rebuild_if_deleted()
            if file in self._pages:
                self._pages.remove({file})
            self._pages.append(entry)

    def add_thumbnail(self, file: str, picture: Image.Image) -> None:
        """Write a picture's thumbnail from its pixels, which are changed by it.

        It never holds up a picture: if it cannot be written now, the next start writes it.
        """
        with suppress(OSError):
            self._thumbnails.write(file, picture)

    def shown(self, files: Collection[str]) -> list[str]:
        """Those of these files that are pictures or contact sheets of the gallery."""
        with self._lock:
            return [file for file in dict.fromkeys(files) if file in self._pages]

    def remove(self, files: Collection[str]) -> None:
        """Remove pictures that were deleted, and their thumbnails."""
        for file in files:
            self._thumbnails.remove(file)
        with self._lock:
            if self._pages.are_there():
                self._pages.remove(files)
            else:
                self._rebuild()

    # -- maintenance

    def add_missing(self, ends: Callable[[], bool]) -> None:
        """Show pictures that are there and not shown, until picowatch `ends`.

        A power cut takes back what was shown last, and users restore pictures by hand.
        """
        with self._lock:
            shown = set(self._pages.files())
        missing = [file for file in picture_files(self._root, ends) if file not in shown]
        if not missing or ends():
            return
        for entry in self._entries_of(missing):
            with self._lock:
                if entry["file"] not in self._pages:
                    self._pages.append(entry)

    def make_missing_thumbnails(self, rest: Callable[[float], bool]) -> None:
        """Make them newest first. `rest` waits so many seconds; once it returns true, this ends.

        It waits as long as each thumbnail took, so that rendering keeps the processor.
        """
        with self._lock:
            files = list(self._pages.files())
        for file in reversed(files):
            began = time.monotonic()
            if self._thumbnails.has(file):
                took = 0.0
            else:
                self._thumbnails.make(file)
                took = time.monotonic() - began
            if rest(took):
                return

    def restore_files(self) -> None:
        """Write what is gone of the gallery's own files: programs that tidy up delete old ones.

        Without its folder the whole outbox is away, or the next picture rebuilds all of it.
        """
        if not self._folder.is_dir():
            return
        self._write_page(missing_only=True)
        with self._lock:
            if not self._pages.are_there():
                self._rebuild()

    def remove_deleted(self, ends: Callable[[], bool] = lambda: False) -> None:
        """Remove what the user has deleted, unless picowatch `ends` meanwhile.

        Without the gallery's own folder the whole outbox is away, which deletes nothing.
        """
        with self._lock:
            shown = list(self._pages.files())
        folders: dict[str, list[str]] = {}
        for file in shown:
            folders.setdefault(file.rpartition("/")[0], []).append(file)
        gone: set[str] = set()
        for folder, files in folders.items():
            if ends():
                return
            gone.update(self._gone(folder, files))
        if gone and self._folder.is_dir():
            self.remove(gone)

    def _gone(self, folder: str, files: list[str]) -> Iterator[str]:
        try:
            there = set(os.listdir(self._root / folder))  # noqa: PTH208  (their names)
        except (FileNotFoundError, NotADirectoryError):
            there = set()
        except OSError:
            return  # unknown
        yield from (file for file in files if file.rpartition("/")[2] not in there)

    # -- making it

    def _rebuild_if_deleted(self) -> None:
        if not self._pages.is_announced():
            self._write_page()
            self._rebuild()

    def _rebuild(self) -> None:
        """Make all pages from the list and the pictures."""
        self._pages.rewrite(self._entries_of(picture_files(self._root)))

    def _add_recent(self) -> None:
        """Add what is listed, but was not shown yet when picowatch last ended."""
        for line in self._listing.recent():
            if line["file"] not in self._pages and (self._root / line["file"]).is_file():
                self._pages.append(picture_entry(self._root, line))

    def _entries_of(self, files: Collection[str] | Iterator[str]) -> list[dict[str, Any]]:
        """Return the entries of existing pictures, oldest first: listed ones by their lines."""
        lines = {line["file"]: line for line in self._listing.all()}
        entries = []
        for file in files:
            line = lines.get(file)
            entry = (
                picture_entry(self._root, line) if line else entry_from_picture(self._root, file)
            )
            if entry is not None:
                entries.append(entry)
        order = {file: index for index, file in enumerate(lines)}
        entries.sort(key=lambda entry: (entry["made_at"], order.get(entry["file"], len(order))))
        return entries

    def _write_page(self, *, missing_only: bool = False) -> None:
        """Write index.html and, beside the data, what it loads, as this version has them.

        A folder in the place of one of them stays, and stops nothing.
        """
        for source in ASSETS.iterdir():
            target = (self._root if source.name == PAGE else self._folder) / source.name
            if missing_only and target.exists():
                continue
            content = LOADED.sub(_address, source.read_bytes())
            if not target.is_file() or target.read_bytes() != content:
                try:
                    write_atomically(target, content)
                except IsADirectoryError as error:
                    log.error("%s cannot be written: %s", target, error.strerror)


def _address(loaded: re.Match[bytes]) -> bytes:
    """Another one for each version: browsers keep what a web server sent them for days."""
    content = ASSETS.joinpath(loaded[1].decode()).read_bytes()
    return loaded[0] + b"?" + hashlib.sha256(content).hexdigest()[:8].encode()


class GalleryMaintenance:
    """A thread that lists old problems, adds what is missing and removes deleted pictures."""

    def __init__(self, gallery: Gallery, problems: ProblemFiles) -> None:
        self._gallery = gallery
        self._problems = problems
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gallery", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, and wait for its end."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        ends = self._stop.is_set
        self._try(lambda: self._problems.list_existing(ends))
        self._try(lambda: self._gallery.add_missing(ends))
        self._try(lambda: self._gallery.make_missing_thumbnails(rest=self._stop.wait))
        while not ends():
            began = time.monotonic()
            self._try(self._gallery.restore_files)
            self._try(lambda: self._gallery.remove_deleted(ends))
            self._stop.wait(max(CHECK_SECONDS, CHECK_REST * (time.monotonic() - began)))

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except OSError as error:  # those who must write wait for a full disk
            log.debug("the gallery will be updated later: %s", error)
