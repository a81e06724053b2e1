"""What prompts do to pictures of the demo model, measured in pixels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from picowatch.engine.options import EngineOptions
from picowatch.engine.renderer import Renderer
from tests.engine.requests import ignore_steps, pixels, request

# numpy 2.4 and torch 2.13 inside diffusers 0.42; in the engine process warnings are off.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SEEDS = range(1, 5)


@pytest.fixture(scope="module")
def engine() -> Renderer:
    return Renderer(EngineOptions(models=Path("nowhere"), device="cpu", threads=1))


def drawn(engine: Renderer, prompt: str, **values: Any) -> Any:
    """Four pictures of one prompt, as one array."""
    batch = [request(prompt, seed=seed, steps=12, **values) for seed in SEEDS]
    return np.stack([pixels(image) for image in engine.render(batch, ignore_steps)])


def red_share(pictures: Any) -> float:
    """The share of pixels in which red stands out."""
    red, green, blue = (pictures[..., channel] for channel in range(3))
    return float(((red > 150) & (red > green + 60) & (red > blue + 60)).mean())


def test_the_negative_prompt_red_removes_red(engine: Renderer) -> None:
    """From pictures whose colour the prompt leaves open."""
    with_red = drawn(engine, "a red circle on a white background")
    without = drawn(engine, "a circle on a white background", negative_prompt="red")
    assert red_share(with_red) > 0.05
    assert red_share(without) < 0.3 * red_share(with_red)


@pytest.mark.heavy
def test_more_and_less_of_a_word_move_a_share_of_the_pixels(engine: Renderer) -> None:
    """(red:1.4) against (red:0.6), in a prompt where two colours compete."""
    more, less = (drawn(engine, f"(red:{weight}) blue") for weight in ("1.4", "0.6"))
    moved = (np.abs(more - less).max(-1) > 25).mean()
    assert moved > 0.015  # measured: 0.03
