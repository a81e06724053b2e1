"""Words for scenes. A caption says nothing that is not drawn, and names every subject.

What may stay unsaid varies from seed to seed: now and then the background and a colour, and
everything but the blur in a blurry picture, so that "blurry" alone works as a negative prompt.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Mapping

from training.scenes import (
    ANIMALS,
    COLOURS,
    NATURAL_COLOURS,
    AnimalScene,
    PairScene,
    Scene,
    ShapeScene,
    Subject,
)

SHAPE_WORDS: dict[str, dict[str, float]] = {
    "circle": {"circle": 92, "disc": 4, "ball": 4},
    "square": {"square": 95, "box": 5},
    "triangle": {"triangle": 1},
    "star": {"star": 1},
    "heart": {"heart": 1},
    "ring": {"ring": 94, "donut": 6},
    "house": {"house": 95, "home": 5},
    "sun": {"sun": 1},
    "tree": {"tree": 1},
    "moon": {"moon": 96, "crescent moon": 4},
    "balloon": {"balloon": 1},
    "cupcake": {"cupcake": 90, "muffin": 5, "cake": 5},
}
COLOUR_WORDS: dict[str, dict[str, float]] = {"purple": {"purple": 94, "violet": 6}}
# How often a colour stays unsaid; sun, tree and moon need not say their own.
UNSAID_COLOUR_SHARE, UNSAID_NATURAL_SHARE = 0.07, 0.8
UNSAID_IN_PAIRS_SHARE = 0.3
SIZE_WORDS: dict[str, dict[str, float]] = {
    "": {"": 1},
    "small": {"small": 70, "tiny": 20, "little": 10},
    "large": {"large": 60, "big": 30, "huge": 10},
}
CENTRE_WORDS: dict[str, float] = {"in the middle": 50, "in the center": 35, "in the centre": 15}
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
RELATION_WORDS: dict[str, dict[str, float]] = {
    "above": {"above": 70, "over": 20, "on top of": 10},
    "under": {"under": 60, "below": 25, "beneath": 10, "underneath": 5},
    "left of": {"left of": 40, "to the left of": 60},
    "right of": {"right of": 40, "to the right of": 60},
    "next to": {"next to": 40, "beside": 20, "and": 30, "with": 10},
}
# {a} is the subject with its article, {n} without; {w} says where, after a space or not at all.
SHAPE_FORMS: dict[str, float] = {
    "{a}{w} on a {b} background": 38,
    "{a} on a {b} background{comma_w}": 6,
    "{a}{w} with a {b} background": 6,
    "{a}{w}, {b} background": 14,
    "{n}{w}, {b} background": 8,
    "{n}{w} on a {b} background": 5,
    "{b} background with {a}{w}": 5,
    "{b} background, {a}{w}": 3,
    "{a}{w} on {b}": 4,
    "{a}{w}": 9,
    "{n}{w}": 2,
}
# Animals and pairs.
SCENE_FORMS: dict[str, float] = {
    "{a} on a {b} background": 46,
    "{a} in front of a {b} background": 5,
    "{a} with a {b} background": 4,
    "{a}, {b} background": 16,
    "{n}, {b} background": 5,
    "{b} background with {a}": 6,
    "{b} background, {a}": 3,
    "{a} on {b}": 4,
    "{a}": 9,
    "{n}": 2,
}
ANIMAL_WORDS: dict[str, dict[str, float]] = {
    "corgi": {"corgi": 78, "cute corgi": 7, "happy corgi": 2, "dog": 7, "puppy": 3, "corgi dog": 3},
    "cat": {"cat": 84, "cute cat": 7, "happy cat": 2, "kitten": 5, "kitty": 2},
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
ONLY_BLURRY: dict[str, float] = {
    "blurry": 5,
    "blurry, low quality": 1.5,
    "low quality, blurry": 1.5,
    "low quality": 1,
    "out of focus": 1,
}
BLURRY_FORMS: dict[str, float] = {
    "a blurry picture of {}": 3,
    "blurry, {}": 3,
    "{}, blurry": 3,
    "blurry, low quality, {}": 1,
    **ONLY_BLURRY,
}


def caption(scene: Scene, rng: random.Random) -> str:
    """One of the many ways to say what the scene shows."""
    if isinstance(scene, ShapeScene):
        words = shape_caption(scene, rng)
    elif isinstance(scene, AnimalScene):
        words = animal_caption(scene, rng)
    else:
        words = pair_caption(scene, rng)
    return pick(BLURRY_FORMS if scene.blurry else SHARP_FORMS, rng).format(words)


def shape_caption(scene: ShapeScene, rng: random.Random) -> str:
    """Size, colour, shape, place and background, in one of the usual orders."""
    size = pick(SIZE_WORDS[scene.size], rng)
    name = subject_words(Subject(scene.shape, scene.colour), rng, UNSAID_COLOUR_SHARE)
    name = f"{size} {name}" if size else name
    where = position_words(scene.position, rng)
    text = pick(SHAPE_FORMS, rng).format(
        a=with_article(name),
        n=name,
        w=f" {where}" if where else "",
        comma_w=f", {where}" if where else "",
        b=colour_word(scene.background, rng),
    )
    return with_right_articles(text)


def animal_caption(scene: AnimalScene, rng: random.Random) -> str:
    """An animal, what it wears in any order, and the background."""
    name = pick(ANIMAL_WORDS[scene.animal], rng)
    background = colour_word(scene.background, rng)
    worn = worn_things(scene, rng)
    if worn and rng.random() < 0.08:
        return ", ".join([name, *worn, f"{background} background"])
    if worn:
        things = [thing if thing.endswith("glasses") else with_article(thing) for thing in worn]
        name = f"{name} {pick(WEARING_WORDS, rng)} {listed(things, rng)}"
    text = pick(SCENE_FORMS, rng).format(a=with_article(name), n=name, b=background)
    return with_right_articles(text)


def pair_caption(scene: PairScene, rng: random.Random) -> str:
    """Both subjects, how they stand to one another, and the background."""
    first, second = (
        subject_words(subject, rng, UNSAID_IN_PAIRS_SHARE)
        for subject in (scene.first, scene.second)
    )
    relation = pick(RELATION_WORDS[scene.relation], rng)
    name = f"{first} {relation} {with_article(second)}"
    text = pick(SCENE_FORMS, rng).format(
        a=with_article(name), n=name, b=colour_word(scene.background, rng)
    )
    return with_right_articles(text)


def subject_words(subject: Subject, rng: random.Random, unsaid_share: float) -> str:
    """A subject's name, mostly with its colour."""
    if subject.kind in ANIMALS:
        return pick(ANIMAL_WORDS[subject.kind], rng)
    name = pick(SHAPE_WORDS[subject.kind], rng)
    if subject.kind in NATURAL_COLOURS:
        natural = subject.colour == NATURAL_COLOURS[subject.kind]
        unsaid_share = UNSAID_NATURAL_SHARE if natural else 0.0
    if rng.random() < unsaid_share:
        return name
    return f"{colour_word(subject.colour, rng)} {name}"


def worn_things(scene: AnimalScene, rng: random.Random) -> list[str]:
    """The names of what the animal wears, without articles."""
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
    """Words for the shape's place; none where that is left to the seed."""
    if not position:
        return ""
    if position == "middle":
        return pick(CENTRE_WORDS, rng)
    forms = LEFT_OR_RIGHT if position in ("left", "right") else TOP_OR_BOTTOM
    return pick(forms, rng).format(position)


def colour_word(colour: str, rng: random.Random) -> str:
    """The colour's name, or now and then a synonym."""
    return pick(COLOUR_WORDS[colour], rng) if colour in COLOUR_WORDS else colour


def with_article(name: str) -> str:
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


def known_words() -> dict[str, list[str]]:
    """Every word that captions are made of: what a prompt may show, and all words there are."""
    tables: list[Mapping[str, float]] = [
        *(SHAPE_WORDS | ANIMAL_WORDS | SIZE_WORDS | RELATION_WORDS | COLOUR_WORDS).values(),
        *(CENTRE_WORDS, LEFT_OR_RIGHT, TOP_OR_BOTTOM, SHAPE_FORMS, SCENE_FORMS),
        *(HAT_WORDS, BOW_TIE_WORDS, SUNGLASSES_WORDS, WEARING_WORDS, SHARP_FORMS, BLURRY_FORMS),
        dict.fromkeys([*COLOURS, "left", "right", "top", "bottom", "a", "an", "and"], 1.0),
    ]
    return {
        "subjects": [*ANIMAL_WORDS, *SHAPE_WORDS],
        "colours": list(COLOURS),
        "extras": ["hat", "sunglasses", "bow tie"],
        "words": sorted({word for table in tables for word in words_of(table)}),
    }


def words_of(table: Mapping[str, float]) -> set[str]:
    """The words of a table's texts, without the names of what is filled in."""
    texts = (re.sub(r"\{\w*\}", " ", text) for text in table)
    return {word for text in texts for word in re.findall("[a-z]+", text)}
