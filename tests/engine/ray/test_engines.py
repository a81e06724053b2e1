"""Engines on a cluster of two nodes: they make pictures, are lost, and others join."""

from hashlib import sha256
from pathlib import Path

import pytest

from picowatch.engine.protocol import EngineLost, Preview
from picowatch.engine.ray import cluster_parts
from picowatch.errors import EngineDied, EngineStopped, RenderFailed
from picowatch.recipe.request import LoraUse
from picowatch.settings import RaySettings
from tests.catalog.files import kohya_lora_shapes, write_model
from tests.digest_engine import digest_pixels
from tests.engine.ray.conftest import (
    HEAD,
    ROOT,
    SECOND,
    Held,
    MakeExecutor,
    Nodes,
    has_ended,
    join_threads,
    joined,
    on,
)
from tests.engine.ray.renderer import HANG_AT
from tests.engine.requests import PATIENCE, make, request
from tests.house import wait_for

pytestmark = pytest.mark.heavy


@pytest.fixture
def executor(make_executor: MakeExecutor, nodes: Nodes) -> MakeExecutor:
    """Makes executors on the cluster."""
    return lambda **settings: make_executor(address=nodes.address, **settings)


def test_every_node_renders_pictures(executor: MakeExecutor, nodes: Nodes, tmp_path: Path) -> None:
    """Each says where; steps and previews come in their order, before the pictures.

    Start images travel with their batch, and are gone with the next one.
    """
    digest = sha256(b"a picture").hexdigest()
    (tmp_path / "start-images").mkdir()
    (tmp_path / "start-images" / digest).write_bytes(b"a picture")
    start = {"image": "a.png", "image_hash": digest, "denoising_strength": 0.5, "resize": "crop"}
    engines = executor()
    assert not engines.engines()
    joined(engines, 2, {HEAD, SECOND})
    for node in (HEAD, SECOND):
        steps: list[tuple[int, int]] = []
        previews: list[Preview] = []
        requested = request(node, steps=4, **start)
        noted = lambda *step, steps=steps: steps.append(step)  # noqa: E731
        future = on(engines, node).render([requested], noted, previews.append)
        [picture] = future.result(PATIENCE)
        assert (picture.node, picture.pixels) == (node, digest_pixels(requested))
        assert [step for step in steps if step[0]] == [(1, 4), (2, 4), (3, 4), (4, 4)]
        assert previews == [Preview(8, 8, bytes(192))]
        assert picture.warnings == (digest,)
        assert make(on(engines, node), request())[0].warnings == ()
    assert not engines.trouble()
    engines.close()
    join_threads()
    found = cluster_parts(RaySettings(address=nodes.address))
    assert found == "nodes: 2, with 0 GPU and 2 CPU"


def test_a_batch_is_interrupted_and_the_engine_goes_on(
    executor: MakeExecutor, tmp_path: Path
) -> None:
    """As on one machine."""
    engines = executor()
    [engine] = joined(engines, 1)
    held = Held(engine, tmp_path)
    engine.interrupt()
    assert isinstance(held.future.exception(PATIENCE), EngineStopped)
    make(engine, request())
    assert engines.engines() == (engine,)


def test_an_engine_that_crashes_is_replaced(
    executor: MakeExecutor, nodes: Nodes, tmp_path: Path
) -> None:
    """Its batch counts as an attempt, as on one machine; that of the other node is not lost."""
    engines = executor()
    joined(engines, 2, {HEAD, SECOND})
    kept = Held(on(engines, HEAD), tmp_path)
    with pytest.raises(EngineDied, match=rf"{SECOND}: The engine crashed \(SIGSEGV\)") as caught:
        make(on(engines, SECOND), request("crash"))
    assert not isinstance(caught.value, EngineLost)
    make(on(engines, SECOND), request())
    [actor] = nodes.engines(SECOND)
    actor.kill()
    kept.let_go()
    assert kept.future.result(PATIENCE)
    wait_for(lambda: len(engines.engines()) == 1, "it left")
    joined(engines, 2, {HEAD, SECOND})
    make(on(engines, SECOND), request())


def test_a_node_that_dies_is_left_and_one_that_comes_is_used(
    executor: MakeExecutor, nodes: Nodes, tmp_path: Path
) -> None:
    """In the middle of a batch, which no image is at fault for."""
    engines = executor()
    joined(engines, 2, {HEAD, SECOND})
    lost = Held(on(engines, SECOND), tmp_path)
    nodes.kill(SECOND)
    error = lost.future.exception(PATIENCE)
    assert isinstance(error, EngineLost), error
    wait_for(lambda: len(engines.engines()) == 1, "it left")
    nodes.add(SECOND)
    joined(engines, 2, {HEAD, SECOND})


def test_a_closed_engine_gives_its_place_back(executor: MakeExecutor) -> None:
    """And there is a new one when one is wanted; never more than the settings allow."""
    engines = executor(engines=1)
    engines.want(2)
    wait_for(engines.engines, "the first one")
    [first] = engines.engines()
    engines.want(0)
    first.close()
    assert not engines.engines()
    assert isinstance(first.render([request()], print).exception(PATIENCE), EngineLost)
    engines.want(2)
    wait_for(engines.engines, "the next one")
    assert len(engines.engines()) == 1


def test_what_hangs_in_native_code_ends_with_its_actor(
    executor: MakeExecutor, nodes: Nodes, tmp_path: Path
) -> None:
    """The engine's process is not Ray's, and would keep its GPU's memory."""
    [engine] = joined(executor(engines=1), 1)
    held = Held(engine, tmp_path, prompt=HANG_AT)
    [actor] = nodes.engines(engine.describe()["node"])
    actor.kill()  # as the kernel's OOM killer does
    error = held.future.exception(PATIENCE)
    assert isinstance(error, EngineDied) and not isinstance(error, EngineLost)
    wait_for(lambda: has_ended(held.process), "it ended")


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("picowatch.py", "", "a node is not used: ModuleNotFoundError: No module named 'picowatch"),
        (
            *("diffusers-9.dist-info/METADATA", "Name: diffusers\nVersion: 9"),
            "third is not used: diffusers is 9 there and ",
        ),
    ],
)
def test_a_node_without_picowatch_or_with_other_libraries_is_not_used(
    executor: MakeExecutor, nodes: Nodes, tmp_path: Path, file: str, content: str, said: str
) -> None:
    """Its pictures would differ. An engine is requested again later, in case it was repaired."""
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(content)
    engines = executor()
    joined(engines, 2, {HEAD, SECOND})
    nodes.add("third", PYTHONPATH=f"{tmp_path}:{ROOT}")
    try:
        engines.want(3)
        wait_for(lambda: said in engines.trouble(), said)
        assert len(engines.engines()) == 2
    finally:
        nodes.kill("third")


def test_a_node_that_lacks_a_model_is_named_and_not_used(
    executor: MakeExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked again after a pause. What this machine lacks, too, fails its image."""
    monkeypatch.setattr("picowatch.engine.ray._PAUSE_SECONDS", 0)
    path = write_model(tmp_path / "models/loras/style.safetensors", kohya_lora_shapes())
    style = LoraUse("style", sha256(path.read_bytes()).hexdigest(), 1.0)
    engines = executor(engines=1)
    [engine] = joined(engines, 1)
    make(engine, request(loras=(style,)))
    with pytest.raises(RenderFailed, match=": There is no 'never' in models/loras/"):
        make(engine, request(loras=(LoraUse("never", style.hash, 1.0),)))
    node = engine.describe()["node"]
    (tmp_path / "models/of-nodes").mkdir()
    with pytest.raises(EngineLost, match=f"{node} is not used: There is no 'style'") as caught:
        make(engine, request(loras=(style,)))
    assert str(tmp_path / "models") in str(caught.value)
    wait_for(lambda: "There is no 'style'" in engines.trouble(), "it is reported")
    (tmp_path / "models/of-nodes").rmdir()
    [engine] = joined(engines, 1)
    make(engine, request(loras=(style,)))


def test_a_node_where_no_engine_can_start_is_not_used(
    executor: MakeExecutor, tmp_path: Path
) -> None:
    """No image is at fault."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models/broken").touch()
    [engine] = joined(executor(engines=1), 1)
    with pytest.raises(EngineLost, match="is not used: There is no such device"):
        make(engine, request())


def test_a_cluster_without_room_says_so(executor: MakeExecutor) -> None:
    """Nothing is refused: others may end, or nodes come."""
    engines = executor(gpus_per_engine=1)
    engines.want(1)
    wait_for(lambda: "gpus_per_engine: 0" in engines.trouble(), "it is reported")
