"""Shapes and things, drawn in a frame of reach 1."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from training.canvas import (
    Colour,
    Frame,
    Point,
    curve_points,
    edge_of,
    ellipse_point,
    ellipse_points,
    mixed,
    rounded,
)

INK: Colour = (34, 28, 34)
LIGHT: Colour = (255, 255, 255)
BROWN: Colour = (134, 86, 48)
CHERRY: Colour = (214, 40, 56)
ROOFS: tuple[Colour, ...] = ((160, 62, 48), (92, 70, 62), (70, 84, 112), (222, 120, 60))
PAPERS: tuple[Colour, ...] = ((196, 132, 78), (120, 190, 200), (240, 226, 196), (176, 140, 204))
SKY: Colour = (176, 222, 244)
SUN_RAYS = 8
# From this reach on, a face or a window is larger than a cell of the latents.
DETAILED_FROM = 23.0
# How far each kind may be tilted: what stands on the ground stands upright.
TILTS = {
    "circle": 0.0,
    "ring": 0.0,
    "square": 0.2,
    "triangle": 0.2,
    "star": 0.3,
    "heart": 0.22,
    "sun": 0.4,
    "moon": 0.35,
    "balloon": 0.2,
    "cupcake": 0.1,
    "house": 0.0,
    "tree": 0.0,
}


def draw_shape(frame: Frame, shape: str, colour: Colour, rng: random.Random) -> None:
    """A shape or thing in the given colour; what else it has, the random state decides."""
    if shape in DRAWERS:
        DRAWERS[shape](frame, colour, rng)
    else:
        frame.polygon(corners_of(shape), colour, edge_of(colour))


def draw_circle(frame: Frame, colour: Colour, rng: random.Random) -> None:
    frame.ellipse((0, 0), (1, 1), colour, edge_of(colour))


def draw_ring(frame: Frame, colour: Colour, rng: random.Random) -> None:
    """A disc with a hole, through which the background is seen."""
    edge = edge_of(colour)
    width = rng.uniform(0.4, 0.56)
    outer = ellipse_points((0, 0), (1, 1))
    inner = ellipse_points((0, 0), (1 - width, 1 - width))
    for (a, b), (c, d) in zip(pairs_around(outer), pairs_around(inner), strict=True):
        frame.canvas.polygon([frame.at(*point) for point in (a, b, d, c)], colour)
    if frame.outline > 0 and frame.canvas.outlined:
        inset = frame.outline / 2 / frame.reach
        for radius in (1 - inset, 1 - width + inset):
            points = ellipse_points((0, 0), (radius, radius))
            around = [frame.at(*point) for point in [*points, *points[:2]]]
            frame.canvas.line(around, edge, frame.outline)


def pairs_around(points: list[Point]) -> list[tuple[Point, Point]]:
    return list(zip(points, points[1:] + points[:1], strict=True))


def corners_of(shape: str) -> list[Point]:
    if shape == "square":
        return [(-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)]
    if shape == "triangle":
        angles = (-math.pi / 2, math.pi / 6, 5 * math.pi / 6)
        return [(1.1 * math.cos(angle), 0.18 + 1.1 * math.sin(angle)) for angle in angles]
    if shape == "star":
        reaches = [1.12 if i % 2 == 0 else 0.48 for i in range(10)]
        angles_of_star = [-math.pi / 2 + i * math.pi / 5 for i in range(10)]
        return [
            (reach * math.cos(angle), 0.05 + reach * math.sin(angle))
            for reach, angle in zip(reaches, angles_of_star, strict=True)
        ]
    if shape == "heart":
        return [heart_point(2 * math.pi * i / 72) for i in range(72)]
    raise ValueError(f"no such shape: {shape}")


def heart_point(turn: float) -> Point:
    """A point of the heart curve (https://mathworld.wolfram.com/HeartCurve.html, the sixth)."""
    across = math.sin(turn) ** 3
    up = 13 * math.cos(turn) - 5 * math.cos(2 * turn) - 2 * math.cos(3 * turn) - math.cos(4 * turn)
    return 1.02 * across, -0.98 * up / 15.5 - 0.08


def draw_house(frame: Frame, colour: Colour, rng: random.Random) -> None:
    """Walls in the colour, a roof in another, a door, often a chimney, mostly a window."""
    edge = edge_of(colour)
    roof = rng.choice(ROOFS)
    side = rng.choice((-1, 1))
    if rng.random() < 0.7:
        x = side * 0.5
        frame.polygon(
            [(x - 0.13, -0.9), (x + 0.13, -0.9), (x + 0.13, -0.2), (x - 0.13, -0.2)],
            mixed(roof, INK, 0.25),
            edge_of(roof),
        )
    frame.polygon([(-0.78, -0.16), (0.78, -0.16), (0.78, 1), (-0.78, 1)], colour, edge)
    top = rng.uniform(-1.05, -0.85)
    frame.polygon([(0, top), (1.02, -0.1), (-1.02, -0.1)], roof, edge_of(roof))
    door = mixed(BROWN, INK, rng.uniform(0, 0.5))
    x = -0.4 * side if rng.random() < 0.75 else 0.0
    frame.polygon([(x - 0.2, 0.3), (x + 0.2, 0.3), (x + 0.2, 1), (x - 0.2, 1)], door, edge_of(door))
    if x and frame.reach >= DETAILED_FROM:
        pane, half = x + 0.78 * side, 0.24
        box = [(pane - half, 0.2), (pane + half, 0.2), (pane + half, 0.66), (pane - half, 0.66)]
        frame.polygon(box, SKY if rng.random() < 0.6 else (255, 236, 150), edge)


def draw_sun(frame: Frame, colour: Colour, rng: random.Random) -> None:
    """A disc with pointed rays around it; one that is not small mostly has a face."""
    edge = edge_of(colour)
    for i in range(SUN_RAYS):
        turn = i / SUN_RAYS
        foot = [ellipse_point((0, 0), (0.62, 0.62), turn + side * 0.055) for side in (-1, 1)]
        frame.polygon([*foot, ellipse_point((0, 0), (1.18, 1.18), turn)], colour, edge)
    frame.ellipse((0, 0), (0.7, 0.7), colour, edge)
    if frame.reach >= DETAILED_FROM and rng.random() < 0.75:
        draw_little_face(frame, rng, 0.0, INK if sum(colour) > 200 else LIGHT)


def draw_little_face(frame: Frame, rng: random.Random, x: float, ink: Colour) -> None:
    asleep = rng.random() < 0.3
    for side in (-1, 1):
        if asleep:
            frame.arc((x + side * 0.25, -0.1), (0.11, 0.09), (0, 0.5), ink, 1.7)
        else:
            frame.ellipse((x + side * 0.25, -0.1), (0.08, 0.1), ink)
    frame.arc((x, 0.1), (0.24, rng.uniform(0.13, 0.24)), (0.05, 0.45), ink, 1.8)


def draw_moon(frame: Frame, colour: Colour, rng: random.Random) -> None:
    """A crescent, open to one side, sometimes with a closed eye."""
    side = rng.choice((-1, 1))
    bite = rng.uniform(0.38, 0.56)
    pale = mixed(colour, (255, 246, 200), 0.25) if colour[0] > 230 and colour[1] > 190 else colour
    outer = [ellipse_point((0, 0), (1, 1), 0.15 + 0.7 * i / 40) for i in range(41)]
    tips = outer[0], outer[-1]
    inner = curve_points(tips[1], (-1.02 + 2 * (1 - bite) * 0.62, 0), tips[0], 30)
    points = [(side * px + 0.25 * side, py) for px, py in outer + inner[1:-1]]
    frame.polygon(points, pale, edge_of(pale))
    if rng.random() < 0.55:
        ink = INK if sum(colour) > 200 else LIGHT
        frame.arc((side * (-0.38 + 0.0), -0.12), (0.13, 0.1), (0, 0.5), ink, 1.7)
        frame.arc((side * (-0.28 + 0.0), 0.18), (0.14, 0.12), (0.08, 0.4), ink, 1.6)


def draw_tree(frame: Frame, colour: Colour, rng: random.Random) -> None:
    """A trunk and a crown: a fir's, a round one or a cloud of leaves, at times with apples."""
    edge = edge_of(colour)
    half = rng.uniform(0.11, 0.16)
    trunk = [(-half, 0.1), (half, 0.1), (half * 1.3, 1.1), (-half * 1.3, 1.1)]
    frame.polygon(trunk, BROWN, edge_of(BROWN))
    kind = rng.random()
    if kind < 0.3:
        for low, top, wide in ((0.62, -0.15, 0.8), (0.18, -0.6, 0.66), (-0.24, -1.08, 0.5)):
            frame.polygon([(0, top), (wide, low), (-wide, low)], colour, edge)
        return
    if kind < 0.6:
        frame.ellipse((0, -0.28), (0.72, rng.uniform(0.72, 0.84)), colour, edge)
    else:
        leaves = [((-0.4, 0), 0.46), ((0.4, 0), 0.46), ((0, -0.48), 0.56)]
        for centre, radius in leaves:
            frame.ellipse(centre, (radius, radius), colour, edge)
        for centre, radius in leaves:
            less = radius - frame.outline / frame.reach
            frame.polygon(ellipse_points(centre, (less, less)), colour)
        frame.polygon(ellipse_points((0, -0.12), (0.3, 0.3)), colour)
    if rng.random() < 0.4:
        apple = CHERRY if colour[1] > 90 or sum(colour) < 150 else (250, 220, 90)
        for x, y in ((-0.32, -0.1), (0.34, -0.02), (0.02, -0.56)):
            frame.polygon(ellipse_points((x, y), (0.1, 0.1)), apple)


def draw_balloon(frame: Frame, colour: Colour, rng: random.Random) -> None:
    """An egg with a knot, a string and a shine."""
    edge = edge_of(colour)
    bend = rng.uniform(-0.3, 0.3)
    string = curve_points((0, 0.62), (bend, 0.9), (0, 1.02)) + curve_points(
        (0, 1.02), (-bend, 1.1), (bend / 2, 1.22)
    )
    frame.line(string, (120, 116, 122), 1.4)
    frame.polygon([(0, 0.5), (0.13, 0.72), (-0.13, 0.72)], colour, edge)
    egg = [
        (
            0.72 * math.sin(turn) * (1 - 0.13 * math.cos(math.pi - turn) * -1),
            -0.25 - 0.86 * math.cos(turn),
        )
        for turn in (2 * math.pi * i / 64 for i in range(64))
    ]
    frame.polygon(egg, colour, edge)
    shine = mixed(colour, LIGHT, 0.6)
    frame.polygon(ellipse_points((-0.28, -0.58), (0.12, 0.2)), shine)


def draw_cupcake(frame: Frame, colour: Colour, rng: random.Random) -> None:
    """A pleated paper cup, three layers of icing in the colour, and something on top."""
    paper = rng.choice(PAPERS)
    edge = edge_of(paper)
    frame.polygon([(-0.74, 0.2), (0.74, 0.2), (0.5, 1.06), (-0.5, 1.06)], paper, edge)
    for x in (-0.4, 0.0, 0.4):
        frame.canvas.line([frame.at(x * 1.1, 0.3), frame.at(x * 0.75, 1.0)], edge, 1.4)
    icing = edge_of(colour)
    tall = rng.uniform(0.95, 1.08)
    for y, radii in ((0.14, (0.86, 0.3)), (-0.24, (0.64, 0.28)), (-0.58, (0.38, 0.26))):
        frame.ellipse((0, y * tall), radii, colour, icing)
    frame.polygon(ellipse_points((0, -0.1), (0.3, 0.3)), colour)
    if rng.random() < 0.7:
        frame.ellipse((0, -0.92), (0.17, 0.17), CHERRY if colour[1] > 70 else (250, 220, 120), None)
    else:
        frame.polygon(
            rounded([(-0.08, -1.12), (0.08, -1.12), (0.08, -0.8), (-0.08, -0.8)], 0.2), SKY
        )
        frame.polygon(ellipse_points((0, -1.18), (0.1, 0.13)), (255, 190, 40))


DRAWERS: dict[str, Callable[[Frame, Colour, random.Random], None]] = {
    "circle": draw_circle,
    "ring": draw_ring,
    "house": draw_house,
    "sun": draw_sun,
    "moon": draw_moon,
    "tree": draw_tree,
    "balloon": draw_balloon,
    "cupcake": draw_cupcake,
}
