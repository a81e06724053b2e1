"""`pause`, `resume` and `cancel`: from any machine that mounts the outbox."""

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from picowatch.errors import EngineDied, EngineStopped, RenderFailed
from picowatch.outbox.commands import Command, send
from picowatch.outbox.outbox import Outbox
from picowatch.recipe.request import ImageRequest
from tests.commands.picowatch import picowatch
from tests.digest_engine import DigestEngine
from tests.house import PATIENCE, House, wait_for


class Gate:
    """Holds whoever passes until it is opened: each batch, or those that a test sends."""

    def __init__(self, house: House) -> None:
        self._reached = threading.Event()
        self._open = threading.Event()
        house.engine.before_batch = lambda batch: self.hold()

    def hold(self) -> None:
        self._reached.set()
        assert self._open.wait(PATIENCE)

    def wait_until_reached(self) -> None:
        assert self._reached.wait(PATIENCE)

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def gate(house: House) -> Iterator[Gate]:
    gate = Gate(house)
    yield gate
    gate.open()


def control(house: House, *words: str, code: int = 0) -> str:
    """The answer to a command that ends with this exit code."""
    answer = picowatch(house.folder, *words)
    assert answer.returncode == code, answer
    assert (answer.stderr if code == 0 else answer.stdout) == ""
    return answer.stdout if code == 0 else answer.stderr


def one_running(house: House, **values: Any) -> Any:
    return house.running(batch_size=1, **values)


def test_a_pause_finishes_what_is_in_progress_and_lasts_until_resume(
    house: House, gate: Gate
) -> None:
    """Status and now.txt say so; saves are still answered."""
    with one_running(house):
        house.save("a.txt", "one\ntwo\nthree\n")
        gate.wait_until_reached()
        assert (
            control(house, "pause")
            == "Paused when the images in progress are finished; 2 images wait.\n"
        )
        gate.open()
        wait_for(lambda: house.status()["images"]["done"] == 1, "the image in progress")
        house.save("b.yaml", "prompt: four\n")
        wait_for(lambda: house.status()["images"]["queued"] == 3, "the save")
        now = house.outbox / "now.txt"
        wait_for(lambda: now.read_text() == "paused, 3 images wait\n", now.read_text())
        assert house.status()["paused"] is True
        wait_for(lambda: not house.engine._started, "the engine's end: its memory is wanted")
        assert "paused" in control(house, "status")
        assert control(house, "pause") == "It is already paused; 3 images wait.\n"
        assert house.started() == ["one"]
        assert control(house, "resume") == "Resumed; 3 images wait.\n"
        wait_for(lambda: house.started() == ["one", "two", "three", "four"], "the rest")
        assert control(house, "resume").startswith("It was not paused; ")
    assert house.engine.starts == 2


def test_a_pause_outlives_the_daemon(house: House) -> None:
    """And a single run that finds it says why it made nothing."""
    with one_running(house):
        control(house, "pause")
    house.save("a.txt", "one\n")
    assert not house.once()
    assert "paused: 1 image waits until `picowatch resume`" in house.log()
    with one_running(house):
        wait_for(lambda: house.status()["paused"], "the status")
        assert house.pictures() == []
        control(house, "resume")
        wait_for(lambda: house.prompts() == ["one"], "the picture")
    assert not house.status()["paused"]


def test_a_pause_left_for_a_daemon_holds_before_its_first_image(house: House) -> None:
    """Recipes in the inbox are not begun."""
    house.save("a.txt", "one\n")
    assert house.once()
    assert "'pause' is done when it is back" in control(house, "pause", code=1)
    house.save("a.txt", "two\n")
    assert not house.once()
    assert house.prompts() == ["one"]


def test_cancel_stops_what_runs_and_the_next_save_requests_it_again(
    house: House, gate: Gate
) -> None:
    """Of this recipe: others are not touched, and it is not archived. Fixed seeds stay."""
    with one_running(house, when_done="archive"):
        path = house.save("a.txt", "one --seed 1\ntwo --seed 2\nthree --seed 3\n")
        gate.wait_until_reached()
        house.save("b.txt", "other\n")
        wait_for(lambda: house.status()["images"]["queued"] == 3, "all saves")
        said = control(house, "cancel", "inbox/a.txt")
        assert said == "3 images cancelled. Images in progress are stopped.\n"
        stopped = "a.txt: stopped: no image of its batch is requested any more"
        wait_for(lambda: stopped in house.log(), "its end")
        gate.open()
        wait_for(lambda: house.prompts("b") == ["other"], "what is left")
    assert house.once(), "nothing requests them until the next save"
    assert house.prompts("a") == []
    assert house.once()
    path.touch()
    assert house.once()
    assert house.seeds("a") == [1, 2, 3]


def test_what_is_being_written_is_not_cancelled(
    house: House, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is told that it is stopped, and then gets its picture."""
    publish = Outbox.publish
    house.engine.before_batch = lambda batch: None

    def slowly(*given: Any) -> None:
        gate.hold()
        publish(*given)

    monkeypatch.setattr(Outbox, "publish", slowly)
    with one_running(house):
        house.save("a.txt", "one --seed 1\n")
        gate.wait_until_reached()
        assert control(house, "cancel", "a.txt", code=1) == "No image of a.txt is queued.\n"
        gate.open()
        wait_for(lambda: house.seeds() == [1], "the picture")
    assert images_now(house) == {"done": 1}


def test_cancel_takes_folders_and_globs(house: House, gate: Gate) -> None:
    """A folder means all below it; exit code 1 if one of several could not be done."""
    with one_running(house):
        house.save("first.txt", "first\n")
        gate.wait_until_reached()
        for name in (
            "night/a.txt",
            "night/deep/b.txt",
            "day1.txt",
            "day2.txt",
            "a.txt",
            "keep.txt",
        ):
            house.save(name, "one\n")
        wait_for(lambda: house.status()["images"]["queued"] == 6, "all saves")
        assert control(house, "cancel", "inbox/night/") == "2 images cancelled.\n"
        assert control(house, "cancel", "day*") == "2 images cancelled.\n"
        answer = picowatch(house.folder, "cancel", "a.txt", "day*")
        assert (answer.returncode, answer.stdout) == (1, "1 image cancelled.\n"), "one by one"
        others = "Recipes with queued images: first.txt, keep.txt."
        assert answer.stderr == f"No image of day* is queued. {others}\n"
        gate.open()
        wait_for(lambda: len(house.pictures()) == 2, "what is left")
    assert {picture.split("/")[0] for picture in house.pictures()} == {"first", "keep"}


@pytest.mark.parametrize("times", [1, 2])
def test_cancel_does_not_hold_for_saves_that_came_after_it(house: House, times: int) -> None:
    """Though picowatch learns of all at once."""
    assert house.once()
    house.save("old/a.txt", "one\n")
    for _ in range(times):
        picowatch(house.folder, "cancel", "*.txt")
    house.save("new/b.txt", "two\n")
    assert house.once()
    assert house.prompts() == ["two"]


@pytest.mark.parametrize("command", ["cancel", "pause"])
def test_a_command_holds_for_the_rest_of_a_batch_that_failed(
    house: House, gate: Gate, command: str
) -> None:
    """Its images are tried again one by one, and a command comes between two of them."""

    def fail_together(batch: Sequence[ImageRequest]) -> None:
        if len(batch) > 1:
            raise RenderFailed("Too much at once.")
        gate.hold()

    house.engine.before_batch = fail_together
    with house.running(batch_size=4):
        house.save("a.txt", "one\ntwo\nthree\nfour\n")
        gate.wait_until_reached()
        control(house, command, *(["a.txt"] if command == "cancel" else []))
        gate.open()
        left = {"cancel": {"cancelled": 4}, "pause": {"done": 1, "queued": 3}}[command]
        wait_for(lambda: images_now(house) == left, "the end of the first one")
    assert len([batch for batch in house.engine.batches if len(batch) == 1]) == 1


def images_now(house: House) -> dict[str, int]:
    return {state: count for state, count in house.status()["images"].items() if count}


class Slow(DigestEngine):
    """Hears of an interruption, and ends the batch later: real ones end it at their next step."""

    def interrupt(self) -> None:
        """The batch goes on."""


def test_a_cancelled_sweep_shows_the_finished_pictures(house: House, gate: Gate) -> None:
    """The image in progress counts as cancelled at once, whenever it ends."""

    def hold(batch: Sequence[ImageRequest]) -> None:
        if len(house.engine.batches) == 2:
            gate.hold()
            raise EngineStopped("The engine was interrupted.")

    house.engine = Slow(before_batch=hold)
    with one_running(house):
        house.save("a.yaml", "prompt: one\nseed: 1\nsweep:\n  steps: [1, 2, 3]\n")
        gate.wait_until_reached()
        wait_for(lambda: house.status()["images"]["done"] == 1, "the first picture")
        control(house, "cancel", "a.yaml")
        wait_for(lambda: "contact sheet" in house.log(), "the sheet")
        gate.open()
    assert len([file for file in house.pictures() if "-sheet" not in file]) == 1


def test_a_cancelled_image_is_not_tried_again_when_its_engine_dies(
    house: House, gate: Gate
) -> None:
    """An engine that hangs is why users cancel, and it ends by `stall_seconds`."""

    def die(batch: Sequence[ImageRequest]) -> None:
        gate.hold()
        raise EngineDied("The engine made no step and was ended as hung.")

    house.engine = Slow(before_batch=die)
    with one_running(house):
        house.save("a.txt", "one\n")
        gate.wait_until_reached()
        control(house, "cancel", "a.txt")
        gate.open()
        wait_for(lambda: "a.txt: The engine made no step and was ended" in house.log(), "the end")
    assert house.started() == ["one"]
    assert images_now(house) == {"cancelled": 1}
    assert house.error("a.txt") is None


def test_cancel_holds_for_saves_that_came_before_it(house: House) -> None:
    """Also for those that nobody has answered yet, as none is while picowatch is not running."""
    assert house.once()
    house.save("a.txt", "one\n")
    house.save("b.txt", "two\n")
    answer = picowatch(house.folder, "cancel", "a.txt")
    assert "'cancel' is done when it is back" in answer.stderr
    assert house.once()
    assert house.prompts() == ["two"]
    for number in range(30):
        house.save(f"night/{number}.txt", "three\nfour\n")
    with house.running(settle_seconds=1):
        assert control(house, "cancel", "night") == "60 images cancelled.\n"
    assert house.prompts() == ["two"]


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
