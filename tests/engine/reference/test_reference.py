"""The engine draws what it drew before; `requests.py` has the cases, and draws them anew."""

import numpy as np
import pytest

from picowatch.engine.drawing.renderer import Renderer
from tests.engine.reference.models import Models
from tests.engine.reference.requests import CASES, PICTURES, drawn, stored
from tests.kinds import one_of_each_kind

MOST = 2  # of 255
IN_EACH_RUN = (
    *("euler", "unipc", "weights", "mixed-lengths", "clip-skip", "editing-step", "variations"),
    *("masks-resized", "upscale", "hires-latent", "hires-mask", "tiling", "control-two", "vae"),
    *("control-batch", "lora-batch", "embedding-weight", "inpainting", "sdxl-lora", "sdxl-control"),
)


@pytest.fixture(scope="module")
def renderer(models: Models) -> Renderer:
    """Return a renderer in this process, which keeps its state from case to case."""
    return Renderer(models.options)


@pytest.mark.parametrize("name", one_of_each_kind(CASES, IN_EACH_RUN))
def test_the_pictures_are_the_stored_ones(name: str, models: Models, renderer: Renderer) -> None:
    """Rounding may differ, as it does on other kinds of processors."""
    found, wanted = drawn(renderer, models, name), stored(name)
    assert found.shape == wanted.shape, name
    difference = np.abs(found - wanted)
    assert difference.max() <= MOST, (
        f"{name}: {difference.max()} of 255 at most, {difference.mean():.3f} in the mean"
    )


def test_each_stored_picture_belongs_to_a_case() -> None:
    assert {path.stem for path in PICTURES.glob("*.png")} == set(CASES)
