"""Which engine takes which batch, so that checkpoints are loaded as seldom as they can be.

Pure: it looks at what waits and at the engines, and says who should take what.

- An engine without work takes what needs the checkpoint that it holds.
- What needs a checkpoint that no engine holds goes to the engine that loses least by loading it.
- What needs a checkpoint that only busy engines hold goes to engines that hold none. Those that
  hold another one leave a batch to each of the busy ones: to load it would take longer.
- The oldest image is passed over by a bounded number of batches, and for a bounded time; then the
  next engine takes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

# The oldest waiting image may be passed over by this many batches of each engine.
PASSES = 4
LONGEST_SECONDS = 60.0  # … and left to busy engines for this long while no batch is taken


@dataclass(frozen=True, slots=True)
class Demand:
    """A checkpoint that images need: how many wait, and how many go into one batch."""

    checkpoint: str
    waiting: int
    batch_size: int


@dataclass(frozen=True, slots=True)
class Seat:
    """An engine. `checkpoint` is what it used last, "" if it holds none.

    `idle`: it has no batch. `warm`: it is started. `used` orders engines by their last batch.
    """

    number: int
    checkpoint: str
    idle: bool
    warm: bool
    used: int


@dataclass(frozen=True, slots=True)
class Task:
    """What an engine should take: a batch of this checkpoint, of so many images at most."""

    checkpoint: str
    images: int


def plan(
    demands: Sequence[Demand], seats: Sequence[Seat], *, overdue: bool, leave: bool
) -> dict[int, Task]:
    """Tasks for idle engines, by their numbers; an engine that is not named waits.

    `demands` begin with that of the oldest image; `overdue`: it was passed over often enough.
    `leave`: what busy engines will take soon may be left to them.
    """
    idle = {seat.number: seat for seat in seats if seat.idle}
    chosen: dict[str, list[int]] = {demand.checkpoint: [] for demand in demands}
    if overdue and demands:
        _seat(demands[0], idle, chosen, keep=False)
    for demand in demands:
        for number in [n for n, seat in idle.items() if seat.checkpoint == demand.checkpoint]:
            if len(chosen[demand.checkpoint]) < demand.waiting:
                del idle[number]
                chosen[demand.checkpoint].append(number)
    holders = _busy_holders(seats)
    for demand in demands:
        batches = ceil(demand.waiting / demand.batch_size)
        left = batches - holders.get(demand.checkpoint, 0) if leave else batches
        while len(taken := chosen[demand.checkpoint]) < batches:
            if not _seat(demand, idle, chosen, keep=len(taken) >= left):
                break
    return {
        number: Task(demand.checkpoint, max(1, ceil(demand.waiting / len(numbers))))
        for demand in demands
        if (numbers := chosen[demand.checkpoint])
        for number in numbers
    }


def _seat(
    demand: Demand, idle: dict[int, Seat], chosen: dict[str, list[int]], *, keep: bool
) -> bool:
    """Give the demand one of the idle engines, if there is one; false if there is none.

    `keep`: none that holds another checkpoint.
    """
    fit = [seat for seat in idle.values() if not (keep and seat.checkpoint)]
    if not fit:
        return False
    best = min(fit, key=lambda seat: _loss(seat, demand.checkpoint))
    del idle[best.number]
    chosen[demand.checkpoint].append(best.number)
    return True


def _loss(seat: Seat, checkpoint: str) -> tuple[int, int, int]:
    """Orders engines by what it costs to give them this checkpoint.

    One that holds it; a started one that holds nothing; one that is still to be started; at last
    the one whose checkpoint was not used for longest.
    """
    if seat.checkpoint == checkpoint:
        return 0, seat.used, seat.number
    if not seat.checkpoint:
        return (1 if seat.warm else 2), 0, seat.number
    return 3, seat.used, seat.number


def _busy_holders(seats: Sequence[Seat]) -> dict[str, int]:
    holders: dict[str, int] = {}
    for seat in seats:
        if not seat.idle:
            holders[seat.checkpoint] = holders.get(seat.checkpoint, 0) + 1
    return holders


class Turns:
    """How often, and how long, the oldest waiting image was passed over."""

    def __init__(self) -> None:
        self._oldest: int | None = None
        self._since = 0.0
        self._passed = 0

    def are_over(self, oldest: int, engines: int, now: float) -> bool:
        """Whether this image, the oldest that waits, was passed over often or long enough.

        `now` is in seconds.
        """
        if oldest != self._oldest:
            self._oldest, self._since, self._passed = oldest, now, 0
        return self._passed >= PASSES * engines or now - self._since >= LONGEST_SECONDS

    def passed_over(self, now: float) -> None:
        """A batch was taken that the oldest image is not in."""
        self._passed += 1
        self._since = now
