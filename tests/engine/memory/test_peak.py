"""The most memory that a batch took."""

from picowatch.engine.process.child import ChildEngine
from tests.engine.requests import make, request


def test_a_larger_batch_takes_more_memory(engine: ChildEngine) -> None:
    """It is measured for each batch, and its pictures say it."""
    small = make(engine, request(width=64, height=64, steps=1))
    four = (request(width=256, height=256, steps=1, seed=seed) for seed in range(1, 5))
    large = make(engine, *four)
    peaks = [image.peak_bytes or 0 for image in (*small, *large)]
    assert 50 << 20 < peaks[0] < peaks[1] < 64 << 30
    assert len(set(peaks[1:])) == 1
