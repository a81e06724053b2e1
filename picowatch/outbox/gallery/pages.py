"""The pages of the gallery: scripts of one call a line, a line for each picture.

Adding a picture costs the same however many there are: a line at the end of the newest page.
All of it is a cache of images.jsonl and the pictures, so nothing waits for the disk.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

from picowatch.files.atomic import append, make_folder, write_atomically

PICTURES_PER_PAGE = 250
FORMAT = 4  # of the entries and the index; pages in another format are written anew
_CALL = re.compile(rb'picture\(\{"file": ("(?:[^"\\]|\\.)*")(?:, .*)?\}\);')


class Pages:
    """The entries of the gallery on disk; in memory only which files they show."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._index = folder / "pages.js"
        self._pages: list[dict[str, None]] = []  # the files of each page, the oldest first
        self._versions: list[str] = []

    def files(self) -> Iterator[str]:
        """Every file that is shown, oldest first."""
        return chain.from_iterable(self._pages)

    def __contains__(self, file: str) -> bool:
        return any(file in page for page in self._pages)

    def read(self) -> bool:
        """Take up the pages of an earlier run; False if any is missing or damaged."""
        paths = sorted(self._folder.glob("page-*.js"))
        if paths != [self._path(page) for page in range(len(paths))]:
            return False
        try:
            if f'"format": {FORMAT},' not in self._index.read_text("ascii", "replace"):
                return False
            self._pages = [_files_of(path.read_bytes()) for path in paths]
        except (FileNotFoundError, ValueError):
            return False
        self._versions = [self._measured(page) for page in range(len(paths))]
        self.announce()
        return True

    def are_there(self) -> bool:
        """Whether no page is missing, nor the index: programs that tidy up delete old files."""
        pages = map(self._path, range(len(self._pages)))
        return self._index.is_file() and all(page.is_file() for page in pages)

    def is_announced(self) -> bool:
        """Whether the index is there; without it the user has deleted the gallery."""
        return self._index.is_file()

    def append(self, entry: Mapping[str, Any]) -> None:
        """Show one more picture; an error leaves the pages as they were."""
        is_full = not self._pages or len(self._pages[-1]) >= PICTURES_PER_PAGE
        page = len(self._pages) - 1 + is_full
        append(self._path(page), _call(entry), durable=False)
        if is_full:
            self._pages.append({})
            self._versions.append("")
        self._pages[page][entry["file"]] = None
        self._versions[page] = self._measured(page)
        self.announce()

    def rewrite(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Replace all pages by these entries, oldest first.

        The index is deleted first and written last, so a crash in between is noticed.
        """
        make_folder(self._folder)
        self._index.unlink(missing_ok=True)
        for path in self._folder.glob("page-*.js"):
            path.unlink()
        self._pages, self._versions = [], []
        for start in range(0, len(entries), PICTURES_PER_PAGE):
            page = entries[start : start + PICTURES_PER_PAGE]
            self._pages.append({entry["file"]: None for entry in page})
            self._versions.append("")
            self._replace(len(self._pages) - 1, map(_call, page))
        self.announce()

    def remove(self, gone: Collection[str]) -> None:
        """Show these files no more."""
        for page, files in enumerate(self._pages):
            if files.keys().isdisjoint(gone):
                continue
            lines = self._path(page).read_bytes().splitlines(keepends=True)
            self._replace(page, (line for line in lines if _file(line.rstrip()) not in gone))
            self._pages[page] = {file: None for file in files if file not in gone}
        self.announce()

    def announce(self) -> None:
        """Let open galleries load the pages that have another version than before."""
        index = json.dumps({"format": FORMAT, "pages": self._versions})
        write_atomically(self._index, f"pages({index});\n".encode(), durable=False)

    def _replace(self, page: int, calls: Iterator[bytes]) -> None:
        write_atomically(self._path(page), b"".join(calls), durable=False)
        self._versions[page] = self._measured(page)

    def _measured(self, page: int) -> str:
        """The version of a page: its size and time."""
        with suppress(FileNotFoundError):
            found = self._path(page).stat()
            return f"{found.st_size:x}.{found.st_mtime_ns:x}"
        return ""

    def _path(self, page: int) -> Path:
        return self._folder / f"page-{page + 1:05}.js"


def _call(entry: Mapping[str, Any]) -> bytes:
    """Return a call in ASCII: no line separator and no end of a script is anything but data."""
    return f"picture({json.dumps(entry, ensure_ascii=True)});\n".encode()


def _files_of(content: bytes) -> dict[str, None]:
    """Return the files that a page shows; raise ValueError if a line is damaged."""
    files = dict.fromkeys(map(_file, content.splitlines()))
    if None in files or (content and not content.endswith(b"\n")):
        raise ValueError("a page of the gallery is damaged")
    return {file: None for file in files if file is not None}


def _file(line: bytes) -> str | None:
    """Return the file that a line shows, None if the line is damaged."""
    found = _CALL.fullmatch(line)
    if found is None or b"\0" in line:
        return None
    file: str = json.loads(found[1])
    return file
