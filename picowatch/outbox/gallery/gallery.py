"""The gallery of one outbox: adds new pictures, removes those that the user deleted.

A damaged gallery, or one of another version, is rebuilt from images.jsonl
and the pictures.
"""

import hashlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from importlib import resources
from itertools import count
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

CHECKED_AT_ONCE = 250  # files
CHECK_REST = 9.0  # times as long as a check takes
CLOCK_STEP_NS = 5_000_000_000  # of a folder's time: two seconds on exFAT and some shares
CHECK_SECONDS = 60.0  # between checks for pictures that the user deleted


class Gallery:
    """Safe to use from several threads."""

    def __init__(self, root: Path, listing: Listing) -> None:
        """`listing` holds what must be shown: what a crash left out is added."""
        self._root = root
        self._listing = listing
        self._folder = root / ".picowatch" / "gallery"
        self._lock = Lock()
        self._folder_times: dict[str, int] = {}
        self._pages = Pages(self._folder)
        self._thumbnails = Thumbnails(root, self._folder)
        if self._pages.damaged:
            self._rebuild()
        else:
            self._write_page()
            self._pages.announce()
            self._catch_up()

    def add(self, line: dict[str, Any]) -> None:
        """Show an enlisted picture; nothing happens if it is shown already."""
        self._add(picture_entry(self._root, line))

    def add_sheet(self, file: str, page: Image.Image, text: str) -> None:
        """Show a contact sheet, which may have been drawn again; `text` is its description."""
        entry = sheet_entry(self._root, file, page.width, page.height, text)
        self.add_thumbnail(file, page)
        if entry is not None:
            self._add(entry)

    def add_thumbnail(self, file: str, picture: Image.Image) -> None:
        """Write a picture's thumbnail from its pixels, which are changed by it.

        It never holds up a picture: if it cannot be written now, the next start writes it.
        """
        with suppress(OSError):
            self._thumbnails.write(file, picture)

    def _add(self, entry: dict[str, Any]) -> None:
        with self._lock:
            if not self._pages.is_intact():
                self._rebuild()
            if entry["file"] not in self._pages.recent():
                self._pages.append(entry)

    def shown(self, files: Collection[str]) -> list[str]:
        """Those of these files that are pictures or contact sheets of the gallery."""
        with self._lock:
            return list(set(files).intersection(self._pages.files()))

    # -- maintenance

    def make_missing_thumbnails(self, rest: Callable[[float], bool]) -> None:
        """Newest first. `rest` waits for so many seconds; once it returns true, this ends.

        It waits as long as each thumbnail took, and most of the time while it only checks: with a
        hundred thousand pictures that takes a second of processor time.
        """
        with self._lock:
            files = list(self._pages.files())
        for end in range(len(files), 0, -CHECKED_AT_ONCE):
            began = time.monotonic()
            some = files[max(0, end - CHECKED_AT_ONCE) : end]
            missing = [file for file in reversed(some) if not self._thumbnails.has(file)]
            if rest(CHECK_REST * (time.monotonic() - began)):
                return
            for file in missing:
                began = time.monotonic()
                self._thumbnails.make(file)
                if rest(time.monotonic() - began):
                    return

    def restore_files(self) -> None:
        """Write what is gone of the gallery's own files: programs that tidy up delete old ones.

        Without its folder the whole outbox is away, or the next picture rebuilds all of it.
        """
        if not self._folder.is_dir():
            return
        with self._lock:
            if self._pages.are_there():
                self._write_page(missing_only=True)
            else:
                self._rebuild()

    def remove_deleted(self, ends: Callable[[], bool] = lambda: False) -> None:
        """Remove what the user has deleted.

        A folder is only listed if its time has changed. Without the gallery's own folder the
        whole outbox is away, which deletes nothing. It stops where picowatch `ends`.
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
            try:
                self.remove(gone)
            except OSError:
                self._folder_times.clear()  # so that the next look finds them again
                raise

    def remove(self, files: Collection[str]) -> None:
        """Remove pictures that were deleted, and their thumbnails."""
        for file in files:
            self._thumbnails.remove(file)
        with self._lock:
            if is_damaged := not (self._pages.is_intact() and self._pages.are_there()):
                self._rebuild()
        if not is_damaged:
            self._remove(set(files))

    def _remove(self, gone: set[str]) -> None:
        """Page by page, so that no new picture has to wait for all of them."""
        for page in count(1):
            with self._lock:
                if page > self._pages.count():
                    break
                self._pages.remove(gone, page)
        with self._lock:
            self._pages.announce()

    def _gone(self, folder: str, files: list[str]) -> Iterator[str]:
        try:
            changed_at = (self._root / folder).stat().st_mtime_ns
            if self._folder_times.get(folder) == changed_at:
                return
            there = set(os.listdir(self._root / folder))  # noqa: PTH208  (their names)
        except (FileNotFoundError, NotADirectoryError):
            changed_at, there = 0, set()
        except OSError:
            return  # unknown
        yield from (file for file in files if file.rpartition("/")[2] not in there)
        if time.time_ns() - changed_at > CLOCK_STEP_NS:  # else another change may have this time
            self._folder_times[folder] = changed_at

    # -- rebuilding

    def _rebuild(self) -> None:
        self._write_page()
        self._pages.rewrite(self._all_entries())

    def _catch_up(self) -> None:
        """Add what is in the list, but was not shown yet when picowatch last ended.

        Several publishers at work may have shown a later one already.
        """
        shown = set(self._pages.files())
        for line in self._listing.recent():
            if line["file"] not in shown and (self._root / line["file"]).is_file():
                self.add(line)

    def _all_entries(self) -> list[dict[str, Any]]:
        """One for each picture that is there, oldest first."""
        lines = {}
        for listed in self._listing.all():
            lines[listed["file"]] = listed
        entries = []
        for file in picture_files(self._root):
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
        """index.html and beside the data what it loads, as this version has them.

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
    """Lists old problems, writes missing thumbnails, removes deleted pictures: in one thread."""

    def __init__(self, gallery: Gallery, problems: ProblemFiles) -> None:
        self._gallery = gallery
        self._problems = problems
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gallery", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        self._try(lambda: self._problems.list_existing(self._stop.is_set))
        # It idles as long as each thumbnail took, so that the work keeps the processor.
        self._try(lambda: self._gallery.make_missing_thumbnails(rest=self._stop.wait))
        while not self._stop.is_set():
            self._try(self._gallery.restore_files)
            self._try(lambda: self._gallery.remove_deleted(self._stop.is_set))
            self._stop.wait(CHECK_SECONDS)

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except OSError as error:  # those who must write wait for a full disk
            log.debug("the gallery will be updated later: %s", error)
