"""Engines on a cluster of two nodes: they make pictures, are lost, and others join."""

import os
import signal
import sys
import threading
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from picowatch.engine.cluster.executor import RayEngines
from picowatch.engine.protocol import Engine, EngineLost, Preview
from picowatch.errors import EngineDied, EngineStopped
from tests.digest_engine import digest_pixels
from tests.engine.cluster.conftest import HEAD, SECOND, MakeExecutor, is_running, joined, on
from tests.engine.cluster.engine import WAIT_FOR
from tests.engine.cluster.nodes import Nodes
from tests.engine.requests import PATIENCE, ignore_steps, make, request
from tests.house import wait_for

pytestmark = pytest.mark.heavy

THIRD = "third"


class Held:
    """A batch that is in the middle of its work until it is let go."""

    def __init__(self, engine: Engine, folder: Path, name: str = "go") -> None:
        self._path = folder / name
        self._pids = self._path.with_suffix(".pids")
        self.request = request(f"{WAIT_FOR}{self._path}")
        self.future = engine.render([self.request], ignore_steps)
        wait_for(lambda: self._pids.exists() and self._pids.read_text(), "the batch begins")
        self.process, self.host = map(int, self._pids.read_text().split())

    def let_go(self) -> None:
        self._path.touch()


def driver_of_this_process() -> int:
    """The process id of the executor's driver."""
    [driver] = (
        process
        for process in psutil.Process().children()
        if "driver_main" in " ".join(process.cmdline())
    )
    return int(driver.pid)


def test_every_node_renders_pictures(make_executor: MakeExecutor) -> None:
    """Each says where it was rendered, and nothing of Ray is in the daemon."""
    executor = make_executor()
    assert not executor.engines()
    joined(executor, 2, {HEAD, SECOND})
    for node in (HEAD, SECOND):
        requested = request(node)
        [picture] = make(on(executor, node), requested)
        assert (picture.node, picture.pixels) == (node, digest_pixels(requested))
    assert not executor.trouble()
    assert "ray" not in sys.modules


def test_steps_and_previews_are_passed_on(make_executor: MakeExecutor) -> None:
    """In their order, and all of them before the pictures."""
    [engine] = joined(make_executor(), 1)
    steps: list[tuple[int, int]] = []
    previews: list[Preview] = []
    on_step = lambda *step: steps.append(step)  # noqa: E731
    engine.render([request(steps=4)], on_step, 0, previews.append).result(PATIENCE)
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert previews == [Preview(8, 8, bytes(192))]


def test_a_batch_is_interrupted_and_the_engine_goes_on(
    make_executor: MakeExecutor, tmp_path: Path
) -> None:
    """As on one machine."""
    executor = make_executor()
    [engine] = joined(executor, 1)
    held = Held(engine, tmp_path)
    engine.interrupt()
    assert isinstance(held.future.exception(PATIENCE), EngineStopped)
    make(engine, request())
    assert executor.engines() == (engine,)


def test_a_native_crash_takes_its_batch_alone(make_executor: MakeExecutor) -> None:
    """The engine's process is started again on the same node."""
    [engine] = joined(make_executor(), 1)
    make(engine, request())
    with pytest.raises(EngineDied, match="SIGSEGV") as caught:
        make(engine, request("crash"))
    assert not isinstance(caught.value, EngineLost)
    make(engine, request())


def test_an_actor_that_is_killed_is_replaced(make_executor: MakeExecutor, tmp_path: Path) -> None:
    """Its batch is lost, that of the other node is not."""
    executor = make_executor()
    joined(executor, 2, {HEAD, SECOND})
    lost = Held(on(executor, SECOND), tmp_path, "lost")
    kept = Held(on(executor, HEAD), tmp_path, "kept")
    os.kill(lost.host, signal.SIGKILL)
    assert isinstance(lost.future.exception(PATIENCE), EngineLost)
    wait_for(lambda: not is_running(lost.process), "its engine ends with it")
    kept.let_go()
    assert kept.future.result(PATIENCE)
    joined(executor, 2, {HEAD, SECOND})
    [again] = make(on(executor, SECOND), request())
    assert again.node == SECOND


def test_a_node_that_dies_is_left_and_one_that_comes_is_used(
    make_executor: MakeExecutor, nodes: Nodes, tmp_path: Path
) -> None:
    """In the middle of a batch."""
    nodes.add(THIRD)
    executor = make_executor()
    joined(executor, 3, {HEAD, SECOND, THIRD})
    lost = Held(on(executor, THIRD), tmp_path)
    nodes.kill(THIRD)
    error = lost.future.exception(PATIENCE)
    assert isinstance(error, EngineLost)
    wait_for(lambda: len(executor.engines()) == 2, "it left")
    nodes.add("fourth")
    try:
        joined(executor, 3, {HEAD, SECOND, "fourth"})
        make(on(executor, "fourth"), request())
    finally:
        nodes.kill("fourth")


def test_a_closed_engine_gives_its_place_back(make_executor: MakeExecutor) -> None:
    """To others on the cluster; and there is a new one when one is wanted."""
    executor, other = make_executor(), make_executor()
    first, _ = joined(executor, 2)
    other.want(1)
    first.close()
    assert first not in executor.engines()
    executor.want(1)
    wait_for(other.engines, "another daemon has the place")
    error = first.render([request()], ignore_steps).exception(PATIENCE)
    assert isinstance(error, EngineLost)


def test_what_is_not_wanted_is_not_requested_any_more(make_executor: MakeExecutor) -> None:
    """A pending actor makes a cluster grow."""
    executor, other = make_executor(), make_executor()
    joined(executor, 2)
    executor.want(5)
    executor.want(0)
    assert len(executor.engines()) == 2  # they may be wanted again in a moment
    for engine in executor.engines():
        engine.close()
    joined(other, 2)
    assert not executor.engines()


def test_a_fixed_number_is_all_there_at_once(make_executor: MakeExecutor) -> None:
    """However few have work."""
    executor = make_executor(engines=2)
    executor.want(1)
    wait_for(lambda: len(executor.engines()) == 2, "both")


def test_a_driver_that_dies_is_started_again(make_executor: MakeExecutor, tmp_path: Path) -> None:
    """The cluster's connection was lost: so is what was in progress, and its engines end."""
    executor = make_executor()
    [engine] = joined(executor, 1)
    held = Held(engine, tmp_path)
    os.kill(driver_of_this_process(), signal.SIGKILL)
    assert isinstance(held.future.exception(PATIENCE), EngineLost)
    assert engine not in executor.engines()
    wait_for(lambda: "connection" in executor.trouble(), "it is reported")
    wait_for(lambda: not is_running(held.process), "no engine works for nobody")
    [again] = joined(executor, 1)
    make(again, request())
    wait_for(lambda: not executor.trouble(), "all is well again")


def test_a_head_that_does_not_answer_is_reported_and_given_up(
    make_executor: MakeExecutor, nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its engines are lost then, and there are others once it answers again."""
    monkeypatch.setattr("picowatch.engine.cluster.executor._SILENT_SECONDS", 1.0)
    monkeypatch.setattr("picowatch.engine.cluster.executor._AWAY_SECONDS", 4.0)
    executor = make_executor()
    [engine] = joined(executor, 1)
    held = Held(engine, tmp_path)
    nodes.suspend_head()
    try:
        wait_for(lambda: "does not answer" in executor.trouble(), "it is reported")
        assert executor.engines() == (engine,)
        assert isinstance(held.future.exception(PATIENCE), EngineLost)
        wait_for(lambda: "no longer answers" in executor.trouble(), "it is given up")
    finally:
        nodes.resume_head()
    wait_for(lambda: not is_running(held.process), "no engine works for nobody")
    [again] = joined(executor, 1)
    make(again, request())


def test_closing_ends_everything_at_once(make_executor: MakeExecutor, tmp_path: Path) -> None:
    """In the middle of a batch."""
    executor: RayEngines = make_executor()
    [engine] = joined(executor, 1)
    held = Held(engine, tmp_path)
    closing = threading.Thread(target=executor.close)
    closing.start()
    assert isinstance(held.future.exception(2), EngineStopped)
    closing.join(2)
    assert not closing.is_alive()
    wait_for(lambda: not is_running(held.process), "its engine ends")
    wait_for(lambda: not is_running(held.host), "its host ends")
