"""Fixtures: a cluster of two nodes for all tests of a module, and executors on it."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

from picowatch.engine.process.ray import RayEngines
from picowatch.engine.protocol import Engine, EngineOptions, Look, RenderedImage, go_on
from picowatch.settings.values import RaySettings
from tests.engine.ray.renderer import DigestRenderer
from tests.engine.requests import PATIENCE, begin, request
from tests.house import wait_for

ROOT = Path(__file__).parents[3]
HEAD, SECOND = "head", "second"
# One token for the whole test process, because Ray reads it once.
ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "picowatch".ljust(64, "t"),
    "RAY_USAGE_STATS_ENABLED": "0",
    "PYTHONPATH": str(ROOT),
}

MakeExecutor = Callable[..., RayEngines]


def environment() -> dict[str, str]:
    """Return the environment of nodes and daemons, without picowatch's settings for Ray."""
    return {name: os.environ[name] for name in os.environ if "RAY" not in name} | ENVIRONMENT


class Nodes:
    """Nodes on this machine by name, each with one core and a process for each of its parts."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster: Any = Cluster()
        self._nodes: dict[str, Any] = {}

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self, name: str, **environment: str) -> None:
        """Start a node; the first one is the head."""
        self._nodes[name] = self._cluster.add_node(
            node_name=name,
            num_cpus=1,
            num_gpus=0,
            object_store_memory=80 * 2**20,
            env_vars=environment,
            **({} if self._nodes else {"include_dashboard": False}),
        )

    def kill(self, name: str) -> None:
        """End all of a node's processes at once, as a power cut does."""
        self._cluster.remove_node(self._nodes.pop(name), allow_graceful=False)

    def engines(self, name: str) -> list[Any]:
        raylet = psutil.Process(self._nodes[name].all_processes["raylet"][0].process.pid)
        workers = raylet.children()
        return [
            worker for worker in workers if "".join(worker.cmdline()).startswith("ray::EngineActor")
        ]

    def close(self) -> None:
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    os.environ.update(ENVIRONMENT)  # before Ray is imported
    pytest.importorskip("ray", reason="Ray is not installed (make test installs it)")
    nodes = Nodes()
    try:
        nodes.add(HEAD)
        nodes.add(SECOND)
        yield nodes
    finally:
        nodes.close()


@pytest.fixture(autouse=True)
def places(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster's token; the daemon's working folder is the root, that of the nodes is not."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir("/")


@pytest.fixture
def make_executor(tmp_path: Path) -> Iterator[MakeExecutor]:
    with ExitStack() as stack:

        def make(**settings: Any) -> RayEngines:
            models, start_images = tmp_path / "models", tmp_path / "start-images"
            options = EngineOptions(models=models, start_images=start_images)
            given = RaySettings(**{"gpus_per_engine": 0} | settings)
            executor = RayEngines(options, given, DigestRenderer)
            stack.callback(executor.close)
            return executor

        yield make
    join_threads()  # without nodes, Ray could not be shut down


def join_threads() -> None:
    """Wait until this process has left the cluster."""
    for thread in threading.enumerate():
        if thread.name == "ray":
            thread.join(PATIENCE)


def joined(executor: RayEngines, engines: int, nodes: set[str] | None = None) -> list[Engine]:

    def there() -> bool:
        found = [node_of(engine) for engine in executor.engines()]
        return len(found) == engines and (nodes is None or set(found) == nodes)

    executor.wanted = engines
    wait_for(there, f"{engines} engines")
    return list(executor.engines())


def on(executor: RayEngines, node: str) -> Engine:
    return next(engine for engine in executor.engines() if node_of(engine) == node)


def node_of(engine: Engine) -> str:
    node: str = engine.node  # type: ignore[attr-defined]  # a RayEngine's
    return node


def held(engine: Engine, prompt: str, look: Look = go_on) -> Future[list[RenderedImage]]:
    """Return a batch that is in the middle of what its prompt says."""
    begins = threading.Event()
    future = begin(engine, request(prompt), lambda now: begins.set() if now.done else None, look)
    assert begins.wait(PATIENCE)
    return future
