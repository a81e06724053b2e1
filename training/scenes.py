"""Scenes of the demo world: things and animals, one or two, on a background."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (222, 44, 44),
    "orange": (250, 140, 26),
    "yellow": (252, 216, 48),
    "green": (52, 168, 70),
    "blue": (44, 100, 226),
    "purple": (130, 60, 190),
    "pink": (250, 142, 196),
    "black": (34, 34, 38),
    "white": (246, 246, 246),
}
SHAPES = ("circle", "square", "triangle", "star", "heart", "ring")
THINGS = ("house", "sun", "tree", "moon", "balloon", "cupcake")
ANIMALS = ("corgi", "cat")
# The colour that a thing has where nothing is said about it.
NATURAL_COLOURS = {"sun": "yellow", "tree": "green", "moon": "yellow"}
SIZES = ("", "small", "large")
POSITIONS = ("", "middle", "left", "right", "top", "bottom")
RELATIONS = ("above", "under", "left of", "right of", "next to")

SHAPE_SHARE, THING_SHARE, ANIMAL_SHARE = 0.26, 0.2, 0.32  # the rest are pairs
BLURRY_SHARE = 0.02
SMALL_SHARE = LARGE_SHARE = 0.14
POSITION_SHARE = 0.36
CORGI_SHARE = 0.64
HAT_SHARE, SUNGLASSES_SHARE, BOW_TIE_SHARE = 0.38, 0.26, 0.3
NATURAL_SHARE = 0.75
UNDER_A_TREE_SHARE = 0.12


@dataclass(frozen=True)
class ShapeScene:
    """One shape or thing; an empty size or position is any, as the drawing's seed has it."""

    background: str
    colour: str
    shape: str
    size: str = ""
    position: str = ""
    blurry: bool = False


@dataclass(frozen=True)
class AnimalScene:
    """An animal's head; hat and bow tie are colours, or None where it wears none."""

    background: str
    animal: str = "corgi"
    hat: str | None = None
    sunglasses: bool = False
    bow_tie: str | None = None
    blurry: bool = False


@dataclass(frozen=True)
class Subject:
    """One of two things in a picture; an animal has no colour."""

    kind: str
    colour: str = ""


@dataclass(frozen=True)
class PairScene:
    """Two subjects, and where the first one is, seen from the second."""

    background: str
    first: Subject
    relation: str
    second: Subject
    blurry: bool = False


Scene = ShapeScene | AnimalScene | PairScene


def random_scene(rng: random.Random) -> Scene:
    kind = rng.random()
    scene: Scene
    if kind < SHAPE_SHARE:
        scene = random_shape(rng, SHAPES)
    elif kind < SHAPE_SHARE + THING_SHARE:
        scene = random_shape(rng, THINGS)
    elif kind < SHAPE_SHARE + THING_SHARE + ANIMAL_SHARE:
        scene = random_animal(rng)
    else:
        scene = random_pair(rng)
    return replace(scene, blurry=rng.random() < BLURRY_SHARE)


def random_shape(rng: random.Random, kinds: tuple[str, ...] = SHAPES) -> ShapeScene:
    """A sharp shape or thing whose colour differs from its background."""
    shape = rng.choice(kinds)
    colour = random_colour(shape, rng)
    background = rng.choice([other for other in COLOURS if other != colour])
    size = rng.choices(SIZES, (1 - SMALL_SHARE - LARGE_SHARE, SMALL_SHARE, LARGE_SHARE))[0]
    # A large shape fills the picture: there is no room to move it.
    placed = size != "large" and rng.random() < POSITION_SHARE
    return ShapeScene(background, colour, shape, size, rng.choice(POSITIONS[1:]) if placed else "")


def random_colour(kind: str, rng: random.Random) -> str:
    """Any colour; for sun, tree and moon mostly their own."""
    if kind in NATURAL_COLOURS and rng.random() < NATURAL_SHARE:
        return NATURAL_COLOURS[kind]
    return rng.choice(list(COLOURS))


def random_animal(rng: random.Random) -> AnimalScene:
    """A sharp animal; what it wears never has the background's colour."""
    background = rng.choice(list(COLOURS))
    others = [colour for colour in COLOURS if colour != background]
    return AnimalScene(
        background,
        "corgi" if rng.random() < CORGI_SHARE else "cat",
        hat=rng.choice(others) if rng.random() < HAT_SHARE else None,
        sunglasses=rng.random() < SUNGLASSES_SHARE,
        bow_tie=rng.choice(others) if rng.random() < BOW_TIE_SHARE else None,
    )


def random_pair(rng: random.Random) -> PairScene:
    """Two different subjects, neither in the background's colour."""
    if rng.random() < UNDER_A_TREE_SHARE:
        first, second = rng.choice(ANIMALS), "tree"
        relation = "under"
    else:
        first, second = rng.sample(SHAPES + THINGS + ANIMALS + ANIMALS, 2)
        relation = rng.choice(RELATIONS)
    if first == second:
        second = "tree" if first != "tree" else "house"
    subjects = [
        Subject(kind, "" if kind in ANIMALS else random_colour(kind, rng))
        for kind in (first, second)
    ]
    taken = [subject.colour for subject in subjects]
    background = rng.choice([colour for colour in COLOURS if colour not in taken])
    return PairScene(background, subjects[0], relation, subjects[1])
