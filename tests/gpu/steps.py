"""What a step of each sampler and family costs a card, counted on the pretended one.

Run by test_on_a_pretended_card.py.
"""

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from picowatch.engine.drawing.renderer import Renderer
from picowatch.engine.protocol import EngineOptions
from picowatch.recipe.request import ImageRequest
from picowatch.recipe.samplers import SAMPLERS, KnownSampler
from tests.commands.picowatch import PROJECT
from tests.engine.flow_requests import edits_only, flow_models, flow_renderer, requests_of
from tests.engine.reference import requests as reference
from tests.engine.reference.models import Models
from tests.engine.requests import draw, request
from tests.engine.test_edits import small
from tests.engine.tiny_flows import FOLDERS, GENERAL
from tests.fault_points import preceded_by, wrap
from tests.gpu.pretended import COUNTS

__all__ = ["small"]  # a fixture


def counted(renderer: Renderer, images: list[ImageRequest], what: str) -> list[int]:
    """The counts of each step but the first, with which a pass begins."""
    seen: list[int] = []
    list(renderer.render(images, lambda now: seen.append(COUNTS[what]) if now.done else None))
    return [after - before for before, after in pairwise(seen)]


@pytest.fixture(scope="module")
def demo() -> Renderer:
    """Return a renderer that has the demo model; no preview is due."""
    renderer = Renderer(EngineOptions(models=Path("nowhere"), preview_seconds=60, threads=1))
    draw(renderer, request(steps=1, width=64, height=64))
    return renderer


def test_a_step_of_the_demo_model_starts_as_many_operations_as_before(demo: Renderer) -> None:
    """More would be a slower picture on a card that waits for the processor."""
    image = request(steps=3, width=64, height=64)
    assert counted(demo, [image], "waits") == [0, 0]
    assert max(counted(demo, [image], "launches")) <= 870


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda known: known.name)
def test_no_step_of_a_sampler_waits_for_the_card(demo: Renderer, sampler: KnownSampler) -> None:
    """Apart from UniPC, and from noise, which comes from the processor."""

    def quick(latents: torch.Tensor, timestep: torch.Tensor, **_: Any) -> tuple[torch.Tensor]:
        assert timestep.device == latents.device
        return (latents / 2,)

    image = request(sampler=sampler.name, schedule_type=sampler.automatic, steps=5)
    (loaded,) = demo._kept.values("checkpoint")
    most = {"UniPC": 6}.get(sampler.name, int(sampler.noisy))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loaded.denoiser, "forward", quick)
        assert max(counted(demo, [image], "waits")) == most


# By checkpoint: waits in a step, and whether a card can record it. Others wait for nothing.
_ROW = re.compile(r"^\| `(\S+)` \| (\d+) \| (yes|no) \|$", re.MULTILINE)
TOLD = {
    name: (int(waits), recorded == "yes")
    for name, waits, recorded in _ROW.findall((PROJECT / "benchmarks/RESULTS.md").read_text())
}


@pytest.mark.parametrize("name", FOLDERS)
def test_no_step_of_a_family_waits_and_its_graph_draws_the_same(name: str) -> None:
    """Previews do not, either, until one is due. The second image is computed by replays alone.

    How a pipeline without a row waits, and whether its steps can be recorded, nobody has promised.
    """
    models = flow_models(name)
    recipe = "prompt: a red cube\nexact: false\nsteps: 3\nseed: [7, 8]"
    if edits_only(name):
        recipe += "\nreferences: start.png"
    images = requests_of(models, name, recipe)
    renderer = flow_renderer(models, preview_seconds=60)
    *_, last = counted(renderer, images[:1], "waits")
    waits, is_recorded = TOLD.get(name, (0, True))
    assert last == waits or name in GENERAL
    plain = draw(renderer, images[1])[0]
    renderer.uses_graphs = True
    quick = [draw(renderer, image)[0] for image in images]
    assert quick[1].pixels == plain.pixels
    recorded = [picture.compiled for picture in quick]
    assert recorded == [is_recorded and "graph"] * 2 or name in GENERAL


@pytest.fixture(scope="module")
def both(models: Models) -> list[Renderer]:
    return [Renderer(replace(models.options, graphs=graphs)) for graphs in (False, True)]


# In this order: shapes, guidance and LoRAs come and go.
CASES = (
    *("seeds", "editing-alternating", "cfg-interval", "hires-latent", "control-two", "lora-two"),
    *("after-loras", "lora-control", "exact", "inpainting", "sdxl", "sdxl-lora", "sdxl-control"),
)


@pytest.mark.parametrize("name", CASES)
def test_graphs_draw_the_same_pixels(models: Models, both: list[Renderer], name: str) -> None:
    """An exact image uses none."""
    exact = name == "exact"
    values = reference.CASES["seeds"][:1] if exact else reference.CASES[name]
    batch = [models.request({**value, "steps": 4, "width": 64, "exact": exact}) for value in values]
    expected, found = (draw(renderer, *batch) for renderer in both)
    assert [picture.pixels for picture in found] == [picture.pixels for picture in expected]
    assert {picture.compiled for picture in found} == {"graph" if not exact else False}


def test_all_recordings_share_a_stream(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries keep memory for each stream that they ever computed on."""
    made: list[object] = []
    note = preceded_by(lambda *given: made.append(given))
    wrap("torch:cuda.Stream", note, monkeypatch.setattr)
    for _ in range(2):
        renderer = Renderer(replace(models.options, graphs=True))
        for side in (64, 72):
            (image,) = draw(renderer, models.request({"steps": 2, "width": side, "height": 64}))
            assert image.compiled == "graph"
    assert len(made) <= 1
