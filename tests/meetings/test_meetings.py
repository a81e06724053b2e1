"""Some thousand actions by random users; `make meetings` plays many more."""

import re
from collections import Counter

import pytest

from tests.meetings.play import play, script_of

SCRIPTS = 20
LENGTH = 60
# What is known to be wrong, and is being fixed: renames over a recipe, renames of invalid ones.
KNOWN = re.compile(r"which was made anew|\.error\.txt is missing")


@pytest.mark.parametrize("first", range(0, 200, SCRIPTS))
def test_whatever_meets_each_image_is_made_once_or_answered_for(first: int) -> None:
    """The same scripts each time; a failure's seed goes to `python -m tests.meetings.run`."""
    counts: Counter[str] = Counter()
    found = {seed: play(script_of(seed, LENGTH), counts) for seed in range(first, first + SCRIPTS)}
    news = {seed: one for seed, one in found.items() if one and not any(map(KNOWN.search, one))}
    assert news == {}
    assert counts["pictures"] > 100
    assert counts["daemons"] > SCRIPTS
