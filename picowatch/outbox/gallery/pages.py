"""The pages of the gallery: scripts of one call per line, which are only appended to.

Adding a picture costs the same however many there are: a line at the end of the newest page.
"""

import json
import re
import secrets
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from picowatch.files.atomic import append, make_folder, sync_folder, write_atomically
from picowatch.outbox.listing import json_object, without_torn_line

PICTURES_PER_PAGE = 250
FORMAT = 3  # of the entries and the index; pages in another format are rebuilt
NO_SIZE = -1  # a size that no page has
CALL = re.compile(rb'picture\(\{"file": ("(?:[^"\\]|\\.)*")(?:, .*)?\}\);')


class Pages:
    """The entries of the gallery on disk; in memory only which files they show."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        make_folder(folder)
        self._files: list[list[str]] = []
        self._changes: Counter[int] = Counter()  # of each page, since this edition began
        self._newest_bytes: int | None = None
        self._edition = secrets.token_hex(4)
        self.stars = ""  # the version of stars.js
        self.damaged = not self._read()

    def files(self) -> Iterator[str]:
        """Every file that is shown, oldest first."""
        for page in self._files:
            yield from page

    def count(self) -> int:
        """How many pages there are."""
        return len(self._files)

    def recent(self) -> set[str]:
        """The files of the last two pages: enough to find what a crash left out."""
        return {file for page in self._files[-2:] for file in page}

    def is_intact(self) -> bool:
        """Whether the newest page is as it was left; a user may have deleted the gallery."""
        return self._measured() == self._newest_bytes

    def are_there(self) -> bool:
        """Whether no page is missing, nor the index."""
        pages = map(self._path, range(1, self.count() + 1))
        return self._index.is_file() and all(page.is_file() for page in pages)

    def append(self, entry: Mapping[str, Any]) -> None:
        """Show one more picture, durably; an error leaves the pages as they were."""
        is_full = not self._files or len(self._files[-1]) >= PICTURES_PER_PAGE
        append(self._path(len(self._files) + is_full), _call(entry))
        if is_full:
            self._files.append([])
        self._files[-1].append(entry["file"])
        self._changes[len(self._files)] += 1
        self.announce()

    def rewrite(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Replace all pages by these entries, oldest first.

        The index is deleted first and written last: so a crash in between is noticed.
        """
        self._newest_bytes = NO_SIZE
        make_folder(self._folder)
        self._index.unlink(missing_ok=True)
        sync_folder(self._folder)
        for path in self._folder.glob("page-*.js"):
            path.unlink()
        self._files = []
        for start in range(0, len(entries), PICTURES_PER_PAGE):
            page = entries[start : start + PICTURES_PER_PAGE]
            self._files.append([entry["file"] for entry in page])
            write_atomically(self._path(len(self._files)), b"".join(map(_call, page)))
        self._edition = secrets.token_hex(4)
        self.announce(durable=True)

    def remove(self, gone: Collection[str], page: int) -> None:
        """Remove these files from one page, the first is 1; call `announce` afterwards."""
        left = [file for file in self._files[page - 1] if file not in gone]
        if len(left) < len(self._files[page - 1]):
            lines = self._path(page).read_bytes().splitlines(keepends=True)
            kept = [line for line in lines if _file(line.rstrip()) not in gone]
            write_atomically(self._path(page), b"".join(kept))
            self._files[page - 1] = left
            self._changes[page] += 1
            self._newest_bytes = self._measured()

    def announce(self, *, durable: bool = False) -> None:
        """Make open galleries load what has changed; each start does it again.

        They load a page again if it has another number, and all pages of another edition.
        """
        self._newest_bytes = self._measured()
        index = {
            "format": FORMAT,
            "edition": self._edition,
            "pages": [self._changes[page] for page in range(1, self.count() + 1)],
            "stars": self.stars,
        }
        write_atomically(self._index, f"pages({json.dumps(index)});\n".encode(), durable=durable)

    @property
    def _index(self) -> Path:
        return self._folder / "pages.js"

    def _measured(self) -> int | None:
        """The size of the newest page, None if there are no pages."""
        try:
            return self._path(len(self._files)).stat().st_size
        except FileNotFoundError:
            return None

    def _path(self, page: int) -> Path:
        return self._folder / f"page-{page:05}.js"

    def _read(self) -> bool:
        """Read the existing pages; False if any is missing or damaged."""
        if not self._is_of_this_format():
            return False
        paths = sorted(self._folder.glob("page-*.js"))
        if paths != [self._path(number) for number in range(1, len(paths) + 1)]:
            return False
        for path in paths:
            if path == paths[-1]:
                self._cut_torn_line(path)
            found = [_file(line) for line in path.read_bytes().splitlines()]
            self._files.append([file for file in found if file is not None])
            if None in found:
                return False
        return True

    def _is_of_this_format(self) -> bool:
        """A power cut may have emptied pages.js, which is not durable: then the pages decide."""
        try:
            index = self._index.read_text("ascii", "replace")
        except FileNotFoundError:
            return False
        return not index.strip("\0") or f'"format": {FORMAT},' in index

    def _cut_torn_line(self, path: Path) -> None:
        content = path.read_bytes()
        whole = without_torn_line(content, _whole_entry)
        if whole != content:
            write_atomically(path, whole)


def _call(entry: Mapping[str, Any]) -> bytes:
    """Return a call in ASCII: no line separator and no end of a script is anything but data."""
    return f"picture({json.dumps(entry, ensure_ascii=True)});\n".encode()


def _file(line: bytes) -> str | None:
    """The file that a line of a page shows, None if the line is not valid."""
    found = CALL.fullmatch(line)
    if found is None or b"\0" in line:
        return None
    file: str = json.loads(found[1])
    return file


def _whole_entry(line: bytes) -> object | None:
    return json_object(line.strip().removeprefix(b"picture(").removesuffix(b");"))
