"""Parts of checkpoints in memory, those of the demo model, and comparisons of models."""

from functools import cache
from typing import Any

import torch

from picowatch.catalog import Model, embedded
from picowatch.catalog.parts import parts_of
from picowatch.engine.model.devices import Target, choose_target
from picowatch.engine.model.load import load_part

CPU = choose_target("cpu", "float32")


def read_part(model: Model, name: str, target: Target = CPU, quantize: str = "") -> Any:
    return load_part(model, target, target.device, name, quantize)


def load(model: Model, target: Target = CPU) -> dict[str, Any]:
    return {part.name: read_part(model, part.name, target) for part in parts_of(model)}


@cache
def demo() -> dict[str, Any]:
    return load(embedded("checkpoint"))


def assert_equal(ours: Any, theirs: Any) -> None:
    expected = theirs.state_dict()
    assert ours.state_dict().keys() == expected.keys()
    for name, tensor in ours.state_dict().items():
        assert tensor.dtype == expected[name].dtype, name
        assert torch.equal(tensor, expected[name]), name
    buffers = {name: buffer.dtype for name, buffer in theirs.named_buffers()}
    assert {name: buffer.dtype for name, buffer in ours.named_buffers()} == buffers
    assert not any(weight.requires_grad for weight in ours.parameters())
    assert not ours.training
