"""`pause`, `resume` and `cancel`: from any machine that mounts the outbox."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from picowatch.errors import EngineDied, EngineStopped, RenderFailed
from picowatch.recipe.request import ImageRequest
from tests.commands.picowatch import picowatch, start
from tests.digest_engine import DigestEngine
from tests.house import PATIENCE, House, one_waits_for_one, wait_for


class Gate:
    """Holds each batch back until it is opened."""

    def __init__(self, house: House) -> None:
        self._reached = threading.Event()
        self._open = threading.Event()
        house.engine.before_batch = self._wait

    def _wait(self, batch: Sequence[ImageRequest]) -> None:
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
        assert "paused" in control(house, "status")
        assert control(house, "pause") == "It is already paused; 3 images wait.\n"
        assert house.started() == ["one"]
        assert control(house, "resume") == "Resumed; 3 images wait.\n"
        wait_for(lambda: house.started() == ["one", "two", "three", "four"], "the rest")
        assert control(house, "resume").startswith("It was not paused; ")


def test_a_pause_gives_the_engine_s_memory_back(house: House) -> None:
    """Who pauses wants the machine for something else."""
    with one_running(house):
        house.save("a.txt", "one\n")
        wait_for(lambda: house.status()["images"]["done"] == 1, "a picture")
        assert house.engine.starts == 1
        control(house, "pause")
        wait_for(lambda: not house.engine._started, "the engine's end")
        control(house, "resume")
        house.save("b.txt", "two\n")
        wait_for(lambda: len(house.pictures()) == 2, "another")
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


def test_cancel_removes_queued_images_and_the_next_save_requests_them_again(
    house: House, gate: Gate
) -> None:
    """The image in progress is finished; other recipes are not touched; fixed seeds stay."""
    recipe = "one --seed 1\ntwo --seed 2\nthree --seed 3\n"
    with one_running(house):
        path = house.save("a.txt", recipe)
        gate.wait_until_reached()
        house.save("b.txt", "other\n")
        wait_for(lambda: house.status()["images"]["queued"] == 3, "all saves")
        said = control(house, "cancel", "inbox/a.txt")
        assert said == "2 images cancelled. Images in progress are finished.\n"
        gate.open()
        wait_for(lambda: sorted(house.started()) == ["one", "other"], "what is left")
        wait_for(lambda: len(house.pictures()) == 2, "the pictures")
        path.touch()
        wait_for(lambda: len(house.pictures("a")) == 3, "the cancelled ones")
    assert house.started() == ["one", "other", "two", "three"]


def test_cancelled_images_stay_cancelled_at_every_start(house: House, gate: Gate) -> None:
    """Nothing requests them until the next save."""
    with one_running(house):
        house.save("a.txt", "one\ntwo\n")
        gate.wait_until_reached()
        control(house, "cancel", "a.txt")
        gate.open()
        wait_for(lambda: house.status()["images"]["done"] == 1, "the first")
    assert house.once()
    assert house.started() == ["one"]


def test_a_random_recipe_that_was_cancelled_is_drawn_once_when_it_is_saved_again(
    house: House, gate: Gate
) -> None:
    """Not its cancelled draws besides."""
    with one_running(house):
        path = house.save("a.yaml", "prompt: one\ncount: 5\n")
        gate.wait_until_reached()
        assert control(house, "cancel", "a.yaml").startswith("4 images cancelled.")
        gate.open()
        wait_for(lambda: house.status()["images"]["done"] == 1, "the first")
        path.touch()
        wait_for(lambda: house.status()["images"]["done"] == 6, "five more")
    assert house.once()
    assert len(house.pictures()) == 6


def test_a_cancelled_recipe_is_not_archived(house: House, gate: Gate) -> None:
    """Not all of its images were made."""
    with one_running(house, when_done="archive"):
        path = house.save("a.txt", "one\ntwo\n")
        gate.wait_until_reached()
        control(house, "cancel", "a.txt")
        gate.open()
        wait_for(lambda: house.status()["images"]["done"] == 1, "the first")
    assert path.exists()


def test_cancel_takes_folders_and_globs(house: House, gate: Gate) -> None:
    """A folder means all below it."""
    with one_running(house):
        house.save("first.txt", "first\n")
        gate.wait_until_reached()
        for name in ("night/a.txt", "night/deep/b.txt", "day1.txt", "day2.txt", "keep.txt"):
            house.save(name, "one\n")
        wait_for(lambda: house.status()["images"]["queued"] == 5, "all saves")
        assert control(house, "cancel", "inbox/night/") == "2 images cancelled.\n"
        assert control(house, "cancel", "day*") == "2 images cancelled.\n"
        said = control(house, "cancel", "day*", code=1)
        assert said == "No image of day* is queued. Recipes with queued images: keep.txt.\n"
        gate.open()
        wait_for(lambda: len(house.pictures()) == 2, "what is left")
    assert {picture.split("/")[0] for picture in house.pictures()} == {"first", "keep"}


@pytest.mark.parametrize("command", ["cancel", "retry", "delete"])
def test_an_empty_name_names_nothing(house: House, command: str) -> None:
    """As of a script's unset variable: `cancel ""` is not `cancel .`, which means all."""
    house.once()
    assert "it is empty" in control(house, command, "", code=2)
    assert not [*(house.outbox / ".picowatch/commands").glob("*.json")]


def test_several_recipes_are_answered_one_by_one(house: House, gate: Gate) -> None:
    """As a shell's globs give them; exit code 1 if one of them could not be done."""
    with one_running(house):
        house.save("first.txt", "first\n")
        gate.wait_until_reached()
        house.save("a.txt", "one\n")
        wait_for(lambda: one_waits_for_one(house), "the save")
        answer = picowatch(house.folder, "cancel", "a.txt", "b.txt")
    assert answer.returncode == 1
    assert answer.stdout == "1 image cancelled.\n"
    assert answer.stderr == "No image of b.txt is queued.\n"


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


@pytest.mark.parametrize("moved", ["drafts/more/new.txt", "drafts"])
def test_cancel_does_not_hold_for_recipes_that_were_moved_in_after_it(
    house: House, moved: str
) -> None:
    """By themselves or with a folder; they keep the times of their writing, which was before it."""
    assert house.once()
    house.save("old.txt", "one\n")
    house.save("folder/old.txt", "one\n")
    draft = house.folder / "drafts/more/new.txt"
    draft.parent.mkdir(parents=True)
    draft.write_text("two\n")
    picowatch(house.folder, "cancel", "*.txt")
    (house.folder / moved).rename(house.inbox / Path(moved).name)
    assert house.once()
    assert house.prompts() == ["two"]


def test_all_recipes_are_named_before_the_first_answer(house: House) -> None:
    """picowatch looks for commands once a second: hundreds of recipes would take minutes."""
    commands = house.outbox / ".picowatch/commands"
    with house.running():
        with house.seen_at_once():
            process = start(house.folder, "cancel", "a.txt", "b.txt")
            wait_for(lambda: len([*commands.glob("*.json")]) == 2, "both commands")
        output, _ = process.communicate(timeout=PATIENCE)
    assert output == "No image of a.txt is queued.\nNo image of b.txt is queued.\n"


def test_cancel_stops_the_image_in_progress_if_the_user_wants_it(house: House, gate: Gate) -> None:
    """`interrupt: true`; the next save requests it again."""
    with one_running(house, interrupt=True):
        path = house.save("a.txt", "one --seed 1\ntwo --seed 2\n")
        gate.wait_until_reached()
        assert control(house, "cancel", "a.txt") == (
            "1 image cancelled. Images in progress are stopped.\n"
        )
        wait_for(lambda: house.status()["images"]["cancelled"] == 2, "both cancelled")
        gate.open()
        assert house.pictures() == []
        path.touch()
        wait_for(lambda: len(house.pictures()) == 2, "both made")
    assert "a.txt: stopped while rendering, as requested" in house.log()


@pytest.mark.parametrize("command", ["cancel", "pause"])
def test_a_command_holds_for_the_rest_of_a_batch_that_failed(house: House, command: str) -> None:
    """Its images are tried again one by one, and a command comes between two of them."""
    reached, go_on = threading.Event(), threading.Event()

    def fail_together(batch: Sequence[ImageRequest]) -> None:
        if len(batch) > 1:
            raise RenderFailed("Too much at once.")
        reached.set()
        assert go_on.wait(PATIENCE)

    house.engine.before_batch = fail_together
    with house.running(interrupt=True, batch_size=4):
        house.save("a.txt", "one\ntwo\nthree\nfour\n")
        assert reached.wait(PATIENCE)
        control(house, command, *(["a.txt"] if command == "cancel" else []))
        go_on.set()
        left = {"cancel": {"cancelled": 4}, "pause": {"done": 1, "queued": 3}}[command]
        wait_for(lambda: images_now(house) == left, "the end of the first one")
    assert len([batch for batch in house.engine.batches if len(batch) == 1]) == 1


def images_now(house: House) -> dict[str, int]:
    return {state: count for state, count in house.status()["images"].items() if count}


def test_a_cancelled_sweep_shows_the_finished_pictures(house: House, gate: Gate) -> None:
    """Its sheet is made from the pictures that were."""
    with one_running(house):
        house.save("a.yaml", "prompt: one\nseed: 1\nsweep:\n  steps: [1, 2, 3]\n")
        gate.wait_until_reached()
        control(house, "cancel", "a.yaml")
        gate.open()
        wait_for(lambda: "contact sheet" in house.log(), "the sheet")
    assert house.started() == ["one"]


class Slow(DigestEngine):
    """Hears of an interruption, and ends the batch later: real ones end it at their next step."""

    def interrupt(self) -> None:
        """The batch goes on."""


def test_a_sweep_that_is_cancelled_in_the_middle_of_a_step_shows_the_finished_pictures(
    house: House,
) -> None:
    """With `interrupt: true`: the image in progress ends after the command was answered."""
    reached, over = threading.Event(), threading.Event()

    def hold(batch: Sequence[ImageRequest]) -> None:
        if len(house.engine.batches) == 2:
            reached.set()
            assert over.wait(PATIENCE)
            raise EngineStopped("The engine was interrupted.")

    house.engine = Slow(before_batch=hold)
    with one_running(house, interrupt=True):
        house.save("a.yaml", "prompt: one\nseed: 1\nsweep:\n  steps: [1, 2, 3]\n")
        assert reached.wait(PATIENCE)
        wait_for(lambda: house.status()["images"]["done"] == 1, "the first picture")
        control(house, "cancel", "a.yaml")
        assert "contact sheet" not in house.log()
        over.set()
        wait_for(lambda: "contact sheet" in house.log(), "the sheet")


def test_a_cancelled_image_is_not_tried_again_when_its_engine_dies(house: House) -> None:
    """An engine that hangs is why users cancel, and it ends by `stall_seconds`."""
    reached, over = threading.Event(), threading.Event()

    def die(batch: Sequence[ImageRequest]) -> None:
        reached.set()
        assert over.wait(PATIENCE)
        raise EngineDied("The engine made no step and was ended as hung.")

    house.engine = Slow(before_batch=die)
    with one_running(house, interrupt=True):
        house.save("a.txt", "one\n")
        assert reached.wait(PATIENCE)
        control(house, "cancel", "a.txt")
        over.set()
        wait_for(lambda: images_now(house) in ({"cancelled": 1}, {"failed": 1}), "the end")
    assert house.started() == ["one"]
    assert images_now(house) == {"cancelled": 1}
    assert "a.txt: The engine made no step and was ended as hung." in house.log()
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
    with house.running(settle_seconds=2):
        control(house, "pause")
        house.save("c.txt", "three\nfour\n")
        assert control(house, "cancel", "c.txt") == "2 images cancelled.\n"
