"""How long images take, by what was rendered before."""

from collections.abc import Mapping
from typing import NamedTuple

MOST_KINDS = 500  # the latest ones, as a daemon runs for weeks
NEWEST_WEIGHT = 0.5  # of the newest batch in a mean: batches grow, machines get busy


class Left(NamedTuple):
    """The seconds until images are rendered, None if nothing is known of that.

    `is_rough`: for some of them, no image of their kind was rendered before.
    """

    seconds: float | None = None
    is_rough: bool = False


class Durations:
    """Mean seconds per image by batch key, without loading. Workers add to them, others read."""

    def __init__(self) -> None:
        self._means: dict[str, float] = {}
        self._all: float | None = None

    def learn(self, kind: str, seconds: float) -> None:
        """Record how long an image of this kind took in a batch."""
        self._means[kind] = _mean(self._means.pop(kind, None), seconds)
        self._all = _mean(self._all, seconds)
        if len(self._means) > MOST_KINDS:
            del self._means[next(iter(self._means))]

    def left(self, images: Mapping[str, float], engines: int) -> Left:
        """Return how long so many images of each kind take."""
        means, mean = self._means.copy(), self._all
        if mean is None or not images:
            return Left()
        seconds = sum(count * means.get(kind, mean) for kind, count in images.items())
        return Left(round(seconds / max(1, engines), 1), not images.keys() <= means.keys())


def _mean(before: float | None, newest: float) -> float:
    if before is None:
        return newest
    return NEWEST_WEIGHT * newest + (1 - NEWEST_WEIGHT) * before
