"""What a picture of the demo world may hold: one shape or one corgi on a plain background."""

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
SIZES = ("", "small", "large")
POSITIONS = ("", "left", "right", "top", "bottom")

CORGI_SHARE = 0.32
BLURRY_SHARE = 0.05
SMALL_SHARE = LARGE_SHARE = 0.2
POSITION_SHARE = 0.55
HAT_SHARE, SUNGLASSES_SHARE, BOW_TIE_SHARE = 0.42, 0.28, 0.32


@dataclass(frozen=True)
class ShapeScene:
    """One shape; an empty size is the middle one, an empty position the centre."""

    background: str
    colour: str
    shape: str
    size: str = ""
    position: str = ""
    blurry: bool = False


@dataclass(frozen=True)
class CorgiScene:
    """A corgi's head; hat and bow tie are colours, or None where it wears none."""

    background: str
    hat: str | None = None
    sunglasses: bool = False
    bow_tie: str | None = None
    blurry: bool = False


Scene = ShapeScene | CorgiScene


def random_scene(rng: random.Random) -> Scene:
    """One scene of the training mixture."""
    scene: Scene = random_corgi(rng) if rng.random() < CORGI_SHARE else random_shape(rng)
    return replace(scene, blurry=rng.random() < BLURRY_SHARE)


def random_shape(rng: random.Random) -> ShapeScene:
    """A sharp shape whose colour differs from its background."""
    background, colour = rng.sample(list(COLOURS), 2)
    size = rng.choices(SIZES, (1 - SMALL_SHARE - LARGE_SHARE, SMALL_SHARE, LARGE_SHARE))[0]
    # A large shape fills the picture: there is no room to move it.
    moved = size != "large" and rng.random() < POSITION_SHARE
    position = rng.choice(POSITIONS[1:]) if moved else ""
    return ShapeScene(background, colour, rng.choice(SHAPES), size, position)


def random_corgi(rng: random.Random) -> CorgiScene:
    """A sharp corgi; what it wears never has the background's colour."""
    background = rng.choice(list(COLOURS))
    others = [colour for colour in COLOURS if colour != background]
    return CorgiScene(
        background,
        hat=rng.choice(others) if rng.random() < HAT_SHARE else None,
        sunglasses=rng.random() < SUNGLASSES_SHARE,
        bow_tie=rng.choice(others) if rng.random() < BOW_TIE_SHARE else None,
    )
