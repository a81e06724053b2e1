"""What nobody requests any more stops at its next step, and makes room for what is."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from picowatch.outbox.commands import Command, send, wait_for_answer
from picowatch.recipe.request import ImageRequest
from tests.digest_engine import DigestEngine
from tests.house import PATIENCE, House, wait_for


@pytest.fixture
def first_batch(house: House) -> Iterator[threading.Event]:
    """The engine holds its first batch until the test is over; set once it has it."""
    reached, over = threading.Event(), threading.Event()

    def hold(batch: Sequence[ImageRequest]) -> None:
        if len(house.engine.batches) == 1:
            reached.set()
            assert over.wait(PATIENCE)

    house.engine.before_batch = hold
    yield reached
    over.set()


def test_editing_the_recipe_stops_its_picture(house: House, first_batch: threading.Event) -> None:
    """A fixed seed with other steps is another picture; the first leaves nothing."""
    with house.running():
        house.save("a.yaml", "prompt: one\nseed: 1\nsteps: 20\n")
        assert first_batch.wait(PATIENCE)
        house.save("a.yaml", "prompt: one\nseed: 1\nsteps: 30\n")
        wait_for(lambda: len(house.pictures()) == 1, "the new picture")
    assert house.chunk(house.pictures()[0]).request.steps == 30
    images = house.status()["images"]
    assert (images["done"], images["cancelled"], images["failed"]) == (1, 1, 0)
    assert house.error("a.yaml") is None


def test_deleting_the_recipe_stops_its_picture(house: House, first_batch: threading.Event) -> None:
    """Nobody requests it any more."""
    with house.running():
        path = house.save("a.yaml", "prompt: one\n")
        assert first_batch.wait(PATIENCE)
        path.unlink()
        wait_for(lambda: house.status()["images"]["cancelled"] == 1, "the end")
    assert house.pictures() == []


def test_cancelling_the_recipe_stops_its_picture(
    house: House, first_batch: threading.Event
) -> None:
    """The next recipe's turn comes at once; saved again, it is rendered."""
    with house.running():
        path = house.save("a.yaml", "prompt: one\nseed: 1\n")
        assert first_batch.wait(PATIENCE)
        house.save("b.txt", "another\n")
        answer = wait_for_answer(send(house.outbox, Command("cancel", "a")), PATIENCE)
        assert answer and answer.text == "1 image cancelled. Images in progress are stopped."
        wait_for(lambda: house.prompts() == ["another"], "the next recipe")
        path.touch()
        wait_for(lambda: len(house.pictures("a")) == 1, "the picture")


def test_a_batch_is_finished_for_one_image_that_is_requested(house: House) -> None:
    """The others of it leave nothing."""
    reached, go = threading.Event(), threading.Event()

    def hold(batch: Sequence[ImageRequest]) -> None:
        reached.set()
        assert go.wait(PATIENCE)

    house.engine.before_batch = hold
    with house.running(batch_size=4):
        house.save("a.txt", "one\ntwo\nthree\n")
        assert reached.wait(PATIENCE)
        house.save("a.txt", "two\n")
        wait_for(lambda: "2 cancelled" in house.log(), "the save")
        go.set()
        wait_for(lambda: house.prompts() == ["two"], "the picture")
    assert len(house.engine.batches) == 1
    assert "stopped" not in house.log()


def test_a_picture_that_is_still_requested_is_finished(house: House) -> None:
    """Another line may be edited meanwhile."""
    reached, go = threading.Event(), threading.Event()

    def hold(batch: Sequence[ImageRequest]) -> None:
        reached.set()
        assert go.wait(PATIENCE)

    house.engine.before_batch = hold
    with house.running(batch_size=1):
        house.save("a.txt", "one\ntwo\n")
        assert reached.wait(PATIENCE)
        house.save("a.txt", "one\nthree\n")
        wait_for(lambda: "1 image queued, 1 cancelled, 1 kept" in house.log(), "the save")
        go.set()
        wait_for(lambda: len(house.pictures()) == 2, "the pictures")
    assert house.started() == ["one", "three"]
    assert "stopped" not in house.log()


@dataclass
class Deaf(DigestEngine):
    """Hears of an interrupt only after some time, as one that is just being started."""

    told: int = 0

    def interrupt(self) -> None:
        self.told += 1
        if self.told == 3:
            super().interrupt()


def test_a_deleted_recipe_is_not_shown_while_it_stops(house: House) -> None:
    """Nothing of it is left to count: there would be "1 of 0"."""
    house.engine = Deaf()
    over = threading.Event()
    house.engine.before_batch = lambda batch: wait_for(over.is_set)
    with house.running():
        path = house.save("a.yaml", "prompt: one\n")
        wait_for(lambda: house.status().get("recipe") == "a.yaml", "its progress")
        path.unlink()
        wait_for(lambda: house.status().get("recipe") == "", "another status")
        now = (house.outbox / "now.txt").read_text()
        over.set()
    assert " of 0" not in now
    assert all(status.of or not status.recipe for status in house.console.shown)


def test_an_engine_that_just_starts_is_interrupted_again(house: House) -> None:
    """An interruption before it listens is not lost."""
    house.engine = Deaf()
    over = threading.Event()
    house.engine.before_batch = lambda batch: (
        wait_for(over.is_set) if len(house.engine.batches) == 1 else None
    )
    with house.running():
        house.save("a.yaml", "prompt: one\n")
        wait_for(lambda: house.status()["images"]["running"] == 1, "the first picture")
        house.save("a.yaml", "prompt: two\n")
        wait_for(lambda: house.prompts() == ["two"], "the other picture")
        over.set()
    assert house.log().count("stopped: no image of its batch is requested") == 1
