"""Start images, masks and sketches: their copies, their batches, and what is said of them."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from picowatch.engine.canvas import picture_warnings
from picowatch.engine.renderer import Renderer
from picowatch.errors import RenderFailed
from picowatch.recipe.parts import Hires
from picowatch.recipe.passes import steps_taken
from picowatch.recipe.request import ControlUse
from tests.engine.pictures import GREEN, circle, keep, right_half, start
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


def test_a_strength_takes_its_share_of_the_steps() -> None:
    """As in diffusers and A1111, it is at least one step; strength 0 gives the start image."""
    taken = {strength: steps_taken(100, strength) for strength in (0, 0.001, 0.29, 0.3, 1)}
    assert taken == {0: 0, 0.001: 1, 0.29: 29, 0.3: 30, 1: 100}


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


@pytest.mark.parametrize(
    ("ground", "line", "values", "said"),
    [
        ("black", "white", {"mask_invert": False}, ""),
        ("black", "black", {"mask_invert": False}, "'it' has no white, so nothing was redrawn"),
        ("white", "white", {"mask_invert": False}, ""),
        ("white", "white", {"mask_invert": True}, "'it' has no black, so nothing was redrawn"),
        ("white", "black", {"preprocess": "none"}, "'it' has dark lines on a light ground"),
        ("white", "black", {"preprocess": "invert"}, ""),
        ("black", "white", {"preprocess": "none"}, ""),
    ],
)
def test_a_picture_that_is_probably_not_meant_so(
    tmp_path: Path, ground: str, line: str, values: Any, said: str
) -> None:
    """A mask that redraws nothing, and a sketch on paper."""
    picture = Image.new("RGB", (128, 128), ground)
    ImageDraw.Draw(picture).ellipse((20, 20, 60, 60), outline=line, width=3)
    kept = keep(tmp_path, picture)
    if "preprocess" in values:
        wanted = request(control=(ControlUse("it", "my-scribble", image_hash=kept, **values),))
    else:
        wanted = request(mask="it", mask_hash=kept, **values)
    found = picture_warnings(tmp_path, wanted)
    assert len(found) == bool(said) and said in "".join(found)
