"""Drawn pictures of which is known what each of their pixels is, and words for what is in them."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import cycle, islice

import numpy as np
from PIL import Image, ImageDraw

from training.canvas import Canvas, Colour, Frame, Point, jittered
from training.captions import (
    ANIMAL_WORDS,
    BOW_TIE_WORDS,
    HAT_WORDS,
    SHAPE_WORDS,
    SUNGLASSES_WORDS,
    made_up_word,
)
from training.drawing import (
    LARGEST_SHADING,
    SHADE,
    SHADING_SHARE,
    draw_animal,
    draw_scene,
    draw_subject,
)
from training.scenes import (
    ANIMALS,
    COLOURS,
    SHAPES,
    THINGS,
    AnimalScene,
    Scene,
    ShapeScene,
    Subject,
    random_animal,
    random_colour,
    random_pair,
    random_scene,
)

WORN = ("hat", "sunglasses", "bow tie")
LAYERS = ("", *SHAPES, *THINGS, *(f"{a} {part}" for a in ANIMALS for part in ("face", *WORN)))
LABELS_SIDE = 256
# What a phrase may name, its words, and what of the layers it means. An animal is its head with
# all that it wears; a face is without hat and bow tie.
WORDS: dict[str, tuple[str, ...]] = {
    **{kind: tuple(words) for kind, words in SHAPE_WORDS.items()},
    **{kind: tuple(words) for kind, words in ANIMAL_WORDS.items()},
    "hat": tuple(HAT_WORDS),
    "sunglasses": tuple(SUNGLASSES_WORDS),
    "bow tie": tuple(BOW_TIE_WORDS),
    "animal": ("animal", "pet"),
    "face": ("face", "head"),
    "background": ("background", "sky"),
}
FORMS = ("{}", "{}", "the {}", "the {}", "a {}", "its {}")
COLOUR_SHARE, MADE_UP_SHARE = 0.25, 0.1
ANIMAL_SHARE, PAIR_SHARE = 0.15, 0.5
MOST_IN_A_CROWD = 5


@dataclass(frozen=True)
class Drawing:
    """A picture, the number of each pixel's layer, and the colours of some layers."""

    picture: Image.Image
    labels: np.ndarray[tuple[int, int], np.dtype[np.uint8]]
    colours: dict[str, str]


class Layered(Canvas):
    """A canvas that notes for each pixel which layer was drawn there last."""

    def __init__(self, width: int, height: int, background: Colour, shading: float = 0.0) -> None:
        super().__init__(width, height, background, shading)
        self.labels = Image.new("L", self.image.size)
        self.label_pen = ImageDraw.Draw(self.labels)

    def polygon(
        self, points: list[Point], fill: Colour, edge: Colour | None = None, width: float = 2.0
    ) -> None:
        scaled = [(x * self.unit, y * self.unit) for x, y in points]
        self.label_pen.polygon(scaled, fill=LAYERS.index(self.layer))
        super().polygon(points, fill, edge, width)

    def line(self, points: list[Point], colour: Colour, width: float) -> None:
        scaled = [(x * self.unit, y * self.unit) for x, y in points]
        thick = max(1, round(width * self.unit))
        self.label_pen.line(scaled, LAYERS.index(self.layer), thick, joint="curve")
        super().line(points, colour, width)

    def drawn(self, colours: dict[str, str]) -> Drawing:
        side = (LABELS_SIDE, LABELS_SIDE)
        labels = np.asarray(self.labels.resize(side, Image.Resampling.NEAREST))
        return Drawing(self.reduced(), labels, colours)


def drawn_scene(scene: Scene, rng: random.Random, size: tuple[int, int]) -> Drawing:
    """A scene that the demo model knows, too."""
    canvas = canvas_of(scene.background, rng, size)
    draw_scene(canvas, scene, rng)
    return canvas.drawn(colours_of(scene))


def drawn_crowd(rng: random.Random, size: tuple[int, int]) -> Drawing:
    """Two to five small things and animals, none before another."""
    background = rng.choice(list(COLOURS))
    canvas = canvas_of(background, rng, size)
    taken: list[tuple[float, float, float]] = []
    for _ in range(rng.randint(2, MOST_IN_A_CROWD)):
        radius = rng.uniform(12, 27)
        x, y = (rng.uniform(radius, most - radius) for most in (canvas.width, canvas.height))
        if all((x - a) ** 2 + (y - b) ** 2 > (radius + c) ** 2 for a, b, c in taken):
            taken.append((x, y, 1.1 * radius))
            draw_one(canvas, background, (x, y), radius, rng)
    return canvas.drawn({})


def draw_one(
    canvas: Canvas, background: str, centre: Point, radius: float, rng: random.Random
) -> None:
    """Some thing or animal, with all that it wears inside the radius."""
    if rng.random() < 0.6:
        scene = replace(random_animal(rng), background=background)
        frame = Frame(canvas, centre, 0.6 * radius, rng.uniform(-0.2, 0.2), radius / 14)
        draw_animal(frame, scene, rng)
        return
    kind = rng.choice(SHAPES + THINGS)
    while (colour := random_colour(kind, rng)) == background:
        kind = rng.choice(SHAPES + THINGS)
    draw_subject(canvas, Subject(kind, colour), centre, 0.85 * radius, rng)


def canvas_of(background: str, rng: random.Random, size: tuple[int, int]) -> Layered:
    """A canvas whose background varies as that of the demo model's training pictures."""
    shading = rng.uniform(0, LARGEST_SHADING) if rng.random() < SHADING_SHARE else 0.0
    return Layered(*size, jittered(rng, COLOURS[background], SHADE), shading)


def colours_of(scene: Scene) -> dict[str, str]:
    """The colours that a scene gives to what a phrase may name."""
    if isinstance(scene, AnimalScene):
        worn = {"hat": scene.hat, "bow tie": scene.bow_tie}
        return {name: colour for name, colour in worn.items() if colour}
    if isinstance(scene, ShapeScene):
        return {scene.shape: scene.colour}
    pair = (scene.first, scene.second)
    return {subject.kind: subject.colour for subject in pair if subject.colour}


def meant(concept: str, layer: str) -> bool:
    """Return true if the layer is a part of what the concept means."""
    animal, _, part = layer.partition(" ")
    if concept == "background":
        return not layer
    if concept == "face":
        return part in ("face", "sunglasses")
    if concept == "animal":
        return animal in ANIMALS
    return concept in (animal, part)


MEANT = {concept: np.array([meant(concept, layer) for layer in LAYERS]) for concept in WORDS}


def mask_of(concept: str, labels: np.ndarray) -> np.ndarray:
    """Where the concept is: how much of each pixel of half the labels' size."""
    here = MEANT[concept][labels]
    side = LABELS_SIDE // 2
    share: np.ndarray = here.reshape(side, 2, side, 2).mean((1, 3), dtype=np.float32)
    return share


def concepts_in(labels: np.ndarray, least: float = 0.001) -> list[str]:
    shares = np.bincount(labels.ravel(), minlength=len(LAYERS)) / labels.size
    return [concept for concept in WORDS if shares[MEANT[concept]].sum() > least]


def phrase_for(concept: str, colours: dict[str, str], rng: random.Random) -> str:
    """Words that people may write for a concept."""
    word = rng.choice(WORDS[concept])
    if concept in colours and rng.random() < COLOUR_SHARE:
        word = f"{colours[concept]} {word}"
    return rng.choice(FORMS).format(word)


def phrases_for(
    drawing: Drawing, rng: random.Random, count: int
) -> Iterable[tuple[str, np.ndarray]]:
    """Some phrases with their masks: the last one names nothing that is there.

    What is worn is the smallest, and is asked for most. All name different things, if there are.
    """
    there = concepts_in(drawing.labels)
    often = there + 2 * [concept for concept in WORN if concept in there]
    rng.shuffle(often)
    for concept in islice(cycle(dict.fromkeys(often)), count - 1):
        yield phrase_for(concept, drawing.colours, rng), mask_of(concept, drawing.labels)
    missing = [concept for concept in WORDS if concept not in there]
    missing += 4 * [concept for concept in WORN if concept not in there]
    words = made_up_word(rng)
    if rng.random() > MADE_UP_SHARE:
        words = phrase_for(rng.choice(missing), {}, rng)
    yield words, np.zeros((LABELS_SIDE // 2, LABELS_SIDE // 2), np.float32)


def random_drawing(rng: random.Random, size: tuple[int, int]) -> tuple[Drawing, Scene]:
    """A sharp scene that the demo model can draw, too."""
    kind, scene = rng.random(), random_scene(rng)
    if kind < ANIMAL_SHARE:
        scene = random_animal(rng)
    elif kind < ANIMAL_SHARE + PAIR_SHARE:
        scene = random_pair(rng)
    scene = replace(scene, blurry=False)
    return drawn_scene(scene, rng, size), scene
