"""The second, larger pass."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from picowatch.engine import latents as vaes
from picowatch.engine.latents import upscale
from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import RenderedImage
from picowatch.engine.renderer import Renderer
from picowatch.errors import RenderFailed
from picowatch.recipe.parts import Hires
from picowatch.recipe.resolve.hires import UPSCALERS
from tests.engine.demo import CPU, demo
from tests.engine.pictures import circle
from tests.engine.requests import difference, ignore_steps, pixels, request

# numpy 2.4 and torch 2.13 inside diffusers 0.42; in the engine process warnings are off.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def engine() -> Renderer:
    return Renderer(EngineOptions(models=Path("nowhere"), device="cpu", threads=1))


def draw(engine: Renderer, hires: Hires | None, **values: Any) -> RenderedImage:
    requested = request("a corgi with a red hat", seed=4, hires=hires, **values)
    (image,) = engine.render([requested], ignore_steps)
    return image


def enlarged(image: RenderedImage, width: int, height: int) -> Image.Image:
    """The small picture, stretched."""
    small = Image.frombytes("RGB", (image.width, image.height), image.pixels)
    return small.resize((width, height), Image.Resampling.LANCZOS)


def sharpness(picture: Any) -> float:
    """The mean step from a pixel to its right neighbour, of the steepest hundredth."""
    steps = np.abs(np.diff(np.asarray(picture).astype(float).mean(2), axis=1))
    return float(np.sort(steps.ravel())[-steps.size // 100 :].mean())


def test_the_picture_is_larger_and_shows_more_than_the_stretched_small_one(
    engine: Renderer,
) -> None:
    """Its edges are as sharp as the small picture's own, not twice as soft."""
    small = draw(engine, None, steps=12)
    large = draw(engine, Hires(2.0, 0, 0.7, "Latent"), steps=12)
    assert (large.width, large.height) == (256, 256)
    assert sharpness(pixels(large)) > 1.2 * sharpness(enlarged(small, 256, 256))


def test_sides_are_rounded_down_to_eights(engine: Renderer) -> None:
    """As recipes announce them."""
    image = draw(engine, Hires(1.3, 1, 0.5, "Latent"), steps=2, width=128, height=64)
    assert (image.width, image.height) == (160, 80)
    assert len(image.pixels) == 160 * 80 * 3


@pytest.mark.parametrize(
    ("hires", "total"),
    [
        (Hires(1.5, 0, 0.5, "Latent"), 8 + 4),
        (Hires(1.5, 4, 0.5, "Latent"), 8 + 2),
        (Hires(1.5, 4, 0.0, "Latent"), 8),
        (Hires(1.5, 4, 1.0, "Latent"), 8 + 4),
    ],
)
def test_progress_counts_both_passes(engine: Renderer, hires: Hires, total: int) -> None:
    """As one row of steps."""
    steps: list[tuple[int, int]] = []
    requested = request(hires=hires, steps=8, width=64, height=64)
    engine.render([requested], lambda done, total: steps.append((done, total)))
    assert steps == [(done, total) for done in range(1, total + 1)]


@pytest.mark.parametrize("upscaler", UPSCALERS)
def test_each_upscaler_keeps_the_picture(upscaler: str) -> None:
    """Decoded, the larger latents show what the small ones do."""
    with torch.inference_mode():
        small = vaes.encode(demo().vae, np.asarray(circle()), CPU.device)
        large = upscale(demo().vae, small.repeat(2, 1, 1, 1), upscaler, 192, 256)
        assert large.shape == (2, 4, 32, 24)
        shown = vaes.decode(demo().vae, large[1:]).astype(float)
    expected = np.asarray(circle().resize((192, 256))).astype(float)
    assert np.abs(shown - expected).mean() < 20


def test_every_upscaler_of_recipes_differs_from_the_others() -> None:
    """None is another under a second name, and an unknown one fails."""
    with torch.inference_mode():
        latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))
        large = [upscale(demo().vae, latents, one, 88, 88) for one in UPSCALERS]
        for index, one in enumerate(large):
            assert all(not torch.equal(one, other) for other in large[:index])
        with pytest.raises(RenderFailed, match="no upscaler 'ESRGAN'"):
            upscale(demo().vae, latents, "ESRGAN", 88, 88)


@pytest.mark.parametrize("upscaler", ["Latent", "Lanczos"])
def test_a_large_picture_does_not_depend_on_its_neighbours(engine: Renderer, upscaler: str) -> None:
    """Both passes draw from the image's own generator."""
    hires = Hires(1.5, 3, 0.6, upscaler)
    values: dict[str, Any] = {"sampler": "Euler a", "schedule_type": "uniform", "steps": 3}
    values |= {"width": 64, "height": 64}
    requested = [request(prompt, hires=hires, **values) for prompt in ("a red circle", "a corgi")]
    together = engine.render(requested, ignore_steps)
    for image, one in zip(together, requested, strict=True):
        assert difference(image, engine.render([one], ignore_steps)[0]) <= 2
