"""The gallery's entries, one for each picture, in scripts with one call per line.

Adding a picture costs the same at any number of pictures: a line at the end of the newest page.
Everything is a cache of images.jsonl and the pictures, so nothing waits for the disk.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

from PIL import Image

from picowatch.errors import PictureUnreadable
from picowatch.files.atomic import append, make_folder, write_atomically
from picowatch.metadata import PICOWATCH, differing_fields, read_chunk, read_texts, recipe_yaml
from picowatch.outbox.encoding import SHEET_KEYWORD
from picowatch.outbox.listing import line_of, request_in
from picowatch.outbox.names import PILLOW_NAMES

PICTURES_PER_PAGE = 250
FORMAT = 4  # of the entries and the index; pages in another format are written again


def picture_entry(root: Path, line: dict[str, Any]) -> dict[str, Any]:
    """Return the entry of a listed picture; its `yaml` is the recipe without default values."""
    entry = _entry(root, line["file"]) | line
    # `made_at`, which unlisted pictures have, too, replaces it; a copied file may be younger.
    with suppress(KeyError, TypeError, ValueError, OverflowError):
        finished = datetime.fromisoformat(entry.pop("finished"))
        entry["made_at"] = min(entry["made_at"], int(finished.timestamp()))
    # A line that is not ours is shown as it is.
    with suppress(KeyError, TypeError, ValueError, AttributeError):
        request = request_in(line)
        entry["yaml"] = recipe_yaml(request, differing_fields(request))
    return entry


def sheet_entry(root: Path, file: str, size: tuple[int, int], text: str) -> dict[str, Any] | None:
    """Return the entry of a contact sheet with this description; None if it is not one of ours.

    `cells` are the files of its pictures, None for each that was not rendered.
    """
    try:
        shown = json.loads(text)
        axes = [(str(axis["label"]), list(map(str, axis["values"]))) for axis in shown["axes"]]
        return _entry(root, file) | {
            "recipe": str(shown["recipe"]),
            "prompt": str(shown["prompt"]),
            "width": size[0],
            "height": size[1],
            "sheet": axes,
            "cells": [str(cell) if cell else None for cell in shown["files"]],
        }
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


def entry_from_picture(root: Path, file: str) -> dict[str, Any] | None:
    """Return the entry of an unlisted picture, from its own texts; None if it has none."""
    try:
        texts = read_texts(root / file)
        if SHEET_KEYWORD in texts:
            with Image.open(root / file, formats=PILLOW_NAMES) as picture:
                return sheet_entry(root, file, picture.size, texts[SHEET_KEYWORD])
        made_at = (root / file).stat().st_mtime
        return picture_entry(root, line_of(file, read_chunk(texts[PICOWATCH]), made_at))
    except (PictureUnreadable, KeyError, TypeError, AttributeError, OSError):
        return None


def _entry(root: Path, file: str) -> dict[str, Any]:
    """Return the values that every entry has."""
    made_at = 0
    with suppress(OSError):
        made_at = int((root / file).stat().st_mtime)
    return {"file": file, "thumb": thumbnail_of(file), "made_at": made_at}


def thumbnail_of(file: str) -> str:
    """Return the name of a picture's thumbnail: short and plain, unlike some pictures' names."""
    digest = sha256(file.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{digest[:2]}/{digest[2:16]}.webp"


class Pages:
    """The entries of the gallery on disk; in memory there are only the files that they show."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._index = folder / "pages.js"
        self._pages: list[dict[str, None]] = []  # the files of each page, the oldest first

    def files(self) -> Iterator[str]:
        """Return every file that is shown, oldest first."""
        return chain.from_iterable(self._pages)

    def __contains__(self, file: str) -> bool:
        return any(file in page for page in self._pages)

    def read(self) -> bool:
        """Use the pages of an earlier run; return False if any is missing or damaged."""
        paths = sorted(self._folder.glob("page-*.js"))
        try:
            is_current = f'"format": {FORMAT},' in self._index.read_text("ascii", "replace")
            pages = [_files_of(path.read_bytes()) for path in paths]
        except (FileNotFoundError, ValueError, LookupError, TypeError):
            return False
        if not is_current or paths != [self._path(page) for page in range(len(paths))]:
            return False
        self._pages = pages
        self._announce()
        return True

    def are_there(self) -> bool:
        """Whether the index and all pages exist: clean-up programs delete old files."""
        pages = map(self._path, range(len(self._pages)))
        return self._index.is_file() and all(page.is_file() for page in pages)

    def append(self, entry: Mapping[str, Any]) -> None:
        """Show one more picture; an error leaves the pages as they were."""
        is_full = not self._pages or len(self._pages[-1]) >= PICTURES_PER_PAGE
        page = len(self._pages) - 1 + is_full
        append(self._path(page), _call(entry), durable=False)
        if is_full:
            self._pages.append({})
        self._pages[page][entry["file"]] = None
        self._announce()

    def rewrite(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Replace all pages by these entries, oldest first.

        The index is deleted first and written last, so a crash in between is noticed.
        """
        make_folder(self._folder)
        self._index.unlink(missing_ok=True)
        for path in self._folder.glob("page-*.js"):
            path.unlink()
        self._pages = []
        for start in range(0, len(entries), PICTURES_PER_PAGE):
            page = entries[start : start + PICTURES_PER_PAGE]
            self._replace(len(self._pages), map(_call, page))
            self._pages.append({entry["file"]: None for entry in page})
        self._announce()

    def remove(self, gone: Collection[str]) -> None:
        """Remove the entries of these files."""
        for page, files in enumerate(self._pages):
            if files.keys().isdisjoint(gone):
                continue
            lines = self._path(page).read_bytes().splitlines(keepends=True)
            self._replace(page, (line for line in lines if _file(line.rstrip()) not in gone))
            self._pages[page] = {file: None for file in files if file not in gone}
        self._announce()

    def _announce(self) -> None:
        """Write the index, so that open galleries load pages whose version has changed."""
        versions = list(map(self._version, range(len(self._pages))))
        index = json.dumps({"format": FORMAT, "pages": versions})
        write_atomically(self._index, f"pages({index});\n".encode(), durable=False)

    def _replace(self, page: int, calls: Iterator[bytes]) -> None:
        write_atomically(self._path(page), b"".join(calls), durable=False)

    def _version(self, page: int) -> str:
        """Return the size and time of a page; "" if it does not exist."""
        with suppress(FileNotFoundError):
            found = self._path(page).stat()
            return f"{found.st_size:x}.{found.st_mtime_ns:x}"
        return ""

    def _path(self, page: int) -> Path:
        return self._folder / f"page-{page + 1:05}.js"


def _call(entry: Mapping[str, Any]) -> bytes:
    """Return a call in ASCII, in which line separators and ends of scripts are only data."""
    return f"picture({json.dumps(entry, ensure_ascii=True)});\n".encode()


def _files_of(content: bytes) -> dict[str, None]:
    """Return a page's files. Raises ValueError, LookupError or TypeError for a damaged line."""
    *calls, rest = content.split(b"\n")
    if rest:
        raise ValueError("the last line is cut off")
    return dict.fromkeys(map(_file, calls))


def _file(call: bytes) -> str:
    file: str = json.loads(call[len("picture(") : -len(");")])["file"]
    return file
