"""The drawn pictures, by their pixels: what a caption says is there."""

from __future__ import annotations

import random

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.colours import shares
from training.cutout import drawn_pair
from training.drawing import draw
from training.scenes import COLOURS, POSITIONS, SHAPES, PairScene, ShapeScene, Subject


def pixels_of(picture: Image.Image) -> NDArray[np.float64]:
    return np.asarray(picture.convert("RGB"), dtype=np.float64)


@pytest.mark.parametrize("colour", ["red", "green", "purple"])
def test_colours_are_those_of_the_scene(colour: str) -> None:
    """Of the background, and of every shape."""
    for shape in SHAPES:
        found = shares(draw(ShapeScene("white", colour, shape), random.Random(3)))
        assert list(found)[:2] == ["white", colour]


@pytest.mark.parametrize("relation", ["above", "under", "left of", "right of"])
def test_two_subjects_stand_as_their_relation_says(relation: str) -> None:
    """The first one's colour lies on its side of the second's."""
    scene = PairScene("white", Subject("heart", "red"), relation, Subject("square", "green"))
    pixels = pixels_of(draw(scene, random.Random(5)))
    places = [
        np.argwhere(np.abs(pixels - COLOURS[colour]).sum(axis=2) < 120).mean(axis=0)
        for colour in ("red", "green")
    ]
    down, right = places[0] - places[1]
    assert {"above": -down, "under": down, "left of": -right, "right of": right}[relation] > 15


@pytest.mark.parametrize("position", POSITIONS[1:])
@pytest.mark.parametrize("size", [(128, 128), (192, 128), (256, 256)])
def test_a_shape_stands_where_its_scene_says(position: str, size: tuple[int, int]) -> None:
    """Position words mean the same in every picture size."""
    for shape in SHAPES[::2]:
        scene = ShapeScene("white", "red", shape, position=position)
        pixels = pixels_of(draw(scene, random.Random(7), *size))
        subject = np.abs(pixels - pixels[1, 1]).sum(axis=2) > 100
        x, y = (
            places.mean() / side for places, side in zip(subject.nonzero()[::-1], size, strict=True)
        )
        sides = {"left": 0.5 - x, "right": x - 0.5, "top": 0.5 - y, "bottom": y - 0.5}
        if position in sides:
            assert sides[position] > 0.08, (x, y)
        else:
            assert abs(x - 0.5) < 0.12 and abs(y - 0.5) < 0.12, (x, y)


@pytest.mark.parametrize("size", [(128, 128), (192, 128)])
def test_a_drawing_knows_what_is_figure(size: tuple[int, int]) -> None:
    """Nothing in its mask is ground, and outside of it each row has one colour."""
    picture, mask = drawn_pair(random.Random(1), size)
    assert picture.size == mask.size == size
    pixels, figure = np.asarray(picture).astype(int), np.asarray(mask)
    assert 0.02 < (figure == 255).mean() < 0.95
    ground = [row[~shown] for row, shown in zip(pixels, figure > 0, strict=True)]
    assert all(np.ptp(row, 0).max() <= 1 for row in ground if len(row))
