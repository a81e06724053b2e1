"""The gallery's entries, one for each picture, in scripts with one call per line.

Adding a picture costs the same at any number of pictures: a line at the end of the newest page.
Everything is a cache of images.jsonl and the pictures, so nothing waits for the disk.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
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
_CALL, _DECODER = 'picture({"file": ', json.JSONDecoder()
FORMAT = 4  # of the entries and the index; pages in another format are written again


def picture_entry(root: Path, line: dict[str, Any]) -> dict[str, Any]:
    """Return the entry of a listed picture; its `yaml` is the recipe without default values."""
    entry = _entry(root, line["file"]) | line
    entry.pop("entry_digest", None)  # for a lost ledger only
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
    """The entries of the gallery on disk; in memory are the files that they show, by page.

    The index has each page's version, which is its size and time. Only that of the newest page
    changes, unless pictures are deleted.
    """

    def __init__(self, folder: Path) -> None:
        """Use the pages of an earlier run, or begin anew if any is missing or damaged."""
        self._folder = folder
        self._index = folder / "pages.js"
        self._page_of: dict[str, int] = {}  # oldest first
        self._sizes: list[int] = []
        self._versions: list[str] = []
        if not self._read():
            self._begin_anew()

    def files(self) -> Sequence[str]:
        """Return every file that is shown, oldest first."""
        return list(self._page_of)

    def __contains__(self, file: str) -> bool:
        return file in self._page_of

    def append(self, entry: Mapping[str, Any]) -> None:
        """Show one more picture; an error leaves the pages as they were."""
        is_full = not self._sizes or self._sizes[-1] >= PICTURES_PER_PAGE
        page = len(self._sizes) - 1 + is_full
        make_folder(self._folder, durable=False)
        append(self._path(page), _call(entry), durable=False)
        if is_full:
            self._sizes.append(0)
            self._versions.append("")
        self._sizes[page] += 1
        self._page_of[entry["file"]] = page
        self._announce(page)

    def remove(self, gone: Collection[str]) -> None:
        changed = sorted({self._page_of[file] for file in gone if file in self._page_of})
        for page in changed:
            path = self._path(page)
            calls = path.read_text("ascii").splitlines(keepends=True) if path.exists() else []
            left = [call for call in calls if _file(call.rstrip()) not in gone]
            write_atomically(path, "".join(left).encode(), durable=False)
            self._sizes[page] = len(left)
        for file in gone:
            self._page_of.pop(file, None)
        self._announce(*changed)

    def _read(self) -> bool:
        paths = sorted(self._folder.glob("page-*.js"))
        try:
            is_current = f'"format": {FORMAT},' in self._index.read_text("ascii", "replace")
            for page, path in enumerate(paths):
                files = _files_of(path.read_bytes())
                self._page_of |= dict.fromkeys(files, page)
                self._sizes.append(len(files))
        except (FileNotFoundError, ValueError, TypeError):
            return False
        if not is_current or paths != [self._path(page) for page in range(len(paths))]:
            return False
        self._versions = [""] * len(paths)
        self._announce(*range(len(paths)))
        return True

    def _begin_anew(self) -> None:
        """Delete all pages, the index first, so that a crash in between is noticed."""
        self._index.unlink(missing_ok=True)
        for path in self._folder.glob("page-*.js"):
            path.unlink()
        self._page_of, self._sizes, self._versions = {}, [], []
        make_folder(self._folder)
        self._announce()

    def _announce(self, *changed: int) -> None:
        """Write the index, so that open galleries load pages whose version has changed."""
        for page in changed:
            self._versions[page] = self._version(page)
        index = json.dumps({"format": FORMAT, "pages": self._versions})
        write_atomically(self._index, f"pages({index});\n".encode(), durable=False)

    def _version(self, page: int) -> str:
        found = self._path(page).stat()
        return f"{found.st_size:x}.{found.st_mtime_ns:x}"

    def _path(self, page: int) -> Path:
        return self._folder / f"page-{page + 1:05}.js"


def _call(entry: Mapping[str, Any]) -> bytes:
    """Return a call in ASCII, in which line separators and ends of scripts are only data."""
    return f"picture({json.dumps(entry, ensure_ascii=True)});\n".encode()


def _files_of(content: bytes) -> list[str]:
    """Return a page's files. Raises ValueError or TypeError for a damaged line."""
    *calls, rest = content.decode("ascii").split("\n")
    if rest or b"\0" in content:
        raise ValueError("the last line is cut off, or a power cut left a hole")
    return list(map(_file, calls))


def _file(call: str) -> str:
    """Return the file of a call. All of it is not parsed: there may be a hundred thousand."""
    if not (call.startswith(_CALL) and call.endswith("});")):
        raise ValueError("it is not a call")
    file: str = _DECODER.raw_decode(call, len(_CALL))[0]
    return file
