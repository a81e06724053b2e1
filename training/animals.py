"""Animals' heads, drawn in a frame of which half a face's width is the reach."""

from __future__ import annotations

import random
from dataclasses import dataclass

from training.canvas import (
    Colour,
    Frame,
    Point,
    curve_points,
    edge_of,
    ellipse_points,
    mixed,
    rounded,
)

INK: Colour = (32, 26, 30)
SHINE: Colour = (255, 255, 255)
MUZZLE: Colour = (255, 250, 242)
INNER_EAR: Colour = (248, 184, 176)
TONGUE: Colour = (240, 104, 120)
CHEEK: Colour = (250, 140, 130)
FURS: dict[str, tuple[Colour, ...]] = {
    "corgi": ((232, 150, 70), (242, 176, 92), (208, 118, 54), (176, 112, 66)),
    "cat": ((152, 156, 170), (240, 170, 96), (84, 82, 92), (238, 228, 212), (178, 142, 112)),
}
IRISES: tuple[Colour, ...] = ((134, 190, 84), (250, 206, 84), (110, 180, 220))
EYES = ("open", "open", "open", "happy", "wink")
MOUTHS = ("smile", "smile", "open", "tongue")


@dataclass(frozen=True)
class Look:
    """The parts of an animal that no caption names."""

    animal: str
    fur: Colour
    blaze: float
    ear_spread: float
    ear_height: float
    eyes: str
    eye_size: float
    eye_gap: float
    iris: Colour
    mouth: str
    blush: bool
    stripes: bool
    chin: float


def random_look(animal: str, rng: random.Random) -> Look:
    """Any look of the animal."""
    return Look(
        animal,
        fur=rng.choice(FURS[animal]),
        blaze=rng.uniform(0.08, 0.2),
        ear_spread=rng.uniform(-0.12, 0.12),
        ear_height=rng.uniform(-0.16, 0.12),
        eyes=rng.choice(EYES),
        eye_size=rng.uniform(0.9, 1.2),
        eye_gap=rng.uniform(0.37, 0.46),
        iris=rng.choice(IRISES),
        mouth=rng.choice(MOUTHS),
        blush=rng.random() < 0.4,
        stripes=rng.random() < 0.5,
        chin=rng.uniform(0.82, 0.92),
    )


def draw_head(frame: Frame, look: Look) -> None:
    """Ears, face and muzzle."""
    (draw_corgi_head if look.animal == "corgi" else draw_cat_head)(frame, look)
    if look.blush:
        for side in (-1, 1):
            cheek = mixed(look.fur, CHEEK, 0.6)
            frame.polygon(ellipse_points((side * 0.7, 0.32), (0.13, 0.09)), cheek)


def draw_corgi_head(frame: Frame, look: Look) -> None:
    """Large upright ears, a white blaze and a white muzzle."""
    edge = edge_of(look.fur)
    tip, high = 0.93 + look.ear_spread, -1.28 + look.ear_height
    for side in (-1, 1):
        ear = [(side * tip, high), (side * 0.98, -0.2), (side * 0.22, -0.6)]
        inner = [(side * (tip - 0.08), high + 0.26), (side * 0.84, -0.42), (side * 0.44, -0.62)]
        frame.polygon(rounded(ear, 0.16), look.fur, edge)
        frame.polygon(rounded(inner, 0.2), INNER_EAR)
    frame.ellipse((0, 0), (1, look.chin), look.fur, edge)
    wide = look.blaze
    blaze = [*curve_points((-wide, -0.7), (0, -0.92), (wide, -0.7)), (0.34, 0.2), (-0.34, 0.2)]
    frame.polygon(blaze, MUZZLE)
    frame.polygon(ellipse_points((0, 0.4), (0.6, look.chin - 0.46)), MUZZLE)


def draw_cat_head(frame: Frame, look: Look) -> None:
    """Small pointed ears, stripes or none, whiskers and a light muzzle."""
    edge = edge_of(look.fur)
    tip, high = 0.8 + look.ear_spread * 0.6, -1.12 + look.ear_height
    for side in (-1, 1):
        ear = [(side * tip, high), (side * 0.97, -0.2), (side * 0.16, -0.66)]
        inner = [(side * (tip - 0.05), high + 0.24), (side * 0.82, -0.4), (side * 0.4, -0.62)]
        frame.polygon(rounded(ear, 0.06), look.fur, edge)
        frame.polygon(inner, INNER_EAR)
    frame.ellipse((0, 0), (1, look.chin - 0.02), look.fur, edge)
    if look.stripes:
        for x in (-0.2, 0.0, 0.2):
            low = -0.42 if x == 0 else -0.5
            frame.line([(x, -0.7), (x * 0.8, low)], edge, 0.09 * frame.reach)
    muzzle = mixed(look.fur, MUZZLE, 0.75)
    for side in (-1, 1):
        frame.polygon(ellipse_points((side * 0.2, 0.38), (0.28, 0.22)), muzzle)
    for side in (-1, 1):
        for y, far in ((0.3, 0.22), (0.42, 0.5)):
            frame.line([(side * 0.52, y), (side * 1.12, far)], edge, 1.2)


def draw_eyes(frame: Frame, look: Look) -> None:
    """Round eyes with a shine, eyes closed in a smile, or one of each."""
    for side in (-1, 1):
        x, size = side * look.eye_gap, look.eye_size
        if look.eyes == "happy" or (look.eyes == "wink" and side > 0):
            ink = INK if sum(look.fur) > 280 else SHINE
            frame.arc((x, -0.06), (0.16 * size, 0.15 * size), (0.52, 0.98), ink, 2.2)
            continue
        if look.animal == "cat":
            frame.polygon(ellipse_points((x, -0.1), (0.19 * size, 0.19 * size)), INK)
            frame.polygon(ellipse_points((x, -0.1), (0.155 * size, 0.155 * size)), look.iris)
            frame.polygon(ellipse_points((x, -0.1), (0.07 * size, 0.14 * size)), INK)
        else:
            frame.polygon(ellipse_points((x, -0.1), (0.14 * size, 0.165 * size)), INK)
        shine = (x + 0.045, -0.1 - 0.06 * size)
        frame.polygon(ellipse_points(shine, (0.05 * size, 0.055 * size)), SHINE)


def draw_sunglasses(frame: Frame) -> None:
    """Two dark glasses on a bar."""
    for side in (-1, 1):
        corners = [(0.1, -0.36), (0.78, -0.36), (0.7, 0.12), (0.2, 0.12)]
        frame.polygon(rounded([(side * x, y) for x, y in corners], 0.2), INK)
        shine = [(side * 0.3 - 0.06, -0.24), (side * 0.3 + 0.06, -0.24)]
        frame.line(shine, (120, 120, 132), 0.05 * frame.reach)
    frame.line([(-0.9, -0.28), (0.9, -0.28)], INK, 0.1 * frame.reach)


def draw_mouth(frame: Frame, look: Look) -> None:
    """Nose and mouth."""
    cat = look.animal == "cat"
    width = max(1.5, 0.055 * frame.reach)
    if look.mouth in ("open", "tongue"):
        opened = curve_points((-0.2, 0.44), (0, 1.0 if not cat else 0.86), (0.2, 0.44))
        frame.polygon(opened, mixed(INK, TONGUE, 0.25))
        low = 0.1 if look.mouth == "tongue" else 0.0
        frame.polygon(ellipse_points((0, 0.62 + low), (0.11, 0.1 + low)), TONGUE)
    for side in (-1, 1):
        frame.arc((side * 0.15, 0.44), (0.15, 0.13), (0.0, 0.5), INK, width)
    if cat:
        frame.polygon(rounded([(-0.13, 0.2), (0.13, 0.2), (0, 0.36)], 0.25), (236, 130, 140))
    else:
        frame.line([(0, 0.28), (0, 0.46)], INK, width)
        frame.polygon(ellipse_points((0, 0.22), (0.18, 0.13)), INK)
        frame.polygon(ellipse_points((0.04, 0.17), (0.05, 0.03)), (120, 112, 116))


def draw_hat(frame: Frame, colour: Colour) -> None:
    """A pointed hat with a pompon."""
    edge = edge_of(colour)
    frame.polygon([(-0.54, -0.66), (0, -1.62), (0.54, -0.66)], colour, edge)
    frame.ellipse((0, -1.62), (0.16, 0.16), SHINE, edge)
    frame.ellipse((0, -0.66), (0.58, 0.14), colour, edge)


def draw_bow_tie(frame: Frame, colour: Colour) -> None:
    """Two wings and a knot under the chin."""
    edge = edge_of(colour)
    for side in (-1, 1):
        wing: list[Point] = [(0, 1.02), (side * 0.68, 0.7), (side * 0.68, 1.34)]
        frame.polygon(rounded(wing, 0.12), colour, edge)
    frame.ellipse((0, 1.02), (0.17, 0.18), colour, edge)
