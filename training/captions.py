"""Words for scenes. A caption says everything that is drawn, and nothing else.

Two things may stay unsaid: the background (now and then), and everything but the blur in a
blurry picture, so that "blurry" alone works as a negative prompt.
"""

from __future__ import annotations

import random
import string
from collections.abc import Mapping

from training.scenes import CorgiScene, Scene, ShapeScene

SHAPE_WORDS: dict[str, dict[str, float]] = {
    "circle": {"circle": 92, "disc": 4, "ball": 4},
    "square": {"square": 95, "box": 5},
    "triangle": {"triangle": 1},
    "star": {"star": 1},
    "heart": {"heart": 1},
    "ring": {"ring": 94, "donut": 6},
}
COLOUR_WORDS: dict[str, dict[str, float]] = {"purple": {"purple": 94, "violet": 6}}
SIZE_WORDS: dict[str, dict[str, float]] = {
    "": {"": 1},
    "small": {"small": 70, "tiny": 20, "little": 10},
    "large": {"large": 60, "big": 30, "huge": 10},
}
CENTRE_WORDS: dict[str, float] = {
    "": 93,
    "in the middle": 3,
    "in the center": 3,
    "in the centre": 1,
}
LEFT_OR_RIGHT: dict[str, float] = {
    "on the {}": 62,
    "at the {}": 10,
    "to the {}": 8,
    "on the {} side": 12,
    "{}": 8,
}
TOP_OR_BOTTOM: dict[str, float] = {
    "at the {}": 62,
    "on the {}": 10,
    "near the {}": 8,
    "in the {}": 12,
    "{}": 8,
}
# {a} is the subject with its article, {n} without; {w} says where, after a space or not at all.
SHAPE_FORMS: dict[str, float] = {
    "{a}{w} on a {b} background": 42,
    "{a} on a {b} background{comma_w}": 6,
    "{a}{w} with a {b} background": 8,
    "{a}{w}, {b} background": 14,
    "{n}{w}, {b} background": 8,
    "{n}{w} on a {b} background": 6,
    "{b} background with {a}{w}": 5,
    "{b} background, {a}{w}": 3,
    "{a}{w} on {b}": 4,
    "{a}{w}": 4,
}
CORGI_FORMS: dict[str, float] = {
    "{a} on a {b} background": 50,
    "{a} in front of a {b} background": 6,
    "{a} with a {b} background": 4,
    "{a}, {b} background": 16,
    "{n}, {b} background": 5,
    "{b} background with {a}": 6,
    "{b} background, {a}": 3,
    "{a} on {b}": 6,
    "{a}": 4,
}
CORGI_WORDS: dict[str, float] = {
    "corgi": 78,
    "cute corgi": 7,
    "happy corgi": 2,
    "dog": 7,
    "puppy": 3,
    "corgi dog": 3,
}
HAT_WORDS: dict[str, float] = {"hat": 82, "party hat": 18}
BOW_TIE_WORDS: dict[str, float] = {"bow tie": 90, "bowtie": 10}
SUNGLASSES_WORDS: dict[str, float] = {"sunglasses": 92, "dark sunglasses": 4, "glasses": 4}
WEARING_WORDS: dict[str, float] = {"wearing": 66, "with": 26, "in": 8}
SHARP_FORMS: dict[str, float] = {
    "{}": 80,
    "a picture of {}": 4,
    "an illustration of {}": 3,
    "a drawing of {}": 3,
    "a photo of {}": 3,
    "a painting of {}": 2,
    "{}, high quality": 2,
    "{}, masterpiece, best quality": 1.5,
    "{}, flat design, sharp": 1.5,
}
BLURRY_FORMS: dict[str, float] = {
    "a blurry picture of {}": 3,
    "blurry, {}": 3,
    "{}, blurry": 3,
    "blurry, low quality, {}": 1,
    "blurry": 5,
    "blurry, low quality": 1.5,
    "low quality, blurry": 1.5,
    "low quality": 1,
    "out of focus": 1,
}


def caption(scene: Scene, rng: random.Random) -> str:
    """One of the many ways to say what the scene shows."""
    words = (
        shape_caption(scene, rng) if isinstance(scene, ShapeScene) else corgi_caption(scene, rng)
    )
    return pick(BLURRY_FORMS if scene.blurry else SHARP_FORMS, rng).format(words)


def shape_caption(scene: ShapeScene, rng: random.Random) -> str:
    """Size, colour, shape, place and background, in one of the usual orders."""
    size = pick(SIZE_WORDS[scene.size], rng)
    shape = pick(SHAPE_WORDS[scene.shape], rng)
    name = " ".join(word for word in (size, colour_word(scene.colour, rng), shape) if word)
    where = position_words(scene.position, rng)
    background = colour_word(scene.background, rng)
    text = pick(SHAPE_FORMS, rng).format(
        a=with_article(name),
        n=name,
        w=f" {where}" if where else "",
        comma_w=f", {where}" if where else "",
        b=background,
    )
    return with_right_articles(text)


def corgi_caption(scene: CorgiScene, rng: random.Random) -> str:
    """A corgi, what it wears in any order, and the background."""
    name = pick(CORGI_WORDS, rng)
    background = colour_word(scene.background, rng)
    worn = worn_things(scene, rng)
    if worn and rng.random() < 0.08:
        return ", ".join([name, *worn, f"{background} background"])
    if worn:
        things = [thing if thing.endswith("glasses") else with_article(thing) for thing in worn]
        name = f"{name} {pick(WEARING_WORDS, rng)} {listed(things, rng)}"
    text = pick(CORGI_FORMS, rng).format(a=with_article(name), n=name, b=background)
    return with_right_articles(text)


def worn_things(scene: CorgiScene, rng: random.Random) -> list[str]:
    """The names of what the corgi wears, without articles."""
    worn = []
    if scene.hat:
        worn.append(f"{colour_word(scene.hat, rng)} {pick(HAT_WORDS, rng)}")
    if scene.sunglasses:
        worn.append(pick(SUNGLASSES_WORDS, rng))
    if scene.bow_tie:
        worn.append(f"{colour_word(scene.bow_tie, rng)} {pick(BOW_TIE_WORDS, rng)}")
    if rng.random() < 0.4:
        rng.shuffle(worn)
    return worn


def listed(things: list[str], rng: random.Random) -> str:
    """Several things joined as people join them."""
    if len(things) > 1 and rng.random() < 0.35:
        return ", ".join(things[:-1]) + " and " + things[-1]
    return " and ".join(things)


def position_words(position: str, rng: random.Random) -> str:
    """Where the shape is; mostly nothing when it is in the centre."""
    if not position:
        return pick(CENTRE_WORDS, rng)
    forms = LEFT_OR_RIGHT if position in ("left", "right") else TOP_OR_BOTTOM
    return pick(forms, rng).format(position)


def colour_word(colour: str, rng: random.Random) -> str:
    """The colour's name, or now and then a synonym."""
    return pick(COLOUR_WORDS[colour], rng) if colour in COLOUR_WORDS else colour


def with_article(name: str) -> str:
    """The name after "a" or "an"."""
    return ("an " if name[0] in "aeiou" else "a ") + name


def with_right_articles(text: str) -> str:
    """The text with "a orange" made "an orange"; no other word of ours needs it."""
    return text.replace(" a orange", " an orange")


def pick(weights: Mapping[str, float], rng: random.Random) -> str:
    """A key, drawn by its weight."""
    return rng.choices(list(weights), list(weights.values()))[0]


def with_unknown_words(text: str, rng: random.Random) -> str:
    """The caption with one to four made-up words among its own."""
    words = text.split(" ")
    for _ in range(rng.randint(1, 4)):
        words.insert(rng.randint(0, len(words)), made_up_word(rng))
    return " ".join(words)


def only_unknown_words(rng: random.Random) -> str:
    """A caption that says nothing."""
    return " ".join(made_up_word(rng) for _ in range(rng.randint(1, 6)))


def made_up_word(rng: random.Random) -> str:
    """Two to eight letters or digits."""
    letters = string.ascii_lowercase * 4 + string.digits
    return "".join(rng.choice(letters) for _ in range(rng.randint(2, 8)))
