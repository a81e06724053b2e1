"""The gallery's data: index.html opens from disk, so its data are scripts, not fetched files.

`.picowatch/gallery/` holds pages of 500 pictures, each a script of one call a line that is only
appended to, and `pages.js`, which says how many pages there are. Adding a picture costs the
same however many there are.
"""

import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from picowatch.outbox.atomic import append_durably, write_atomically
from picowatch.outbox.listing import Listing, picture_of, without_torn_line

PICTURES_PER_PAGE = 500
CALL = "picture("


class Gallery:
    """Keeps the gallery of one outbox current."""

    def __init__(self, outbox: Path) -> None:
        self._index = outbox / "index.html"
        self._folder = outbox / ".picowatch" / "gallery"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._page = max(1, len(list(self._folder.glob("page-*.js"))))
        self._on_page = self._count(self._page)
        self._write_index()
        self._write_pages()

    def add(self, line: dict[str, Any]) -> None:
        """Show one more picture; `line` is its line of images.jsonl."""
        if self._on_page >= PICTURES_PER_PAGE:
            self._page, self._on_page = self._page + 1, 0
        line = line | {"order": self._page * PICTURES_PER_PAGE + self._on_page}
        text = f"{CALL}{json.dumps(line, ensure_ascii=True)});\n"
        append_durably(self._path(self._page), text.encode())
        self._on_page += 1
        if self._on_page == 1:
            self._write_pages()

    def catch_up(self, listing: Listing) -> None:
        """Add what stands in the list, but was not shown yet when picowatch last ended."""
        if not self._on_page and self._page == 1:
            missing = list(listing.all())
        else:
            recent = listing.recent()
            shown = {*self._files(self._page - 1), *self._files(self._page)}
            places = [place for place, line in enumerate(recent) if line["file"] in shown]
            missing = recent[places[-1] + 1 :] if places else recent
        for line in missing:
            self.add(line)

    def _files(self, page: int) -> Iterator[str]:
        """The pictures of a page."""
        if self._path(page).exists():
            for text in self._path(page).read_bytes().splitlines():
                if (file := _shown(text)) is not None:
                    yield file

    def _path(self, page: int) -> Path:
        return self._folder / f"page-{page:05}.js"

    def _count(self, page: int) -> int:
        """Lines on a page; a last one that a crash cut is taken away."""
        path = self._path(page)
        if not path.exists():
            return 0
        content = path.read_bytes()
        whole = without_torn_line(content, _shown)
        if whole != content:
            write_atomically(path, whole)
        return whole.count(b"\n")

    def _write_pages(self) -> None:
        write_atomically(self._folder / "pages.js", f"pages({self._page});\n".encode())

    def _write_index(self) -> None:
        page = resources.files("picowatch").joinpath("assets/gallery.html").read_bytes()
        if not self._index.exists() or self._index.read_bytes() != page:
            write_atomically(self._index, page)


def _shown(call: bytes) -> str | None:
    """The file that a line of a page shows, None if it is no such line."""
    picture = picture_of(call.strip().removeprefix(CALL.encode()).removesuffix(b");"))
    file: str | None = picture["file"] if picture else None
    return file
