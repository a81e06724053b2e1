"""The memory ladder against a real allocator's limit; runs where there is a CUDA device."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from picowatch.engine.options import EngineOptions
from picowatch.engine.renderer import Renderer
from tests.engine.memory.test_flow_rungs import (
    EXACT_RUNGS,
    RUNGS,
    apart,
    mean_apart,
    on_rung,
    wanted_of,
)
from tests.engine.memory.test_flow_rungs import models as models
from tests.engine.test_flows import NAMES
from tests.engine.requests import difference, ignore_steps, request

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

BATCH = 8


@pytest.fixture
def all_memory_back() -> Iterator[None]:
    """Whatever a test allows the process, the next one has the whole card."""
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def test_a_batch_that_does_not_fit_is_rendered_on_a_lower_rung(
    all_memory_back: None, tmp_path: Path
) -> None:
    """The same pictures, within rounding, in 60 % of the memory that they took at full speed."""
    engine = Renderer(EngineOptions(models=tmp_path, device="cuda"))
    batch = [request(seed=seed, steps=4, width=512, height=512) for seed in range(BATCH)]
    plain = engine.render(batch, ignore_steps)
    assert {image.memory_rung for image in plain} == {"full"}
    needed = torch.cuda.max_memory_reserved()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(0.6 * needed / total)
    fresh = Renderer(EngineOptions(models=tmp_path, device="cuda"))
    images = fresh.render(batch, ignore_steps)
    assert all(image.memory_rung != "full" for image in images)
    # Float16 rounds otherwise in another batch size.
    assert all(difference(*pair) <= 16 for pair in zip(images, plain, strict=True))


@pytest.fixture(scope="module")
def flows(models: Path) -> Renderer:
    """In float32, so that rungs differ by rounding alone."""
    return Renderer(
        EngineOptions(models=models, device="cuda", precision="float32", start_images=models)
    )


@pytest.mark.parametrize("name", NAMES)
def test_flow_families_draw_the_same_on_every_rung(
    models: Path, flows: Renderer, name: str
) -> None:
    """Here weights really move, and layers come on a stream of their own."""
    batch = wanted_of(models, name)
    plain = on_rung(flows, RUNGS["full"], *batch)
    for rung in EXACT_RUNGS[1:]:
        assert apart(on_rung(flows, RUNGS[rung], *batch), plain) <= 2, rung
    assert mean_apart(on_rung(flows, RUNGS["fp8 weights"], *batch), plain) <= 3


def test_a_rung_holds_less_than_the_one_above_it(models: Path, flows: Renderer) -> None:
    """Of the card: the weights that are still there after a batch."""
    (wanted, _) = wanted_of(models, "Z-Image-Turbo")
    held = {}
    for rung in ("full", "text encoders offloaded", "group offload"):
        on_rung(flows, RUNGS[rung], wanted)
        models_of = flows._checkpoints.held(wanted, RUNGS[rung]).models
        held[rung] = sum(
            tensor.nbytes
            for model in models_of
            for tensor in model.parameters()
            if tensor.device.type == "cuda"
        )
    assert held["full"] > held["text encoders offloaded"] > held["group offload"]
