"""The memory ladder against a real allocator's limit; runs where there is a CUDA device."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from picowatch.engine.memory import FULL, LAYERS, MODELS
from picowatch.engine.protocol import EngineOptions
from picowatch.engine.renderer import Renderer
from tests.engine.flow_requests import FLOW_WARNINGS, flow_models
from tests.engine.requests import difference, draw, request
from tests.engine.rungs import lora_of, on_rung, three_of
from tests.engine.tiny_flows import FOLDERS

pytestmark = [
    *FLOW_WARNINGS,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
BATCH = 8
# Without the VAE's tiles, which overlap and so change larger pictures.
RUNGS = [replace(rung, tiled=False) for rung in (MODELS, LAYERS)]


def on_the_card(models: Path, precision: str = "auto") -> Renderer:
    """Its renderer."""
    options = EngineOptions(
        models=models,
        device="cuda",
        precision=precision,  # type: ignore[arg-type]
        start_images=models,
    )
    return Renderer(options)


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
    batch = [request(seed=seed, steps=4, width=512, height=512) for seed in range(BATCH)]
    plain = draw(on_the_card(tmp_path), *batch)
    assert {image.memory_rung for image in plain} == {"full"}
    needed = torch.cuda.max_memory_reserved()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(0.6 * needed / total)
    images = draw(on_the_card(tmp_path), *batch)
    assert all(image.memory_rung != "full" for image in images)
    # Float16 rounds otherwise in another batch size.
    assert all(difference(*pair) <= 16 for pair in zip(images, plain, strict=True))


@pytest.mark.parametrize("name", FOLDERS)
def test_flow_families_draw_the_same_on_every_rung(name: str) -> None:
    """Here weights really move, and layers come on a stream of their own; twice, and with a LoRA.

    In float32, so that rungs differ by rounding alone.
    """
    models = flow_models(name)
    batch, renderer = three_of(models, name)[:2], on_the_card(models, "float32")
    if name == "FLUX.1-dev":
        lora = lora_of(models, name, "flux1")
        batch = [*batch[:1], *batch, replace(batch[0], loras=(lora,))]
    plain = [draw(on_rung(renderer, FULL), one)[0] for one in batch]
    for rung in RUNGS:
        for one, picture in zip(batch, plain, strict=True):
            assert difference(draw(on_rung(renderer, rung), one)[0], picture) <= 2, rung


def test_a_rung_holds_less_than_the_one_above_it() -> None:
    """Of the card, while it draws and after a batch."""
    models = flow_models("Z-Image-Turbo")
    renderer, (wanted, *_) = on_the_card(models), three_of(models, "Z-Image-Turbo")
    held, during = {}, {}
    for rung in (FULL, *RUNGS):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        draw(on_rung(renderer, rung), wanted)
        during[rung.place] = torch.cuda.max_memory_allocated()
        loaded = renderer._checkpoints.held(wanted, rung.place)
        assert loaded
        held[rung.place] = sum(
            weight.nbytes
            for part in loaded.modules
            for weight in part.parameters()
            if weight.device.type == "cuda"
        )
    assert held["device"] > held["models"] == 0
    assert held["device"] > held["layers"]
    assert during["device"] > during["models"]
