"""Working through a folder of dropped pictures: progress, `make DIR`, `retry --all`, failures."""

import json
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from picowatch.daemon.dropped import DroppedPictures
from picowatch.errors import CommandFailed
from picowatch.inbox import inbox as inbox_module
from picowatch.ledger.rows import QueuedImage
from tests.commands.test_make import made
from tests.digest_engine import fail_on_bad
from tests.fault_points import preceded_by, wrap
from tests.house import HeldEngine, House, wait_for

CORGI = "prompt: a corgi\nseed: 7\nsize: 64x64\n"
STAR = "prompt: a star\nseed: 7\nsize: 64x64\n"


def drop(house: House, *names: str) -> None:
    for name in names:
        house.draw(name, f"rgb({sum(name.encode()) % 256},{len(name)},0)")


def photos(house: House, template: str, count: int) -> None:
    house.save("photos/_pictures.yaml", template)
    drop(house, *(f"photos/{number}.png" for number in range(1, count + 1)))


def failures(house: House) -> list[dict[str, Any]]:
    lines = (house.outbox / "failures.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_progress_is_that_of_the_folder(house: House) -> None:
    """So it is in now.txt, the status and the gallery, and so are folders that wait."""
    photos(house, CORGI, 5)
    house.save("photos/new/_pictures.yaml", f"{STAR}priority: -1\n")
    drop(house, "photos/deep/6.png", "photos/new/1.png", "photos/new/2.png")
    house.save("other/_pictures.yaml", f"{STAR}priority: -2\n")
    drop(house, "other/1.png", "other/2.png", "other/3.png")
    # Six of photos are done in three batches, and two of another.
    with house.held(after=3, batch_size=2) as hold:
        wait_for(lambda: house.status()["images"]["done"] == 6, "the pictures of the first folder")
        house.save("live.yaml", "prompt: a tree\nseed: 1\npriority: 5\n")
        wait_for(lambda: "photos/new: 1–2 of 2" in (house.outbox / "now.txt").read_text())
        expected = [["live.yaml", 1], ["other", 3]]
        wait_for(lambda: house.status()["waiting"] == expected, "each folder once")
        wait_for(lambda: len(house.status()["folders"]) == 2)
        status = house.status()
        assert (status["folder"], status["recipe"]) == ("photos/new", "photos/new/1.png")
        folder, other = status["folders"]
        assert (folder["folder"], folder["done"], folder["of"]) == ("photos/new", 0, 2)
        assert folder["seconds_left"] >= 1
        assert 0 <= folder["share"] < 1
        assert (other["folder"], other["done"], other["of"]) == ("other", 0, 3)
        assert house.console.shown[-1].folders[1].line().startswith("other: 0 of 3, ")
        assert '"of": 2' in (house.outbox / ".picowatch/gallery/now.js").read_text()
        hold.release()


def test_progress_is_that_of_the_folder_that_make_waits_for(house: House) -> None:
    """The time left is a guess as long as nothing like some of its images was rendered."""
    hold = HeldEngine(house, after=1)
    for number in range(1, 5):
        house.save(f"rows/{number}.txt", "one --size 64x64\n")
    house.save("rows/a/5.txt", "one --size 128x128\n")
    now = house.outbox / "now.txt"
    with house.running(batch_size=2):
        house.tell("make folder", "rows")
        hold.wait_until_held()
        line = r"rows: 3–4 of 5, \d+ %, about "
        wait_for(lambda: re.match(line, now.read_text()), "the folder")
        assert house.status()["waiting"] == [["rows", 1]]
        hold.release()


def test_the_time_left_counts_how_large_photos_are(house: House) -> None:
    """Photos of all sizes share a template, and none is read for the status."""
    house.engine.timings["upscale"] = 10.0
    house.save("photos/_pictures.yaml", "upscale: 2\n")
    drop(house, "photos/1.png", "photos/2.png")
    house.draw("photos/3.png", size=(640, 640))
    with house.held(after=1, batch_size=1) as hold:
        wait_for(lambda: 900 < (house.status()["all_seconds_left"] or 0) < 1100, "the time left")
        assert house.status()["all_about"]
        hold.release()


def test_pictures_that_are_being_copied_for_an_engine_are_not_done(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow share takes long for it, and the share that is done never goes back."""
    go_on = threading.Event()
    late = preceded_by(lambda *_: go_on.wait())
    wrap("picowatch.daemon.dropped:DroppedPictures.bring", late, monkeypatch.setattr)
    photos(house, CORGI, 3)
    with house.running(batch_size=2):
        wait_for(lambda: house.status()["images"]["running"] == 2, "a batch that waits")
        (folder,) = house.status()["folders"]
        go_on.set()
        assert (folder["done"], folder["of"], folder["share"]) == (0, 3, 0)


def test_a_copy_stays_while_another_engine_uses_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have taken over the image before the one that died with it has cleared up."""
    clear, there = DroppedPictures.clear, list[bool]()

    def clear_late(dropped: DroppedPictures, batch: Sequence[QueuedImage]) -> None:
        with ThreadPoolExecutor(1) as other:
            assert other.submit(dropped.bring, batch).result()
            clear(dropped, batch)
            there.append((dropped.copies / batch[0].request.image_hash).is_file())
            other.submit(clear, dropped, batch).result()

    monkeypatch.setattr(DroppedPictures, "clear", clear_late)
    photos(house, CORGI, 1)
    assert house.once() and there == [True]


# -- make


def as_json(house: House, folder: str, code: int = 0) -> dict[str, Any]:
    """Return what `make --json` prints of a folder, with its recipes by name."""
    printed, _ = made(house, house.inbox / folder, code=code, as_json=True)
    found: dict[str, Any] = json.loads("".join(printed))
    return {**found, "recipes": {recipe["recipe"]: recipe for recipe in found["recipes"]}}


def test_make_tells_what_becomes_of_a_folder(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are in natural order, with or without a daemon; bad ones are named."""
    monkeypatch.setattr(inbox_module, "HELD_OPEN_LIMIT", 0.5)
    photos(house, CORGI, 3)
    drop(house, "photos/sub/10.png")
    names = ("1", "2", "3", "sub/10")
    printed, _ = made(house, house.inbox / "photos")
    assert printed == [f"{house.outbox}/photos/{name}.png" for name in names]
    house.save("photos/bad.png", "no picture")
    house.save("photos/_pictures.yaml", STAR)
    with house.running():
        found = as_json(house, "photos", code=1)
    assert not found["done"]
    recipes = found["recipes"]
    assert [*recipes] == [f"photos/{n}.png" for n in ("1", "2", "3", "bad", "sub/10")]
    assert "It is not a picture" in recipes["photos/bad.png"]["errors"][0]
    assert recipes["photos/1.png"]["pictures"][0]["prompt"] == "a star"
    assert recipes["photos/1.png"]["file"] == str(house.inbox / "photos/1.png")
    assert len(house.pictures()) == 8
    monkeypatch.setattr(inbox_module, "HELD_OPEN_LIMIT", 3600.0)
    made(house, house.inbox / "photos", code=1)  # at once
    assert len(made(house, house.inbox / "photos/sub")[0]) == 1
    assert len(house.pictures()) == 8, "the same again asks for nothing"


def test_make_takes_a_folder_whose_subfolders_alone_have_templates(house: House) -> None:
    """It prints their results; without pictures it requests nothing."""
    for folder, text in (("all/a", CORGI), ("all/b", STAR), ("none/a", CORGI)):
        house.save(f"{folder}/_pictures.yaml", text)
    drop(house, "all/a/1.png", "all/b/2.png")
    out = [f"{house.outbox}/all/{name}.png" for name in ("a/1", "b/2")]
    assert made(house, house.inbox / "all")[0] == out
    assert made(house, house.inbox / "none")[1].endswith("none: It requests no image.\n")
    house.save("none/a/_pictures.yaml", "stesp: 3\n")
    assert "stesp" in made(house, house.inbox / "none", code=1)[1]


def test_make_of_a_folder_says_once_what_concerns_all_its_pictures(house: House) -> None:
    """Without pictures, too: only then does the folder request nothing."""
    idle = "resize_to: 60\nformat: jpeg\ncount: 2\n"
    photos(house, idle, 2)
    printed, said = made(house, house.inbox / "photos")
    assert (len(printed), said.count("count"), "requests no image" in said) == (2, 1, False)
    house.save("empty/_pictures.yaml", idle)
    assert made(house, house.inbox / "empty")[1].endswith("empty: It requests no image.\n")


def test_make_of_a_folder_says_which_pictures_were_deleted(house: House) -> None:
    """It renders only what was not rendered yet; `retry --all` renders deleted ones, too."""
    photos(house, f"{CORGI}count: 2\n", 2)
    house.save("photos/sub/_pictures.yaml", f"{CORGI}grid: true\n")
    drop(house, "photos/sub/3.png")
    every, _ = made(house, house.inbox / "photos")
    assert len(every) == 6
    assert house.answer("delete", None, "photos/1-2.png", "photos/sub/3.png").done
    said = "`picowatch retry --all photos/{}.png` renders them again."
    one = f"1 of its 2 pictures was deleted. {said.format(1)}"
    both = f"Its pictures were deleted. {said.format('sub/3')}"
    out, err = made(house, house.inbox / "photos")
    assert {*every} - {*out} == {f"{house.outbox}/photos/{name}.png" for name in ("1-2", "sub/3")}
    assert [line.partition(": ")[2] for line in err.splitlines()] == [one, both]
    recipes = as_json(house, "photos")["recipes"].values()
    assert [recipe["warnings"] for recipe in recipes] == [[one], [], [both]]
    assert house.answer("retry all", None, "photos").done
    assert made(house, house.inbox / "photos") == (every, "")


@pytest.mark.parametrize("when_done", ["archive", "delete"])
def test_make_names_all_pictures_of_a_folder_despite_a_restart(
    house: House, when_done: str
) -> None:
    """Also those that were done, and taken out of the inbox, before the restart."""
    hold = HeldEngine(house, after=1)
    photos(house, CORGI, 4)
    settings: dict[str, Any] = {"batch_size": 2, "when_done": when_done}
    with house.running(**settings):
        command = house.tell("make folder", "photos")
        hold.wait_until_held()
        wait_for(lambda: not (house.inbox / "photos/2.png").exists(), "the first two")
    hold.release()
    with house.running(**settings):
        answer = house.answer_to(command)
    assert [*answer.parts] == [f"photos/{number}.png" for number in (1, 2, 3, 4)]
    assert [len(part.pictures) for part in answer.parts.values()] == [1, 1, 1, 1]


def test_make_says_why_a_folder_cannot_be_rendered(house: House) -> None:
    """The template may be wrong, lack a prompt, or be missing."""
    photos(house, "stesp: 3\n", 2)
    house.save("plain/a.yaml", "prompt: a tree\nseed: 1\n")
    house.save("silent/_pictures.yaml", "seed: 1\n")
    drop(house, "silent/1.png")
    for folder, said in (("photos", "stesp"), ("silent", "Pictures without a prompt")):
        assert said in made(house, house.inbox / folder, code=1)[1]
    (house.inbox / "empty").mkdir()
    none = "not one of the inbox that has recipes"
    for folder, said in (("empty", none), (".", "is the inbox itself"), ("../outbox", none)):
        with pytest.raises(CommandFailed, match=said):
            made(house, house.inbox / folder)
    with pytest.raises(CommandFailed, match="is a folder"):
        made(house, house.inbox / "photos", remove=True)


def test_make_renders_what_is_missing_of_a_folder_of_recipes(house: House) -> None:
    """It prints the pictures of all, and draws no seed again; `touch` asks for more, as always."""
    house.save("rows/a.txt", "one\ntwo --seed 5\n")
    house.save("rows/deep/b.yaml", "prompt: three\ncount: 2\n")
    house.save("other.txt", "four\n")
    first, again = (made(house, house.inbox / "rows")[0] for _ in range(2))
    assert [Path(path).parent.name for path in first] == ["a", "a", "b", "b"]
    assert first == again
    assert "four" not in house.prompts(), "a command without a daemon renders its own"
    (house.inbox / "rows/deep/b.yaml").touch()
    house.save("rows/c.txt", "bad\n")
    house.save("rows/d.yaml", "promt: five\n")
    house.engine.before_batch = fail_on_bad
    with house.running():
        recipes = as_json(house, "rows", code=1)["recipes"]
    assert {name: recipe["done"] for name, recipe in recipes.items()} == {
        "rows/a.txt": True, "rows/c.txt": False, "rows/d.yaml": False, "rows/deep/b.yaml": True,
    }  # fmt: skip
    new = [picture["path"] for picture in recipes["rows/deep/b.yaml"]["pictures"]]
    assert len(new) == 2 and not {*new} & {*first}


# -- retry --all


def test_a_folder_is_rendered_again_with_its_new_template(house: House) -> None:
    """One command renders each picture once; a nearer template applies to its own folder."""
    photos(house, CORGI, 3)
    house.save("photos/stars/_pictures.yaml", STAR)
    drop(house, "photos/stars/1.png")
    assert house.once()
    house.save("photos/_pictures.yaml", "prompt: a tree\nseed: 7\nsize: 64x64\n")
    assert house.once()
    assert len(house.pictures()) == 4, "a template that is saved again renders nothing by itself"
    words = "it applies to pictures saved from now on; `picowatch retry --all photos` renders"
    assert f"photos/_pictures.yaml: saved, {words} the others again" in house.log()
    answer = house.answer("retry all", "photos")
    assert answer.text.startswith("4 pictures read again"), answer
    assert sorted(house.prompts()) == ["a corgi"] * 3 + ["a star"] + ["a tree"] * 3
    assert house.answer("retry all", "photos").done
    assert len(house.pictures()) == 7, "what would be the same is kept"
    (house.outbox / "photos/1-2.png").unlink()
    assert house.answer("retry all", "photos/1.png").done
    assert len(house.pictures()) == 7, "one that was deleted is rendered again"
    assert not house.answer("retry all", "nothing").done


def test_random_seeds_are_drawn_again_but_not_for_what_still_waits(house: House) -> None:
    photos(house, "prompt: a corgi\n", 2)
    assert house.once()
    drop(house, "photos/3.png")
    house.answer("pause")
    for _ in range(2):
        assert house.answer("retry all", "photos").done
        assert house.status()["images"]["queued"] == 3
    house.answer("resume")
    assert len({*house.seeds()}) == len(house.seeds()) == 5


# -- failures


def test_what_a_file_lacked_is_noticed_when_it_comes(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if scans come before it is quiet. `retry` reads again what is still refused."""
    monkeypatch.setattr("picowatch.inbox.inbox.SCAN_SECONDS", 0.01)
    photos(house, CORGI, 1)
    house.save("photos/1.txt", "a __animal__\n")
    house.save("photos/bad.txt", "a __plant__\n")
    drop(house, "photos/bad.png")
    house.save("elsewhere.txt", "a __animal__\n")
    assert not house.once()
    (house.models / "wildcards").mkdir()
    (house.models / "wildcards/animal.txt").write_text("corgi\n")
    house.once()
    assert house.prompts() == ["a corgi", "a corgi"]
    assert house.error("photos/1.png") is None and house.error("elsewhere.txt") is None
    assert house.error("photos/bad.png")
    assert house.answer("retry", "photos").text == "1 file read again."
    assert house.answer("retry", "photos/1.png").text.startswith("No failed image or")


def test_everything_that_went_wrong_is_a_line(house: House) -> None:
    house.engine.before_batch = fail_on_bad
    photos(house, CORGI, 2)
    house.save("photos/broken.jpg", "no picture")
    house.save("wrong/_pictures.yaml", "stesp: 3\n")
    drop(house, "wrong/1.png", "wrong/2.png")
    house.save("typo.yaml", "promt: a typo\n")
    house.save("a.txt", "good --seed 4\nbad --seed 5\n")
    assert not house.once()
    lines = {line["recipe"]: line for line in failures(house)}
    assert len(lines) == len(failures(house)) == 4
    assert lines["photos/broken.jpg"]["reason"].startswith("This picture cannot be used: It is")
    assert "stesp" in lines["wrong/_pictures.yaml"]["reason"]
    failed = lines["a.txt"]
    assert (failed["reason"], failed["seed"]) == ("Bad.", 5)
    assert (failed["entry_index"], failed["image_index"]) == (1, 0)
    assert house.once(), "told once"
    assert len(failures(house)) == 4
    assert not house.answer("retry", "a.txt").pictures
    (house.inbox / "typo.yaml").touch()
    house.once()
    assert [line["recipe"] for line in failures(house)[4:]] == ["a.txt", "typo.yaml"]
    assert house.once()
