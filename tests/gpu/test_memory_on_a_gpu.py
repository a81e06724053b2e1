"""Weights really move on a card; benchmarks/gpu.py measures how much they take there."""

from dataclasses import replace

import pytest
import torch

from picowatch.engine.drawing.renderer import Renderer
from picowatch.engine.model.memory import ENCODERS, FULL, LAYERS, MODELS
from picowatch.engine.protocol import EngineOptions
from tests.engine.flow_requests import edits_only, flow_models
from tests.engine.requests import difference, draw
from tests.engine.rungs import lora_of, on_rung, two_of
from tests.engine.tiny_flows import FOLDERS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
# Without the VAE's tiles, which overlap and so change larger pictures.
RUNGS = [replace(rung, tiled=False) for rung in (ENCODERS, MODELS, LAYERS)]


@pytest.mark.parametrize("name", [name for name in FOLDERS if not edits_only(name)])
def test_flow_families_draw_the_same_on_every_rung(name: str) -> None:
    """Twice, and with a LoRA; in float32, so that rungs differ by rounding alone."""
    models = flow_models(name)
    options = EngineOptions(models=models, device="cuda", precision="float32", start_images=models)
    batch, renderer = two_of(models, name), Renderer(options)
    if name == "FLUX.1-dev":
        batch = [*batch[:1], *batch, replace(batch[0], loras=(lora_of(models, name),))]
    plain = [draw(on_rung(renderer, FULL), image)[0] for image in batch]
    for rung in RUNGS:
        for image, picture in zip(batch, plain, strict=True):
            assert difference(draw(on_rung(renderer, rung), image)[0], picture) <= 2, rung
