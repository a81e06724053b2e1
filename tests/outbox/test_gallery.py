"""The gallery's data on disk: kept current at a constant cost, rebuilt when damaged."""

import hashlib
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from PIL import Image

from picowatch.files.atomic import append, write_atomically
from picowatch.outbox.gallery import gallery as gallery_module
from picowatch.outbox.gallery import pages
from picowatch.outbox.gallery.gallery import Gallery, GalleryMaintenance
from picowatch.outbox.gallery.thumbnails import SIDE, Thumbnails
from picowatch.outbox.listing import Listing
from picowatch.outbox.names import OutboxNames
from picowatch.outbox.problems import MOST_SHOWN, ProblemFiles
from picowatch.settings import Settings
from tests.house import PATIENCE, House, wait_for

DATA = ".picowatch/gallery"


def gallery_of(root: Path) -> Gallery:
    return Gallery(root, Listing(root / "images.jsonl"))


def picture(root: Path, file: str) -> dict[str, Any]:
    """A picture file, and its line."""
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48), "red").save(root / file)
    return {"file": file, "prompt": "a corgi"}


def shown(root: Path) -> list[dict[str, Any]]:
    """The entries of all pages, oldest first, but for a page that is just written anew."""
    calls: list[str] = []
    for path in sorted((root / DATA).glob("page-*.js")):
        with suppress(FileNotFoundError):
            calls += path.read_text().splitlines()
    return [json.loads(call.removeprefix("picture(").removesuffix(");")) for call in calls]


def files(root: Path) -> list[str]:
    return [entry["file"] for entry in shown(root)]


def script(root: Path, name: str) -> dict[str, Any]:
    """The values in pages.js or now.js."""
    text = (root / DATA / f"{name}.js").read_text()
    values: dict[str, Any] = json.loads(text.removeprefix(f"{name}(").removesuffix(");\n"))
    return values


def test_the_end_waits_for_no_slow_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A share may take minutes to list the folders of a large outbox."""
    reached, over = threading.Event(), threading.Event()

    def walk(root: Path) -> Iterator[tuple[str, list[str], list[str]]]:
        reached.set()
        while not over.is_set():
            yield str(root), [], []

    gallery = gallery_of(tmp_path)
    monkeypatch.setattr(os, "walk", walk)
    problems = ProblemFiles(tmp_path, OutboxNames(Settings(outbox=tmp_path)))
    maintenance = GalleryMaintenance(gallery, problems)
    wait_for(reached.is_set, "the first look")
    end = threading.Thread(target=maintenance.close)
    end.start()
    end.join(PATIENCE / 12)
    ended = not end.is_alive()
    over.set()
    end.join()
    assert ended


def test_no_other_folder_is_looked_at_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither for pictures that the user has deleted."""
    looked, go = SimpleQueue[str](), threading.Event()

    def gone(gallery: Gallery, folder: str, files: list[str]) -> Iterator[str]:
        looked.put(folder)
        assert go.wait(PATIENCE)
        yield from ()

    monkeypatch.setattr(Gallery, "_gone", gone)
    gallery = gallery_of(tmp_path)
    for name in ("a", "b", "c"):
        gallery.add(picture(tmp_path, f"{name}/0001-1.png"))
    problems = ProblemFiles(tmp_path, OutboxNames(Settings(outbox=tmp_path)))
    maintenance = GalleryMaintenance(gallery, problems)
    assert looked.get(timeout=PATIENCE) == "a"
    maintenance._stop.set()
    go.set()
    maintenance.close()
    assert looked.empty()


def test_a_full_page_is_never_touched_again(tmp_path: Path) -> None:
    """A picture more is a line more on the newest page; a crash's half line is cut off."""
    gallery = gallery_of(tmp_path)
    for number in range(pages.PICTURES_PER_PAGE + 1):
        gallery.add({"file": f"a/{number}.png"})
    first, second = (tmp_path / DATA / f"page-0000{page}.js" for page in (1, 2))
    assert first.read_text().count("\n") == pages.PICTURES_PER_PAGE
    assert second.read_text().count("\n") == 1
    before = first.stat().st_mtime_ns
    assert len(script(tmp_path, "pages")["pages"]) == 2
    with second.open("a") as file:
        file.write("picture({")
    gallery_of(tmp_path).add({"file": "a/last.png"})
    assert files(tmp_path)[-2:] == [f"a/{pages.PICTURES_PER_PAGE}.png", "a/last.png"]
    assert first.stat().st_mtime_ns == before


def test_a_picture_is_shown_once_however_often_it_is_added(tmp_path: Path) -> None:
    """As when a crash came between the gallery and the ledger."""
    gallery = gallery_of(tmp_path)
    for _ in range(2):
        gallery.add(picture(tmp_path, "a/1.png"))
    assert files(tmp_path) == ["a/1.png"]


def test_a_crash_between_list_and_gallery_is_repaired_after_a_later_picture(
    tmp_path: Path,
) -> None:
    """Of two publishers the slower one died; the faster one's picture is shown already."""
    gallery = gallery_of(tmp_path)
    slower, faster = picture(tmp_path, "a/1.png"), picture(tmp_path, "a/2.png")
    for line in (slower, faster):
        append(tmp_path / "images.jsonl", json.dumps(line).encode() + b"\n")
    gallery.add(faster)
    gallery_of(tmp_path)
    assert sorted(files(tmp_path)) == ["a/1.png", "a/2.png"]


def test_an_entry_holds_the_settings_and_the_recipe(house: House) -> None:
    """The recipe is the text that `picowatch show` prints."""
    house.save("a.yaml", "prompt: a corgi\nseed: 7\nsteps: 3\n")
    house.once()
    (entry,) = shown(house.outbox)
    assert (entry["seed"], entry["steps"], entry["recipe"]) == (7, 3, "a.yaml")
    assert entry["yaml"].startswith("prompt: a corgi\n")
    assert entry["made_at"] == int((house.outbox / entry["file"]).stat().st_mtime)


def test_each_picture_gets_a_small_thumbnail_when_it_is_written(house: House) -> None:
    """A WebP, contact sheets included."""
    house.save("a.yaml", "prompt: a corgi\nsize: 1024x512\nsweep: {steps: [1, 2]}\n")
    house.once()
    assert len(shown(house.outbox)) == 3
    for entry in shown(house.outbox):
        with Image.open(house.outbox / DATA / "thumbs" / entry["thumb"]) as thumbnail:
            assert thumbnail.format == "WEBP"
            assert max(thumbnail.size) <= SIDE
            assert abs(thumbnail.width / thumbnail.height - entry["width"] / entry["height"]) < 0.02


def test_a_sweep_is_shown_by_its_contact_sheet(house: House) -> None:
    """With what it varies, and its pictures."""
    house.save("a.yaml", "prompt: a corgi\nseed: 1\nsweep: {steps: [2, 3]}\n")
    house.once()
    *pictures, sheet = shown(house.outbox)
    assert sheet["sheet"] == [["steps", ["2", "3"]]]
    assert sheet["cells"] == sorted(entry["file"] for entry in pictures)


@pytest.mark.parametrize("damage", ["all", "a page", "a hole", "another version", "both lists"])
def test_a_damaged_gallery_is_rebuilt(
    house: House, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """From images.jsonl, and from the pictures themselves if that is gone, too."""
    monkeypatch.setattr(pages, "PICTURES_PER_PAGE", 2)
    house.save("a.yaml", "prompt: a corgi\nseed: [1, 2, 3]\n")
    house.save("b.yaml", "prompt: a cat\nseed: 4\nsweep: {steps: [2, 3]}\n")
    house.once()
    before = {entry["file"]: entry for entry in shown(house.outbox)}
    assert len(before) == 6
    data = house.outbox / DATA
    if damage in ("all", "both lists"):
        shutil.rmtree(data)
    if damage == "both lists":
        (house.outbox / "images.jsonl").unlink()
    if damage == "a page":
        (data / "page-00001.js").unlink()
    if damage == "a hole":
        content = (data / "page-00001.js").read_bytes()
        (data / "page-00001.js").write_bytes(content[:50] + bytes(100) + content[150:])
    if damage == "another version":
        content = (data / "pages.js").read_bytes()
        (data / "pages.js").write_bytes(
            content.replace(b'"format": %d' % pages.FORMAT, b'"format": 0')
        )
        (data / "page-00001.js").write_text('picture({"file": "old.png"});\n')
    house.once()
    assert {entry["file"]: entry for entry in shown(house.outbox)} == before
    assert len(script(house.outbox, "pages")["pages"]) == 3


def test_pictures_of_a_copied_outbox_keep_their_days(house: House) -> None:
    """Also where the copy did not keep the files' times, and the gallery is rebuilt."""
    house.save("a.yaml", "prompt: a corgi\nseed: [1, 2]\n")
    house.once()
    before = shown(house.outbox)
    for index, file in enumerate(reversed(house.pictures())):
        copied_at = time.time() + 1000 * (index + 1)
        os.utime(house.outbox / file, (copied_at, copied_at))
    shutil.rmtree(house.outbox / DATA)
    house.once()
    after = shown(house.outbox)
    for one, other in zip(after, before, strict=True):
        # A second may begin between the writing of a picture and its line.
        assert 0 <= one.pop("made_at") - other.pop("made_at") <= 1
    assert after == before


def test_an_index_that_a_power_cut_emptied_is_written_again(tmp_path: Path) -> None:
    """pages.js is not durable; the pages are."""
    gallery_of(tmp_path).add({"file": "a/1.png"})
    (tmp_path / DATA / "pages.js").write_bytes(b"")
    gallery_of(tmp_path)
    assert len(script(tmp_path, "pages")["pages"]) == 1
    assert files(tmp_path) == ["a/1.png"]


def test_a_crash_while_it_is_rebuilt_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next start rebuilds it."""
    monkeypatch.setattr(pages, "PICTURES_PER_PAGE", 1)
    listing = Listing(tmp_path / "images.jsonl")
    for number in range(3):
        listing.append(picture(tmp_path, f"a/{number}.png"))
        os.utime(tmp_path / f"a/{number}.png", (number, number))
    really, left = write_atomically, [2]

    def crash(target: Path, content: bytes, *, durable: bool = True) -> None:
        if target.name.startswith("page-"):
            if not left[0]:
                raise OSError("no space")
            left[0] -= 1
        really(target, content, durable=durable)

    monkeypatch.setattr(pages, "write_atomically", crash)
    with pytest.raises(OSError, match="no space"):
        gallery_of(tmp_path)
    assert len(files(tmp_path)) == 2
    monkeypatch.setattr(pages, "write_atomically", really)
    gallery_of(tmp_path)
    assert files(tmp_path) == ["a/0.png", "a/1.png", "a/2.png"]


def test_a_deleted_picture_is_no_longer_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does its thumbnail stay; open galleries load again the pages that it was on."""
    monkeypatch.setattr(pages, "PICTURES_PER_PAGE", 2)
    gallery = gallery_of(tmp_path)
    for number in range(5):
        gallery.add(picture(tmp_path, f"a/{number}.png"))
    gallery.make_missing_thumbnails(rest=lambda seconds: False)
    before = script(tmp_path, "pages")
    gallery.remove_deleted()
    assert script(tmp_path, "pages") == before, "nothing was deleted"
    (tmp_path / "a/1.png").unlink()
    (tmp_path / "a/4.png").unlink()
    gallery.remove_deleted()
    assert files(tmp_path) == ["a/0.png", "a/2.png", "a/3.png"]
    after = script(tmp_path, "pages")
    changed = [one != other for one, other in zip(before["pages"], after["pages"], strict=True)]
    assert (after["edition"], changed) == (before["edition"], [True, False, True])
    assert len(list((tmp_path / DATA / "thumbs").rglob("*.webp"))) == 3
    gallery.add(picture(tmp_path, "a/5.png"))
    shutil.rmtree(tmp_path / "a")
    gallery.remove_deleted()
    assert files(tmp_path) == []


def test_a_deletion_that_leaves_the_folder_s_time_is_noticed(tmp_path: Path) -> None:
    """The clocks of shares and sticks may step by two seconds."""
    gallery = gallery_of(tmp_path)
    gallery.add(picture(tmp_path, "a/1.png"))
    gallery.add(picture(tmp_path, "a/2.png"))
    folder = tmp_path / "a"
    gallery.remove_deleted()
    before = folder.stat().st_mtime_ns
    (folder / "1.png").unlink()
    os.utime(folder, ns=(before, before))
    gallery.remove_deleted()
    assert files(tmp_path) == ["a/2.png"]


def test_an_outbox_that_is_away_deletes_nothing(tmp_path: Path) -> None:
    """As when a network share is unmounted for a while."""
    outbox = tmp_path / "outbox"
    gallery = gallery_of(outbox)
    gallery.add(picture(outbox, "a/1.png"))
    outbox.rename(tmp_path / "away")
    gallery.remove_deleted()
    (tmp_path / "away").rename(outbox)
    gallery.remove_deleted()
    assert files(outbox) == ["a/1.png"]


def test_the_running_daemon_writes_missing_thumbnails_and_removes_deleted_pictures(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the background, newest first; an empty one that a power cut left is a missing one."""
    house.save("a.yaml", "prompt: a corgi\nseed: [1, 2, 3]\n")
    house.once()
    thumbnails = sorted((house.outbox / DATA / "thumbs").rglob("*.webp"))
    assert len(thumbnails) == 3
    thumbnails[0].unlink()
    thumbnails[1].write_bytes(b"")
    (house.outbox / house.pictures()[2]).unlink()
    with house.running():
        wait_for(lambda: len(files(house.outbox)) == 2, "the deleted picture is shown no more")
        made = Thumbnails(house.outbox, house.outbox / DATA)
        wait_for(lambda: all(map(made.has, files(house.outbox))), "the thumbnails")


def test_old_files_that_a_cron_job_deletes_come_back(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `find outbox -mtime +7 -delete` does: an old page, and what a start has written."""
    monkeypatch.setattr(pages, "PICTURES_PER_PAGE", 2)
    monkeypatch.setattr(gallery_module, "CHECK_SECONDS", 0.05)
    house.save("a.yaml", "prompt: a corgi\nseed: 1..5\n")
    house.once()
    data, page = house.outbox / DATA, house.outbox / "index.html"
    whole = files(house.outbox)
    with house.running():
        with house.seen_at_once():
            for old in (data / "page-00001.js", data / "page.js", page, house.outbox / "now.txt"):
                old.unlink()
        wait_for(lambda: files(house.outbox) == whole, "the old page")
        wait_for(lambda: (data / "page.js").exists() and page.exists(), "the page's own files")
        wait_for((house.outbox / "now.txt").exists, "now.txt")
        (house.outbox / whole[0]).unlink()
        wait_for(lambda: files(house.outbox) == whole[1:], "the page without a deleted picture")


def test_a_picture_can_be_deleted_although_its_page_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise its command would never be answered."""
    monkeypatch.setattr(pages, "PICTURES_PER_PAGE", 2)
    listing, gallery = Listing(tmp_path / "images.jsonl"), gallery_of(tmp_path)
    for number in range(3):
        line = picture(tmp_path, f"a/{number}.png")
        listing.append(line)
        gallery.add(line)
    (tmp_path / DATA / "page-00001.js").unlink()
    (tmp_path / "a/0.png").unlink()
    gallery.remove(["a/0.png"])
    assert sorted(files(tmp_path)) == ["a/1.png", "a/2.png"]


def test_a_full_disk_does_not_rebuild_the_gallery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that could not be written is written later, also as the first one of a page."""
    monkeypatch.setattr(pages, "PICTURES_PER_PAGE", 1)
    gallery = gallery_of(tmp_path)
    gallery.add({"file": "a/1.png"})
    really = append

    def full(target: Path, content: bytes) -> None:
        target.touch()
        raise OSError("no space")

    monkeypatch.setattr(pages, "append", full)
    for _ in range(2):
        with pytest.raises(OSError, match="no space"):
            gallery.add({"file": "a/2.png"})
    monkeypatch.setattr(pages, "append", really)
    gallery.add({"file": "a/2.png"})
    assert files(tmp_path) == ["a/1.png", "a/2.png"], "none of them lies there to be found anew"


def test_a_deletion_that_could_not_be_shown_is_shown_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk."""
    gallery = gallery_of(tmp_path)
    gallery.add(picture(tmp_path, "a/1.png"))
    (tmp_path / "a/1.png").unlink()

    def full(target: Path, content: bytes, *, durable: bool = True) -> None:
        raise OSError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(pages, "write_atomically", full)
        with pytest.raises(OSError, match="no space"):
            gallery.remove_deleted()
    gallery.remove_deleted()
    assert files(tmp_path) == []


def test_a_picture_that_cannot_be_read_gets_no_thumbnail(tmp_path: Path) -> None:
    """The page then shows the picture itself."""
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n nonsense")
    thumbnails = Thumbnails(tmp_path, tmp_path)
    thumbnails.make("a.png")
    thumbnails.make("there is none.png")
    assert not thumbnails.has("a.png")


def test_the_page_of_another_version_is_replaced(tmp_path: Path) -> None:
    """What it loads beside the data, too."""
    gallery_of(tmp_path)
    assets = Path(gallery_module.__file__).parents[2] / "assets/gallery"
    names = [source.name for source in assets.iterdir() if source.name != "index.html"]
    page = (tmp_path / "index.html").read_bytes()
    for target in (tmp_path / "index.html", *(tmp_path / DATA / name for name in names)):
        target.write_text("old")
    gallery_of(tmp_path)
    assert (tmp_path / "index.html").read_bytes() == page
    for name in names:
        assert (tmp_path / DATA / name).read_bytes() == (assets / name).read_bytes()


def test_each_version_of_what_the_page_loads_has_its_own_address(tmp_path: Path) -> None:
    """Browsers keep what a web server sent them for days, also where the page is loaded again."""
    gallery_of(tmp_path)
    page = (tmp_path / "index.html").read_text()
    loaded = dict(re.findall(r'"\.picowatch/gallery/(\w+\.(?:js|css))\?(\w+)"', page))
    assert len(loaded) == page.count(".picowatch/gallery/") > 8
    for name, version in loaded.items():
        content = (tmp_path / DATA / name).read_bytes()
        assert hashlib.sha256(content).hexdigest().startswith(version)


def test_hostile_prompts_stay_data(tmp_path: Path) -> None:
    """Only ASCII JSON in a script file, shown as text."""
    gallery_of(tmp_path).add({"file": "a/1.png", "prompt": "</script>😀 ü\u2028x"})
    page = (tmp_path / DATA / "page-00001.js").read_text()
    assert page.isascii()
    assert "\\ud83d\\ude00" in page
    assert "\\u2028" in page


def test_now_js_has_what_is_running_queued_and_wrong(house: House) -> None:
    """For the page's top; problems that earlier runs left are listed, too."""
    house.save("wrong.yaml", "prompt: a corgi\nstesp: 2\n")
    house.once()
    assert script(house.outbox, "now")["runs"] is False
    house.save("b.txt", "a star\na circle\na ring\n")
    with house.running():
        wait_for(lambda: script(house.outbox, "now")["images"]["done"] == 3, "all pictures")
        wait_for(lambda: script(house.outbox, "now")["problems"], "the problem")
        news = script(house.outbox, "now")
        assert news["runs"] is True
        (problem,) = news["problems"]
        assert (problem["recipe"], problem["is_error"]) == ("wrong.yaml", True)
        assert "Did you mean 'steps'?" in problem["text"]
        house.save("wrong.yaml", "prompt: a corgi\nsteps: 2\n")
        wait_for(lambda: not script(house.outbox, "now")["problems"], "it is fixed")


def test_problems_are_listed_newest_first_and_errors_before_warnings(tmp_path: Path) -> None:
    """At most so many, and how many more there are; deleted files do not count."""
    problems = ProblemFiles(tmp_path, OutboxNames(Settings(outbox=tmp_path)))
    problems.write_warnings("w.yaml", ["not quite"])
    for number in range(MOST_SHOWN + 2):
        problems.write_error(f"{number}.yaml", "wrong")
    shown, more = problems.shown()
    assert (shown[0].recipe, len(shown), more) == (f"{MOST_SHOWN + 1}.yaml", MOST_SHOWN, 3)
    for number in range(MOST_SHOWN):
        (tmp_path / f"{number}.yaml.error.txt").unlink()
    shown, more = problems.shown()
    left = [f"{MOST_SHOWN + 1}.yaml", f"{MOST_SHOWN}.yaml", "w.yaml"]
    assert [problem.recipe for problem in shown] == left
    assert more == 0
    assert not shown[-1].is_error


def test_queued_recipes_are_listed_in_the_order_of_the_work(house: House) -> None:
    """Recipes with their number of images."""
    go = threading.Event()
    house.engine.before_batch = lambda batch: go.wait()  # type: ignore[assignment]
    house.save("a.txt", "first\n")
    with house.running(batch_size=1):
        try:
            wait_for(lambda: house.started() == ["first"], "the first is in progress")
            house.save("b.yaml", "prompt: b\ncount: 3\n")
            house.save("urgent.yaml", "prompt: c\ncount: 250\npriority: 5\n")
            wait_for(
                lambda: script(house.outbox, "now")["images"]["queued"] == 253, "both are queued"
            )
            waiting = [["urgent.yaml", 250], ["b.yaml", 3]]
            wait_for(lambda: script(house.outbox, "now")["waiting"] == waiting, "their names")
        finally:
            go.set()
            house.save("urgent.yaml", "prompt: c\nseed: 1\n")
            wait_for(lambda: script(house.outbox, "now")["images"]["queued"] == 0, "the end")
