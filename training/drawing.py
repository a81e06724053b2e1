"""Draw scenes: the same random state and scene give the same pixels.

Captions say kinds, colours, and now and then sizes and places. All else varies with the random
state: where in the picture, how large, how tilted, which shade, which fur and which face.
"""

from __future__ import annotations

import random

from PIL import Image, ImageFilter

from training.animals import (
    draw_bow_tie,
    draw_eyes,
    draw_hat,
    draw_head,
    draw_mouth,
    draw_sunglasses,
    random_look,
)
from training.canvas import NATIVE_SIZE, Canvas, Frame, Point, jittered
from training.scenes import ANIMALS, COLOURS, AnimalScene, PairScene, Scene, ShapeScene, Subject
from training.shapes import TILTS, draw_shape

SHADE = 9.0
SHADING_SHARE, LARGEST_SHADING = 0.5, 9.0
RADII = {"small": (17, 21), "": (23, 34), "large": (43, 49)}


def draw(
    scene: Scene, rng: random.Random, width: int = NATIVE_SIZE, height: int = NATIVE_SIZE
) -> Image.Image:
    """The scene as a picture; its subject grows with the picture's shorter side."""
    shading = rng.uniform(0, LARGEST_SHADING) if rng.random() < SHADING_SHARE else 0.0
    background = jittered(rng, COLOURS[scene.background], SHADE)
    canvas = Canvas(width, height, background, shading)
    draw_scene(canvas, scene, rng)
    picture = canvas.reduced()
    if scene.blurry:
        radius = rng.uniform(1.5, 3.5) * min(width, height) / NATIVE_SIZE
        picture = picture.filter(ImageFilter.GaussianBlur(radius))
    return picture


def draw_scene(canvas: Canvas, scene: Scene, rng: random.Random) -> None:
    """All that is before the background."""
    if isinstance(scene, ShapeScene):
        draw_shape_scene(canvas, scene, rng)
    elif isinstance(scene, AnimalScene):
        draw_animal_scene(canvas, scene, rng)
    else:
        draw_pair_scene(canvas, scene, rng)


def draw_shape_scene(canvas: Canvas, scene: ShapeScene, rng: random.Random) -> None:
    """A shape or thing, where and as large as the scene says or else the random state decides."""
    radius = rng.uniform(*RADII[scene.size])
    if scene.position not in ("", "middle"):
        radius = min(radius, 30)
    centre = place_of(canvas, scene.position, radius, rng)
    draw_subject(canvas, Subject(scene.shape, scene.colour), centre, radius, rng)


def place_of(canvas: Canvas, position: str, radius: float, rng: random.Random) -> Point:
    """A centre at the named side, or anywhere about the picture's middle."""
    # Stars and balloons reach a little further than 1.
    room_x = max(0.0, canvas.width / 2 - 1.14 * radius - 3)
    room_y = max(0.0, canvas.height / 2 - 1.14 * radius - 3)
    middle = position == "middle"
    reach_x, reach_y = (min(4.0 if middle else 17.0, room) for room in (room_x, room_y))
    x, y = rng.uniform(-reach_x, reach_x), rng.uniform(-reach_y, reach_y)
    away = rng.uniform(0.75, 1.0)
    if position in ("left", "right"):
        x, y = (-1 if position == "left" else 1) * away * max(room_x, 27), y * 0.6
    elif position in ("top", "bottom"):
        x, y = x * 0.6, (-1 if position == "top" else 1) * away * max(room_y, 27)
    return canvas.width / 2 + x, canvas.height / 2 + y


def draw_subject(
    canvas: Canvas, subject: Subject, centre: Point, radius: float, rng: random.Random
) -> None:
    outline = rng.uniform(1.7, 3.0) if rng.random() < 0.85 else 0.0
    if subject.kind in ANIMALS:
        scene = AnimalScene("", subject.kind)
        tilt = rng.uniform(-0.12, 0.12)
        draw_animal(Frame(canvas, centre, 0.86 * radius, tilt, 1.8), scene, rng)
        return
    canvas.layer = subject.kind
    most = TILTS[subject.kind]
    tilt = rng.uniform(-most, most) if rng.random() < 0.75 else 0.0
    frame = Frame(canvas, centre, radius, tilt, outline)
    draw_shape(frame, subject.kind, jittered(rng, COLOURS[subject.colour], SHADE), rng)


def draw_animal_scene(canvas: Canvas, scene: AnimalScene, rng: random.Random) -> None:
    """An animal, moved so that its hat and its bow tie have room."""
    half_face = rng.uniform(27, 40)
    up = 1.8 if scene.hat else 1.34
    down = 1.36 if scene.bow_tie else 0.94
    half_face = min(half_face, (canvas.height - 4) / (up + down))
    low, high = up * half_face + 2, canvas.height - down * half_face - 2
    room = max(0.0, canvas.width / 2 - 1.1 * half_face - 3)
    x = canvas.width / 2 + rng.uniform(-1, 1) * min(room, 20)
    middle = canvas.height / 2 + 2
    y = min(high, max(low, middle + rng.uniform(-16, 16)))
    frame = Frame(canvas, (x, y), half_face, rng.uniform(-0.17, 0.17), rng.uniform(1.7, 2.6))
    draw_animal(frame, scene, rng)


def draw_animal(frame: Frame, scene: AnimalScene, rng: random.Random) -> None:
    look = random_look(scene.animal, rng)
    frame.canvas.layer = f"{scene.animal} face"
    draw_head(frame, look)
    if not scene.sunglasses:
        draw_eyes(frame, look)
    draw_mouth(frame, look)
    if scene.sunglasses:
        frame.canvas.layer = f"{scene.animal} sunglasses"
        draw_sunglasses(frame)
    if scene.hat:
        frame.canvas.layer = f"{scene.animal} hat"
        draw_hat(frame, jittered(rng, COLOURS[scene.hat], SHADE))
    if scene.bow_tie:
        frame.canvas.layer = f"{scene.animal} bow tie"
        draw_bow_tie(frame, jittered(rng, COLOURS[scene.bow_tie], SHADE))


def draw_pair_scene(canvas: Canvas, scene: PairScene, rng: random.Random) -> None:
    """Two subjects; what stands lower is drawn last and may overlap the other a little."""
    first, second, relation = scene.first, scene.second, scene.relation
    if relation == "under" and second.kind == "tree":
        draw_under_tree(canvas, first, second, rng)
        return
    if relation in ("under", "right of") or (relation == "next to" and rng.random() < 0.5):
        first, second = second, first
    across = relation not in ("above", "under")
    slack = canvas.width / 2 - 64, canvas.height / 2 - 64
    shift = rng.uniform(-7, 7), rng.uniform(-7, 7)
    for subject, sign in ((first, -1), (second, 1)):
        radius = rng.uniform(19, 25)
        along, aside = sign * rng.uniform(29, 33), rng.uniform(-9, 9)
        x, y = (along, aside) if across else (aside, along)
        x = limited(x + shift[0] * (0.3 if across else 2), 61 + slack[0] - 1.14 * radius)
        y = limited(y + shift[1] * (2 if across else 0.3), 61 + slack[1] - 1.14 * radius)
        draw_subject(canvas, subject, (canvas.width / 2 + x, canvas.height / 2 + y), radius, rng)


def draw_under_tree(canvas: Canvas, first: Subject, tree: Subject, rng: random.Random) -> None:
    """A large tree, and before its trunk the other."""
    x = canvas.width / 2 + rng.uniform(-20, 20)
    y = canvas.height / 2 + rng.uniform(-8, -4)
    large = rng.uniform(44, 52)
    draw_subject(canvas, tree, (x, y), large, rng)
    radius = rng.uniform(18, 22)
    foot = canvas.height / 2 + 60 - 1.14 * radius
    aside = rng.choice((-1, 1)) * rng.uniform(4, 24)
    draw_subject(
        canvas,
        first,
        (limited_between(x + aside, radius + 4, canvas.width - radius - 4), foot),
        radius,
        rng,
    )


def limited(value: float, most: float) -> float:
    """The value, at most so far from 0."""
    return limited_between(value, -most, most)


def limited_between(value: float, least: float, most: float) -> float:
    return min(most, max(least, value))
