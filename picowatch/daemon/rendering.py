"""One batch on its engine, whose steps are monitored, and which can be interrupted."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from picowatch.engine.protocol import Engine, OnPreview, RenderedImage
from picowatch.errors import EngineDied, EngineStopped
from picowatch.ledger.rows import QueuedImage
from picowatch.settings import Settings

log = logging.getLogger("picowatch")

MOST_KINDS = 500  # the latest ones, as a daemon runs for weeks
# picowatch looks at an engine each half second. A longer gap is its own: it was stopped, as by
# `docker pause`, and the engine with it.
FROZEN_SECONDS = 1.0
NEWEST_WEIGHT = 0.5  # of the newest batch in a mean: batches grow, machines get busy


@dataclass(kw_only=True, eq=False)
class Rendering:
    """A batch that an engine renders, until nobody requests any of its images any more.

    `is_requested` tells whether anybody does, `stopping` whether picowatch ends. `loads` names the
    checkpoint that the engine has to load, "" if none.
    """

    engine: Engine
    batch: list[QueuedImage]
    loads: str
    settings: Settings
    on_preview: OnPreview
    is_requested: Callable[[], bool]
    stopping: Callable[[], bool]
    clock: Callable[[], float]

    def __post_init__(self) -> None:
        self.first = self.batch[0]
        self.kind = self.first.request.batch_key
        self.steps = self.first.request.steps  # in all
        self._times: list[float] = []  # at which each step was done
        self._is_interrupted = False
        self._silent = 0.0  # seconds since the engine's last sign
        self._began = self._looked_at = self.clock()

    def pictures(self) -> list[RenderedImage]:
        """Render the batch and monitor the engine. Raises the reason if there are no pictures."""
        requests = [image.request for image in self.batch]
        return self.engine.render(requests, self._on_step, self.on_preview, self._look)

    # -- progress, read by other threads

    @property
    def step(self) -> int:
        """How many steps are done."""
        return len(self._times)

    @property
    def loading(self) -> str:
        """The checkpoint that the engine loads first, "" once a step is done."""
        return "" if self._times else self.loads

    @property
    def steps_per_second(self) -> float:
        times = self._times
        elapsed = times[-1] - times[0] if times else 0.0
        return round((len(times) - 1) / elapsed, 2) if elapsed > 0 else 0.0

    def seconds_left(self, whole: float) -> float:
        """Return the seconds until the batch is done, if it takes `whole` without loading."""
        now, times = self.clock(), self._times
        if not times:
            return whole if self.loads else max(0.0, whole - (now - self._began))
        done = len(times) / max(self.steps, len(times))
        return max(0.0, whole * (1 - done) - (now - times[-1]))

    # -- monitoring the engine

    def _look(self) -> bool:
        """Return whether nobody requests the batch any more.

        Raises EngineStopped if picowatch ends, and EngineDied if the engine has made no step for
        too long.
        """
        if self.stopping():
            raise EngineStopped("picowatch ends.")
        now = self.clock()
        self._silent += min(now - self._looked_at, FROZEN_SECONDS)
        self._looked_at = now
        if self._silent > (limit := self.settings.stall_seconds):
            raise EngineDied(
                f"The engine made no step for {limit:.0f} s and was ended as hung. "
                "If such images take that long, set stall_seconds higher."
            )
        if not self._is_interrupted and not self.is_requested():
            recipe = self.first.recipe
            log.info("%s: stopped: no image of its batch is requested any more", recipe)
            self._is_interrupted = True
        return self._is_interrupted

    def _on_step(self, step: int, steps: int) -> None:
        self._silent = 0.0
        if step:
            # The engine may begin again, using less memory.
            before = self._times if step > 1 else []
            self.steps, self._times = steps, [*before, self.clock()]


class Durations:
    """Mean seconds per image by kind, without loading. Workers add to them, the status reads."""

    def __init__(self) -> None:
        self._means: dict[str, float] = {}
        self._all: float | None = None

    def learn(self, kind: str, seconds: float) -> None:
        """Record how long an image of this kind took in a batch."""
        self._means[kind] = _mean(self._means.pop(kind, None), seconds)
        self._all = _mean(self._all, seconds)
        if len(self._means) > MOST_KINDS:
            del self._means[next(iter(self._means))]

    def of(self, kinds: Iterable[tuple[str, int]]) -> float | None:
        """Return the seconds for so many images of each kind; None before the first picture."""
        if self._all is None:
            return None
        return sum(count * self._means.get(kind, self._all) for kind, count in kinds)


def _mean(before: float | None, newest: float) -> float:
    if before is None:
        return newest
    return NEWEST_WEIGHT * newest + (1 - NEWEST_WEIGHT) * before
