"""Engines on a cluster of two nodes: they make pictures, are lost, and others join."""

import threading
from hashlib import sha256
from pathlib import Path

import pytest

from picowatch.engine.process.ray import cluster_parts
from picowatch.engine.protocol import EngineLost, RgbPicture
from picowatch.errors import EngineDied, EngineStopped, RenderFailed
from picowatch.settings.values import RaySettings
from tests.digest_engine import digest_pixels
from tests.engine.ray.conftest import (
    HEAD,
    ROOT,
    SECOND,
    MakeExecutor,
    Nodes,
    held,
    join_threads,
    joined,
    node_of,
    on,
)
from tests.engine.ray.renderer import ENDLESS
from tests.engine.requests import PATIENCE, make, request
from tests.faults.faulty_engine import GO_FILE, PROCESSES_FILE, START_FILE
from tests.faults.test_engine_faults import is_running
from tests.house import wait_for

pytestmark = pytest.mark.heavy


@pytest.fixture
def executor(make_executor: MakeExecutor, nodes: Nodes) -> MakeExecutor:
    return lambda **settings: make_executor(address=nodes.address, **settings)


def test_every_node_renders_pictures(executor: MakeExecutor, nodes: Nodes, tmp_path: Path) -> None:
    """Steps and previews come in order. Start images travel with their batch, and then are gone."""
    digest = sha256(b"a picture").hexdigest()
    (tmp_path / "start-images").mkdir()
    (tmp_path / "start-images" / digest).write_bytes(b"a picture")
    start = {"image": "a.png", "image_hash": digest, "denoising_strength": 0.5, "resize": "crop"}
    engines = executor()
    assert not engines.engines()
    joined(engines, 2, {HEAD, SECOND})
    for node in (HEAD, SECOND):
        steps: list[tuple[int, int]] = []
        previews: list[RgbPicture] = []
        requested = request(node, steps=4, **start)
        noted = lambda now, steps=steps: steps.append((now.done, now.total))  # noqa: E731
        [picture] = on(engines, node).render([requested], noted, previews.append)
        assert (picture.node, picture.pixels) == (node, digest_pixels(requested))
        assert [step for step in steps if step[0]] == [(1, 4), (2, 4), (3, 4), (4, 4)]
        assert previews == [RgbPicture(8, 8, bytes(192))]
        assert picture.warnings == (digest,)
        assert make(on(engines, node), request())[0].warnings == ()
    assert not engines.trouble
    engines.close()
    join_threads()
    assert cluster_parts(RaySettings(address=nodes.address)) == "nodes: 2, with 0 GPU and 2 CPU"


def test_a_batch_fails_or_is_interrupted_and_the_engine_goes_on(executor: MakeExecutor) -> None:
    """The same as on one machine; the error names the node."""
    engines = executor()
    [engine] = joined(engines, 1)
    with pytest.raises(RenderFailed, match=f"{node_of(engine)}: The engine failed: Key"):
        make(engine, request("raises"))
    is_unneeded = threading.Event()
    interrupted = held(engine, ENDLESS, is_unneeded.is_set)
    is_unneeded.set()
    assert isinstance(interrupted.exception(PATIENCE), EngineStopped)
    make(engine, request())
    assert engines.engines() == (engine,)


def test_an_engine_or_node_that_is_lost_is_replaced(
    executor: MakeExecutor, nodes: Nodes, tmp_path: Path
) -> None:
    """A crash counts as an attempt, as on one machine; no image is at fault for a lost node."""
    engines = executor()
    joined(engines, 2, {HEAD, SECOND})
    kept = held(on(engines, HEAD), "waits")
    with pytest.raises(EngineDied, match=rf"{SECOND}: The engine crashed \(SIGSEGV\)") as caught:
        make(on(engines, SECOND), request("segfaults"))
    assert not isinstance(caught.value, EngineLost)
    make(on(engines, SECOND), request())
    [actor] = nodes.engines(SECOND)
    actor.kill()
    (tmp_path / "models" / GO_FILE).touch()
    assert kept.result(PATIENCE)
    wait_for(lambda: len(engines.engines()) == 1, "it left")
    joined(engines, 2, {HEAD, SECOND})
    lost = held(on(engines, SECOND), "hangs")
    nodes.kill(SECOND)
    assert isinstance(lost.exception(PATIENCE), EngineLost)
    nodes.add(SECOND)
    joined(engines, 2, {HEAD, SECOND})
    make(on(engines, SECOND), request())


def test_a_closed_engine_gives_its_place_back(executor: MakeExecutor) -> None:
    """A new one joins when wanted, but never more than the settings allow."""
    engines = executor(engines=1)
    engines.wanted = 2
    wait_for(engines.engines, "the first one")
    [first] = engines.engines()
    engines.wanted = 0
    first.close()
    assert not engines.engines()
    with pytest.raises(EngineLost):
        make(first, request())
    engines.wanted = 2
    wait_for(engines.engines, "the next one")
    assert len(engines.engines()) == 1


def test_what_hangs_in_native_code_ends_with_its_actor(
    executor: MakeExecutor, nodes: Nodes, tmp_path: Path
) -> None:
    """The engine's process is not Ray's, and would otherwise keep its GPU memory."""
    [engine] = joined(executor(engines=1), 1)
    hanging = held(engine, "hangs with the lock")
    [actor] = nodes.engines(node_of(engine))
    actor.kill()  # as the kernel's OOM killer does
    error = hanging.exception(PATIENCE)
    assert isinstance(error, EngineDied) and not isinstance(error, EngineLost)
    process = int((tmp_path / "models" / PROCESSES_FILE).read_text())
    wait_for(lambda: not is_running(process), "it ended")


def test_a_node_without_picowatch_is_not_used(
    executor: MakeExecutor, nodes: Nodes, tmp_path: Path
) -> None:
    """An engine is requested again later, in case it was repaired."""
    (tmp_path / "picowatch.py").touch()
    engines = executor()
    said = "a node is not used: ModuleNotFoundError: No module named 'picowatch"
    joined(engines, 2, {HEAD, SECOND})
    nodes.add("third", PYTHONPATH=f"{tmp_path}:{ROOT}")
    try:
        engines.wanted = 3
        wait_for(lambda: said in engines.trouble, said)
        assert len(engines.engines()) == 2
    finally:
        nodes.kill("third")


def test_a_node_where_no_engine_can_start_is_not_used(
    executor: MakeExecutor, tmp_path: Path
) -> None:
    """No image is at fault."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / START_FILE).write_text("import error")
    [engine] = joined(executor(engines=1), 1)
    with pytest.raises(EngineLost, match="is not used: The engine's libraries cannot be imported"):
        make(engine, request())


def test_a_cluster_without_room_says_so(executor: MakeExecutor) -> None:
    """Nothing is refused: others may end, or nodes come."""
    engines = executor(gpus_per_engine=1)
    engines.wanted = 1
    wait_for(lambda: "gpus_per_engine: 0" in engines.trouble, "it is reported")
