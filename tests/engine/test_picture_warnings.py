"""Masks and sketches without the expected effect: the picture has a warning."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from picowatch.engine.canvas import picture_warnings
from picowatch.recipe.request import ControlUse
from tests.engine.pictures import keep
from tests.engine.requests import request


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
