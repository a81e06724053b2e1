"""Every way in, with bytes that hypothesis makes of good ones: a result, or the documented error.

`python -m tests.fuzz.run` gives the same targets millions of inputs, guided by coverage.
"""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.seeds import seeds, words
from tests.fuzz.targets import TARGETS


@st.composite
def damaged(draw: st.DrawFn, target: str) -> bytes:
    """A good input with pieces put in, cut out, or in another one's place."""
    good = st.sampled_from(seeds(target))
    content = draw(good)
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(content)))
        end = draw(st.sampled_from([start, start + 1, start + 8, len(content)]))
        piece = draw(st.sampled_from(words()) | st.binary(max_size=8) | good)
        content = content[:start] + piece + content[end:]
    return content


@pytest.mark.parametrize("target", TARGETS)
def test_bytes_from_strangers_are_a_result_or_the_documented_error(target: str) -> None:
    """The error has a text for people that names the place. Good bytes are tried as they are."""
    assert seeds(target)
    for seed in seeds(target):
        TARGETS[target](seed)

    @settings(suppress_health_check=list(HealthCheck))
    @given(damaged(target) | st.binary(max_size=200))
    def answered(content: bytes) -> None:
        TARGETS[target](content)

    answered()
