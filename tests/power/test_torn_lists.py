"""A power cut while a line is appended may keep its length and its end, but not all of it."""

import json
from pathlib import Path

import pytest

from picowatch.outbox.gallery import pages
from picowatch.outbox.outbox import Outbox
from picowatch.settings import Settings

HOLE = 8  # bytes at a line's start that never reached the disk


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / ".picowatch").mkdir()
    return tmp_path


def _publish(outbox: Outbox, file: str) -> None:
    (outbox.root / file).touch()
    outbox.listing.append({"file": file})
    outbox.gallery.add({"file": file})


def _tear_last_line(path: Path) -> None:
    *whole, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole) + bytes(HOLE) + last[HOLE:])


def _listed(root: Path) -> list[str]:
    lines = (root / "images.jsonl").read_text().splitlines()
    return [json.loads(line)["file"] for line in lines]


def _shown(root: Path) -> list[str]:
    paths = sorted((root / ".picowatch/gallery").glob("page-*.js"))
    calls = [line for path in paths for line in path.read_text().splitlines()]
    return [json.loads(call.removeprefix("picture(").removesuffix(");"))["file"] for call in calls]


def test_a_listed_line_with_a_hole_is_cut_off(root: Path) -> None:
    """The picture is then not listed, so the daemon lists it again."""
    outbox = Outbox(Settings(outbox=root))
    for file in ("a.png", "b.png"):
        _publish(outbox, file)
    _tear_last_line(root / "images.jsonl")
    assert Outbox(Settings(outbox=root)).listing.recent_files() == {"a.png"}
    assert _listed(root) == ["a.png"]


def test_a_call_with_a_hole_is_cut_off_and_made_again(root: Path) -> None:
    """The gallery shows each listed picture once."""
    outbox = Outbox(Settings(outbox=root))
    for file in ("a.png", "b.png"):
        _publish(outbox, file)
    _tear_last_line(root / ".picowatch/gallery/page-00001.js")
    Outbox(Settings(outbox=root))
    assert _shown(root) == ["a.png", "b.png"]


def test_a_page_that_was_begun_and_lost_shows_nothing_twice(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty last page is no reason to rebuild all pages."""
    monkeypatch.setattr(pages, "PICTURES_PER_PAGE", 2)
    outbox = Outbox(Settings(outbox=root))
    for file in ("a.png", "b.png", "c.png"):
        _publish(outbox, file)
    (root / ".picowatch/gallery/page-00002.js").write_bytes(b"")
    Outbox(Settings(outbox=root))
    assert _shown(root) == ["a.png", "b.png", "c.png"]
