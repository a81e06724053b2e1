"""The canvas of all pictures: smooth outlines on a picture of four times the size."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]

NATIVE_SIZE = 128
OVERSAMPLING = 4  # drawn larger and averaged, because ImageDraw does not smooth edges
CORNERS_OF_AN_ELLIPSE = 72


class Canvas:
    """An oversampled picture measured in units of 1/128 of its shorter side."""

    def __init__(
        self,
        width: int,
        height: int,
        background: Colour,
        shading: float = 0.0,
        *,
        outlined: bool = True,
    ) -> None:
        self.outlined = outlined
        self.layer = ""  # what is being drawn, for those who want to know where it is
        self.unit = OVERSAMPLING * min(width, height) / NATIVE_SIZE
        self.width = width * OVERSAMPLING / self.unit
        self.height = height * OVERSAMPLING / self.unit
        size = (width * OVERSAMPLING, height * OVERSAMPLING)
        self.image = Image.new("RGB", size, background)
        if shading:
            self.image.paste(shaded(size, background, shading))
        self.pen = ImageDraw.Draw(self.image)

    def reduced(self) -> Image.Image:
        """The picture in its final size."""
        return self.image.reduce(OVERSAMPLING)

    def polygon(
        self, points: list[Point], fill: Colour, edge: Colour | None = None, width: float = 2.0
    ) -> None:
        """A filled polygon, its edge drawn on the border with round joints."""
        self.pen.polygon([(x * self.unit, y * self.unit) for x, y in points], fill=fill)
        if edge is not None and width > 0 and self.outlined:
            self.line([*points, *points[:2]], edge, width)

    def line(self, points: list[Point], colour: Colour, width: float) -> None:
        """An open line with round joints."""
        scaled = [(x * self.unit, y * self.unit) for x, y in points]
        self.pen.line(scaled, fill=colour, width=max(1, round(width * self.unit)), joint="curve")


def shaded(size: tuple[int, int], colour: Colour, shading: float) -> Image.Image:
    """The colour, lighter by `shading` levels at the top than in the middle, darker at the foot."""
    levels = shading * np.linspace(1, -1, size[1])[:, None] + np.array(colour)
    column = levels.clip(0, 255).round().astype(np.uint8)[:, None, :]
    return Image.fromarray(column).resize(size, Image.Resampling.NEAREST)


@dataclass(frozen=True)
class Frame:
    """A place on a canvas: points are told from its centre, in units of its reach, and tilted."""

    canvas: Canvas
    centre: Point
    reach: float
    tilt: float = 0.0
    outline: float = 2.2

    def at(self, x: float, y: float) -> Point:
        cosine, sine = math.cos(self.tilt), math.sin(self.tilt)
        return (
            self.centre[0] + self.reach * (x * cosine - y * sine),
            self.centre[1] + self.reach * (x * sine + y * cosine),
        )

    def polygon(self, points: list[Point], fill: Colour, edge: Colour | None = None) -> None:
        """A filled polygon with the frame's outline."""
        self.canvas.polygon([self.at(*point) for point in points], fill, edge, self.outline)

    def ellipse(
        self, centre: Point, radii: Point, fill: Colour, edge: Colour | None = None
    ) -> None:
        """A filled ellipse with the frame's outline inside."""
        if edge is not None and self.outline > 0 and self.canvas.outlined:
            self.polygon(ellipse_points(centre, radii), edge)
            less = self.outline / self.reach
            radii = (max(0.01, radii[0] - less), max(0.01, radii[1] - less))
        self.polygon(ellipse_points(centre, radii), fill)

    def line(self, points: list[Point], colour: Colour, width: float) -> None:
        """An open line with round ends, its width in the canvas's units."""
        self.canvas.line([self.at(*point) for point in points], colour, width)
        for end in (points[0], points[-1]):
            half = width / 2 / self.reach
            self.polygon(ellipse_points(end, (half, half)), colour)

    def arc(
        self, centre: Point, radii: Point, turns: tuple[float, float], colour: Colour, width: float
    ) -> None:
        """A part of an ellipse's border, from one turn to another (0 right, 0.25 down)."""
        begin, end = turns
        steps = 14
        points = [
            ellipse_point(centre, radii, begin + (end - begin) * i / steps)
            for i in range(steps + 1)
        ]
        self.line(points, colour, width)


def ellipse_point(centre: Point, radii: Point, turn: float) -> Point:
    angle = 2 * math.pi * turn
    return centre[0] + radii[0] * math.cos(angle), centre[1] + radii[1] * math.sin(angle)


def ellipse_points(centre: Point, radii: Point) -> list[Point]:
    count = CORNERS_OF_AN_ELLIPSE
    return [ellipse_point(centre, radii, i / count) for i in range(count)]


def curve_points(start: Point, bend: Point, end: Point, count: int = 12) -> list[Point]:
    """A quadratic Bézier curve."""
    points = []
    for i in range(count + 1):
        t = i / count
        a, b, c = (1 - t) ** 2, 2 * t * (1 - t), t * t
        points.append(
            (a * start[0] + b * bend[0] + c * end[0], a * start[1] + b * bend[1] + c * end[1])
        )
    return points


def rounded(corners: list[Point], share: float) -> list[Point]:
    """A polygon whose corners are curves that begin at a share of the sides."""
    points: list[Point] = []
    for i, corner in enumerate(corners):
        before, after = corners[i - 1], corners[(i + 1) % len(corners)]
        begin = between(corner, before, share)
        end = between(corner, after, share)
        points += curve_points(begin, corner, end, 8)
    return points


def between(first: Point, second: Point, share: float) -> Point:
    return (first[0] + (second[0] - first[0]) * share, first[1] + (second[1] - first[1]) * share)


def jittered(rng: random.Random, colour: Colour, reach: float = 5) -> Colour:
    """The colour a little lighter or darker, and each channel moved a little."""
    light = rng.uniform(-reach, reach)
    red, green, blue = (
        round(min(255, max(0, channel + light + rng.uniform(-reach, reach) / 2)))
        for channel in colour
    )
    return red, green, blue


def mixed(first: Colour, second: Colour, share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def edge_of(colour: Colour) -> Colour:
    """A darker shade for the outline; a lighter one for black, which has no darker."""
    if sum(colour) <= 150:
        return 96, 96, 104
    red, green, blue = (round(0.62 * channel) for channel in colour)
    return red, green, blue
