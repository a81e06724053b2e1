"""The drawn pictures, and the judge that later looks at the model's."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image, ImageDraw

from training.drawing import draw
from training.judge import (
    edge_sharpness,
    matches,
    mean_distance,
    roundness,
    see_shape,
    straightness,
)
from training.scenes import (
    COLOURS,
    POSITIONS,
    SHAPES,
    AnimalScene,
    PairScene,
    ShapeScene,
    Subject,
    random_scene,
)

RED_CIRCLE = ShapeScene("white", "red", "circle")


def test_the_same_seed_and_scene_give_the_same_pixels() -> None:
    """Drawing depends on nothing but its arguments."""
    scene = random_scene(random.Random(1))
    first, second = (draw(scene, random.Random(2)).tobytes() for _ in range(2))
    assert first == second


def test_seeds_of_one_scene_are_plainly_different_pictures() -> None:
    """What no caption says varies: where, how large, how tilted, which face."""
    for scene in (RED_CIRCLE, AnimalScene("blue", "cat"), ShapeScene("pink", "red", "house")):
        assert mean_distance([draw(scene, random.Random(seed)) for seed in range(6)]) > 12


@pytest.mark.heavy
def test_the_judge_recognises_nearly_everything_in_drawn_pictures() -> None:
    """A judge that is wrong about drawings could not tell what a model does."""
    rng = random.Random(4)
    answers: list[bool] = []
    for _ in range(100):
        scene = replace(random_scene(rng), blurry=False)
        answers.append(all(matches(draw(scene, rng), scene).values()))
    assert sum(answers) >= 0.96 * len(answers)


@pytest.mark.parametrize("wrong", ["background", "colour", "shape", "position", "size"])
def test_the_judge_sees_what_is_wrong_with_a_shape(wrong: str) -> None:
    """Only the property that differs is called wrong."""
    scene = replace(RED_CIRCLE, size="small", position="right")
    other: dict[str, Any] = {
        "background": "green",
        "colour": "blue",
        "shape": "star",
        "position": "left",
        "size": "large",
    }
    right = matches(draw(scene, random.Random(5)), replace(scene, **{wrong: other[wrong]}))
    assert [name for name, value in right.items() if not value] == [wrong]


@pytest.mark.parametrize(("rays", "shape"), [(0, "circle"), (7, "sun"), (9, "sun"), (13, "sun")])
def test_the_judge_counts_the_rays_of_a_sun(rays: int, shape: str) -> None:
    """A model's are round and uneven, and as a whole more like a balloon."""
    picture = Image.new("RGB", (128, 128), COLOURS["red"])
    pen = ImageDraw.Draw(picture)
    pen.ellipse((38, 40, 90, 92), COLOURS["yellow"])
    for number in range(rays):
        turn, reach = math.tau * (number + 0.2 * (number % 2)) / rays, 32 + 2 * (number % 3)
        x, y = 64 + reach * math.cos(turn), 66 + reach * math.sin(turn)
        pen.ellipse((x - 5, y - 5, x + 5, y + 5), COLOURS["yellow"])
    assert see_shape(picture).shape == shape


@pytest.mark.parametrize("wrong", ["background", "hat", "sunglasses", "bow tie", "face"])
def test_the_judge_sees_what_is_wrong_with_an_animal(wrong: str) -> None:
    """The property that differs is called wrong."""
    scene = AnimalScene("blue", hat="red", sunglasses=True, bow_tie="yellow")
    changed = {
        "background": replace(scene, background="green"),
        "hat": replace(scene, hat="pink"),
        "sunglasses": replace(scene, sunglasses=False),
        "bow tie": replace(scene, bow_tie="black"),
        "face": replace(scene, animal="cat"),
    }
    for seed in range(4):
        right = matches(draw(changed[wrong], random.Random(seed)), scene)
        assert [name for name, value in right.items() if not value] == [wrong]


def test_the_judge_sees_which_of_two_is_where() -> None:
    """Swapped subjects, another kind and another colour are each called wrong."""
    balloon, house = Subject("balloon", "red"), Subject("house", "pink")
    scene = PairScene("blue", balloon, "above", house)
    picture = draw(scene, random.Random(1))
    assert all(matches(picture, scene).values())
    assert all(matches(picture, PairScene("blue", house, "under", balloon)).values())
    for other in (
        replace(scene, first=house, second=balloon),
        replace(scene, relation="left of"),
        replace(scene, first=Subject("balloon", "green")),
        replace(scene, second=Subject("corgi")),
    ):
        assert not all(matches(picture, other).values())


@pytest.mark.parametrize("position", POSITIONS[1:])
@pytest.mark.parametrize("size", [(128, 128), (192, 128), (256, 256)])
def test_a_shape_stands_where_its_scene_says(position: str, size: tuple[int, int]) -> None:
    """Position words mean the same in every picture size."""
    for shape in SHAPES[::2]:
        scene = ShapeScene("white", "red", shape, position=position)
        assert see_shape(draw(scene, random.Random(7), *size)).position == position


def test_a_blurry_picture_has_no_sharp_edges() -> None:
    """What the captions call blurry is measurably so."""
    sharp, blurry = (draw(replace(RED_CIRCLE, blurry=b), random.Random(8)) for b in (False, True))
    assert edge_sharpness(blurry) < 25 < edge_sharpness(sharp)


def test_a_circle_is_round_and_a_square_straight() -> None:
    """Drawn ones nearly quite so; the one is not the other."""
    circle = draw(RED_CIRCLE, random.Random(9))
    square = draw(replace(RED_CIRCLE, shape="square"), random.Random(9))
    assert roundness(circle) > 0.985 > 0.95 > roundness(square)
    assert straightness(square) > 0.975 > 0.95 > straightness(circle)
