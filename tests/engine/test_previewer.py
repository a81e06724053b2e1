"""Previews show the picture early, not more often than asked, and do not change it."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from picowatch.catalog.folder_files import read_schedule
from picowatch.catalog.parts import CONFIGS
from picowatch.engine.drawing.latents import COLOURS, Previewer, without_noise
from picowatch.engine.drawing.renderer import Renderer
from picowatch.engine.model.samplers import build_sampler
from picowatch.engine.protocol import EngineOptions, RgbPicture
from picowatch.families import DEMO_WIDTH, FAMILIES
from tests.engine.requests import draw, pixels, request

CONFIG = read_schedule(CONFIGS["sd1"] / "scheduler")
small = partial(request, steps=3, width=64, height=64)


def test_previews_change_no_pixel() -> None:
    in_parts = [small(seed=seed, sampler="Euler a", schedule_type="uniform") for seed in (1, 2)]
    high = [small(sampler="DPM2", width=32, height=96)]
    album: list[RgbPicture] = []
    options = EngineOptions(models=Path("nowhere"), device="cpu", threads=2, preview_seconds=1e-6)
    shows = Renderer(options, album.append)
    without = Renderer(replace(options, preview_seconds=0), album.append)
    for batch, evaluations in ((in_parts, 3), (high, 5)):
        shown = draw(shows, *batch)
        size = (batch[0].width // 8, batch[0].height // 8)
        assert [(preview.width, preview.height) for preview in album] == [size] * evaluations
        album.clear()
        assert [picture.pixels for picture in shown] == [
            picture.pixels for picture in draw(without, *batch)
        ]
        assert not album


def assert_shows(preview: RgbPicture, latents: torch.Tensor, matrix: torch.Tensor) -> None:
    expected = torch.einsum("chw,cr->hwr", latents.detach().float(), matrix[:-1]) + matrix[-1]
    bytes_ = ((expected + 1) * 127.5).clamp(0, 255).numpy()
    assert bytes_.std() > 1
    assert np.abs(pixels(preview) - bytes_).max() <= 1


@pytest.mark.parametrize(
    ("sampler", "prediction"),
    [("DPM++ 2M", "epsilon"), ("Euler", "v_prediction"), ("DDIM", "epsilon")],
)
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
    album: list[RgbPicture] = []
    Previewer(album.append).show(without_noise(scheduler, seen, predicted, torch.tensor(400)))
    assert_shows(album[0], clean, COLOURS["sd1"])


@pytest.mark.parametrize(("width", "colours"), [(DEMO_WIDTH, "demo"), (768, "sd1")])
def test_colours_are_those_of_the_denoisers_latents(width: int, colours: str) -> None:
    """Whatever VAE decodes them: a tiny one has fewer channels, too."""
    album: list[RgbPicture] = []
    previewer, latents = Previewer(album.append), torch.randn(4, 2, 2)
    previewer.follow(FAMILIES["sd1"], Mock(config=Mock(cross_attention_dim=width)))
    previewer.show(latents)
    assert_shows(album[0], latents, COLOURS[colours])
