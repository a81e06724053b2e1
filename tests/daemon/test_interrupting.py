"""`interrupt: true`: saving again in the middle stops the picture in progress."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

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
    with house.running(interrupt=True):
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
    with house.running(interrupt=True):
        path = house.save("a.yaml", "prompt: one\n")
        assert first_batch.wait(PATIENCE)
        path.unlink()
        wait_for(lambda: house.status()["images"]["cancelled"] == 1, "the end")
    assert house.pictures() == []


def test_a_picture_that_is_still_requested_is_finished(house: House) -> None:
    """Another line may be edited meanwhile."""
    reached, go = threading.Event(), threading.Event()

    def hold(batch: Sequence[ImageRequest]) -> None:
        reached.set()
        assert go.wait(PATIENCE)

    house.engine.before_batch = hold
    with house.running(interrupt=True, batch_size=1):
        house.save("a.txt", "one\ntwo\n")
        assert reached.wait(PATIENCE)
        house.save("a.txt", "one\nthree\n")
        wait_for(lambda: "1 image queued, 1 cancelled, 1 kept" in house.log(), "the save")
        go.set()
        wait_for(lambda: len(house.pictures()) == 2, "the pictures")
    assert house.started() == ["one", "three"]
    assert "stopped while rendering" not in house.log()


@dataclass
class Deaf(DigestEngine):
    """Hears of an interrupt only after some time, as one that is just being started."""

    told: int = 0

    def interrupt(self) -> None:
        self.told += 1
        if self.told == 3:
            super().interrupt()


def test_an_engine_that_just_starts_is_interrupted_again(house: House) -> None:
    """An interruption before it listens is not lost."""
    house.engine = Deaf()
    over = threading.Event()
    house.engine.before_batch = lambda batch: (
        wait_for(over.is_set) if len(house.engine.batches) == 1 else None
    )
    with house.running(interrupt=True):
        house.save("a.yaml", "prompt: one\n")
        wait_for(lambda: house.status()["images"]["running"] == 1, "the first picture")
        house.save("a.yaml", "prompt: two\n")
        wait_for(lambda: house.prompts() == ["two"], "the other picture")
        over.set()
    assert house.log().count("stopped while rendering") == 1
