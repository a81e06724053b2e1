"""Seconds left that hold, on a simulated clock over recorded batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pytest

from picowatch.recipe.parts import Hires
from picowatch.recipe.request import ImageRequest
from picowatch.work.durations import Durations, Timeline
from tests.metadata.requests import CORGI

PLAIN = replace(CORGI, width=128, height=128, steps=12, hires=None)
HIRES = replace(CORGI, width=64, height=64, steps=8, hires=Hires(scale=2))
LARGE = replace(CORGI, width=256, height=192, steps=10, hires=None)


@dataclass(frozen=True)
class Batch:
    """Of the demo model on one core, in seconds of its processor: each step, then the end."""

    request: ImageRequest
    images: int
    steps: tuple[float, ...]
    seconds: float
    load: float = 0.0


EIGHT = Batch(
    PLAIN, 8, (0.23, 0.43, 0.64, 0.85, 1.07, 1.28, 1.49, 1.69, 1.89, 2.1, 2.31, 2.52), 2.82
)
SLOWER_EIGHT = Batch(
    PLAIN, 8, (0.26, 0.48, 0.7, 0.98, 1.24, 1.47, 1.72, 1.95, 2.17, 2.41, 2.66, 2.92), 3.31
)
ONE = Batch(
    PLAIN, 1, (0.07, 0.13, 0.18, 0.24, 0.29, 0.35, 0.41, 0.47, 0.53, 0.59, 0.64, 0.71), 0.78
)
FOUR_HIRES = Batch(
    HIRES, 4, (0.08, 0.13, 0.18, 0.23, 0.29, 0.35, 0.41, 0.47, 0.62, 0.78, 0.91, 1.05, 1.19), 1.36
)
FASTER_FOUR_HIRES = Batch(
    HIRES, 4, (0.06, 0.13, 0.18, 0.24, 0.29, 0.34, 0.39, 0.44, 0.57, 0.69, 0.8, 0.92, 1.05), 1.23
)
ONE_HIRES = Batch(
    HIRES, 1, (0.04, 0.07, 0.1, 0.13, 0.16, 0.19, 0.22, 0.26, 0.31, 0.36, 0.41, 0.47, 0.52), 0.56
)
ONE_LARGE = Batch(LARGE, 1, (0.13, 0.24, 0.34, 0.44, 0.56, 0.68, 0.81, 0.93, 1.04, 1.16), 1.32)
SIZES = {PLAIN.batch_key: 8, HIRES.batch_key: 4, LARGE.batch_key: 1}


def after_a_load(batch: Batch, load: float = 0.98, start: float = 3.0) -> Batch:
    """The same with an engine that was started, and a checkpoint that was loaded first."""
    steps = tuple(step + start + load for step in batch.steps)
    return Batch(batch.request, batch.images, steps, batch.seconds + start + load, load)


def looks(batches: Sequence[Batch], each: float = 0.25) -> Iterator[tuple[float, float | None]]:
    """What is left, and what was estimated, at every look after the first batch."""
    durations = Durations(lambda request: SIZES[request.batch_key])
    began = 0.0
    for number, batch in enumerate(batches):
        line = Timeline(batch.request, batch.images, began, "demo" if batch.load else "")
        now = began + 0.01
        while now < began + batch.seconds:
            done = [began + step for step in batch.steps if began + step <= now]
            line.times, line.steps = done, len(batch.steps) if done else 0
            left = durations.left(line, now)
            rest = durations.of((one.request, one.images) for one in batches[number + 1 :])
            if number:
                true = sum(one.seconds for one in batches[number:]) - (now - began)
                yield true, None if left is None or rest is None else left + rest
            else:
                assert rest is None, "nothing is known before the first picture"
            now += each
        line.times = [began + step for step in batch.steps]
        began += batch.seconds
        durations.learn(line, began, batch.load)


@pytest.mark.parametrize(
    "batches",
    [
        pytest.param([after_a_load(EIGHT), ONE], id="9 images after a load"),
        pytest.param([after_a_load(EIGHT), EIGHT, SLOWER_EIGHT, EIGHT, ONE], id="33 images"),
        pytest.param([SLOWER_EIGHT, EIGHT, EIGHT, EIGHT], id="a machine that gets less busy"),
        pytest.param([EIGHT, SLOWER_EIGHT, SLOWER_EIGHT], id="… that gets busier"),
        pytest.param(
            [FOUR_HIRES, FASTER_FOUR_HIRES, FOUR_HIRES, ONE_HIRES], id="a second pass, larger"
        ),
        pytest.param(
            [EIGHT, ONE_LARGE, ONE_LARGE, ONE_LARGE, ONE_LARGE], id="sizes swept, not seen before"
        ),
        pytest.param(
            [after_a_load(ONE, start=0.0), after_a_load(ONE, 1.1, start=0.0), ONE, ONE, ONE],
            id="another checkpoint in between",
        ),
    ],
)
def test_seconds_left_hold_from_the_second_picture_on(batches: list[Batch]) -> None:
    """Within 20 percent, or the half second that is rounded away, at every look."""
    for true, estimated in looks(batches):
        assert estimated is not None
        assert estimated == pytest.approx(true, rel=0.2, abs=0.5)


def test_a_first_load_takes_nobody_knows_how_long() -> None:
    """And a later one as long as the last."""
    durations = Durations(lambda _: 8)
    line = Timeline(PLAIN, 8, 0.0, "demo")
    assert durations.left(line, 1.0) is None
    batch = after_a_load(EIGHT, start=0.0)
    line.times, line.steps = list(batch.steps), len(batch.steps)
    durations.learn(line, batch.seconds, batch.load)
    again = Timeline(PLAIN, 8, 10.0, "other")
    assert durations.left(again, 10.5) == pytest.approx(0.48 + EIGHT.seconds, abs=0.05)
    assert durations.left(again, 60.0) == pytest.approx(EIGHT.seconds - 0.2, abs=0.05)


def test_a_batch_of_one_step_says_little_of_others() -> None:
    """Nearly all of its time is encoding, decoding and writing, which many steps do not repeat."""
    durations = Durations(lambda _: 1)
    short = Batch(replace(PLAIN, steps=1), 1, (0.1,), 0.6)
    for batch in (ONE, short):
        line = Timeline(batch.request, batch.images, 0.0)
        line.times, line.steps = list(batch.steps), len(batch.steps)
        durations.learn(line, batch.seconds, 0.0)
    assert durations.of([(short.request, 1)]) == pytest.approx(short.seconds)
    assert durations.of([(LARGE, 1)]) == pytest.approx(ONE_LARGE.seconds, rel=0.2)


def test_what_is_remembered_does_not_grow_for_weeks() -> None:
    """Exact images are of one kind whatever their seeds are, and old kinds are forgotten."""
    durations = Durations(lambda request: 1)
    for seed in range(3):
        exact = replace(PLAIN, exact=True, seed=seed)
        durations.learn(Timeline(exact, 1, 0.0, steps=1, times=[1.0]), 2.0, 0.0)
    assert durations.of([(replace(PLAIN, exact=True, seed=9), 1)]) == pytest.approx(2.0)
    for width in range(8, 8 * 1000, 8):
        other = replace(PLAIN, width=width)
        durations.learn(Timeline(other, 1, 0.0, steps=1, times=[1.0]), 2.0, 0.0)
    assert len(durations._kinds) <= 500
