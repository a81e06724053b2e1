"""Pictures that repeat without seams."""

from typing import Any

import numpy as np
import pytest
import torch

from picowatch.engine import latents as vaes
from picowatch.engine.protocol import RenderedImage
from picowatch.engine.renderer import Renderer
from picowatch.engine.tiling import seamless
from tests.engine.demo import demo
from tests.engine.requests import NUMPY_WARNINGS, draw, pixels, request

pytestmark = NUMPY_WARNINGS

PROMPT = "a corgi on a pink background"
SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 4}


def drawn(renderer: Renderer, **values: Any) -> RenderedImage:
    return draw(renderer, request(PROMPT, **{**SMALL, **values}))[0]


def seam(picture: Any) -> float:
    """How much steeper the step over both edges is than the steps within; about 1 for none."""
    array = np.asarray(picture).astype(float)
    ratios = []
    for axis in (0, 1):
        within = np.abs(np.diff(array, axis=axis)).mean()
        first, last = array.take(0, axis), array.take(-1, axis)
        ratios.append(np.abs(first - last).mean() / within)
    return float(max(ratios))


def test_it_repeats_and_leaves_no_trace(renderer: Renderer) -> None:
    """The next picture without it is what it was before, in bytes, also after a failure."""
    before = drawn(renderer)
    seams = [
        [seam(pixels(drawn(renderer, seed=seed, tiling=tiling))) for tiling in (True, False)]
        for seed in range(1, 6)
    ]
    repeating, others = np.median(seams, axis=0)
    assert repeating < 2 < 5 < others
    assert drawn(renderer).pixels == before.pixels

    def broken(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        renderer.render([request(PROMPT, tiling=True, **SMALL)], broken)
    assert drawn(renderer).pixels == before.pixels


@torch.inference_mode()
def test_a_vae_that_decodes_in_tiles_repeats_too() -> None:
    """A rung of the memory ladder; without tiles the picture is nearly the same."""
    latents = torch.randn(1, 4, 24, 32, generator=torch.Generator().manual_seed(2))
    vae = demo().vae

    def shown(**options: Any) -> Any:
        return vaes.decode(vae, latents, **options)[0].pixels.astype(int)

    with seamless([vae]):
        expected = shown()
    tile = vae.tile_latent_min_size, vae.tile_sample_min_size
    vae.tile_latent_min_size, vae.tile_sample_min_size = 16, 128
    vae.enable_tiling()
    try:
        cut, found = shown(), shown(repeats=True)
    finally:
        vae.disable_tiling()
        vae.tile_latent_min_size, vae.tile_sample_min_size = tile
    assert found.shape == expected.shape
    assert seam(found) < 2 < 4 < seam(cut)
    assert np.abs(found - expected).mean() < np.abs(cut - expected).mean()
