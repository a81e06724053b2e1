"""outbox/summary.txt: what each night brought, the hook `on_finished`, and the gallery's totals."""

import json
import re
from pathlib import Path

import pytest

from picowatch.daemon import summary
from tests.digest_engine import fail_on_bad
from tests.house import HeldEngine, House, wait_for
from tests.observers.test_hooks import Notes


def text(house: House) -> str:
    path = house.outbox / "summary.txt"
    found = path.read_text() if path.exists() else ""
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d|( |^)\d\d:\d\d(–\d\d:\d\d)?|[\d,.]+ s\b", "*", found)


def names(house: House) -> list[str]:
    """Return what each block is about, with its totals."""
    return [block.partition("  ")[2].partition("\n")[0] for block in text(house).split("\n\n")]


NIGHT = """\
*  everything: 3 of 4 done*, 1 failed, 1 file refused
  failed *  night/bad.txt: entry 1, image 1, seed 5: Bad.
  refused*  night/wrong.yaml: line 1, column 1: unknown field 'promt'. Did you mean 'prompt'?
  slowest *  PICTURE
  in all  * of rendering, * a picture
"""


def test_an_empty_queue_is_summed_up(
    house: House, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the file, at the end of `run --once`, in a line of the log, and for the hook."""
    notes = Notes(tmp_path)
    house.engine.before_batch = fail_on_bad
    house.save("night/bad.txt", "bad --seed 5\none\n")
    house.save("night/wrong.yaml", "promt: a corgi\n")
    house.save("day.txt", "one\ntwo\n")
    assert house.run_once(batch_size=1, hooks={"on_finished": notes.program}) == 1
    written = (house.outbox / "summary.txt").read_text()
    assert re.sub(r"(slowest \*  ).*", r"\1PICTURE", text(house)) == NIGHT
    assert capsys.readouterr().out.endswith(written)
    assert house.log().count("finished: everything: 3 of 4 done") == 1
    (note,) = notes.of("on_finished")
    counts = {name: note[name] for name in ("name", "requested", "done", "failed", "refused")}
    assert counts == {"name": "everything", "requested": 4, "done": 3, "failed": 1, "refused": 1}
    assert note["text"] == written.removesuffix("\n")
    assert [failure["recipe"] for failure in note["failures"]] == [
        "night/bad.txt",
        "night/wrong.yaml",
    ]
    assert not house.run_once(), "nothing is left"
    assert house.status()["last"].startswith("everything: 3 of 4 done"), "also after a start"
    assert text(house).count("everything") == 1


def test_refused_files_alone_are_summed_up_once(house: House) -> None:
    """A night whose recipes are all wrong is told, too."""
    for field in ("stpes", "promt"):
        house.save("night/wrong.yaml", f"{field}: 7\n")
        assert not house.once()
        assert house.once(), "it is told once"
    newest, _ = text(house).split("\n\n")
    assert newest == (
        "*  night/wrong.yaml: 1 file refused\n"
        "  refused*  night/wrong.yaml: line 1, column 1: unknown field 'promt'. "
        "Did you mean 'prompt'?"
    )


LACKING = """\
*  photos: 1 file refused
  refused*  photos/_pictures.yaml: Pictures without a prompt are not rendered. """


def test_photos_that_wait_for_a_prompt_are_summed_up(house: House, tmp_path: Path) -> None:
    """Their template is refused, once for all of them, and everything that counts it agrees."""
    notes = Notes(tmp_path)
    house.save("photos/_pictures.yaml", "steps: 3\n")
    for name in "123":
        house.draw(f"photos/{name}.png")
    with house.running(hooks={"on_finished": notes.program}):
        wait_for(lambda: names(house) == ["photos: 1 file refused"], "its block")
        wait_for(lambda: notes.of("on_finished"), "the hook")
    assert text(house).startswith(LACKING)
    assert totals(house)["photos"] == "1 file refused"
    (note,) = notes.of("on_finished")
    assert (note["refused"], len(note["failures"])) == (1, 1)
    assert house.log().count("finished: photos: 1 file refused") == 1
    assert (house.status()["refused"], house.status()["error_count"]) == (1, 1)
    assert house.answer("retry").text == "3 files read again."
    house.draw("photos/4.png")
    assert house.once(), "the template's error is told"
    assert names(house)[0] == "photos/4.png: 1 file refused"
    assert "Pictures without a prompt" in text(house).splitlines()[1]
    for name in "1234":
        house.save(f"photos/{name}.txt", "a star\n")
    assert house.once()
    assert totals(house) == {"": "4 of 4 done", "photos": "4 of 4 done"}
    house.draw("photos/5.png")
    assert not house.once()
    assert names(house)[0] == "photos: 1 file refused", "the template is wrong again"


def test_a_folder_is_summed_up_when_it_is_finished(house: House) -> None:
    """Though others wait; the newest block is the first, and has them all."""
    house.save("first/a.txt", "one\ntwo\n")
    house.save("second/_defaults.yaml", "priority: -1\n")
    house.save("second/b.txt", "three\nfour\n")
    with house.held(after=2, batch_size=1) as held:
        wait_for(lambda: names(house) == ["first: 2 of 2 done*"], "its block")
        held.release()
        wait_for(lambda: len(names(house)) == 2, "the end")
        totals = "nothing is running; 0 images wait; last: everything: 4 of 4 done"
        wait_for(lambda: (house.outbox / "now.txt").read_text().startswith(totals), "the totals")
        assert names(house) == ["everything: 4 of 4 done*", "first: 2 of 2 done*"]


def test_a_folder_is_not_finished_while_files_are_still_to_be_read(house: House) -> None:
    """An export goes on, though all that was read is rendered."""
    house.save("web/_pictures.yaml", "prompt: a fox\n")
    house.draw("web/1.png")
    whole = house.draw("elsewhere.png").read_bytes()
    house.save("web/2.png", whole[:60])
    with house.running():
        wait_for(lambda: len(house.listed()) == 1, "the first picture")
        house.wait_for_rounds()
        assert names(house) == [""]
        house.save("web/2.png", whole)
        wait_for(lambda: len(house.listed()) == 2 and names(house) != [""], "its block")


def test_a_night_in_two_halves_is_one(house: House) -> None:
    """The ledger knows what was not told of."""
    house.save("night/a.txt", "one\ntwo\nthree\n")
    with house.held(after=1, batch_size=1) as held:
        wait_for(lambda: len(house.listed()) == 1, "the first picture")
        house.engine.after_step = lambda done: None
        held.release()
    house.once(batch_size=1)
    assert names(house) == ["night/a.txt: 3 of 3 done*"]


@pytest.mark.parametrize(
    ("before", "kept"),
    [
        (b"block 0\n\nblock 1\n\nblock 2\n\nblock 3\n", ["block 0", "block 1"]),
        (b"\xff\n", ["\N{REPLACEMENT CHARACTER}"]),
    ],
)
def test_the_file_is_short_whatever_was_in_it(
    house: House, monkeypatch: pytest.MonkeyPatch, before: bytes, kept: list[str]
) -> None:
    monkeypatch.setattr(summary, "BLOCKS", 3)
    house.outbox.mkdir()
    (house.outbox / "summary.txt").write_bytes(before)
    house.save("a.txt", "one\n")
    assert house.once()
    first, *rest = text(house).rstrip("\n").split("\n\n")
    assert first.startswith("*  a.txt: 1 of 1 done*\n")
    assert rest == kept


# -- totals in the gallery


def totals(house: House) -> dict[str, str]:
    text = (house.outbox / ".picowatch/gallery/totals.js").read_text()
    found: dict[str, str] = json.loads(text.removeprefix("totals(").removesuffix(");\n"))
    return {name: re.sub(r" \d\d:\d\d(–\d\d:\d\d)?", "", line) for name, line in found.items()}


def test_folders_and_those_above_have_totals(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """They follow what is drawn, renamed and deleted; all else is not counted again."""
    monkeypatch.setattr("picowatch.daemon.summary.REST_SECONDS", 0.0)
    monkeypatch.setattr("picowatch.daemon.summary.COUNTING_REST", 0)
    house.engine.before_batch = fail_on_bad
    house.save("night/a.yaml", "prompt: good\nseed: [1, 2]\n---\nprompt: bad\n")
    house.save("night/one.txt", "alone --seed 1\n")
    house.draw("night/photos/1.png")
    house.draw("night/photos/2.png")
    house.save("night/photos/_pictures.yaml", "prompt: a frame\n")
    house.once()
    before = {
        "": "5 of 6 done, 1 failed",
        "night": "5 of 6 done, 1 failed",
        "night/a": "2 of 3 done, 1 failed",
        "night/photos": "2 of 2 done",
    }
    assert totals(house) == before
    with house.running():
        house.save("b.yaml", "prompt: b\nseed: [1, 2]\n")
        changed = before | {"": "7 of 8 done, 1 failed", "b": "2 of 2 done"}
        wait_for(lambda: totals(house) == changed, "what is new")
        (house.inbox / "b.yaml").rename(house.inbox / "c.yaml")
        changed["c"] = changed.pop("b")
        wait_for(lambda: totals(house) == changed, "the new name")
        (house.inbox / "c.yaml").unlink()
        wait_for(lambda: totals(house) == before, "what is left")


def test_what_waits_has_totals(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also before a new recipe's first picture, or a photo's; a start counts the same."""
    monkeypatch.setattr("picowatch.daemon.summary.REST_SECONDS", 0.0)
    monkeypatch.setattr("picowatch.daemon.summary.COUNTING_REST", 0)
    house.draw("photos/1.png")
    house.save("photos/_pictures.yaml", "prompt: a frame\n")
    assert house.once()
    assert house.answer("pause").done
    waiting = {
        "": "1 of 4 done, 3 wait",
        "new": "0 of 2 done, 2 wait",
        "photos": "1 of 2 done, 1 waits",
    }
    with house.running():
        house.save("new.txt", "one\ntwo\n")
        wait_for(lambda: "new" in totals(house), "the first in the queue")
        house.draw("photos/2.png", "blue")
        wait_for(lambda: totals(house) == waiting, "what is new")
    (house.outbox / ".picowatch/gallery/totals.js").unlink()
    with house.running(batch_size=1):
        wait_for((house.outbox / ".picowatch/gallery/totals.js").exists, "the first count")
        assert totals(house) == waiting
        held = HeldEngine(house, after=1)
        house.tell("resume")
        waiting |= {"": "1 of 4 done, 1 in progress, 2 wait"}
        waiting |= {"new": "0 of 2 done, 1 in progress, 1 waits"}
        wait_for(lambda: totals(house) == waiting, "what has begun")
        held.release()
