"""The gallery's entries, one for each picture, in scripts with one call per line.

Adding a picture costs the same at any number of pictures: a line at the end of the newest page.
Everything is a cache of images.jsonl and the pictures, so nothing waits for the disk.
"""

import errno
import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from itertools import takewhile
from pathlib import Path
from typing import Any

from PIL import Image

from picowatch.errors import PictureUnreadable
from picowatch.files.atomic import append, make_folder, write_atomically
from picowatch.files.safe_paths import read_regular
from picowatch.metadata.embedded_text import PICOWATCH, read_texts
from picowatch.metadata.recipe_yaml import differing_fields, recipe_yaml
from picowatch.outbox.encoding import SHEET_KEYWORD
from picowatch.outbox.listing import line_of, request_in
from picowatch.outbox.names import PILLOW_NAMES, gallery_file
from picowatch.recipe.chunk import read_chunk

PICTURES_PER_PAGE = 250
INDEX = "pages.js"
_CALL, _DECODER = 'picture({"file": ', json.JSONDecoder()
FORMAT = 5  # as in pictures.js; pages in another format are written again


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
    """Return a contact sheet's entry, with the files of its `cells`; None if it is another file."""
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
    """The entries of the gallery on disk; in memory are the files that they show, by page."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._page_of: dict[str, int] = {}  # oldest first
        # Sizes and times of pages: only that of the newest changes, unless pictures are deleted.
        self._versions: list[str] = []
        self._is_loaded = False

    def load(self) -> None:
        """Use the pages of an earlier run, or begin anew if any is missing or damaged."""
        if self._is_loaded:
            return
        index, self._page_of = self._file(INDEX), {}  # an earlier try may have failed in the middle
        paths = sorted(index.parent.glob("page-*.js"))
        try:
            is_current = f'"format": {FORMAT},'.encode() in read_regular(index)
            for page, path in enumerate(paths):
                content = read_regular(path).decode("ascii")
                *calls, rest = content.split("\n")
                if rest or "\0" in content:
                    raise ValueError("it is cut off, or a power cut left a hole")
                self._page_of |= dict.fromkeys(map(_shown_in, calls), page)
            if not is_current or paths != [self._path(page) for page in range(len(paths))]:
                raise ValueError("they are another version's, or some are missing")
        except (FileNotFoundError, ValueError, TypeError):
            index.unlink(missing_ok=True)  # first, so that a crash in between is noticed
            for path in paths:
                path.unlink(missing_ok=True)
            self._page_of, paths = {}, []
            make_folder(index.parent)
        self._versions = [""] * len(paths)
        self.announce(*range(len(paths)))
        self._is_loaded = True

    def files(self) -> Sequence[str]:
        """Return every file that is shown, oldest first."""
        return list(self._page_of)

    def __contains__(self, file: str) -> bool:
        return file in self._page_of

    def append(self, entry: Mapping[str, Any]) -> None:
        """Show one more picture; an error leaves the pages as they were."""
        last = len(self._versions) - 1
        newest = takewhile(last.__eq__, reversed(self._page_of.values()))
        page = last + (last < 0 or len([*newest]) >= PICTURES_PER_PAGE)
        make_folder(self._path(page).parent, durable=False)
        # In ASCII line separators and ends of scripts are only data.
        call = f"picture({json.dumps(entry, ensure_ascii=True)});\n"
        append(self._path(page), call.encode(), durable=False)
        if page > last:
            self._versions.append("")
        self._page_of[entry["file"]] = page
        self.announce(page)

    def remove(self, gone: Collection[str]) -> None:
        changed = sorted({self._page_of[file] for file in gone if file in self._page_of})
        for page in changed:
            path = self._path(page)
            content = read_regular(path).decode("latin-1") if path.exists() else ""
            calls = content.splitlines(keepends=True)
            try:
                left = [call for call in calls if _shown_in(call.rstrip()) not in gone]
            except ValueError as error:
                self._is_loaded = False  # the pages begin anew
                raise OSError(errno.EIO, "it is damaged", str(path)) from error
            write_atomically(path, "".join(left).encode(), durable=False)
        for file in gone:
            self._page_of.pop(file, None)
        self.announce(*changed)

    def announce(self, *changed: int) -> None:
        """Write the index, so that open galleries load pages whose version has changed."""
        for page in changed:
            found = self._path(page).stat()
            self._versions[page] = f"{found.st_size:x}.{found.st_mtime_ns:x}"
        index = json.dumps({"format": FORMAT, "pages": self._versions})
        write_atomically(self._file(INDEX), f"pages({index});\n".encode(), durable=False)

    def _path(self, page: int) -> Path:
        return self._file(f"page-{page + 1:05}.js")

    def _file(self, name: str) -> Path:
        return gallery_file(self._root, name)


def _shown_in(call: str) -> str:
    """Return the file of a call. All of it is not parsed: there may be a hundred thousand."""
    if not (call.startswith(_CALL) and call.endswith("});")):
        raise ValueError("it is not a call")
    file: str = _DECODER.raw_decode(call, len(_CALL))[0]
    return file
