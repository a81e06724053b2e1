"""`replace: true` in a `_pictures.yaml`: a photo has one result, whatever becomes of its request.

A command waits for the next run, which is the one that renders.
"""

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from picowatch.metadata.embedded_text import PICOWATCH, read_texts
from tests.commands.picowatch import picowatch_here
from tests.digest_engine import fail_on_bad
from tests.fault_points import preceded_by, wrap
from tests.house import PATIENCE, House, error_files, wait_for

pytestmark = pytest.mark.usefixtures("copies_here")

USUAL = "prompt: a corgi\nsize: 64x64\nseed: 7\nreplace: true\n"


def render(house: House, template: str, **values: str) -> None:
    house.save("in/_pictures.yaml", template)
    assert house.once(**values)
    house.tell("retry all", "in")
    assert house.once(**values), [*error_files(house.outbox)]


def steps(house: House) -> dict[str, int]:
    """Return the steps of all pictures that are there; 0 of those that are not picowatch's."""
    found = {}
    for path in house.pictures():
        is_ours = PICOWATCH in read_texts(house.outbox / path)
        found[path] = house.request(path).steps if is_ours else 0
    return found


def put_a_foreign_one(house: House) -> None:
    (house.outbox / "in").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(house.outbox / MUG)


MUG, SECOND, THIRD = (f"in/mug{number}.png" for number in ("", "-2", "-3"))
MUG_TEXT = "in/mug.txt"
PLAIN = USUAL.replace("replace: true\n", "")
# Templates, each with what is there after it, and what a user does between them.
Given = list[tuple[str, dict[str, int]] | Callable[[House], object]]
RESULTS: dict[str, Given] = {
    "a later result has its name though another is free now": [
        put_a_foreign_one, (f"{USUAL}steps: 3\n", {MUG: 0, SECOND: 3}),
        lambda house: (house.outbox / MUG).unlink(), (f"{USUAL}steps: 4\n", {SECOND: 4}),
    ],
    "of several each is written over by the next one in its place": [
        (f"{USUAL}count: 2\nsteps: 3\n", {MUG: 3, SECOND: 3}),
        (f"{USUAL}count: 2\nsteps: 4\n", {MUG: 4, SECOND: 4}),
        (f"{USUAL}steps: 5\n", {MUG: 5, SECOND: 4}),
    ],
    "of several in one place the first is written over, and no other": [
        (f"{PLAIN}steps: 3\n", {MUG: 3}), (f"{PLAIN}steps: 4\n", {MUG: 3, SECOND: 4}),
        (f"{PLAIN}steps: 5\n", {MUG: 3, SECOND: 4, THIRD: 5}),
        *((f"{USUAL}steps: {count}\n", {MUG: count, SECOND: 4, THIRD: 5}) for count in (6, 7, 8)),
    ],
    "another format is not in the way, and two of one photo have no numbers": [
        (f"{USUAL}format: webp\n", {"in/mug.webp": 24}),
        (f"{USUAL}format: png\n", {MUG: 24, "in/mug.webp": 24}),
        *((f"{USUAL}steps: {count}\nformat: webp\n---\n{USUAL}steps: {count}\nformat: jpeg\n",
           {MUG: 24, "in/mug.webp": count, "in/mug.jpg": count}) for count in (5, 6)),
    ],
    "somebody else's file stays, and results of before where a template does not replace": [
        put_a_foreign_one, (f"{USUAL}steps: 3\n", {MUG: 0, SECOND: 3}),
        (f"{USUAL}steps: 4\n", {MUG: 0, SECOND: 4}),
        (f"{PLAIN}steps: 5\n", {MUG: 0, SECOND: 4, THIRD: 5}),
    ],
    "what a user put in a result's place stays": [
        (f"{USUAL}steps: 3\n", {MUG: 3}), put_a_foreign_one,
        (f"{USUAL}steps: 4\n", {MUG: 0, SECOND: 4}), (f"{USUAL}steps: 5\n", {MUG: 0, SECOND: 5}),
    ],
    "asking for it makes nothing again: it says where a result goes, not what it shows": [
        (f"{PLAIN}steps: 3\n", {MUG: 3}), (f"{USUAL}steps: 3\n", {MUG: 3}),
        (f"{USUAL}steps: 4\n", {MUG: 4}),
    ],
}  # fmt: skip


@pytest.mark.parametrize("given", RESULTS.values(), ids=RESULTS)
def test_a_photo_has_one_result_of_each_kind(house: House, given: Given) -> None:
    """And only what changes is rendered."""
    house.draw("in/mug.jpg")
    for step in given:
        if callable(step):
            step(house)
            continue
        (template, expected), before, listed = step, steps(house), len(house.listed())
        render(house, template)
        assert steps(house) == expected
        new = {path for path, count in expected.items() if count and before.get(path) != count}
        assert len(house.listed()) == listed + len(new)


@pytest.mark.parametrize("command", [("delete", None), ("keep", "best")], ids=["delete", "keep"])
@pytest.mark.parametrize("last", ["", "steps: 3\n"], ids=["of both", "of the last"])
def test_what_lies_beside_results_in_two_formats_goes_with_its_last_one(
    house: House, command: tuple[str, str | None], last: str
) -> None:
    """The text and control maps of mug.png and mug.webp; a text of one alone goes with that."""
    house.draw("in/mug.jpg")
    for kind, more in (("png", ""), ("webp", last)):
        render(house, f"{USUAL}format: {kind}\n{more}", sidecar="txt")
    (house.outbox / "in/mug.control.png").write_bytes(b"a map")
    beside = {name: (house.outbox / name).read_bytes() for name in (MUG_TEXT, "in/mug.control.png")}

    def left(folder: str) -> dict[str, bytes]:
        names = {name: house.outbox / folder / Path(name).name for name in beside}
        return {name: path.read_bytes() for name, path in names.items() if path.exists()}

    assert house.answer(*command, "in/mug.webp").done
    assert left("best") == (beside if command[1] else {})
    if last:
        del beside[MUG_TEXT]
    assert left("in") == beside
    assert house.answer("delete", None, MUG).done
    assert not left("in")


def test_a_photo_that_is_saved_again_while_its_result_is_written_has_one_result(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The later one waits, or it would get another name, and the earlier one would stay."""
    is_held, may_end = threading.Event(), threading.Event()

    def hold(*_: object) -> None:
        is_held.set()
        assert may_end.wait(PATIENCE)

    wrap("picowatch.outbox.outbox:Outbox.publish", preceded_by(hold), monkeypatch.setattr)
    monkeypatch.setattr("picowatch.daemon.round.IDLE_SECONDS", 0.05)
    house.save("in/_pictures.yaml", USUAL)
    house.draw("in/mug.jpg")
    with house.running():
        wait_for(is_held.is_set, "the first result")
        house.draw("in/mug.jpg", "blue")
        wait_for(lambda: house.log().count("mug.jpg: saved, 1 image queued") == 2, "the save")
        house.wait_for_rounds()
        may_end.set()
        wait_for(lambda: house.status()["images"]["done"] == 2 and len(house.listed()) == 2)
    assert house.pictures() == ["in/mug.png"]
    assert house.listed()[-1]["image_hash"] == house.request("in/mug.png").image_hash


@pytest.mark.parametrize("is_lost", [False, True], ids=["", "the ledger is lost"])
@pytest.mark.parametrize("folder", ["best", "in/best"])
def test_a_result_that_is_kept_elsewhere_does_not_stand_for_the_photos(
    house: House, folder: str, is_lost: bool
) -> None:
    """Its photo has a result of its own when it comes back; the kept one stays known."""
    house.save("in/_pictures.yaml", USUAL)
    versions = []
    for colour in ("red", "blue", "red"):
        house.draw("in/mug.jpg", colour)
        assert house.once()
        versions.append(house.request(MUG).image_hash)
        if len(versions) == 1:
            assert house.answer("keep", folder, MUG).done
        if is_lost:
            house.ledger.unlink()
    assert versions[0] == versions[2] != versions[1]
    assert house.answer("keep", "good", f"{folder}/mug.png").done
    assert house.listed()[-1]["moved"] == f"{folder}/mug.png"
    assert house.pictures() == ["good/mug.png", MUG]
    for file in house.pictures():
        shown = picowatch_here(house.folder, "show", "--why", file).stdout
        assert shown.startswith(f"{file}: entry 1, image 1 of inbox/in/mug.jpg\n")
    assert house.answer("delete", None, "good/mug.png").text == "1 picture deleted."


def test_a_result_whose_request_is_older_than_that_of_the_one_before_is_kept(house: House) -> None:
    """It had been cancelled for the one that it replaces now."""
    house.save("in/_pictures.yaml", USUAL)
    house.draw("in/mug.jpg", "red")
    with house.held() as held:
        house.draw("in/mug.jpg", "blue")
        wait_for(lambda: house.log().count("mug.jpg: saved, 1 image queued") == 2, "the save")
        held.release()
        wait_for(lambda: len(house.listed()) == 1, "the blue one's result")
    house.draw("in/mug.jpg", "red")
    assert house.once()
    assert house.answer("keep", "best", MUG).done
    shown = picowatch_here(house.folder, "show", "--why", "best/mug.png").stdout
    assert shown.startswith("best/mug.png: entry 1, image 1 of inbox/in/mug.jpg\n")


def test_results_of_a_renamed_folder_stay_known(house: House) -> None:
    house.save("in/_pictures.yaml", USUAL)
    house.draw("in/mug.jpg", "red")
    assert house.once()
    (house.inbox / "in").rename(house.inbox / "to")
    assert house.once()
    house.draw("to/mug.jpg", "blue")
    assert house.once()
    assert house.pictures() == [MUG, "to/mug.png"]
    shown = picowatch_here(house.folder, "show", "--why", MUG).stdout
    assert shown.startswith(f"{MUG}: entry 1, image 1 of inbox/to/mug.jpg\n")


def test_a_failed_result_leaves_the_earlier_one_and_its_name(house: House) -> None:
    house.draw("in/mug.jpg")
    render(house, f"{USUAL}steps: 3\n")
    house.engine.before_batch = fail_on_bad
    house.save("in/_pictures.yaml", USUAL.replace("a corgi", "bad"))
    house.tell("retry all", "in")
    assert not house.once()
    assert steps(house) == {"in/mug.png": 3}
    render(house, f"{USUAL}steps: 4\n")
    assert steps(house) == {"in/mug.png": 4}


SWEEP = "sweep: {resize_to: [60, 30]}\nformat: jpeg\nreplace: true\n"


def colours(house: House) -> dict[str, str]:
    """Return the colour of each picture, of a sheet that of its pictures."""
    names = {(1, 0, 0): "red", (0, 1, 0): "lime", (0, 0, 1): "blue"}
    found = {}
    for path in house.pictures():
        with Image.open(house.outbox / path) as picture:
            parts = [round(part / 255) for part in picture.convert("RGB").tobytes()]
            seen = Counter(zip(parts[::3], parts[1::3], parts[2::3], strict=True))
            found[path] = names[max(names, key=seen.__getitem__)]
    return found


def test_a_contact_sheet_is_written_over_the_last_one(house: House) -> None:
    """Also if the ledger is lost. A renamed photo has the one that there is."""
    house.save("in/_pictures.yaml", SWEEP)
    for colour in ("red", "blue", "lime"):
        house.draw("in/a.jpg", colour)
        assert house.once()
        files = ["in/a-2.jpg", "in/a-sheet.jpg", "in/a.jpg"]
        assert colours(house) == dict.fromkeys(files, colour)
        if colour == "blue":
            house.ledger.unlink()
    written = (house.outbox / "in/a-sheet.jpg").stat().st_mtime_ns
    (house.inbox / "in/a.jpg").rename(house.inbox / "in/b.jpg")
    assert house.once()
    assert house.pictures() == files
    assert (house.outbox / "in/a-sheet.jpg").stat().st_mtime_ns == written


@pytest.mark.parametrize("is_lost", [False, True], ids=["", "the ledger is lost"])
def test_results_of_renamed_photos_are_written_over(house: House, is_lost: bool) -> None:
    """Each photo keeps its results and their sheet, also if two exchange their names."""
    house.save("in/_pictures.yaml", SWEEP)
    for name, colour in (("a", "red"), ("b", "lime")):
        house.draw(f"in/{name}.jpg", colour)
    assert house.once()
    for old, new in (("a", "c"), ("b", "a"), ("c", "b")):
        (house.inbox / f"in/{old}.jpg").rename(house.inbox / f"in/{new}.jpg")
    assert house.once()
    for colours_now in (("blue", "red"), ("lime", "blue")):
        if is_lost:
            house.ledger.unlink()
        for name, colour in zip("ab", colours_now, strict=True):
            house.draw(f"in/{name}.jpg", colour)
        assert house.once()
        assert colours(house) == {
            f"in/{name}{end}.jpg": colour
            for name, colour in zip("ba", colours_now, strict=True)
            for end in ("", "-2", "-sheet")
        }


def test_a_renamed_photo_leaves_the_result_of_one_with_its_former_name(house: House) -> None:
    """Even if the two were equal, and its own result was deleted."""
    house.save("in/_pictures.yaml", USUAL)
    house.draw("in/mug.jpg")
    assert house.once()
    (house.outbox / MUG).unlink()
    (house.inbox / "in/mug.jpg").rename(house.inbox / "in/cup.jpg")
    assert house.once()
    house.draw("in/mug.jpg")
    assert house.once()
    house.draw("in/cup.jpg", "blue")
    assert house.once()
    assert house.pictures() == ["in/cup.png", MUG]


def test_sheets_requested_together_have_names_of_their_own(house: House) -> None:
    """What a user put in the place of one stays."""
    house.save("in/_pictures.yaml", f"{SWEEP}---\n{SWEEP.replace('30', '20')}")
    files = [f"in/a{end}.jpg" for end in ("-2", "-2-sheet", "-3", "-sheet", "")]
    for colour in ("red", "blue"):
        house.draw("in/a.jpg", colour)
        assert house.once()
        assert colours(house) == dict.fromkeys(files, colour)
    Image.new("RGB", (8, 8), "red").save(house.outbox / "in/a-sheet.jpg")
    house.draw("in/a.jpg", "lime")
    assert house.once()
    files.append("in/a-3-sheet.jpg")
    assert colours(house) == dict.fromkeys(files, "lime") | {"in/a-sheet.jpg": "red"}


def test_a_neighbour_renames_no_later_result(house: House) -> None:
    """One whose name differs only in its ending may come and go."""
    template = "resize_to: 60\nformat: jpeg\nreplace: true\n"
    house.save("in/_pictures.yaml", template)
    house.draw("in/b.jpg", "red")
    assert house.once()
    house.draw("in/b.png", "lime")
    assert house.once()
    assert colours(house) == {"in/b.jpg": "red", "in/b.png.jpg": "lime"}
    house.save("in/_pictures.yaml", f"{template}---\n{template.replace('60', '30')}")
    house.draw("in/b.jpg", "blue")
    assert house.once()
    assert colours(house) == {"in/b.jpg": "blue", "in/b-2.jpg": "blue", "in/b.png.jpg": "lime"}
    (house.inbox / "in/b.jpg").unlink()
    house.draw("in/b.png", "red")
    assert house.once()
    assert colours(house) == {
        "in/b.jpg": "blue", "in/b-2.jpg": "blue",
        "in/b.png.jpg": "red", "in/b.png-2.jpg": "red",
    }  # fmt: skip
