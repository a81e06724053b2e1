"""Start images and masks: fitted, redrawn as much as was asked, and kept outside the mask."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from picowatch.engine.canvas import read_canvas
from picowatch.engine.renderer import Renderer
from picowatch.errors import RenderFailed
from picowatch.recipe.parts import Hires
from picowatch.recipe.samplers import SAMPLERS, sampler_named
from tests.engine.pictures import (
    GREEN,
    as_mask,
    as_pixels,
    away_from,
    circle,
    right_half,
    start,
)
from tests.engine.requests import NUMPY_WARNINGS, difference, draw, pixels, request
from tests.kinds import SAMPLERS_IN_EACH_RUN, one_of_each_kind

pytestmark = NUMPY_WARNINGS

EVERY_SAMPLER = one_of_each_kind(
    [sampler.name for sampler in SAMPLERS if sampler.name != "LCM"], SAMPLERS_IN_EACH_RUN
)
HALVES = slice(0, 64), slice(64, 128)
SMALL: dict[str, Any] = {"width": 64, "height": 64}


def drawn(renderer: Renderer, prompt: str = "a red circle on a blue background", **v: Any) -> Any:
    return draw(renderer, request(prompt, **v))[0]


def test_the_soft_edge_of_a_mask_goes_on_at_the_opposite_edge_of_a_picture_that_repeats(
    kept: Path,
) -> None:
    """Otherwise what is redrawn there would end in a seam."""
    left = np.zeros((64, 64), np.uint8)
    left[:, :20] = 255
    given = start(kept, 0.5) | as_mask(kept, Image.fromarray(left), 4, False)
    plain, repeating = (
        read_canvas(kept, request(tiling=tiling, **given), 64, 64).opacity
        for tiling in (False, True)
    )
    assert plain is not None and repeating is not None
    assert plain[0, 0] == 255 and plain[0, 63] == 0
    assert 120 < repeating[0, 0] < 160 and 90 < repeating[0, 63] < 135
    assert (plain[:, 12:50] == repeating[:, 12:50]).all()


def test_a_kept_copy_that_is_lost_or_damaged_is_explained(renderer: Renderer, kept: Path) -> None:
    """Its name is its hash; it was kept when the save was accepted."""
    damaged = start(kept, 0.5, circle(8))
    (kept / damaged["image_hash"]).write_bytes(b"something else")
    for given in (damaged, damaged | {"image_hash": "0" * 64}):
        with pytest.raises(RenderFailed, match=r"copy of 'it\.png' is missing or damaged"):
            drawn(renderer, **given)


@pytest.mark.parametrize(
    ("strength", "taken"), [(0.0, 0), (0.01, 1), (0.29, 2), (0.3, 3), (1.0, 10)]
)
def test_the_share_of_steps_is_the_strength(
    renderer: Renderer, kept: Path, strength: float, taken: int
) -> None:
    """As in diffusers and A1111; one step at least, but none for 0: then it is the start image."""
    steps: list[tuple[int, int]] = []
    wanted = request("a corgi", **start(kept, strength), steps=10)
    (image,) = renderer.render([wanted], lambda done, total: steps.append((done, total)))
    assert steps == [(done, taken) for done in range(1, taken + 1)]
    assert strength or away_from(image, circle()) < 6


@pytest.mark.parametrize("sampler", EVERY_SAMPLER)
def test_every_sampler_starts_in_the_middle_and_keeps_what_is_masked(
    renderer: Renderer, kept: Path, sampler: str
) -> None:
    """With the noise its own schedule has there: a wrong amount would show as grain or grey."""
    schedule_type = sampler_named(sampler).automatic
    given: dict[str, Any] = {"steps": 8, "sampler": sampler, "schedule_type": schedule_type}
    whole = drawn(renderer, **start(kept, 0.4), **given)
    assert away_from(whole, circle()) < 16
    half = drawn(renderer, **start(kept, 0.7), **right_half(kept), **given)
    assert np.array_equal(pixels(half)[:, :64], as_pixels(circle())[:, :64])
    blue = pixels(half)[100:, 70:].mean((0, 1))
    assert blue[2] > 150 > blue[0]


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
