"""Which engines are requested from Ray, without Ray."""

from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from picowatch.engine.cluster.driver import NodeUnfit
from picowatch.engine.cluster.model_transfer import ModelTransfer
from picowatch.engine.cluster.placement import Placement
from picowatch.engine.cluster.remote_engine import Start
from picowatch.engine.options import EngineOptions

FULL = NodeUnfit("laptop is not used: its disk is full.")


class Requests:
    """A driver whose engines are never placed; keeps what was requested."""

    def __init__(self) -> None:
        self.placed: list[dict[str, Any]] = []

    def call(self, method: str, *arguments: Any, node: str = "") -> Future[Any]:
        if method == "place":
            self.placed.append(arguments[1])
        return Future()


def test_a_node_that_is_full_is_avoided_though_another_engine_works_on_it() -> None:
    """With models that it has already."""
    options = EngineOptions(models=Path("nowhere"))
    placement, driver = Placement(ModelTransfer(options)), Requests()
    works = SimpleNamespace(is_placed=True, gone=None, node_id="laptop")
    failed = SimpleNamespace(is_placed=True, gone=FULL, node_id="laptop")
    placement.engines = works, failed  # type: ignore[assignment]
    for wanted in (2, 3):
        placement.adjust(wanted, driver, Start(options, "", 0, 1))  # type: ignore[arg-type]
    assert [each["label_selector"] for each in driver.placed] == [
        {"ray.io/node-id": "!in(laptop)"}
    ] * 2
    assert placement.trouble(Start(options, "", 0, 1), {}) == str(FULL)
