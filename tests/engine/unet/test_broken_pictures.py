"""An invalid picture is never published."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from picowatch.engine.options import EngineOptions
from picowatch.engine.renderer import Renderer
from picowatch.errors import RenderFailed
from tests.engine.pictures import start
from tests.engine.requests import ignore_steps, pixels, request

# numpy 2.4 and torch 2.13 inside diffusers 0.42; in the engine process warnings are off.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def engine(tmp_path: Path) -> Renderer:
    options = EngineOptions(models=Path("nowhere"), device="cpu", threads=1, start_images=tmp_path)
    engine = Renderer(options)
    engine.render([request(steps=1)], ignore_steps)
    return engine


def break_vae(engine: Renderer, value: float) -> None:
    """A decoder that gives one value for everything."""
    loaded = engine._checkpoints.held(request())
    assert loaded is not None
    out = loaded.vae.decoder.conv_out
    out.weight = torch.nn.Parameter(torch.zeros_like(out.weight), requires_grad=False)
    out.bias = torch.nn.Parameter(torch.full_like(out.bias, value), requires_grad=False)


@pytest.mark.parametrize(("value", "colour"), [(-1.0, "0, 0, 0"), (0.0, "128, 128, 128")])
def test_a_picture_of_one_colour_fails_with_the_reason(
    engine: Renderer, value: float, colour: str
) -> None:
    """Black or grey: the decoder has lost the picture."""
    break_vae(engine, value)
    with pytest.raises(RenderFailed, match=rf"one single colour \({colour}\).* precision: float32"):
        engine.render([request(steps=1)], ignore_steps)


def test_a_start_image_of_one_colour_may_stay_so(engine: Renderer, tmp_path: Path) -> None:
    """That is what was requested, not a failure."""
    break_vae(engine, 1.0)
    white = start(tmp_path, 0.0, Image.new("RGB", (128, 128), "white"))
    (image,) = engine.render([request(**white)], ignore_steps)
    assert (pixels(image) == 255).all()


def test_a_picture_that_is_white_all_over_is_no_failure(engine: Renderer) -> None:
    """The decoder lost nothing: what it gives differs, and is brighter than white everywhere."""
    loaded = engine._checkpoints.held(request())
    assert loaded is not None
    out = loaded.vae.decoder.conv_out
    out.bias = torch.nn.Parameter(out.bias + 9, requires_grad=False)
    (image,) = engine.render([request(steps=1)], ignore_steps)
    assert (pixels(image) == 255).all()


def test_a_picture_that_is_one_colour_once_it_is_rounded_is_no_failure(engine: Renderer) -> None:
    """With `tiling` a plain background is so even that no pixel differs by half a level."""
    loaded = engine._checkpoints.held(request())
    assert loaded is not None
    out = loaded.vae.decoder.conv_out
    out.weight = torch.nn.Parameter(out.weight * 1e-4, requires_grad=False)
    out.bias = torch.nn.Parameter(torch.full_like(out.bias, 0.5), requires_grad=False)
    (image,) = engine.render([request(steps=1)], ignore_steps)
    assert (pixels(image) == 191).all()


def test_plain_prompts_are_no_failures(engine: Renderer) -> None:
    """Even the plainest picture has more than one value."""
    for prompt in ("a black background", "a white background"):
        (image,) = engine.render([request(prompt, steps=8)], ignore_steps)
        assert np.ptp(pixels(image)) > 0


def test_a_unet_that_overflows_fails_with_the_reason(engine: Renderer) -> None:
    """NaN is not a picture."""
    loaded = engine._checkpoints.held(request())
    assert loaded is not None
    handle = loaded.unet.conv_out.register_forward_hook(lambda *_: _[-1] * float("nan"))
    with pytest.raises(RenderFailed, match="the checkpoint overflowed"):
        engine.render([request(steps=1)], ignore_steps)
    handle.remove()
