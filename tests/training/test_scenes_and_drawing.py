"""The drawn pictures, and the judge that later looks at the model's."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from training.drawing import draw
from training.judge import edge_sharpness, matches, see_shape
from training.scenes import POSITIONS, SHAPES, CorgiScene, ShapeScene, random_scene


def test_the_same_seed_and_scene_give_the_same_pixels() -> None:
    """Drawing depends on nothing but its arguments."""
    scene = random_scene(random.Random(1))
    first, second = (draw(scene, random.Random(2)).tobytes() for _ in range(2))
    assert first == second


def test_another_seed_moves_the_picture_a_little() -> None:
    """Two pictures of one scene are not copies."""
    scene = random_scene(random.Random(1))
    first, second = (draw(scene, random.Random(seed)).tobytes() for seed in (2, 3))
    assert first != second


def test_the_judge_recognises_everything_in_drawn_pictures() -> None:
    """Each property of each sharp picture is found as its scene says."""
    rng = random.Random(4)
    for _ in range(200):
        scene = replace(random_scene(rng), blurry=False)
        right = matches(draw(scene, rng), scene)
        assert all(right.values()), (scene, right)


@pytest.mark.parametrize("wrong", ["background", "colour", "shape", "position", "size"])
def test_the_judge_sees_what_is_wrong_with_a_shape(wrong: str) -> None:
    """Only the property that differs is called wrong."""
    scene = ShapeScene("white", "red", "circle")
    other: dict[str, Any] = {
        "background": "green",
        "colour": "blue",
        "shape": "star",
        "position": "left",
        "size": "small",
    }
    right = matches(draw(scene, random.Random(5)), replace(scene, **{wrong: other[wrong]}))
    assert [name for name, value in right.items() if not value] == [wrong]


@pytest.mark.parametrize("wrong", ["background", "hat", "sunglasses", "bow tie"])
def test_the_judge_sees_what_is_wrong_with_a_corgi(wrong: str) -> None:
    """Only the property that differs is called wrong."""
    scene = CorgiScene("blue", hat="red", sunglasses=True, bow_tie="yellow")
    changed = {
        "background": replace(scene, background="green"),
        "hat": replace(scene, hat="pink"),
        "sunglasses": replace(scene, sunglasses=False),
        "bow tie": replace(scene, bow_tie="black"),
    }
    right = matches(draw(changed[wrong], random.Random(6)), scene)
    assert [name for name, value in right.items() if not value] == [wrong]


@pytest.mark.parametrize("position", POSITIONS[1:])
@pytest.mark.parametrize("size", [(128, 128), (192, 128), (128, 192), (256, 256)])
def test_a_shape_stands_where_its_scene_says(position: str, size: tuple[int, int]) -> None:
    """Position words mean the same in every picture size."""
    for shape in SHAPES:
        scene = ShapeScene("white", "red", shape, position=position)
        assert see_shape(draw(scene, random.Random(7), *size)).position == position


def test_a_blurry_picture_has_no_sharp_edges() -> None:
    """What the captions call blurry is measurably so."""
    scene = ShapeScene("white", "red", "circle")
    sharp, blurry = (draw(replace(scene, blurry=b), random.Random(8)) for b in (False, True))
    assert edge_sharpness(blurry) < 25 < edge_sharpness(sharp)
