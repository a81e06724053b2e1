"""Previews show the picture early and do not change it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from picowatch.engine.models.parts import SD15
from PIL import Image

from picowatch.catalog import read_config
from picowatch.engine.child import ChildEngine
from picowatch.engine.colours import DEMO, SD1, SDXL
from picowatch.engine.preview import Previewer
from picowatch.engine.protocol import Preview, RenderedImage
from picowatch.engine.samplers import build_sampler
from picowatch.recipe.samplers import SAMPLERS, KnownSampler
from tests.engine.requests import make, request

CONFIG = read_config(SD15 / "scheduler" / "scheduler_config.json")
# numpy 2.4 and torch 2.13 inside diffusers 0.42; in the engine process warnings are off.
pytestmark = pytest.mark.filterwarnings("ignore:__array")


AFTER_EACH_STEP = 1e-6


class Album:
    """Keeps every preview."""

    def __init__(self) -> None:
        self.previews: list[Preview] = []

    def keep(self, preview: Preview) -> None:
        self.previews.append(preview)


def colours(preview: Preview | RenderedImage) -> NDArray[np.float64]:
    """The picture at a preview's size, from 0 to 255."""
    image = Image.frombytes("RGB", (preview.width, preview.height), preview.pixels)
    return np.asarray(image.resize((16, 16), Image.Resampling.BOX), np.float64)


def test_previews_change_no_pixel(engine: ChildEngine) -> None:
    """With one after each step, and with none: alone, in a batch, and where noise is drawn."""
    album = Album()
    batches = [
        [request()],
        [request(seed=seed, sampler="Euler a", schedule_type="uniform") for seed in (1, 2)],
        [request(sampler="DPM2", steps=3, width=64, height=192)],
    ]
    for batch in batches:
        album.previews.clear()
        with_looks = make(engine, *batch, on_preview=album.keep, preview_seconds=AFTER_EACH_STEP)
        assert len(album.previews) >= batch[0].steps
        assert {(p.width, p.height) for p in album.previews} == {
            (batch[0].width // 8, batch[0].height // 8)
        }
        album.previews.clear()
        without = make(engine, *batch, on_preview=album.keep)
        assert album.previews == []
        assert [one.pixels for one in with_looks] == [one.pixels for one in without]


def test_previews_show_the_picture_early(engine: ChildEngine) -> None:
    """Half the way, it is nearer to its own picture than to others, by far."""
    album = Album()
    pictures, halfway, ends = [], [], []
    for prompt in ("a large red circle on a white background", "a star on a blue background"):
        album.previews.clear()
        wanted = request(prompt, steps=12, cfg_scale=7.5)
        pictures += make(engine, wanted, on_preview=album.keep, preview_seconds=AFTER_EACH_STEP)
        halfway.append(album.previews[len(album.previews) // 2])
        ends.append(album.previews[-1])
    for own in (0, 1):
        for seen, most in ((halfway[own], 70), (ends[own], 50)):
            far = [np.abs(colours(seen) - colours(picture)).mean() for picture in pictures]
            assert far[own] < most, far
            assert far[own] < far[1 - own] * 0.75, far


def test_previews_have_a_least_time_between_them() -> None:
    """By a monotonic clock; with 0 there are none."""
    now = [100.0]
    previewer = Previewer(lambda preview: None, lambda: now[0])
    previewer.seconds = 2
    scheduler = build_sampler("DDIM", "uniform", 4, CONFIG).scheduler
    latents = torch.zeros(1, 4, 2, 2)
    shown_at = []
    for _ in range(10):
        now[0] += 0.5
        if previewer.is_due():
            previewer.show(scheduler, latents, latents, torch.tensor(500))
            shown_at.append(now[0])
    assert shown_at == [102.0, 104.0]
    previewer.seconds = 0
    assert not previewer.is_due()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.name)
def test_the_picture_without_its_noise_is_found(sampler: KnownSampler, prediction: str) -> None:
    """From the UNet's input and a prediction for it, in the middle of every sampler's steps."""
    config = {**CONFIG, "prediction_type": prediction}
    scheduler = build_sampler(sampler.name, sampler.automatic, 10, config).scheduler
    generator = torch.Generator().manual_seed(1)
    clean, noise = (torch.randn(1, 4, 3, 5, generator=generator) for _ in range(2))
    timestep = torch.tensor(400)
    kept = scheduler.alphas_cumprod[400]
    seen = kept.sqrt() * clean + (1 - kept).sqrt() * noise
    velocity = kept.sqrt() * noise - (1 - kept).sqrt() * clean
    album = Album()
    Previewer(album.keep).show(
        scheduler, seen, noise if prediction == "epsilon" else velocity, timestep
    )
    (preview,) = album.previews
    expected = torch.einsum("chw,cr->hwr", clean[0], torch.tensor(SD1[:4]))
    bytes_ = ((expected + 1) * 127.5).clamp(0, 255).numpy().astype(np.int16)
    shown = np.frombuffer(preview.pixels, np.uint8).reshape(3, 5, 3).astype(np.int16)
    assert np.abs(shown - bytes_).max() <= 1


@pytest.mark.parametrize(
    ("family", "channels", "matrix"),
    [
        ("sd1", 128, SD1),
        ("sd2", 128, SD1),
        ("sdxl", 128, SDXL),
        ("demo", 32, DEMO),
    ],
)
def test_each_family_has_the_colours_of_its_latents(
    family: str, channels: int, matrix: tuple[tuple[float, ...], ...]
) -> None:
    """2.x has the VAE of 1.x, trained further."""
    album = Album()
    previewer = Previewer(album.keep)
    previewer.follow(SimpleNamespace(config=SimpleNamespace(block_out_channels=[channels])), family)
    scheduler = build_sampler("DDIM", "uniform", 4, CONFIG).scheduler
    latents = torch.randn(1, 4, 3, 5, generator=torch.Generator().manual_seed(1))
    previewer.show(scheduler, latents, torch.zeros_like(latents), torch.tensor(0))
    clean = latents[0] / scheduler.alphas_cumprod[0].sqrt()
    expected = torch.einsum("chw,cr->hwr", clean, torch.tensor(matrix[:4])) + torch.tensor(
        matrix[4]
    )
    bytes_ = ((expected + 1) * 127.5).clamp(0, 255).numpy().astype(np.int16)
    shown = np.frombuffer(album.previews[0].pixels, np.uint8).reshape(3, 5, 3).astype(np.int16)
    assert np.abs(shown - bytes_).max() <= 1


def test_latents_that_are_no_numbers_are_shown_all_the_same() -> None:
    """The picture's own error explains it better."""
    album = Album()
    scheduler = build_sampler("DDIM", "uniform", 4, CONFIG).scheduler
    latents = torch.full((1, 4, 2, 2), float("nan"))
    Previewer(album.keep).show(scheduler, latents, latents, torch.tensor(500))
    assert len(album.previews[0].pixels) == 12
