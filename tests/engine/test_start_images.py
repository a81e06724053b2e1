"""Start images and masks: fitted, redrawn by the strength, and kept outside the mask."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from picowatch.engine.renderer import Renderer
from picowatch.errors import RenderFailed
from picowatch.recipe.parts import Hires
from tests.engine.pictures import (
    GREEN,
    away_from,
    circle,
    right_half,
    start,
)
from tests.engine.requests import NUMPY_WARNINGS, difference, draw, request

pytestmark = NUMPY_WARNINGS

SMALL: dict[str, Any] = {"width": 64, "height": 64}


def test_a_kept_copy_that_is_lost_or_damaged_is_explained(renderer: Renderer, kept: Path) -> None:
    """Its name is its hash; it was kept when the save was accepted."""
    damaged = start(kept, 0.5, circle(8))
    (kept / damaged["image_hash"]).write_bytes(b"something else")
    for given in (damaged, damaged | {"image_hash": "0" * 64}):
        with pytest.raises(RenderFailed, match=r"copy of 'it\.png' is missing or damaged"):
            draw(renderer, request(**given))


@pytest.mark.parametrize(
    ("strength", "taken"), [(0.0, 0), (0.01, 1), (0.29, 2), (0.3, 3), (1.0, 10)]
)
def test_the_share_of_steps_is_the_strength(
    renderer: Renderer, kept: Path, strength: float, taken: int
) -> None:
    """As in diffusers and A1111, it is at least one step; strength 0 gives the start image."""
    steps: list[tuple[int, int]] = []
    wanted = request("a corgi", **start(kept, strength), steps=10)
    (image,) = renderer.render([wanted], lambda done, total: steps.append((done, total)))
    assert steps == [(done, taken) for done in range(1, taken + 1)]
    assert strength or away_from(image, circle()) < 6


def test_images_with_start_images_do_not_depend_on_their_neighbours(
    renderer: Renderer, kept: Path
) -> None:
    """Other start images, masks and seeds in one batch; both passes draw from each one's seed."""
    noisy: dict[str, Any] = {"sampler": "DPM++ 2M SDE", "schedule_type": "karras", "steps": 4}
    given = {**SMALL, **noisy, "hires": Hires(1.5, 3, 0.6)}
    other = Image.new("RGB", (300, 200), GREEN)
    wanted = [
        request(seed=1, **start(kept, 0.5), **right_half(kept), **given),
        request(seed=2, **start(kept, 0.5, other), **right_half(kept, invert=True), **given),
    ]
    together = draw(renderer, *wanted)
    for image, one in zip(together, wanted, strict=True):
        assert difference(image, draw(renderer, one)[0]) <= 2
