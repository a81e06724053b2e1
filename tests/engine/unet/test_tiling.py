"""Pictures that repeat without seams."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from picowatch.engine.unet.changes import LowRank
from torch import nn

from picowatch.engine import latents as vaes
from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import RenderedImage
from picowatch.engine.renderer import Renderer
from picowatch.engine.tiling import seamless, wrapped
from picowatch.recipe.parts import Hires
from tests.engine.demo import demo
from tests.engine.requests import ignore_steps, pixels, request

# numpy 2.4 and torch 2.13 inside diffusers 0.42; in the engine process warnings are off.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PROMPT = "a corgi on a pink background"
SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 4}


@pytest.fixture(scope="module")
def engine() -> Renderer:
    return Renderer(EngineOptions(models=Path("nowhere"), device="cpu", threads=1))


def draw(engine: Renderer, **values: Any) -> RenderedImage:
    (image,) = engine.render([request(PROMPT, **{**SMALL, **values})], ignore_steps)
    return image


def seam(picture: Any) -> float:
    """How much steeper the step over both edges is than the steps within; about 1 for none."""
    array = np.asarray(picture).astype(float)
    ratios = []
    for axis in (0, 1):
        within = np.abs(np.diff(array, axis=axis)).mean()
        first, last = array.take(0, axis), array.take(-1, axis)
        ratios.append(np.abs(first - last).mean() / within)
    return float(max(ratios))


@torch.inference_mode()
def test_a_shift_around_the_edges_shifts_the_prediction_and_the_picture() -> None:
    """So no edge is where it was: UNet and VAE know none."""
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    states = torch.randn(1, 77, demo().unet.config.cross_attention_dim)
    shifted = latents.roll((8, 8), dims=(2, 3))

    def predicted(noisy: torch.Tensor) -> torch.Tensor:
        return demo().unet(noisy, 500, states).sample  # type: ignore[no-any-return]

    def decoded(latents: torch.Tensor) -> torch.Tensor:
        return demo().vae.decode(latents).sample  # type: ignore[no-any-return]

    with seamless([demo().unet, demo().vae]):
        moved, expected = predicted(shifted), predicted(latents).roll((8, 8), dims=(2, 3))
        assert float((moved - expected).abs().max()) < 1e-4
        moved, expected = decoded(shifted), decoded(latents).roll((64, 64), dims=(2, 3))
        assert float((moved - expected).abs().max()) < 1e-4
    with_edges = decoded(latents).roll((64, 64), dims=(2, 3))
    assert float((decoded(shifted) - with_edges).abs().max()) > 0.1


def test_it_repeats_and_leaves_no_trace(engine: Renderer) -> None:
    """The next picture without it is what it was before, in bytes, also after a failure."""
    before = draw(engine)
    seams = [
        (seam(pixels(draw(engine, seed=seed, tiling=True))), seam(pixels(draw(engine, seed=seed))))
        for seed in range(1, 6)
    ]
    repeating, others = np.median(seams, axis=0)
    assert repeating < 2 < 5 < others
    assert draw(engine).pixels == before.pixels

    def broken(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.render([request(PROMPT, tiling=True, **SMALL)], broken)
    assert draw(engine).pixels == before.pixels


def test_the_second_pass_repeats_too(engine: Renderer) -> None:
    """Whichever way the first one is enlarged."""
    for upscaler in ("Latent", "Lanczos"):
        hires = Hires(1.5, 4, 0.7, upscaler)
        with_edges, without = (draw(engine, tiling=on, hires=hires) for on in (False, True))
        assert seam(pixels(without)) < 4 < 6 < seam(pixels(with_edges))


@torch.inference_mode()
def test_a_vae_that_decodes_in_tiles_repeats_too(engine: Renderer) -> None:
    """A rung of the memory ladder; without tiles the picture is nearly the same."""
    latents = torch.randn(1, 4, 24, 32, generator=torch.Generator().manual_seed(2))
    vae = demo().vae
    with seamless([vae]):
        expected = vaes.decode(vae, latents).astype(int)
    tile = vae.tile_latent_min_size, vae.tile_sample_min_size
    vae.tile_latent_min_size, vae.tile_sample_min_size = 16, 128
    vae.enable_tiling()
    try:
        cut, found = vaes.decode(vae, latents), vaes.decode(vae, latents, repeats=True)
    finally:
        vae.disable_tiling()
        vae.tile_latent_min_size, vae.tile_sample_min_size = tile
    assert found.shape == expected.shape
    assert seam(found) < 2 < 4 < seam(cut)
    assert np.abs(found - expected).mean() < np.abs(cut - expected).mean()


def test_margins_of_a_picture_that_repeats_change_nothing() -> None:
    """Both copies of an edge are equal, so their mixture is, too; also where there is little."""
    for height, width in ((40, 24), (2, 3)):
        latents = torch.randn(1, 3, height, width)
        enlarged = wrapped(
            latents, lambda padded: padded.repeat_interleave(8, 2).repeat_interleave(8, 3)
        )
        expected = latents.repeat_interleave(8, 2).repeat_interleave(8, 3)
        assert torch.allclose(enlarged, expected, atol=1e-6)


@pytest.mark.parametrize("with_mid", [False, True])
def test_a_lora_of_a_convolution_repeats_too(with_mid: bool) -> None:
    """Its kernel reads beyond the edges as the layer's own does."""
    module = nn.Conv2d(3, 5, 3, padding=1, stride=2)
    x = torch.randn(1, 3, 8, 8)
    down = torch.randn(2, 3, 1, 1) if with_mid else torch.randn(2, 3, 3, 3)
    mid = torch.randn(2, 2, 3, 3) if with_mid else None
    layer = LowRank(down, torch.randn(5, 2, 1, 1), mid, 1.0)
    with seamless([nn.Sequential(module)]):
        added = layer.added(module, x)
        shifted = layer.added(module, x.roll((2, 4), dims=(2, 3)))
    assert torch.allclose(shifted, added.roll((1, 2), dims=(2, 3)), atol=1e-5)
    assert added.shape == layer.added(module, x).shape
    assert not torch.allclose(added, layer.added(module, x))
