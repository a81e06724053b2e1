"""The gallery: outbox/index.html and the data below .picowatch/gallery/ that it shows.

A page opened from disk may not fetch files, but it may load scripts, so the data are scripts:

    page-00001.js …   250 pictures each, one call a line           (pages.py)
    pages.js          the version of each page                     (pages.py)
    now.js            what is running, queued and wrong             (status.py)
    thumbs/           a small WebP of each picture

All of them are a cache: a start makes missing or damaged files again from images.jsonl and the
pictures, and shows what exists. A thread looks now and then for what users do by hand.
"""

import hashlib
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import resources
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from typing import Any

from PIL import Image

from picowatch.files import essential
from picowatch.files.atomic import check_in_place, write_atomically
from picowatch.files.essential import Writing
from picowatch.files.names import stem_of
from picowatch.files.safe_paths import open_regular, read_regular
from picowatch.outbox import pages
from picowatch.outbox.encoding import shrink
from picowatch.outbox.listing import Listing
from picowatch.outbox.names import MAP, ORIGINALS, PILLOW_NAMES, gallery_file, picture_files

PAGE, DATA = "index.html", ".picowatch/gallery"
ASSETS = resources.files("picowatch").joinpath("assets/gallery")
LOADED = re.compile(rb"\.picowatch/gallery/(\w+\.(?:js|css))")  # what the page loads
QUALITY = 80
METHOD = 2  # of libwebp, 0 to 6: slower ones save a twentieth
LOOK_SECONDS = 40.0  # between two looks at the folders; at a thousand it takes 8 ms
LOOKING_REST = 50  # … as many times as long as the last one took
SETTLED_SECONDS = 3.0  # after which a picture is read that nobody has listed
MOST_PIXELS = 20_000_000  # of a picture that is decoded for a missing thumbnail


class Gallery:
    """The gallery of one outbox. Safe to use from several threads."""

    def __init__(self, root: Path, listing: Listing, writing: Writing) -> None:
        """Use the gallery as it is on disk; `catch_up` makes what is missing."""
        self._root, self._listing, self._writing = root, listing, writing
        self._lock = threading.Lock()
        for source in ASSETS.iterdir():  # index.html and what it loads
            content, name = LOADED.sub(_address, source.read_bytes()), source.name
            with writing.optional(name):  # a folder in the place of one of them stays
                target = root / PAGE if name == PAGE else gallery_file(root, name)
                if not target.is_file() or target.read_bytes() != content:
                    write_atomically(target, content)
        self._pages = pages.Pages(root)
        self.is_behind = True  # whether existing pictures may be missing
        self._next_at = float("-inf")
        self._others: dict[str, tuple[int, int]] = {}  # pictures that are not ours, as saved

    def add(self, line: dict[str, Any]) -> None:
        """Show a listed picture, in the place of a deleted picture of its name."""
        self._change({line["file"]}, pages.picture_entry(self._root, line))

    def add_sheet(self, file: str, page: Image.Image, text: str) -> None:
        """Show a contact sheet, possibly instead of an earlier sheet; `text` is its description."""
        entry = pages.sheet_entry(self._root, file, page.size, text)
        self.add_thumbnail(file, page)
        self._change({file}, entry)

    def add_thumbnail(self, file: str, picture: Image.Image) -> None:
        """Write a thumbnail, which changes `picture`; if that fails, the next start does it."""
        small = BytesIO()
        shrink(picture).save(small, "WEBP", quality=QUALITY, method=METHOD)
        with self._writing.optional(f"{DATA}/thumbs"):
            write_atomically(self._thumbnail(file), small.getvalue(), durable=False)

    def shown(self, names: Collection[str]) -> dict[str, list[str]]:
        """Return the picture or contact sheet of each name, or all in the folder of this name."""
        with self._lock:
            found = {name: [name] if name in self._pages else [] for name in names}
            folders = {name for name, files in found.items() if not files}
            for file in self._pages.files() if folders else ():
                above = accumulate(file.split("/")[:-1], "{}/{}".format)
                for folder in folders.intersection(above):
                    found[folder].append(file)
            return found

    def files(self) -> list[str]:
        with self._lock:
            return [*self._pages.files()]

    def remove(self, files: Collection[str]) -> None:
        self._remove_thumbnails(files)
        self._change(files)

    def copy_thumbnails(self, placed: Mapping[str, str]) -> None:
        """Give pictures theirs at the new places; `tend` deletes those at former places."""
        with self._writing.optional(f"{DATA}/thumbs"):
            for file, target in placed.items():
                with suppress(FileNotFoundError):
                    small = read_regular(self._thumbnail(file))
                    write_atomically(self._thumbnail(target), small, durable=False)

    def keep(
        self, placed: Mapping[str, str], lines: Mapping[str, dict[str, Any]], *, copies: bool
    ) -> None:
        """Show pictures at their new places, and no more at the former ones unless `copies`.

        Of a listed picture, `lines` has its new line.
        """
        if not copies:
            self.remove(placed)
        for target in placed.values():
            if line := lines.get(target):
                self.add(line)
            elif target not in self._pages:
                self._change((), pages.entry_from_picture(self._root, target))

    def _remove_thumbnails(self, files: Collection[str]) -> None:
        with self._writing.optional(f"{DATA}/thumbs"):
            for file in files:
                self._thumbnail(file).unlink(missing_ok=True)

    def _change(self, gone: Collection[str], entry: Mapping[str, Any] | None = None) -> None:
        with self._changing(), self._lock:
            self._pages.load()
            if any(file in self._pages for file in gone):
                self._pages.remove(gone)
            if entry:
                self._pages.append(entry)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Let `catch_up` make up for what cannot be written."""
        with self._writing.optional(DATA):
            try:
                yield
            except OSError:
                self.is_behind = True
                raise

    def catch_up(self) -> None:
        """Show all existing pictures and no others, at the start and if one could not be shown.

        Users delete and restore pictures by hand, and clean-up programs the gallery's own files.
        """
        if self.is_behind and time.monotonic() >= self._next_at:
            self._next_at = time.monotonic() + essential.RETRY_SECONDS
            with self._changing():
                with self._lock:
                    self._pages.load()
                    self._pages.announce()  # which fails before long work does
                for entry in self._entries_of(self._compared()):
                    self._append(entry)
                    if self._writing.has_ended():
                        return
                self.is_behind = False

    def tend(self, rest: Callable[[float], bool]) -> None:
        """Make missing thumbnails and show what users do by hand, until `rest` says to end."""
        unseen = [*self.files()]  # their thumbnails may be missing; the newest are the first
        look_at, pause = time.monotonic() + LOOK_SECONDS, 0.0
        while not rest(pause):
            began = time.monotonic()  # after each picture it rests as long as that took
            if began >= look_at:
                took = 0.0 if self.is_behind else self._look(rest)
                look_at = time.monotonic() + max(LOOK_SECONDS, LOOKING_REST * took)
                pause = 0.0
            elif unseen:
                self._make_if_missing(unseen.pop())
                pause = time.monotonic() - began
            else:
                pause = look_at - began

    def _look(self, rest: Callable[[float], bool]) -> float:
        """Show what users have done by hand; return the seconds that the search for it took.

        Of the pictures found, those with texts of picowatch are shown.
        """
        began, took = time.monotonic(), 0.0
        with self._changing():
            found = self._compared()
            took = time.monotonic() - began
            for file in sorted(found):
                began = time.monotonic()
                if not self._has_changed(file):
                    continue
                entry = pages.entry_from_picture(self._root, file)
                if entry and not _is_original(entry):
                    self._append(entry)
                    del self._others[file]
                    self._make_if_missing(file)
                if rest(time.monotonic() - began):
                    break
        return took

    def _compared(self) -> set[str]:
        """Show no more what is gone; return the pictures that are there and not shown."""
        there = set()
        for file in picture_files(self._root):
            if not MAP.search(file):
                there.add(file)
            if self._writing.has_ended():
                return set()
        shown = self.files()
        # What lies behind a link is not in `there`, nor what is in a folder that cannot be read.
        if gone := {file for file in shown if file not in there and _is_gone(self._root / file)}:
            check_in_place(self._root)  # else all are away, and will be there again
            self._remove_thumbnails(gone)
            with self._lock:
                self._pages.remove(gone)
        return there.difference(shown)

    def _append(self, entry: Mapping[str, Any]) -> None:
        """Show a picture that is found, unless a publisher was faster."""
        with self._lock:
            if entry["file"] not in self._pages:
                self._pages.append(entry)

    def _has_changed(self, file: str) -> bool:
        """Whether a picture that is not shown was saved since it was read, and not just now."""
        with suppress(OSError):
            status = (self._root / file).lstat()
            saved = status.st_size, status.st_mtime_ns
            # What was published a moment ago is about to be listed and shown.
            is_settled = abs(time.time() - status.st_ctime) > SETTLED_SECONDS
            if is_settled and self._others.get(file) != saved:
                self._others[file] = saved
                return True
        return False

    def _make_if_missing(self, file: str) -> None:
        """Write a missing thumbnail, unless the picture is gone, unreadable or very large."""
        with suppress(OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            path = self._thumbnail(file)
            if path.is_file() and path.stat().st_size:  # a power cut may have left an empty file
                return
            with (
                open_regular(self._root / file) as opened,
                Image.open(opened, formats=PILLOW_NAMES) as picture,
            ):
                if picture.width * picture.height <= MOST_PIXELS:
                    mode = "RGBA" if picture.has_transparency_data else "RGB"
                    self.add_thumbnail(file, picture.convert(mode))

    def _thumbnail(self, file: str) -> Path:
        return gallery_file(self._root, f"thumbs/{pages.thumbnail_of(file)}")

    def _entries_of(self, files: Collection[str]) -> Iterator[dict[str, Any]]:
        """Yield the entries of pictures: of listed ones from their lines, then of the others."""
        others = set(files)
        for line in self._listing.all() if files else ():
            if line.get("file") in others:
                others.remove(line["file"])
                yield pages.picture_entry(self._root, line)
        for file in sorted(others):
            if (entry := pages.entry_from_picture(self._root, file)) and not _is_original(entry):
                yield entry


def _is_gone(path: Path) -> bool:
    """Whether nothing is at a path; what cannot be looked at may be there."""
    try:
        path.lstat()
    except OSError as error:
        return isinstance(error, FileNotFoundError | NotADirectoryError)
    return False


def _is_original(entry: dict[str, Any]) -> bool:
    """Whether an unlisted picture is an archived original; recipes' folders may have that name."""
    folder, recipe = entry["file"].rpartition("/")[0], entry["recipe"]
    is_its_own = folder in (stem_of(recipe), recipe.rpartition("/")[0])
    return folder.endswith(f"/{ORIGINALS}") and not is_its_own


def _address(loaded: re.Match[bytes]) -> bytes:
    """Return an address that changes with the content: browsers cache files for days."""
    content = ASSETS.joinpath(loaded[1].decode()).read_bytes()
    return loaded[0] + b"?" + hashlib.sha256(content).hexdigest()[:8].encode()
