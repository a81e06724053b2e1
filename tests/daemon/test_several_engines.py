"""`executor: local:N`: several engines render one daemon's queue."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from picowatch.engine.process.child import LocalEngines
from picowatch.engine.protocol import EngineCannotStart, EngineLost, EngineOptions
from picowatch.errors import EngineDied
from tests.digest_engine import Batch, DigestEngine, fail_on_bad
from tests.fault_points import preceded_by, wrap
from tests.house import PATIENCE, House, wait_for


class Engines:
    """The engines of a house, in the order in which they were made."""

    def __init__(self, house: House) -> None:
        self.all: list[DigestEngine] = []
        self.before_batch: Callable[[DigestEngine, Batch], None] = lambda engine, batch: None
        house.make_engine = self._make

    def _make(self, options: EngineOptions) -> DigestEngine:
        engine = DigestEngine()
        engine.before_batch = lambda batch: self.before_batch(engine, batch)
        self.all.append(engine)
        assert options.ordinal == len(self.all) - 1
        return engine

    @contextmanager
    def held(self) -> Iterator[threading.Semaphore]:
        """Let every engine wait before its batches; each release lets one continue."""
        gate = threading.Semaphore(0)
        over = threading.Event()

        def wait(engine: DigestEngine, batch: Batch) -> None:
            while not over.is_set() and not gate.acquire(timeout=0.05):
                pass

        self.before_batch = wait
        yield gate
        over.set()

    def in_progress(self) -> list[int]:
        return sorted(sum(map(len, engine.batches)) for engine in self.all if engine.batches)


@pytest.fixture
def engines(house: House) -> Engines:
    return Engines(house)


def test_engines_work_at_once_and_share_a_short_queue(house: House, engines: Engines) -> None:
    """Each image is rendered once, and the status names all; of a long queue each takes a batch."""
    with engines.held() as gate, house.running(executor="local:3", batch_size=8):
        house.save("a.yaml", "prompt: one\nseed: 1\ncount: 8\n")
        wait_for(lambda: engines.in_progress() == [2, 3, 3], "a part each")
        wait_for(lambda: len(house.status()["engines"]) == 3, "all in the status")
        gate.release(3)
        wait_for(lambda: sum(row["images"] for row in house.status()["engines"]) == 8, "the sum")
        shown = house.status()["engines"]
        assert [(row["number"], row["checkpoint"]) for row in shown] == [
            (number, "demo") for number in (1, 2, 3)
        ]
        wait_for(lambda: len(house.listed()) == 8, "the pictures")
        assert sorted(house.seeds()) == [*range(1, 9)]
        house.save("b.yaml", "prompt: two\nseed: 1\ncount: 48\n")
        wait_for(lambda: engines.in_progress() == [10, 11, 11], "a batch each")


@pytest.mark.parametrize(
    ("number", "error", "times"),
    [
        (0, EngineDied("It was killed."), 1),
        (0, EngineLost("Its node is gone."), 7),
        (1, EngineCannotStart("There is no cuda:1."), 99),
    ],
)
def test_what_an_engine_leaves_undone_is_rendered_once(
    house: House, engines: Engines, number: int, error: Exception, times: int
) -> None:
    """The other one continues; a lost engine is never an image's fault."""
    left = [error] * times

    def die(engine: DigestEngine, batch: Batch) -> None:
        if engine is engines.all[number] and left:
            raise left.pop()

    engines.before_batch = die
    house.save("a.yaml", "prompt: one\nseed: 1\ncount: 8\n")
    assert house.once(executor="local:2", batch_size=2)
    assert sorted(house.seeds()) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert house.error("a.yaml") is None


def test_engines_join_and_leave_in_the_middle(
    house: House, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Like those of a cluster: a new one gets work, one that left gets none."""
    there = {0}
    monkeypatch.setattr(
        LocalEngines,
        "engines",
        lambda self: tuple(engine for n, engine in enumerate(engines.all) if n in there),
    )
    engines.before_batch = lambda engine, batch: fail_on_bad(batch)
    with house.running(executor="local:2"):
        house.save("a.txt", "bad\n")
        wait_for(lambda: house.status()["images"]["failed"] == 1, "the failure")
        there.symmetric_difference_update({0, 1})
        wait_for(lambda: [row["number"] for row in house.status()["engines"]] == [2], "the change")
        house.save("b.txt", "good\n")
        wait_for(lambda: house.status()["images"]["done"] == 1, "its picture")
    assert [request.prompt for [request] in engines.all[1].batches] == ["good"]


def test_the_pictures_of_a_batch_are_compressed_at_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    both = threading.Barrier(2, timeout=PATIENCE)
    together = preceded_by(lambda *_: both.wait())
    wrap("picowatch.outbox.encoding:How.encode", together, monkeypatch.setattr)
    house.save("corgi.yaml", "prompt: a corgi\ncount: 2\n")
    assert house.once(batch_size=2)
    assert len(house.pictures()) == 2
