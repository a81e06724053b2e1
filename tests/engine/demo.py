"""The demo model in memory, and comparisons of models."""

from functools import cache
from pathlib import Path
from typing import Any

import torch

from picowatch.catalog import Catalog
from picowatch.engine.devices import choose_target
from picowatch.engine.load import load
from tests.engine.requests import request

CPU = choose_target("cpu", "float32")


@cache
def demo() -> dict[str, Any]:
    """The demo model's parts, from its folder."""
    return load(Catalog(Path("nowhere")).demo, CPU, CPU.device)


def named(models: Path, **values: Any) -> Any:
    """A request with the hashes of the files it names."""
    catalog = Catalog(models)
    for kind, name in (("checkpoint", "checkpoint"), ("vae", "vae")):
        if name in values:
            values[f"{name}_hash"] = catalog.sha256(catalog.find(kind, values[name]))  # type: ignore[arg-type]
    return request(**values)


def assert_equal(first: Any, second: Any) -> None:
    """Two models hold the same weights."""
    expected = first.state_dict()
    assert expected.keys() == second.state_dict().keys()
    for name, tensor in second.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
