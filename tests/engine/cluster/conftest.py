"""A cluster of two nodes that all tests of a module share, and executors on it."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from picowatch.engine.child_main import MakeRenderer
from picowatch.engine.cluster.executor import RayEngines
from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import Engine
from picowatch.settings import RaySettings
from tests.engine.cluster.engine import Maker
from tests.engine.cluster.nodes import Nodes
from tests.house import wait_for

HEAD, SECOND = "head", "second"

MakeExecutor = Callable[..., RayEngines]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Two nodes with one core each."""
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed (make test installs it)")
    nodes = Nodes(tmp_path_factory.mktemp("nodes"))
    try:
        nodes.add(HEAD)
        nodes.add(SECOND)
        yield nodes
    finally:
        nodes.close()


@pytest.fixture(autouse=True)
def working_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon's is the root; that of the nodes is not."""
    monkeypatch.chdir("/")


@pytest.fixture
def make_executor(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MakeExecutor]:
    """Executors on the cluster, closed at the end."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, nodes.environment[name])
    with ExitStack() as stack:

        def make(make_renderer: MakeRenderer = Maker, **values: Any) -> RayEngines:
            models = values.pop("models", tmp_path / "models")
            options = EngineOptions(models=models, start_images=tmp_path / "start-images")
            settings = {"address": nodes.address, "gpus_per_engine": 0} | values
            executor = RayEngines(options, RaySettings(**settings), make_renderer)
            stack.callback(executor.close)
            return executor

        yield make


def joined(executor: RayEngines, engines: int, nodes: set[str] | None = None) -> list[Engine]:
    """So many engines, once they are there, on just these nodes."""

    def there() -> bool:
        found = [engine.describe()["node"] for engine in executor.engines()]
        return len(found) == engines and (nodes is None or set(found) == nodes)

    executor.want(engines)
    wait_for(there, f"{engines} engines")
    return list(executor.engines())


def on(executor: RayEngines, node: str) -> Engine:
    """The engine on that node."""
    return next(one for one in executor.engines() if one.describe()["node"] == node)


def is_running(process_id: int) -> bool:
    """Whether a process of this machine is running."""
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True
