"""The demo model in memory, and comparisons of models."""

from functools import cache
from pathlib import Path
from typing import Any

import torch

from picowatch.catalog import Catalog, Kind, Model
from picowatch.catalog.parts import parts_of
from picowatch.engine.devices import Target, choose_target
from picowatch.engine.load import load_part
from picowatch.recipe.request import ControlUse, ImageRequest
from tests.engine.requests import request

CPU = choose_target("cpu", "float32")


def load(model: Model, target: Target, device: torch.device) -> dict[str, Any]:
    """All parts of a checkpoint."""
    names = [part.name for part in parts_of(model)]
    return {name: load_part(model, target, device, name) for name in names}


@cache
def demo() -> dict[str, Any]:
    """The demo model's parts, from its folder."""
    return load(Catalog(Path("nowhere")).demo, CPU, CPU.device)


def named(models: Path, **values: Any) -> ImageRequest:
    """A request with the hashes of the files it names, ControlNets among them."""
    catalog = Catalog(models)

    def hash_of(kind: Kind, name: str) -> str:
        return catalog.sha256(catalog.find(kind, name))

    kinds: tuple[Kind, ...] = ("checkpoint", "vae")
    hashes = {f"{kind}_hash": hash_of(kind, values[kind]) for kind in kinds if kind in values}
    values["control"] = tuple(
        ControlUse(model=name, image="", model_hash=hash_of("controlnet", name))
        for name in values.get("control", ())
    )
    return request(**values | hashes)


def assert_equal(first: Any, second: Any) -> None:
    """Two models hold the same weights."""
    expected = first.state_dict()
    assert expected.keys() == second.state_dict().keys()
    for name, tensor in second.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
