"""Some thousand actions by random users; `make meetings` plays many more."""

from collections import Counter

import pytest

from tests.meetings.play import play, script_of

SCRIPTS = 8
LENGTH = 60
IN_EACH_RUN, IN_ALL = 1, 15


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(number * SCRIPTS, marks=[pytest.mark.heavy] * (number >= IN_EACH_RUN))
        for number in range(IN_ALL)
    ],
)
def test_whatever_meets_each_image_is_rendered_once_or_answered_for(first: int) -> None:
    """The same scripts each time; a failure's seed goes to `python -m tests.meetings.run`."""
    counts: Counter[str] = Counter()
    found = {seed: play(script_of(seed, LENGTH), counts) for seed in range(first, first + SCRIPTS)}
    assert {seed: findings for seed, findings in found.items() if findings} == {}
    assert counts["pictures"] > 40
    assert counts["daemons"] > SCRIPTS
