"""`pause`, `resume` and `cancel`: from any machine that mounts the outbox."""

from collections.abc import Sequence
from typing import Any

import pytest

from picowatch.commands.control import LATE, NOT_RUNNING
from picowatch.commands.control import control as send_commands
from picowatch.commands.make import make
from picowatch.errors import RenderFailed
from picowatch.inbox.scan import scan
from picowatch.outbox.commands import Command, send
from picowatch.recipe.request import ImageRequest
from tests.commands.picowatch import picowatch_here
from tests.house import HeldEngine, House, wait_for


def control(house: House, *words: str, code: int = 0) -> str:
    """The answer to a command that ends with this exit code."""
    answer = picowatch_here(house.folder, *words)
    assert answer.returncode == code, answer
    assert (answer.stderr if code == 0 else answer.stdout) == ""
    return answer.stdout if code == 0 else answer.stderr


def images_now(house: House) -> dict[str, int]:
    return {state: count for state, count in house.status()["images"].items() if count}


def test_a_pause_finishes_what_is_in_progress_and_lasts_until_resume(house: House) -> None:
    """Status and now.txt say so; saves are still answered."""
    held = HeldEngine(house)
    with house.running(batch_size=1):
        house.save("a.txt", "one\ntwo\nthree\n")
        held.wait_until_held()
        said = "Paused when the images in progress are finished; 2 images wait.\n"
        assert control(house, "pause") == said
        held.release()
        wait_for(lambda: house.status()["images"]["done"] == 1, "the image in progress")
        house.save("b.yaml", "prompt: four\n")
        wait_for(lambda: house.status()["images"]["queued"] == 3, "the save")
        now = house.outbox / "now.txt"
        wait_for(lambda: now.read_text() == "paused, 3 images wait\n", now.read_text())
        wait_for(lambda: not house.engine._started, "the engine's end: its memory is wanted")
        assert "paused" in control(house, "status")
        assert control(house, "pause") == "It is already paused; 3 images wait.\n"
        assert house.started() == ["one"]
        assert control(house, "resume") == "Resumed; 3 images wait.\n"
        wait_for(lambda: house.started() == ["one", "two", "three", "four"], "the rest")
        assert control(house, "resume").startswith("It was not paused; ")
    assert house.engine.starts == 2


def test_a_pause_outlives_the_daemon(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    """One that is sent while none runs holds before its first image, and single runs say why."""
    house.save("a.txt", "one\n")
    assert house.once()
    assert control(house, "pause", code=1) == f"{NOT_RUNNING}\n"
    house.save("a.txt", "two\n")
    assert not house.once()
    assert "paused: 1 image waits until `picowatch resume`" in house.log()
    assert list((house.outbox / ".picowatch/commands").glob("*.json")) == []
    recipe = house.folder / "b.txt"
    recipe.write_text("three\n")
    assert make(house.settings(), [recipe], house.make_engine) == 1
    assert "picowatch is paused. Continue with `picowatch resume`" in capsys.readouterr().err
    with house.running():
        wait_for(lambda: house.status()["paused"], "the status")
        assert house.prompts() == ["one"]
        control(house, "resume")
        wait_for(lambda: house.prompts() == ["one", "two", "three"], "the pictures")
    assert not house.status()["paused"]


def test_a_command_that_takes_long_is_carried_out_later(
    house: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The daemon may wait for a disk meanwhile."""
    monkeypatch.setattr("picowatch.commands.control.ANSWER_SECONDS", 0.0)
    with house.running(), house.seen_at_once():
        assert send_commands(house.outbox, [Command("pause")] * 2) == 1
    assert capsys.readouterr().err == f"{LATE}\n" * 2
    assert house.answer("resume").text.startswith("Resumed")


def test_cancel_stops_what_runs_and_the_next_save_requests_it_again(house: House) -> None:
    """Of this recipe: others are not touched, and it is not archived. Fixed seeds stay."""
    held = HeldEngine(house)
    with house.running(batch_size=1, when_done="archive"):
        path = house.save("a.txt", "one --seed 1\ntwo --seed 2\nthree --seed 3\n")
        held.wait_until_held()
        house.save("b.txt", "other\n")
        wait_for(lambda: house.status()["images"]["queued"] == 3, "all saves")
        said = control(house, "cancel", "inbox/a.txt")
        assert said == "3 images cancelled. Images in progress are stopped.\n"
        stopped = "a.txt: stopped: no image of its batch is requested any more"
        wait_for(lambda: stopped in house.log(), "its end")
        held.release()
        wait_for(lambda: house.prompts("b") == ["other"], "what is left")
    for _ in range(2):
        assert house.once(), "nothing requests them until the next save"
        assert house.prompts("a") == []
    path.touch()
    assert house.once()
    assert house.seeds("a") == [1, 2, 3]


def test_what_is_cancelled_counts_for_nothing_while_it_stops(house: House) -> None:
    """Its engine may take some seconds for the step in progress."""
    held = HeldEngine(house, after=1)
    with house.running(batch_size=1):
        house.save("f/a.txt", "one\ntwo\nthree\n")
        held.wait_until_held()
        wait_for(lambda: house.status()["recipe"] == "f/a.txt", "the second image")
        control(house, "cancel", "inbox/f")
        wait_for(lambda: house.status()["images"]["cancelled"] == 2, "the next status")
        status = house.status()
        assert (status["recipe"], status["all_seconds_left"]) == ("", None)
        held.release()


def test_cancel_takes_folders_and_globs(house: House) -> None:
    """A folder means all below it; exit code 1 if one of several could not be done."""
    held = HeldEngine(house)
    with house.running(batch_size=1):
        house.save("first.txt", "first\n")
        held.wait_until_held()
        for name in ("night/a", "night/deep/b", "day1", "day2", "a", "keep"):
            house.save(f"{name}.txt", "one\n")
        wait_for(lambda: house.status()["images"]["queued"] == 6, "all saves")
        assert control(house, "cancel", "inbox/night/") == "2 images cancelled.\n"
        assert control(house, "cancel", "day*") == "2 images cancelled.\n"
        answer = picowatch_here(house.folder, "cancel", "a.txt", "day*")
        assert (answer.returncode, answer.stdout) == (1, "1 image cancelled.\n"), "one by one"
        others = "Recipes with queued images: first.txt, keep.txt."
        assert answer.stderr == f"No image of day* is queued. {others}\n"
        held.release()
        wait_for(lambda: len(house.pictures()) == 2, "what is left")
    assert {picture.split("/")[0] for picture in house.pictures()} == {"first", "keep"}


def test_cancel_waits_for_no_scan(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are looked up, and files that match are looked at: many others are not."""
    scans = []

    def counted(*arguments: Any) -> object:
        scans.append(arguments)
        return scan(*arguments)

    monkeypatch.setattr("picowatch.inbox.inbox.scan", counted)
    monkeypatch.setattr("picowatch.inbox.inbox.SCAN_SECONDS", 3600.0)
    held = HeldEngine(house)
    for name in ("keep", "day1", "night/day2"):
        house.save(f"{name}.txt", "one\n")
    with house.running(batch_size=1):
        held.wait_until_held()
        wait_for(lambda: house.status()["images"]["queued"] == 2, "all saves")
        before = len(scans)
        assert control(house, "cancel", "*day?.txt") == "2 images cancelled.\n"
        said = "There is no 'day3' in the inbox. Did you mean 'day1.txt'? "
        assert control(house, "cancel", "day3", code=1).startswith(said)
        assert "No image of day1 is queued." in control(house, "cancel", "day1", code=1)
        assert len(scans) == before
        held.release()
        wait_for(lambda: house.prompts("keep"), "what is left")
    assert len(house.prompts()) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ("cancel", "corgy.txt"),
            "There is no 'corgy.txt' in the inbox. Did you mean 'corgi.txt'?",
        ),
        (("retry", "cogi"), "There is no 'cogi' in the inbox. Did you mean 'corgi.txt'?"),
        (("delete", "cor/0001-5.png"), "in the outbox. Did you mean 'corgi/0001-5.png'?"),
    ],
)
def test_a_name_that_nothing_has_is_refused_without_a_daemon(
    house: House, words: tuple[str, ...], told: str
) -> None:
    """It would be found out at the next start, when nobody reads the answer."""
    house.save("corgi.txt", "one --seed 5\n")
    assert house.once()
    assert told in control(house, *words, code=1)


def test_cancel_holds_for_the_saves_that_came_before_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though nobody has answered them yet, or they take several rounds to accept."""
    monkeypatch.setattr("picowatch.daemon.accept.SLICE_SECONDS", 0.0)
    assert house.once()
    house.save("old/a.txt", "one\n")
    house.save("b.yaml", "prompt: two\n")
    for name in ("*.txt", "old", "old/a"):
        assert control(house, "cancel", name, code=1) == f"{NOT_RUNNING}\n"
    house.save("new/c.txt", "three\n")
    assert house.once()
    assert sorted(house.prompts()) == ["three", "two"]
    for number in range(30):
        house.save(f"night/{number}.txt", "four\nfive\n")
    assert house.answer("cancel", "night").text == "60 images cancelled."
    assert len(house.prompts()) == 2


def test_nothing_of_what_is_cancelled_as_soon_as_it_is_accepted_begins(house: House) -> None:
    """Though an engine that asks for its next batch all the time would take it first."""
    house.save("live/_defaults.yaml", "priority: 10\n")
    house.save("busy.yaml", "prompt: busy\nseed: 1..900\n")
    with house.running(batch_size=1):
        wait_for(house.prompts, "the engine to work")
        for number in range(8):
            house.save(f"live/{number}.yaml", "prompt: urgent\nseed: 1\n")
            command = send(house.outbox, Command("cancel", f"live/{number}.yaml"))
            wait_for(command.with_suffix(".answer").exists, "the answer")
        assert house.status()["images"]["queued"], "it works still"
    assert "urgent" not in house.started()


@pytest.mark.parametrize(
    ("words", "left"),
    [(["cancel", "a.txt"], {"cancelled": 4}), (["pause"], {"done": 1, "queued": 3})],
)
def test_a_command_holds_for_the_rest_of_a_batch_that_failed(
    house: House, words: list[str], left: dict[str, int]
) -> None:
    """Its images are tried again one by one, and a command comes between two of them."""

    def fail_together(batch: Sequence[ImageRequest]) -> None:
        if len(batch) > 1:
            raise RenderFailed("Too much at once.")

    house.engine.before_batch = fail_together
    held = HeldEngine(house, after=1)
    with house.running(batch_size=4):
        house.save("a.txt", "one\ntwo\nthree\nfour\n")
        held.wait_until_held()
        control(house, *words)
        held.release()
        wait_for(lambda: images_now(house) == left, "the end of the first one")
    assert len([batch for batch in house.engine.batches if len(batch) == 1]) == 1
