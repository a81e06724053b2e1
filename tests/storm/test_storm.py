"""A short storm; `make storm` runs a long one."""

import random
from pathlib import Path

import pytest

from tests.storm.driver import storm, wrong_seeds
from tests.storm.user import Entry


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kills", [4, pytest.param(16, marks=pytest.mark.heavy)])
def test_a_short_storm_loses_nothing_and_makes_nothing_twice(tmp_path: Path, kills: int) -> None:
    """Half of the kills are of daemons, half of engines."""
    assert storm(tmp_path, kills, random.Random(4)) == []


@pytest.mark.heavy
@pytest.mark.timeout(600)
def test_a_storm_over_three_engines_loses_nothing_either(tmp_path: Path) -> None:
    """Images are in progress on several engines when the daemon dies."""
    assert storm(tmp_path, 8, random.Random(5), engines=3) == []


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        (Entry("a", 2, 5, 0), [5, 5]),
        (Entry("a", 2, 5, 0), [5, 7]),
        (Entry("a", 3, None, 0), [100, 104]),
        (Entry("a", 2, None, 0), [100, 100]),
    ],
)
def test_the_storm_sees_wrong_seeds(entry: Entry, found: list[int]) -> None:
    """Twice, strange, or drawn more than once."""
    assert list(wrong_seeds(entry, found))


def test_the_storm_accepts_right_seeds() -> None:
    """Across the wrap, and in any order."""
    assert not list(wrong_seeds(Entry("a", 3, None, 0), [1, 2**32 - 1, 0]))
    assert not list(wrong_seeds(Entry("a", 3, 2**32 - 1, 0), [1, 0, 2**32 - 1]))
