"""What a step of each sampler and family costs a card, counted on the pretended one.

Run by test_on_a_pretended_card.py.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from picowatch.engine.protocol import EngineOptions
from picowatch.engine.renderer import Renderer
from picowatch.recipe.request import ImageRequest
from picowatch.recipe.samplers import SAMPLERS, KnownSampler
from tests.engine.flow_requests import edits_only, flow_models, flow_renderer, requests_of
from tests.engine.requests import ignore_steps, request
from tests.engine.tiny_flows import FOLDERS
from tests.gpu.pretended import COUNTS


def counted(renderer: Renderer, images: list[ImageRequest], what: str) -> list[int]:
    """The counts of each step but the first, with which a pass begins."""
    seen: list[int] = []
    renderer.render(images, lambda *_: seen.append(COUNTS[what]))
    return [after - before for before, after in pairwise(seen)]


@pytest.fixture(scope="module")
def demo() -> Renderer:
    """Return a renderer that has the demo model; no preview is due."""
    renderer = Renderer(EngineOptions(models=Path("nowhere"), preview_seconds=60, threads=1))
    renderer.render([request(steps=1, width=64, height=64)], ignore_steps)
    return renderer


def test_a_step_of_the_demo_model_starts_as_many_operations_as_before(demo: Renderer) -> None:
    """More would be a slower picture on a card that waits for the processor."""
    image = request(steps=3, width=64, height=64)
    assert counted(demo, [image], "waits") == [0, 0]
    assert max(counted(demo, [image], "launches")) <= 870


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda one: one.name)
def test_no_step_of_a_sampler_waits_for_the_card(demo: Renderer, sampler: KnownSampler) -> None:
    """Apart from UniPC, and from noise, which comes from the processor."""

    def quick(latents: torch.Tensor, timestep: torch.Tensor, **_: Any) -> tuple[torch.Tensor]:
        assert timestep.device == latents.device
        return (latents / 2,)

    image = request(sampler=sampler.name, schedule_type=sampler.automatic, steps=5)
    (loaded,) = demo._checkpoints._kept.values()
    most = {"UniPC": 6}.get(sampler.name, int(sampler.noisy))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loaded.denoiser, "forward", quick)
        assert max(counted(demo, [image], "waits")) == most


# The most waits a step that diffusers' pipelines and transformers cause; of other families, none.
WAITS = {
    "AuraFlow": 2,
    "CogView4": 16,
    "Chroma1-HD": 2,
    "ERNIE-Image": 1,
    "ERNIE-Image-Turbo": 1,
    "Lumina-Image-2.0": 8,
    "Qwen-Image-2.1": 7,
    "Qwen-Image-Edit-2511": 2,
    "Sana-Sprint": 1,  # its noise
    "Z-Image-Omni": 5,
}


@pytest.mark.parametrize("name", FOLDERS)
def test_no_step_of_a_family_waits_for_the_card(name: str) -> None:
    """Previews do not, either, until one is due."""
    models = flow_models(name)
    recipe = "prompt: a red cube\nexact: false\nsteps: 3"
    if edits_only(name):
        recipe += "\nreferences: start.png"
    renderer = flow_renderer(models, preview_seconds=60)
    *_, last = counted(renderer, requests_of(models, name, recipe), "waits")
    assert last == WAITS.get(name, 0)
