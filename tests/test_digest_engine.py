"""The tests' own engine keeps the protocol's promises."""

import threading

import pytest

from picowatch.errors import EngineDied, EngineStopped
from tests.digest_engine import DigestEngine
from tests.engine.requests import difference, ignore_steps, make, request


def test_equal_requests_give_equal_pixels_and_others_others() -> None:
    """The picture is the digest."""
    engine = DigestEngine()
    first, again = make(engine, request()), make(DigestEngine(), request())
    assert first[0].pixels == again[0].pixels
    assert difference(first[0], make(engine, request(seed=2))[0]) > 50


@pytest.mark.parametrize(("width", "height"), [(64, 128), (200, 72), (8, 8)])
def test_pictures_have_their_size(width: int, height: int) -> None:
    """Three bytes a pixel."""
    (image,) = make(DigestEngine(), request(width=width, height=height))
    assert len(image.pixels) == width * height * 3


def test_steps_are_reported_and_batches_kept() -> None:
    """For tests of progress and order."""
    engine, steps = DigestEngine(), []
    batch = [request(steps=3), request(steps=3, seed=2)]
    engine.render(batch, lambda done, total: steps.append((done, total))).result(60)
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert engine.batches == [tuple(batch)]


def test_a_hook_may_fail_a_batch() -> None:
    """What it raises is what the batch fails with."""

    def die(batch: object) -> None:
        raise EngineDied("as told")

    future = DigestEngine(before_batch=die).render([request()], ignore_steps)
    assert isinstance(future.exception(60), EngineDied)


@pytest.mark.parametrize("end", ["close", "interrupt"])
def test_a_batch_in_progress_can_be_ended(end: str) -> None:
    """As with the real engine; the next batch is made."""
    waiting, go = threading.Event(), threading.Event()

    def wait(done: int) -> None:
        waiting.set()
        assert go.wait(60)

    engine = DigestEngine(after_step=wait)
    future = engine.render([request()], ignore_steps)
    assert waiting.wait(60)
    getattr(engine, end)()
    assert isinstance(future.exception(0), EngineStopped)
    go.set()
    assert make(engine, request())
    assert engine.starts == (2 if end == "close" else 1)
