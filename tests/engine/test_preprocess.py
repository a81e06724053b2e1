"""Maps of pictures: edges as OpenCV finds them, and others that need no weights."""

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from picowatch.engine.preprocess import canny, preprocess
from picowatch.recipe.request import ControlUse
from tests.engine.opencv_canny import GRAIN, grain, unpacked


def use(name: Any, **values: Any) -> ControlUse:
    return ControlUse("a.png", "it", preprocess=name, **values)


def rgb(picture: Image.Image) -> Any:
    return np.asarray(picture.convert("RGB"))


def test_edges_are_those_of_opencv() -> None:
    """Each pixel is equal, in either order of thresholds: ControlNets were trained on its maps."""
    expected = unpacked(GRAIN)
    assert (expected > 0).sum() > 200
    assert (canny(grain(), 100, 200) == expected).all()
    assert (canny(grain(), 200, 100) == expected).all()


def test_a_plain_picture_has_no_edges_and_no_lines() -> None:
    """Nothing is divided by zero."""
    plain = np.full((16, 16, 3), 77, np.uint8)
    assert not canny(plain, 0, 0).any()
    assert not preprocess(plain, use("lineart")).any()


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("none", {}, [(10, 20, 30), (255, 255, 255), (0, 0, 0), (200, 128, 140)]),
        ("tile", {}, [(10, 20, 30), (255, 255, 255), (0, 0, 0), (200, 128, 140)]),
        ("invert", {}, [(245, 235, 225), (0, 0, 0), (255, 255, 255), (55, 127, 115)]),
        ("threshold", {}, [(0,) * 3, (255,) * 3, (0,) * 3, (255,) * 3]),
        ("threshold", {"threshold": 128}, [(0,) * 3, (255,) * 3, (0,) * 3, (0,) * 3]),
        # CIELAB's lightness: 6.3, 100, 0 and 60.8 of 100.
        ("luminance", {}, [(16,) * 3, (255,) * 3, (0,) * 3, (155,) * 3]),
    ],
)
def test_maps_of_single_pixels(name: str, values: Any, expected: Any) -> None:
    """Every channel counts for the threshold."""
    picture = np.array([[(10, 20, 30), (255, 255, 255), (0, 0, 0), (200, 128, 140)]], np.uint8)
    found = preprocess(picture, use(name, **values))
    assert np.abs(found[0].astype(int) - expected).max() <= 1
    assert found.dtype == np.uint8


def test_dark_lines_on_paper_become_white_ones_on_black() -> None:
    """This holds for any colour of paper; gradual changes are no lines."""
    picture = Image.new("RGB", (64, 64), (230, 220, 180))
    ImageDraw.Draw(picture).line((8, 8, 56, 56), (60, 60, 60), 2)
    found = preprocess(rgb(picture), use("lineart"))
    assert found[32, 32].min() > 100
    assert found[10:20, 50].max() < 20


def test_a_blur_is_as_wide_as_it_says() -> None:
    """A Gaussian's: at one radius from an edge, 84 % of the way is done."""
    picture = np.zeros((8, 128, 3), np.uint8)
    picture[:, 64:] = 255
    found = preprocess(picture, use("blur", radius=9.0))
    assert abs(int(found[4, 64 + 9, 0]) - 0.84 * 255) < 8
