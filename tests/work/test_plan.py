"""Batches go where their checkpoint is, and nothing waits for ever: simulated engines."""

import heapq
import random
from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picowatch.work.plan import LONGEST_SECONDS, PASSES, Demand, Seat, Turns, plan

BATCH = 8
IMAGE_SECONDS = 0.1
LOAD_SECONDS = 3.0


@dataclass
class Farm:
    """Engines that take from a queue of images, each of which needs a checkpoint."""

    engines: int
    checkpoints: int
    seed: int
    now: float = 0.0
    switches: int = 0
    batches: int = 0
    most_passed: int = 0
    queue: dict[int, deque[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.queue = {checkpoint: deque() for checkpoint in range(self.checkpoints)}
        self.seats = [Seat(number, "", True, True, 0) for number in range(self.engines)]
        self.turns = Turns()
        self.busy: list[tuple[float, int]] = []  # when which engine will have ended its batch
        self.passed: dict[int, int] = {}

    def save(self, images: int, at_once: int) -> None:
        """So many images arrive, up to `at_once` of one checkpoint after each other."""
        image = 0
        while image < images:
            checkpoint = self.random.randrange(self.checkpoints)
            for _ in range(self.random.randint(1, at_once)):
                self.queue[checkpoint].append(image)
                image += 1

    def work(self) -> None:
        """Until nothing waits."""
        self._take()
        while self.busy:
            self.now, number = heapq.heappop(self.busy)
            seat = self.seats[number]
            self.seats[number] = Seat(number, seat.checkpoint, True, True, seat.used)
            self._take()
        assert not any(self.queue.values()), "engines rest, and images wait"

    def _take(self) -> None:
        waiting = {checkpoint: images for checkpoint, images in self.queue.items() if images}
        if not waiting:
            return
        order = sorted(waiting, key=lambda checkpoint: waiting[checkpoint][0])
        oldest = waiting[order[0]][0]
        tasks = plan(
            [Demand(str(one), len(waiting[one]), BATCH) for one in order],
            self.seats,
            overdue=self.turns.are_over(oldest, self.engines, self.now),
            leave=True,
        )
        for number, task in tasks.items():
            self._begin(number, int(task.checkpoint), min(BATCH, task.images), oldest)

    def _begin(self, number: int, checkpoint: int, images: int, oldest: int) -> None:
        queue = self.queue[checkpoint]
        batch = [queue.popleft() for _ in range(min(images, len(queue)))]
        assert batch, "an engine was sent for nothing"
        if oldest not in batch:
            self.turns.passed_over(self.now)
            self.passed[oldest] = self.passed.get(oldest, 0) + 1
        seat = self.seats[number]
        switches = seat.checkpoint != str(checkpoint)
        self.switches += switches
        self.batches += 1
        seconds = len(batch) * IMAGE_SECONDS * self.random.uniform(0.8, 1.2)
        heapq.heappush(self.busy, (self.now + seconds + LOAD_SECONDS * switches, number))
        self.seats[number] = Seat(number, str(checkpoint), False, True, self.batches)


@pytest.mark.parametrize("at_once", [1, 5, 50])
def test_64_engines_load_20_checkpoints_seldom(at_once: int) -> None:
    """64 loads are the least; served in the order of saving, nearly every batch would be one."""
    farm = Farm(64, 20, seed=at_once)
    farm.save(20_000, at_once)
    farm.work()
    assert farm.switches <= 4 * 64
    assert farm.switches < farm.batches / 8
    # Never more, whoever saves what: then an engine that is free takes the oldest.
    assert max(farm.passed.values()) <= (PASSES + 1) * 64


def test_two_engines_and_two_checkpoints_by_turns() -> None:
    """Each keeps its own, but for the turns of the oldest image at the end."""
    farm = Farm(2, 2, seed=1)
    farm.save(1_000, 1)
    farm.work()
    assert farm.switches <= 8
    assert farm.batches <= 1_000 / BATCH + 8


@given(
    engines=st.integers(1, 9),
    checkpoints=st.integers(1, 7),
    images=st.integers(1, 200),
    at_once=st.integers(1, 30),
    seed=st.integers(0, 1000),
)
def test_everything_is_made_and_nothing_waits_for_ever(
    engines: int, checkpoints: int, images: int, at_once: int, seed: int
) -> None:
    """Whatever waits, and however many engines there are."""
    farm = Farm(engines, checkpoints, seed)
    farm.save(images, at_once)
    farm.work()
    assert max(farm.passed.values(), default=0) <= (PASSES + 1) * engines


def seat(number: int, checkpoint: str = "", *, idle: bool = True, warm: bool = True) -> Seat:
    return Seat(number, checkpoint, idle, warm, used=number)


def test_an_idle_engine_that_holds_the_checkpoint_is_preferred() -> None:
    """Even if another one asks first."""
    tasks = plan([Demand("a", 1, 8)], [seat(1, "b"), seat(2, "a")], overdue=False, leave=True)
    assert [*tasks] == [2]


def test_a_started_engine_is_preferred_to_one_that_has_to_start() -> None:
    """And a new start to throwing out what another one holds."""
    cold, warm, holding = seat(1, warm=False), seat(2), seat(3, "b")
    demand = [Demand("a", 1, 8)]
    assert [*plan(demand, [cold, warm, holding], overdue=False, leave=True)] == [2]
    assert [*plan(demand, [cold, holding], overdue=False, leave=True)] == [1]


def test_the_last_batch_is_left_to_the_engine_that_holds_its_checkpoint() -> None:
    """It will be through before another one has loaded it; two batches are shared."""
    seats = [seat(1, "a", idle=False), seat(2, "b")]
    assert plan([Demand("a", 8, 8)], seats, overdue=False, leave=True) == {}
    assert [*plan([Demand("a", 9, 8)], seats, overdue=False, leave=True)] == [2]
    assert [*plan([Demand("a", 8, 8)], seats, overdue=False, leave=False)] == [2]
    assert [*plan([Demand("a", 8, 8)], seats, overdue=True, leave=True)] == [2]


def test_an_engine_that_holds_nothing_takes_what_a_busy_one_could() -> None:
    """A second GPU does not stand still while two pictures are to be made."""
    seats = [seat(1, "a", idle=False), seat(2, warm=False)]
    assert [*plan([Demand("a", 1, 8)], seats, overdue=False, leave=True)] == [2]


def test_engines_that_hold_the_checkpoint_share_a_short_queue() -> None:
    """Two that would rest otherwise take half each."""
    tasks = plan([Demand("a", 8, 8)], [seat(1, "a"), seat(2, "a")], overdue=False, leave=True)
    assert {number: task.images for number, task in tasks.items()} == {1: 4, 2: 4}


def test_what_is_left_to_an_engine_that_hangs_is_taken_after_a_while() -> None:
    """The oldest image may be left alone for a bounded time."""
    turns = Turns()
    assert not turns.are_over(7, engines=2, now=100.0)
    assert not turns.are_over(7, engines=2, now=99.0 + LONGEST_SECONDS)
    assert turns.are_over(7, engines=2, now=100.0 + LONGEST_SECONDS)
    assert not turns.are_over(8, engines=2, now=100.0 + LONGEST_SECONDS)
