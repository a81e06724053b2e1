"""How long images take, learned from the batches before: what "40 s left" is worked out from.

Images of one kind (of one `batch_key`) take equally long, whatever their prompts and seeds are; the
mean of their seconds is kept. A kind that is not known yet takes as long as the mean of all.
Loading a checkpoint is counted apart.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from picowatch.recipe.request import ImageRequest

NEWEST_WEIGHT = 0.5  # of the newest batch in a mean: batches grow, machines get busy
MOST_KINDS = 500  # the last ones: a daemon runs for weeks


@dataclass(slots=True)
class Timeline:
    """A batch in progress. Times are those of one monotonic clock.

    `loads` is the checkpoint that the engine did not hold, "" if it did. `began` may be the end of
    the batch before: what lies between costs time, too.
    """

    request: ImageRequest
    images: int
    began: float
    loads: str = ""
    steps: int = 0  # in all; 0 before the first one
    times: list[float] = field(default_factory=list)  # at which each step was done


class Durations:
    """Mean seconds of an image. Workers add to it, the status reads it."""

    def __init__(self) -> None:
        self._means: dict[str, float] = {}  # by kind
        self._all: float | None = None
        self._loads: dict[str, float] = {}  # by the hash of the checkpoint

    def learn(self, batch: Timeline, ended: float, load: float) -> None:
        """Add a batch that succeeded; the engine loaded for `load` seconds of it.

        Where it had to load, it may have had to start, too: what came before the first step.
        """
        if batch.loads and len(batch.times) > 1:
            first, second = batch.times[:2]
            load = max(load, first - batch.began - (second - first))
        if load:
            self._loads[batch.request.checkpoint_hash] = load
        seconds = max(0.0, ended - batch.began - load) / batch.images
        kind = _kind(batch.request)
        self._means[kind] = _mean(self._means.pop(kind, None), seconds)
        self._all = _mean(self._all, seconds)
        if len(self._means) > MOST_KINDS:
            del self._means[next(iter(self._means))]

    def of(self, images: Iterable[tuple[ImageRequest, int]]) -> float | None:
        """Return the seconds of so many images of each kind; None before the first picture."""
        if self._all is None:
            return None
        return sum(count * self._means.get(_kind(one), self._all) for one, count in images)

    def left(self, batch: Timeline, now: float) -> float | None:
        """Return the seconds until a batch in progress is done; None before the first picture."""
        whole = self.of([(batch.request, batch.images)])
        if whole is None:
            return None
        if not batch.times:
            load = self._loads.get(batch.request.checkpoint_hash, 0.0) if batch.loads else 0.0
            return max(load + whole - (now - batch.began), 0.0)
        done = len(batch.times) / max(batch.steps, len(batch.times))
        return max(0.0, whole * (1 - done) - (now - batch.times[-1]))


def _kind(request: ImageRequest) -> str:
    """Return what is equal for images that take equally long."""
    return replace(request, exact=False).batch_key


def _mean(before: float | None, newest: float) -> float:
    if before is None:
        return newest
    return NEWEST_WEIGHT * newest + (1 - NEWEST_WEIGHT) * before
