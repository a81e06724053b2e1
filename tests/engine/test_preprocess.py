"""Maps of pictures: edges as OpenCV finds them, and what else needs no weights."""

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from picowatch.engine.preprocess import canny, preprocess
from picowatch.recipe.request import ControlUse
from tests.engine.opencv_canny import GRAIN, SHAPES, WAVES, grain, shapes, unpacked, waves


def use(name: Any, **values: Any) -> ControlUse:
    return ControlUse("a.png", "it", preprocess=name, **values)


def rgb(picture: Image.Image) -> Any:
    return np.asarray(picture.convert("RGB"))


def square() -> Any:
    """White, from 10 to 20, on black."""
    picture = Image.new("L", (32, 32))
    picture.paste(255, (10, 10, 21, 21))
    return rgb(picture)


def test_the_edges_of_a_square_are_one_pixel_wide() -> None:
    """Of the two equally steep columns beside an edge, the first counts, as in OpenCV."""
    expected = np.zeros((32, 32), np.uint8)
    expected[9, 10:21] = expected[20, 10:21] = 255
    expected[10:21, 9] = expected[10:21, 20] = 255
    found = canny(square(), 100, 200)
    assert np.abs(found[12:19, 12:19] - expected[12:19, 12:19]).max() == 0
    assert set(np.flatnonzero(found[15])) == {9, 20}
    assert set(np.flatnonzero(found[:, 15])) == {9, 20}


def steps(*heights: int) -> Any:
    """Grey columns, four pixels wide, each so much lighter than the one before."""
    values = np.cumsum((0, *heights)).repeat(4).astype(np.uint8)
    return np.repeat(np.repeat(values[None, :, None], 16, axis=0), 3, axis=2)


@pytest.mark.parametrize(
    ("height", "low", "high", "found"),
    [
        # A step of 30 has a strength of 4 * 30.
        (30, 100, 119, True),
        (30, 100, 120, False),
        (30, 120, 119, False),
        (30, 119, 100, True),
    ],
)
def test_an_edge_is_stronger_than_the_thresholds(
    height: int, low: int, high: int, found: bool
) -> None:
    """Whichever of them is given first."""
    assert canny(steps(height), low, high).any() == found


@pytest.mark.parametrize(
    ("picture", "low", "high", "recorded"),
    [(waves(), 50, 100, WAVES), (shapes(), 100, 200, SHAPES), (grain(), 100, 200, GRAIN)],
    ids=["waves", "shapes", "grain"],
)
def test_edges_are_those_of_opencv(picture: Any, low: int, high: int, recorded: str) -> None:
    """To the pixel: ControlNets were trained on its maps."""
    expected = unpacked(recorded)
    assert (expected > 0).sum() > 200
    assert (canny(picture, low, high) == expected).all()


def test_weak_edges_count_where_they_lead_to_strong_ones() -> None:
    """A line that fades keeps its faint end; one that is faint all along is lost."""
    picture = np.zeros((40, 40, 3), np.uint8)
    picture[:, 10:, :] = np.linspace(60, 30, 40).astype(np.uint8)[:, None, None]
    picture[:, 30:, :] += 30
    found = canny(picture, 100, 200)
    assert found[2:38, 9:11].any(axis=1).all()
    assert not found[:, 29:31].any()


def test_edges_between_colours_of_one_brightness_are_found() -> None:
    """In the channel where they are strongest."""
    picture = Image.new("RGB", (16, 16), (200, 0, 0))
    picture.paste((0, 102, 0), (8, 0, 16, 16))
    assert (canny(rgb(picture), 100, 200)[2:14, 7] == 255).all()


def test_a_circle_is_one_closed_line() -> None:
    """Thin, and without gaps that eight neighbours leave."""
    picture = Image.new("L", (64, 64))
    ImageDraw.Draw(picture).ellipse((12, 12, 50, 50), fill=255)
    found = canny(rgb(picture), 100, 200) > 0
    padded = np.pad(found, 1).astype(int)
    around = -padded[1:-1, 1:-1]
    for y in range(3):
        for x in range(3):
            around += padded[y : y + 64, x : x + 64]
    assert 100 < found.sum() < 150
    assert (around[found] >= 2).all()


def test_a_plain_picture_has_no_edges_and_no_lines() -> None:
    """And nothing is divided by zero."""
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
    """Whatever the paper's colour; its slow changes are no lines."""
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
