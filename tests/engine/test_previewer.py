"""Previews show the picture early, not more often than asked, and do not change it."""

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from picowatch.catalog.folder_files import read_schedule
from picowatch.catalog.parts import CONFIGS
from picowatch.engine.preview import COLOURS, Previewer
from picowatch.engine.protocol import EngineOptions, Preview, RenderedImage
from picowatch.engine.renderer import Renderer
from picowatch.engine.samplers import build_sampler
from picowatch.families import DEMO_WIDTH, FAMILIES
from tests.engine.requests import NUMPY_WARNINGS, ignore_steps, request

pytestmark = NUMPY_WARNINGS

CONFIG = read_schedule(CONFIGS["sd1"] / "scheduler")
AFTER_EACH_STEP = 1e-6


@pytest.fixture(scope="module")
def album() -> list[Preview]:
    """Every preview of the engine."""
    return []


@pytest.fixture(scope="module")
def engine(album: list[Preview]) -> Renderer:
    options = EngineOptions(models=Path("nowhere"), device="cpu", threads=2)
    return Renderer(options, album.append)


def colours(preview: Preview | RenderedImage) -> NDArray[np.float64]:
    """The picture at a preview's size, from 0 to 255."""
    image = Image.frombytes("RGB", (preview.width, preview.height), preview.pixels)
    return np.asarray(image.resize((16, 16), Image.Resampling.BOX), np.float64)


NOISY: dict[str, Any] = {"sampler": "Euler a", "schedule_type": "uniform"}
BATCHES = {
    "in parts": [request(seed=seed, **NOISY) for seed in (1, 2)],
    "high": [request(sampler="DPM2", steps=3, width=64, height=192)],
}


@pytest.mark.parametrize("name", BATCHES)
def test_previews_change_no_pixel(engine: Renderer, album: list[Preview], name: str) -> None:
    """Compared are a preview at each evaluation, one of only the first picture, and none."""
    batch = BATCHES[name]
    album.clear()
    with_looks = engine.render(batch, ignore_steps, preview_seconds=AFTER_EACH_STEP)
    each = 2 * batch[0].steps - 1 if batch[0].sampler == "DPM2" else batch[0].steps
    assert len(album) == each
    assert {(one.width, one.height) for one in album} == {
        (batch[0].width // 8, batch[0].height // 8)
    }
    album.clear()
    without = engine.render(batch, ignore_steps)
    assert album == []
    assert [one.pixels for one in with_looks] == [one.pixels for one in without]


def assert_shows(preview: Preview, latents: torch.Tensor, matrix: torch.Tensor) -> None:
    """The latents in these colours."""
    expected = torch.einsum("chw,cr->hwr", latents, matrix[:4]) + matrix[4]
    bytes_ = ((expected + 1) * 127.5).clamp(0, 255).numpy().astype(np.int16)
    shown = np.frombuffer(preview.pixels, np.uint8).reshape(bytes_.shape).astype(np.int16)
    assert np.abs(shown - bytes_).max() <= 1


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("sampler", ["DPM++ 2M", "Euler", "DDIM"])
def test_the_picture_without_its_noise_is_found(sampler: str, prediction: str) -> None:
    """From the UNet's input and a prediction for it, in the middle of a sampler's steps."""
    config = {**CONFIG, "prediction_type": prediction}
    scheduler = build_sampler(sampler, "uniform", 10, config).scheduler
    generator = torch.Generator().manual_seed(1)
    clean, noise = (torch.randn(4, 3, 5, generator=generator) for _ in range(2))
    kept = scheduler.alphas_cumprod[400]
    seen = kept.sqrt() * clean + (1 - kept).sqrt() * noise
    velocity = kept.sqrt() * noise - (1 - kept).sqrt() * clean
    predicted = noise if prediction == "epsilon" else velocity
    album: list[Preview] = []
    Previewer(album.append).show(scheduler, seen, predicted, torch.tensor(400))
    assert_shows(album[0], clean, COLOURS["sd1"])


@pytest.mark.parametrize(("width", "colours"), [(DEMO_WIDTH, "demo"), (768, "sd1")])
def test_colours_are_those_of_the_denoisers_latents(width: int, colours: str) -> None:
    """Whatever VAE decodes them: a tiny one has fewer channels, too."""
    album: list[Preview] = []
    previewer, latents = Previewer(album.append), torch.randn(4, 2, 2)
    previewer.follow(FAMILIES["sd1"], Mock(config=Mock(cross_attention_dim=width)))
    previewer.show_latents(latents)
    assert_shows(album[0], latents, COLOURS[colours])
