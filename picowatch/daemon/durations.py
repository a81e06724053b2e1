"""Batches in progress, and how long images take, by what was rendered before."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from picowatch.ledger.rows import QueuedImage

NEWEST_WEIGHT = 0.5  # of the newest batch in a mean: batches grow, machines get busy


@dataclass(eq=False)
class Rendering:
    """A batch in progress, as its worker sees it and other threads read it.

    `loads` names the checkpoint that the engine has to load first, "" if none.
    """

    batch: list[QueuedImage]
    loads: str
    steps: int  # in all
    step_times: list[float] = field(default_factory=list)
    silent: float = 0.0  # seconds since the engine's last sign
    looked_at: float = field(default_factory=time.monotonic)
    is_interrupted: bool = False

    @property
    def kind(self) -> str:
        return self.batch[0].request.batch_key

    @property
    def step(self) -> int:
        """How many steps are done."""
        return len(self.step_times)

    @property
    def loading(self) -> str:
        """The checkpoint that is loaded, "" once a step is done."""
        return "" if self.step_times else self.loads

    @property
    def images_left(self) -> float:
        """How many images still have to be rendered, with fractions."""
        return len(self.batch) * (1 - self.step / max(1, self.steps, self.step))

    @property
    def steps_per_second(self) -> float:
        times = self.step_times
        elapsed = times[-1] - times[0] if times else 0.0
        return round((len(times) - 1) / elapsed, 2) if elapsed > 0 else 0.0


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
        self._means[kind] = _mean(self._means.get(kind), seconds)
        self._all = _mean(self._all, seconds)

    def left(self, images: Mapping[str, float], engines: int) -> Left:
        """Return how long so many images of each kind take."""
        means, mean = self._means, self._all
        if mean is None or not images:
            return Left()
        seconds = sum(count * means.get(kind, mean) for kind, count in images.items())
        return Left(round(seconds / max(1, engines), 1), not images.keys() <= means.keys())


def _mean(before: float | None, newest: float) -> float:
    if before is None:
        return newest
    return NEWEST_WEIGHT * newest + (1 - NEWEST_WEIGHT) * before
