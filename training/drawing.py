"""Draws scenes: the same random state and scene give the same pixels."""

from __future__ import annotations

import math
import random

from PIL import Image, ImageDraw, ImageFilter

from training.scenes import COLOURS, CorgiScene, Scene, ShapeScene

Colour = tuple[int, int, int]
Point = tuple[float, float]

NATIVE_SIZE = 128
OVERSAMPLING = 4  # drawn larger and averaged, because ImageDraw does not smooth edges
OUTLINE_WIDTH = 2.6

FUR: Colour = (232, 150, 70)
FUR_EDGE: Colour = (150, 86, 34)
MUZZLE: Colour = (255, 250, 242)
INNER_EAR: Colour = (250, 190, 180)
INK: Colour = (28, 24, 28)
SHINE: Colour = (255, 255, 255)


def draw(
    scene: Scene, rng: random.Random, width: int = NATIVE_SIZE, height: int = NATIVE_SIZE
) -> Image.Image:
    """The scene as a picture; its subject grows with the picture's shorter side."""
    background = jittered(rng, COLOURS[scene.background])
    canvas = Canvas(width, height, background)
    if isinstance(scene, ShapeScene):
        draw_shape_scene(canvas, scene, rng)
    else:
        draw_corgi_scene(canvas, scene, rng)
    picture = canvas.reduced()
    if scene.blurry:
        radius = rng.uniform(3, 4.5) * min(width, height) / NATIVE_SIZE
        picture = picture.filter(ImageFilter.GaussianBlur(radius))
    return picture


class Canvas:
    """An oversampled picture measured in units of 1/128 of its shorter side."""

    def __init__(self, width: int, height: int, background: Colour) -> None:
        self.unit = OVERSAMPLING * min(width, height) / NATIVE_SIZE
        self.width = width * OVERSAMPLING / self.unit
        self.height = height * OVERSAMPLING / self.unit
        self.background = background
        size = (width * OVERSAMPLING, height * OVERSAMPLING)
        self.image = Image.new("RGB", size, background)
        self.pen = ImageDraw.Draw(self.image)

    def reduced(self) -> Image.Image:
        """The picture in its final size."""
        return self.image.reduce(OVERSAMPLING)

    def ellipse(
        self,
        centre: Point,
        radii: Point,
        fill: Colour,
        edge: Colour | None = None,
        edge_width: float = 2.0,
    ) -> None:
        """A filled ellipse, its edge drawn inwards."""
        (x, y), (rx, ry) = centre, radii
        box = self._scaled((x - rx, y - ry), (x + rx, y + ry))
        self.pen.ellipse(box, fill=fill, outline=edge, width=self._stroke(edge_width))

    def polygon(
        self,
        points: list[Point],
        fill: Colour,
        edge: Colour | None = None,
        edge_width: float = 2.0,
    ) -> None:
        """A filled polygon, its edge drawn on the border with round joints."""
        scaled = self._scaled(*points)
        self.pen.polygon(scaled, fill=fill)
        if edge is not None:
            closed = scaled + scaled[:2]
            self.pen.line(closed, fill=edge, width=self._stroke(edge_width), joint="curve")

    def line(self, points: list[Point], colour: Colour, width: float) -> None:
        """An open line."""
        self.pen.line(self._scaled(*points), fill=colour, width=self._stroke(width))

    def smile(self, centre: Point, radii: Point, colour: Colour, width: float) -> None:
        """The lower half of an ellipse's edge."""
        (x, y), (rx, ry) = centre, radii
        box = self._scaled((x - rx, y - ry), (x + rx, y + ry))
        self.pen.arc(box, 0, 180, fill=colour, width=self._stroke(width))

    def rounded_box(self, centre: Point, radii: Point, corner: float, fill: Colour) -> None:
        """A filled rectangle with round corners."""
        (x, y), (rx, ry) = centre, radii
        box = self._scaled((x - rx, y - ry), (x + rx, y + ry))
        self.pen.rounded_rectangle(box, radius=corner * self.unit, fill=fill)

    def _scaled(self, *points: Point) -> list[Point]:
        return [(x * self.unit, y * self.unit) for x, y in points]

    def _stroke(self, width: float) -> int:
        return max(1, round(width * self.unit))


def draw_shape_scene(canvas: Canvas, scene: ShapeScene, rng: random.Random) -> None:
    """A shape at the place and of the size that the scene says."""
    low, high = {"small": (14, 18), "": (27, 32), "large": (44, 50)}[scene.size]
    radius = rng.uniform(low, high)
    if scene.size == "small":
        margin = 64 - rng.uniform(34, 40)
    else:
        margin = max(64 - rng.uniform(27, 31), 2 + 1.1 * radius)
    centre = shape_centre(canvas, scene.position, margin, rng)
    draw_shape(canvas, scene.shape, centre, radius, jittered(rng, COLOURS[scene.colour]))


def shape_centre(canvas: Canvas, position: str, margin: float, rng: random.Random) -> Point:
    """About the picture's centre, or `margin` away from the side that the position names."""
    x = canvas.width / 2 + rng.uniform(-2.5, 2.5)
    y = canvas.height / 2 + rng.uniform(-2.5, 2.5)
    if position == "left":
        x = margin
    elif position == "right":
        x = canvas.width - margin
    elif position == "top":
        y = margin
    elif position == "bottom":
        y = canvas.height - margin
    return x, y


def draw_shape(canvas: Canvas, shape: str, centre: Point, radius: float, colour: Colour) -> None:
    """One outlined shape of about the given radius."""
    edge = edge_of(colour)
    if shape in ("circle", "ring"):
        canvas.ellipse(centre, (radius, radius), colour, edge, OUTLINE_WIDTH)
        if shape == "ring":
            hole = radius / 2
            canvas.ellipse(centre, (hole, hole), canvas.background, edge, OUTLINE_WIDTH)
    else:
        canvas.polygon(corners(shape, centre, radius), colour, edge, OUTLINE_WIDTH)


def corners(shape: str, centre: Point, radius: float) -> list[Point]:
    """The outline of a shape as a polygon."""
    x, y = centre
    if shape == "square":
        half = 0.86 * radius
        return [
            (x - half, y - half),
            (x + half, y - half),
            (x + half, y + half),
            (x - half, y + half),
        ]
    if shape == "triangle":
        low, reach = y + 0.18 * radius, 1.1 * radius
        turns = (-math.pi / 2, math.pi / 6, 5 * math.pi / 6)
        return [(x + reach * math.cos(turn), low + reach * math.sin(turn)) for turn in turns]
    if shape == "star":
        reaches = [radius * (1.12 if i % 2 == 0 else 0.48) for i in range(10)]
        turns_of_star = [-math.pi / 2 + i * math.pi / 5 for i in range(10)]
        return [
            (x + reach * math.cos(turn), y + 0.05 * radius + reach * math.sin(turn))
            for reach, turn in zip(reaches, turns_of_star, strict=True)
        ]
    if shape == "heart":
        return [heart_point(x, y, radius, 2 * math.pi * i / 72) for i in range(72)]
    raise ValueError(f"no such shape: {shape}")


def heart_point(x: float, y: float, radius: float, turn: float) -> Point:
    """A point of the heart curve (https://mathworld.wolfram.com/HeartCurve.html, the sixth)."""
    across = math.sin(turn) ** 3
    up = 13 * math.cos(turn) - 5 * math.cos(2 * turn) - 2 * math.cos(3 * turn) - math.cos(4 * turn)
    return x + 1.02 * radius * across, y - 0.98 * radius * up / 15.5 - 0.08 * radius


def draw_corgi_scene(canvas: Canvas, scene: CorgiScene, rng: random.Random) -> None:
    """A corgi in the middle, moved so that its hat and its bow tie have room."""
    half_face = rng.uniform(34, 38)
    x = canvas.width / 2 + rng.uniform(-3, 3)
    y = canvas.height / 2 + rng.uniform(-1, 4)
    y += (8 if scene.hat else 0) - (6 if scene.bow_tie else 0)
    face = Face(canvas, (x, y), half_face)
    face.draw_head(jittered(rng, FUR))
    if scene.sunglasses:
        face.draw_sunglasses()
    else:
        face.draw_eyes()
    face.draw_mouth()
    if scene.hat:
        face.draw_hat(jittered(rng, COLOURS[scene.hat]))
    if scene.bow_tie:
        face.draw_bow_tie(jittered(rng, COLOURS[scene.bow_tie]))


class Face:
    """A corgi's face, measured in halves of its own width."""

    def __init__(self, canvas: Canvas, centre: Point, half_width: float) -> None:
        self.canvas = canvas
        self.centre = centre
        self.half_width = half_width

    def at(self, x: float, y: float) -> Point:
        """A point of the face on the canvas."""
        return self.centre[0] + x * self.half_width, self.centre[1] + y * self.half_width

    def points(self, *points: Point) -> list[Point]:
        """Several points of the face on the canvas."""
        return [self.at(x, y) for x, y in points]

    def radii(self, x: float, y: float) -> Point:
        """A width and a height of the face on the canvas."""
        return x * self.half_width, y * self.half_width

    def draw_head(self, fur: Colour) -> None:
        """Ears, head, blaze and muzzle."""
        for side in (-1, 1):
            ear = self.points((side * 0.95, -1.25), (side * 0.98, -0.25), (side * 0.25, -0.62))
            inner = self.points((side * 0.86, -1.0), (side * 0.86, -0.45), (side * 0.45, -0.62))
            self.canvas.polygon(ear, fur, FUR_EDGE)
            self.canvas.polygon(inner, INNER_EAR)
        self.canvas.ellipse(self.centre, self.radii(1, 0.86), fur, FUR_EDGE)
        blaze = self.points((-0.13, -0.8), (0.13, -0.8), (0.3, 0.2), (-0.3, 0.2))
        self.canvas.polygon(blaze, MUZZLE)
        self.canvas.ellipse(self.at(0, 0.4), self.radii(0.6, 0.43), MUZZLE)

    def draw_eyes(self) -> None:
        """Two eyes with a shine."""
        for side in (-1, 1):
            self.canvas.ellipse(self.at(side * 0.42, -0.12), self.radii(0.14, 0.17), INK)
            shine = self.at(side * 0.42 + 0.04, -0.17)
            self.canvas.ellipse(shine, self.radii(0.05, 0.055), SHINE)

    def draw_sunglasses(self) -> None:
        """Two dark glasses on a bar."""
        for side in (-1, 1):
            glass = self.at(side * 0.44, -0.12)
            self.canvas.rounded_box(glass, self.radii(0.32, 0.22), 0.12 * self.half_width, INK)
        bar = self.points((-0.9, -0.26), (0.9, -0.26))
        self.canvas.line(bar, INK, 0.1 * self.half_width)

    def draw_mouth(self) -> None:
        """Nose and smile."""
        self.canvas.ellipse(self.at(0, 0.24), self.radii(0.17, 0.12), INK)
        self.canvas.line(self.points((0, 0.3), (0, 0.5)), INK, 1.8)
        for side in (-1, 1):
            self.canvas.smile(self.at(side * 0.16, 0.47), self.radii(0.16, 0.13), INK, 1.8)

    def draw_hat(self, colour: Colour) -> None:
        """A pointed hat with a pompon."""
        edge = edge_of(colour)
        cone = self.points((-0.54, -0.66), (0, -1.62), (0.54, -0.66))
        self.canvas.polygon(cone, colour, edge, 2.2)
        self.canvas.ellipse(self.at(0, -1.62), self.radii(0.15, 0.15), SHINE, edge)
        self.canvas.ellipse(self.at(0, -0.66), self.radii(0.58, 0.13), colour, edge)

    def draw_bow_tie(self, colour: Colour) -> None:
        """Two wings and a knot under the chin."""
        edge = edge_of(colour)
        for side in (-1, 1):
            wing = self.points((0, 1.02), (side * 0.68, 0.72), (side * 0.68, 1.32))
            self.canvas.polygon(wing, colour, edge)
        self.canvas.ellipse(self.at(0, 1.02), self.radii(0.16, 0.17), colour, edge)


def jittered(rng: random.Random, colour: Colour, reach: float = 5) -> Colour:
    """The colour, each channel moved a little."""
    red, green, blue = (
        round(min(255, max(0, channel + rng.uniform(-reach, reach)))) for channel in colour
    )
    return red, green, blue


def edge_of(colour: Colour) -> Colour:
    """A darker shade for the outline; a lighter one for black, which has no darker."""
    if sum(colour) <= 130:
        return 96, 96, 104
    red, green, blue = (round(0.62 * channel) for channel in colour)
    return red, green, blue
