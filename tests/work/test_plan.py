"""Batches go where their checkpoint is, and nothing is queued for ever: simulated engines."""

import heapq
import random
from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picowatch.work.plan import (
    LONGEST_SECONDS,
    PASSES,
    SOON_SECONDS,
    EngineState,
    Gathering,
    Passes,
    choose,
)

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
    queue: dict[int, deque[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.queue = {checkpoint: deque() for checkpoint in range(self.checkpoints)}
        self.states = [EngineState(number, idle=True) for number in range(self.engines)]
        self.passes = Passes()
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
        """Until nothing is queued."""
        self._take()
        while self.busy:
            self.now, number = heapq.heappop(self.busy)
            self.states[number].idle = True
            self._take()
        assert not any(self.queue.values()), "engines rest, and images wait"

    def _take(self) -> None:
        """Each idle engine takes a batch, while images wait."""
        while any(self.queue.values()):
            idle = [engine for engine in self.states if engine.idle]
            if not idle:
                return
            oldest, needs = min((images[0], name) for name, images in self.queue.items() if images)
            engine, checkpoint = choose(
                idle[-1],
                idle,
                str(needs),
                overdue=self.passes.are_over(oldest, self.engines),
                is_queued=lambda name: bool(self.queue[int(name)]),
            )
            self._begin(engine, checkpoint, oldest)

    def _begin(self, engine: EngineState, checkpoint: str, oldest: int) -> None:
        queue = self.queue[int(checkpoint)]
        batch = [queue.popleft() for _ in range(min(BATCH, len(queue)))]
        assert batch, "an engine was sent for nothing"
        if oldest not in batch:
            self.passes.add()
            self.passed[oldest] = self.passed.get(oldest, 0) + 1
        switches = engine.checkpoint != checkpoint
        self.switches += switches
        self.batches += 1
        seconds = len(batch) * IMAGE_SECONDS * self.random.uniform(0.8, 1.2)
        heapq.heappush(self.busy, (self.now + seconds + LOAD_SECONDS * switches, engine.number))
        engine.idle, engine.warm, engine.used = False, True, self.batches
        engine.checkpoint = checkpoint


@pytest.mark.parametrize("at_once", [1, 5, 50])
def test_64_engines_load_20_checkpoints_seldom(at_once: int) -> None:
    """64 loads are the least; served in the order of saving, nearly every batch would be one."""
    farm = Farm(64, 20, seed=at_once)
    farm.save(20_000, at_once)
    farm.work()
    assert farm.switches <= 252
    assert farm.switches < farm.batches / 8
    # Never more, whoever saves what: then an engine that is free takes the oldest.
    assert max(farm.passed.values()) <= PASSES * 64


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
def test_everything_is_rendered_and_nothing_is_queued_for_ever(
    engines: int, checkpoints: int, images: int, at_once: int, seed: int
) -> None:
    """Whatever is queued, and however many engines there are."""
    farm = Farm(engines, checkpoints, seed)
    farm.save(images, at_once)
    farm.work()
    assert max(farm.passed.values(), default=0) <= PASSES * engines


def engine(number: int, checkpoint: str = "", *, warm: bool = True) -> EngineState:
    return EngineState(number, idle=True, warm=warm, checkpoint=checkpoint, used=number)


def chosen(engines: list[EngineState], queued: str, *, overdue: bool = False) -> tuple[int, str]:
    """The first engine claims; images that need these checkpoints are queued, the oldest first."""
    found, checkpoint = choose(
        engines[0], engines, queued[0], overdue=overdue, is_queued=lambda name: name in queued
    )
    return found.number, checkpoint


def test_an_idle_engine_that_holds_the_checkpoint_is_preferred() -> None:
    """Even if another one claims first."""
    assert chosen([engine(1, "b"), engine(2, "a")], "a") == (2, "a")


def test_a_started_engine_is_preferred_to_one_that_has_to_start() -> None:
    """And a new start to throwing out what another one holds."""
    cold, warm, holding = engine(1, warm=False), engine(2), engine(3, "b")
    assert chosen([cold, warm, holding], "a") == (2, "a")
    assert chosen([cold, holding], "a") == (1, "a")
    assert chosen([holding, cold], "a") == (1, "a")


def test_the_checkpoint_not_used_for_longest_is_given_up() -> None:
    """Whichever claims."""
    assert chosen([engine(3, "d"), engine(1, "b"), engine(2, "c")], "a") == (1, "a")


def test_an_engine_keeps_its_checkpoint_until_the_oldest_image_is_overdue() -> None:
    """Then the oldest image comes first."""
    assert chosen([engine(1, "b")], "ab") == (1, "b")
    assert chosen([engine(1, "b")], "ab", overdue=True) == (1, "a")


def test_the_oldest_image_is_passed_over_by_four_batches_of_each_engine() -> None:
    """The next image begins anew."""
    passes = Passes()
    for _ in range(2 * PASSES):
        assert not passes.are_over(7, engines=2)
        passes.add()
    assert passes.are_over(7, engines=2)
    assert not passes.are_over(8, engines=2)


def test_saves_that_settle_soon_are_waited_for() -> None:
    """Until none is left, or the next one is not soon."""
    gathering = Gathering()
    assert not gathering.goes_on(0.0)
    for settles_in, waits in ((SOON_SECONDS, True), (None, False), (0.0, True), (0.5, False)):
        gathering.look(10.0, settles_in)
        assert gathering.goes_on(10.0) is waits


def test_a_save_that_does_not_come_is_not_waited_for() -> None:
    """As a file that was renamed to another name meanwhile."""
    gathering = Gathering()
    gathering.look(10.0, SOON_SECONDS)
    assert not gathering.goes_on(10.0 + SOON_SECONDS)


def test_a_stream_of_saves_does_not_delay_for_ever() -> None:
    """A program that writes one after another for hours; after a pause it is waited for anew."""
    gathering, now = Gathering(), 10.0
    for _ in range(100):
        gathering.look(now, SOON_SECONDS / 2)
        assert gathering.goes_on(now) is (now < 10.0 + LONGEST_SECONDS)
        now += SOON_SECONDS / 4
    gathering.look(now, None)
    gathering.look(now, SOON_SECONDS / 2)
    assert gathering.goes_on(now)
