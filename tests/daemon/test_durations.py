"""Seconds left, computed from earlier batches."""

from dataclasses import replace
from unittest.mock import Mock

import pytest

from picowatch.daemon.rendering import Durations, Rendering
from picowatch.settings import Settings
from tests.digest_engine import DigestEngine
from tests.metadata.requests import CORGI

SMALL = replace(CORGI, width=128, height=128, steps=10, hires=None)
LARGE = replace(SMALL, width=256)
OTHER = replace(SMALL, width=512)


def test_an_image_takes_the_mean_of_its_kind_or_of_all() -> None:
    """The seed does not matter; before the first picture nothing is known."""
    durations = Durations()
    assert durations.of([(SMALL, 1)]) is None
    durations.learn(SMALL, 2.0)
    durations.learn(LARGE, 10.0)
    assert durations.of([(replace(SMALL, seed=9), 3), (LARGE, 1)]) == 3 * 2 + 10
    assert durations.of([(replace(SMALL, exact=True, seed=8), 1)]) == 2
    assert durations.of([(OTHER, 2)]) == 2 * 6
    durations.learn(SMALL, 4.0)
    assert durations.of([(SMALL, 1)]) == 3


@pytest.mark.parametrize(
    ("loads", "times", "left"),
    [
        ("", [3.0], 5.0),
        ("", [100.0], 0.0),
        ("", [1.0, 2.0, 3.0, 4.0, 5.0, 5.0], 4.0),
        ("", [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3.0),
        ("", [*map(float, range(1, 11)), 90.0], 0.0),
        ("demo", [3.0], 8.0),
    ],
)
def test_a_batch_in_progress_is_counted_by_its_steps(
    loads: str, times: list[float], left: float
) -> None:
    """It takes eight seconds after loading, and has done ten steps at these times but the last."""
    one = batch(loads, times)
    for step in range(1, len(times)):
        one._on_step(step, 10)
    assert one.seconds_left(8.0) == pytest.approx(left)


def test_loading_is_no_part_of_what_a_batch_takes() -> None:
    """An engine that had to load may have had to start, too: all before the first step."""
    one = batch("demo", [7.0, 8.0])
    for step in (1, 2):
        one._on_step(step, 10)
    assert one.seconds(ended=16.0, load=2.0) == 10.0
    assert batch("", []).seconds(ended=16.0, load=2.0) == 14.0


def batch(loads: str, times: list[float]) -> Rendering:
    """Return a batch of ten steps that began at 0, and whose clock shows these times."""
    return Rendering(
        engine=DigestEngine(),
        batch=[Mock(request=SMALL)],
        loads=loads,
        began=0.0,
        settings=Settings(),
        on_preview=lambda _: None,
        is_requested=lambda: True,
        clock=iter([0.0, *times]).__next__,
    )
