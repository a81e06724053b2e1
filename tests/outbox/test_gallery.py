"""The gallery's data on disk: updated at a constant cost, made again when damaged."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from PIL import Image

from picowatch.files.essential import Writing
from picowatch.outbox import pages
from picowatch.outbox.encoding import THUMBNAIL_SIDE
from picowatch.outbox.gallery import ASSETS, Gallery
from picowatch.outbox.listing import Listing
from picowatch.outbox.names import OutboxNames
from picowatch.outbox.pages import Pages, picture_entry, thumbnail_of
from picowatch.outbox.problems import ProblemFiles
from tests.fault_points import preceded_by, wrap
from tests.house import House, entries, shown, wait_for

DATA = ".picowatch/gallery"


@pytest.fixture(autouse=True)
def short_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "PICTURES_PER_PAGE", 2)


def gallery_of(root: Path, *names: str) -> Gallery:
    listing = Listing(root / "images.jsonl")
    gallery = Gallery(root, listing, Writing(Event(), root))
    gallery.catch_up()
    for name in names:
        listing.append(picture(root, name))
        gallery.add(picture(root, name))
    return gallery


def picture(root: Path, name: str) -> dict[str, Any]:
    file = f"a/{name}.png"
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48), "red").save(root / file)
    return {"file": file, "prompt": "a corgi"}


def names(root: Path) -> str:
    return "".join(Path(file).stem for file in shown(root))


def versions(root: Path) -> list[str]:
    text = (root / DATA / "pages.js").read_text()
    found: list[str] = json.loads(text.removeprefix("pages(").removesuffix(");\n"))["pages"]
    return found


# -- what it shows


def test_entries_have_settings_a_recipe_and_a_thumbnail(house: House) -> None:
    """So do those of contact sheets, with their axes and pictures."""
    house.save("a.yaml", "prompt: a corgi\nseed: 7\nsize: 1024x512\nsweep: {steps: [2, 3]}\n")
    house.once()
    *pictures, sheet = entries(house.outbox)
    assert [(picture["seed"], picture["steps"], picture["recipe"]) for picture in pictures] == [
        (7, 2, "a.yaml"),
        (7, 3, "a.yaml"),
    ]
    assert pictures[0]["yaml"].startswith("prompt: a corgi\n")
    assert "cfg_rescale" not in pictures[0]["yaml"]
    assert pictures[0]["made_at"] == int((house.outbox / pictures[0]["file"]).stat().st_mtime)
    copied = pictures[0] | {"finished": "2023-11-14T22:13:20+00:00"}  # the file is younger
    assert picture_entry(house.outbox, copied)["made_at"] == 1_700_000_000
    assert sheet["sheet"] == [["steps", ["2", "3"]]]
    assert sheet["cells"] == [picture["file"] for picture in pictures]
    for entry in (*pictures, sheet):
        with Image.open(house.outbox / DATA / "thumbs" / entry["thumb"]) as thumbnail:
            assert (thumbnail.format, max(thumbnail.size) <= THUMBNAIL_SIDE) == ("WEBP", True)
            assert abs(thumbnail.width / thumbnail.height - entry["width"] / entry["height"]) < 0.02


def test_a_picture_more_is_a_line_more(tmp_path: Path) -> None:
    """Only the newest page's version changes. Whatever a prompt says is ASCII JSON there."""
    gallery = gallery_of(tmp_path, "1", "2", "3")
    before = versions(tmp_path)
    for _ in range(2):
        gallery.add(picture(tmp_path, "4"))
    after = versions(tmp_path)
    assert names(tmp_path) == "1234"
    assert [version != other for version, other in zip(before, after, strict=True)] == [False, True]
    gallery_of(tmp_path)
    assert versions(tmp_path) == after, "a start changes nothing"
    gallery.add({"file": "a/5.png", "prompt": "</script>😀 ü\u2028x"})
    page = (tmp_path / DATA / "page-00003.js").read_text()
    assert page.isascii() and "\\ud83d\\ude00" in page and "\\u2028" in page
    shutil.rmtree(tmp_path / DATA)
    gallery.add(picture(tmp_path, "6"))
    assert names(tmp_path) == "6", "the others follow at the next start"
    gallery_of(tmp_path)
    assert names(tmp_path) == "123", "what is listed"


def test_the_page_is_that_of_this_version(tmp_path: Path) -> None:
    """Each version of a loaded file has its own address, because browsers cache files."""
    gallery_of(tmp_path)
    page = (tmp_path / "index.html").read_text()
    loaded = dict(re.findall(r'"\.picowatch/gallery/(\w+\.(?:js|css))\?(\w+)"', page))
    assert len(loaded) == page.count(".picowatch/gallery/") > 8
    (tmp_path / "index.html").unlink()
    for name in loaded:
        (tmp_path / DATA / name).write_text("old")
    gallery_of(tmp_path)
    assert (tmp_path / "index.html").read_text() == page
    for name, version in loaded.items():
        content = (tmp_path / DATA / name).read_bytes()
        assert content == ASSETS.joinpath(name).read_bytes()
        assert hashlib.sha256(content).hexdigest().startswith(version)


# -- what is damaged, missing or deleted


DAMAGES: dict[str, tuple[str, Callable[[bytes], bytes] | None]] = {
    "all is gone": ("", None),
    "a page is gone": ("page-00001.js", None),
    "a page has a hole": ("page-00001.js", lambda old: old[:50] + bytes(100) + old[150:]),
    "the last page is cut off": ("page-00003.js", lambda old: old[:50]),
    "another version": ("pages.js", lambda old: old.replace(b'"format": ', b'"format": 1')),
    # After a power cut, as it is not durable.
    "a page is empty": ("page-00002.js", lambda old: b""),
    "images.jsonl is gone, too": ("", lambda old: b""),
}


def test_a_damaged_gallery_is_made_anew(house: House) -> None:
    """It is made from images.jsonl, or from the pictures themselves if that is gone, too."""
    house.save("a.yaml", "prompt: a corgi\nseed: [1, 2, 3]\n")
    house.save("b.yaml", "prompt: a cat\nseed: 4\nsweep: {steps: [2, 3]}\n")
    house.once()
    before = {entry["file"]: entry for entry in entries(house.outbox)}
    assert len(before) == 6
    for damage, (name, change) in DAMAGES.items():
        path = house.outbox / DATA / name
        if not name:
            shutil.rmtree(path)
            if change:
                (house.outbox / "images.jsonl").unlink()
        elif change:
            path.write_bytes(change(path.read_bytes()))
        else:
            path.unlink()
        house.once()
        assert {entry["file"]: entry for entry in entries(house.outbox)} == before, damage
        whole = 3 + (damage == "a page is empty")  # it stays, and its pictures are on a new one
        assert len(versions(house.outbox)) == whole, damage


@pytest.mark.parametrize("name", ["gallery", "gallery/thumbs", "gallery/thumbs/*"])
def test_nothing_is_written_or_deleted_through_a_link_out_of_the_outbox(
    house: House, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """The gallery goes on as soon as the link is gone; one that stays inside is followed."""
    house.console.handler = caplog.handler
    house.save("a.txt", "a corgi --seed 7\n")
    house.once()
    state, theirs = house.outbox / ".picowatch", house.folder / "theirs"
    (place,) = state.glob(name)
    place.rename(theirs)
    (theirs / "page-00001.js").write_text("theirs\n")
    before = {path: path.read_bytes() for path in theirs.rglob("*") if path.is_file()}
    place.symlink_to(theirs)
    (house.outbox / "a/0001-7.png").unlink()
    house.save("a.txt", "a corgi --seed 8\n")
    house.save("wrong.txt", "--steps x\n")
    assert not house.once(), "one recipe is wrong"
    assert house.pictures() == ["a/0002-8.png"]
    assert {path: path.read_bytes() for path in theirs.rglob("*") if path.is_file()} == before
    assert f"cannot write {place.relative_to(house.outbox)}" in caplog.text
    place.unlink()
    theirs.rename(state / "theirs")
    place.symlink_to(state / "theirs")
    house.once()
    assert [*shown(house.outbox)] == ["a/0002-8.png"]


def test_the_daemon_makes_lost_and_empty_thumbnails_again(house: House) -> None:
    """As after `find outbox -mtime +7 -delete`, or a power cut; a deleted picture has none."""
    house.save("a.yaml", "prompt: a corgi\nseed: 1..5\n")
    house.once()
    thumbnails = house.outbox / DATA / "thumbs"
    lost, emptied = (thumbnails / thumbnail_of(f"a/000{number}-{number}.png") for number in (1, 2))
    lost.unlink()
    emptied.write_bytes(b"")
    Image.new("RGBA", (64, 48)).save(house.outbox / "a/0001-1.png")
    (house.outbox / "a/0005-5.png").unlink()
    with house.running():
        wait_for(lambda: lost.exists() and emptied.stat().st_size, "the thumbnails")
    assert len([*thumbnails.rglob("*.webp")]) == len([*shown(house.outbox)]) == 4
    with Image.open(lost) as small:
        assert small.convert("RGBA").getpixel((0, 0)) == (0, 0, 0, 0), "transparent, as it is"


def test_archived_originals_are_not_shown_though_picowatch_made_them(house: House) -> None:
    """Not even after a start without the list; recipes may have folders of that name."""
    house.save("a/originals.txt", "a heart --seed 1\n")
    assert house.once()
    house.save("photos/_pictures.yaml", "upscale: {model: demo-compact, scale: 2}\n")
    made = (house.outbox / "a/originals/0001-1.png").read_bytes()
    house.save("photos/made.png", made)
    for lost in ((), ("images.jsonl",)):
        shutil.rmtree(house.outbox / DATA)
        for name in lost:
            (house.outbox / name).unlink()
        assert house.once(when_done="archive")
        assert (house.outbox / "photos/originals/made.png").read_bytes() == made
        assert sorted(shown(house.outbox)) == ["a/originals/0001-1.png", "photos/made.png"]


@pytest.mark.parametrize("recipe", ["a/what? 5:30.jpg", "con.yaml", "x" * 250 + ".txt", "b.txt"])
def test_problems_have_their_recipes_names(tmp_path: Path, recipe: str) -> None:
    """A name that not every disk can have is another one in the file's; also after a restart."""
    for is_again in (False, True):
        problems = ProblemFiles(tmp_path, OutboxNames(tmp_path), Writing(Event(), tmp_path))
        if is_again:
            problems.list_existing([recipe], [recipe])
        else:
            problems.write_error(recipe, f"inbox/{recipe}: it is wrong")
            problems.write_warnings(recipe, ["not quite"])
        assert [problem["recipe"] for problem in problems.shown()[0]] == [recipe] * 2
    problems.write_error("\x03rm -rf .yaml", "wrong")
    assert problems.shown()[0][0]["recipe"].startswith("-rm -rf .yaml-"), "a terminal obeys it"


def test_names_of_no_picture_are_looked_for_in_one_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`delete --from` may name thousands that are gone already, and all else waits meanwhile."""
    gallery = gallery_of(tmp_path, "b/c/1", "bc/1")
    deep, beside = "a/b/c/1.png", "a/bc/1.png"
    passes: list[Pages] = []
    wrap("picowatch.outbox.pages:Pages.files", preceded_by(passes.append), monkeypatch.setattr)
    assert gallery.shown([deep]) == {deep: [deep]} and not passes
    assert gallery.shown(["a", "a/b", "a/b/c", deep, "b", "c", "a/b/d", "a/bc/2.png"]) == {
        "a": [deep, beside], "a/b": [deep], "a/b/c": [deep], deep: [deep],
        "b": [], "c": [], "a/b/d": [], "a/bc/2.png": [],
    }  # fmt: skip
    assert len(passes) == 1
