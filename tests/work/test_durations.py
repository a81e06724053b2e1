"""Seconds left, worked out from the batches before."""

from dataclasses import replace

import pytest

from picowatch.work.durations import MOST_KINDS, Durations, Timeline
from tests.metadata.requests import CORGI

SMALL = replace(CORGI, width=128, height=128, steps=10, hires=None)
LARGE = replace(SMALL, width=256)
OTHER = replace(SMALL, width=512)


def batch(request: object = SMALL, images: int = 4, loads: str = "", done: int = 0) -> Timeline:
    """A batch that began at 0, with a step done each second."""
    times = [float(number) for number in range(1, done + 1)]
    return Timeline(request, images, 0.0, loads, 10, times)  # type: ignore[arg-type]


def test_an_image_takes_the_mean_of_its_kind_or_of_all() -> None:
    """Whatever its seed is; nothing is known before the first picture, and old kinds are forgot."""
    durations = Durations()
    assert durations.of([(SMALL, 1)]) is None
    assert durations.left(batch(), 1.0) is None
    durations.learn(batch(SMALL), 8.0, 0.0)
    durations.learn(batch(LARGE, images=1), 10.0, 0.0)
    assert durations.of([(replace(SMALL, seed=9), 3), (LARGE, 1)]) == 3 * 2 + 10
    assert durations.of([(replace(SMALL, exact=True, seed=8), 1)]) == 2
    assert durations.of([(OTHER, 2)]) == 2 * 6
    durations.learn(batch(SMALL), 16.0, 0.0)
    assert durations.of([(SMALL, 1)]) == 3
    for width in range(8, 8 * (MOST_KINDS + 1), 8):
        durations.learn(batch(replace(SMALL, width=width, height=8)), 400.0, 0.0)
    assert durations.of([(SMALL, 1)]) == 100, "as of all that are remembered"


@pytest.mark.parametrize(
    ("one", "now", "left"),
    [
        (batch(), 3.0, 5.0),
        (batch(), 100.0, 0.0),
        (batch(done=5), 5.0, 4.0),
        (batch(done=5), 6.0, 3.0),
        (batch(done=10), 90.0, 0.0),
        (batch(loads="demo"), 3.0, 12.0),
    ],
)
def test_a_batch_in_progress_is_counted_by_its_steps(
    one: Timeline, now: float, left: float
) -> None:
    """Loading a checkpoint, or starting an engine, is seen once and counted apart."""
    durations = Durations()
    durations.learn(batch(loads="demo"), 8.0 + 7.0, 7.0)
    assert durations.left(one, now) == pytest.approx(left)
