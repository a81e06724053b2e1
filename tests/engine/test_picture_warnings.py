"""Masks and sketches that change nothing, or something else: the picture comes with a warning."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from picowatch.engine.canvas import picture_warnings
from picowatch.recipe.request import ControlUse
from tests.engine.pictures import keep
from tests.engine.requests import request


def drawing(ground: str, line: str) -> Image.Image:
    picture = Image.new("RGB", (128, 128), ground)
    ImageDraw.Draw(picture).ellipse((20, 20, 60, 60), outline=line, width=3)
    return picture


@pytest.mark.parametrize(
    ("colours", "invert", "said"),
    [
        (("black", "white"), False, ""),
        (("black", "black"), False, "The mask 'mask.png' has no white, so nothing was redrawn."),
        (("white", "white"), False, ""),
        (("white", "white"), True, "The mask 'mask.png' has no black, so nothing was redrawn."),
    ],
)
def test_a_mask_that_redraws_nothing(
    tmp_path: Path, colours: tuple[str, str], invert: bool, said: str
) -> None:
    kept = keep(tmp_path, drawing(*colours))
    wanted = request(mask="mask.png", mask_hash=kept, mask_invert=invert)
    assert picture_warnings(tmp_path, wanted) == ([said] if said else [])


@pytest.mark.parametrize(
    ("colours", "preprocess", "warned"),
    [
        (("white", "black"), "none", True),
        (("white", "black"), "invert", False),
        (("black", "white"), "none", False),
    ],
)
def test_a_sketch_on_paper(
    tmp_path: Path, colours: tuple[str, str], preprocess: Any, warned: bool
) -> None:
    kept = keep(tmp_path, drawing(*colours))
    use = ControlUse("sketch.png", "my-scribble", preprocess=preprocess, image_hash=kept)
    found = picture_warnings(tmp_path, request(control=(use,)))
    assert len(found) == warned
    assert "'sketch.png' has dark lines on a light ground" in "".join(found) or not warned
