"""How long images take, learned from the batches before: what "40 s left" is worked out from.

Images of one kind (of one `batch_key`) take equally long, whatever their prompts and seeds are; the
mean of their seconds is kept. A kind that is not known yet takes as long as the mean of all.
"""

from collections.abc import Iterable
from dataclasses import replace

from picowatch.recipe.request import ImageRequest

NEWEST_WEIGHT = 0.5  # of the newest batch in a mean: batches grow, machines get busy
MOST_KINDS = 500  # the last ones: a daemon runs for weeks


class Durations:
    """Mean seconds of an image, loading apart. Workers add to it, the status reads it."""

    def __init__(self) -> None:
        self._means: dict[str, float] = {}  # by kind
        self._all: float | None = None

    def learn(self, request: ImageRequest, seconds: float) -> None:
        """Add what an image of a batch took."""
        kind = _kind(request)
        self._means[kind] = _mean(self._means.pop(kind, None), seconds)
        self._all = _mean(self._all, seconds)
        if len(self._means) > MOST_KINDS:
            del self._means[next(iter(self._means))]

    def of(self, images: Iterable[tuple[ImageRequest, int]]) -> float | None:
        """Return the seconds of so many images of each kind; None before the first picture."""
        if self._all is None:
            return None
        return sum(count * self._means.get(_kind(one), self._all) for one, count in images)


def _kind(request: ImageRequest) -> str:
    """Return what is equal for images that take equally long."""
    return replace(request, exact=False).batch_key


def _mean(before: float | None, newest: float) -> float:
    if before is None:
        return newest
    return NEWEST_WEIGHT * newest + (1 - NEWEST_WEIGHT) * before
