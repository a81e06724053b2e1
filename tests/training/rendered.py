"""Pictures that the demo model draws, and rules that say by colour alone where things are in them.

The rules know what the prompt asked for: the background is what is joined to the border in the
border's colour; a thing alone in its picture is all else; of two things each is the piece around
its own colour; what an animal wears has the colour that no other part of the picture has.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.canvas import edge_of
from training.scenes import COLOURS

Mask = np.ndarray[Any, np.dtype[np.bool_]]
BACKGROUND_REACH, COLOUR_REACH, DARK = 48, 62, 96
# A thing that covers less or more of the picture is not what its prompt says.
PLAUSIBLE = {"hat": (0.01, 0.2), "bow tie": (0.008, 0.16), "sunglasses": (0.01, 0.16)}
ALONE = ("balloon", "moon", "house", "heart")
WORN_COLOURS = (("blue", "green"), ("green", "purple"), ("yellow", "blue"), ("pink", "green"))
PLAIN = ("blue", "green", "purple", "pink")
# Two things, their colours, the background.
PAIRS = (
    ("balloon", "red", "house", "blue", "green"),
    ("moon", "yellow", "cat", "", "purple"),
    ("heart", "red", "star", "yellow", "blue"),
    ("balloon", "orange", "moon", "yellow", "blue"),
    ("house", "red", "tree", "green", "pink"),
    ("corgi", "", "balloon", "blue", "green"),
    ("circle", "blue", "square", "red", "yellow"),
    ("heart", "pink", "balloon", "blue", "green"),
    ("cat", "", "house", "blue", "green"),
    ("star", "yellow", "circle", "red", "purple"),
)
RELATIONS = ("to the left of", "above")
NAMED = (*ALONE, "star", "tree", "corgi", "cat", "hat", "sunglasses", "bow tie")


@dataclass(frozen=True)
class Asked:
    """A prompt, its seed, and the phrases whose places a rule can tell in its picture."""

    prompt: str
    seed: int
    background: str
    phrases: dict[str, Callable[[np.ndarray], Mask]]

    def absent(self) -> list[str]:
        """Words for what the prompt does not name."""
        of_dogs = ("dog", "corgi")
        there = {*self.phrases, *self.prompt.replace(",", "").split()}
        dog = there.intersection(of_dogs)
        return [word for word in NAMED if word not in there and not (dog and word in of_dogs)]


def asked(seeds: int) -> Iterator[Asked]:
    """Each thing in several pictures."""
    for seed in range(seeds):
        for thing, background in itertools.product(ALONE, PLAIN[:2]):
            colour = "yellow" if thing == "moon" else ("red", "orange")[seed % 2]
            prompt = f"a {colour} {thing} on a {background} background"
            yield Asked(prompt, seed, background, {thing: figure, "background": ground})
        for animal, (background, colour) in itertools.product(("corgi", "cat"), WORN_COLOURS):
            names = {"corgi": ("corgi", "dog")[seed % 2], "cat": "cat"}
            whole = {names[animal]: figure, "background": ground}
            for worn in ("hat", "bow tie"):
                prompt = f"a {animal} wearing a {colour} {worn}, {background} background"
                yield Asked(prompt, seed, background, {**whole, worn: coloured(colour, worn)})
            prompt = f"a {animal} wearing sunglasses on a {background} background"
            yield Asked(prompt, seed, background, {**whole, "sunglasses": glasses})


def asked_of_two(seeds: int) -> Iterator[Asked]:
    """Pictures of two things that lie apart."""
    for seed, (first, its, second, others, background) in itertools.product(range(seeds), PAIRS):
        thing, other = f"{its} {first}".strip(), f"{others} {second}".strip()
        relation = RELATIONS[seed % len(RELATIONS)]
        prompt = f"a {thing} {relation} a {other} on a {background} background"
        phrases = {first: piece(its, others), second: piece(others, its)}
        yield Asked(prompt, seed, background, phrases)


def piece(colour: str, other: str) -> Callable[[np.ndarray], Mask]:
    """What is joined to the colour's largest piece, or all but the other colour's."""

    def rule(pixels: np.ndarray) -> Mask:
        whole = figure(pixels)
        away = np.linalg.norm(pixels.astype(int) - COLOURS[colour or other], axis=-1)
        joined_to = joined(largest_piece((away < COLOUR_REACH) & whole), whole)
        return joined_to if colour else whole & ~joined_to

    return rule


def ground(pixels: np.ndarray) -> Mask:
    """All that is joined to the border in the border's colour."""
    border = np.zeros(pixels.shape[:2], bool)
    border[[0, -1]] = border[:, [0, -1]] = True
    colour = np.median(pixels[border], 0)
    like = np.abs(pixels.astype(int) - colour).max(-1) < BACKGROUND_REACH
    return joined(border & like, like)


def figure(pixels: np.ndarray) -> Mask:
    whole: Mask = ~ground(pixels)
    return whole


def coloured(name: str, worn: str) -> Callable[[np.ndarray], Mask]:
    """What has a colour or its outline's, in one piece; a hat has a white pompon above it."""

    def rule(pixels: np.ndarray) -> Mask:
        colours = COLOURS[name], edge_of(COLOURS[name])
        away = [np.linalg.norm(pixels.astype(int) - colour, axis=-1) for colour in colours]
        piece = largest_piece((np.minimum(*away) < COLOUR_REACH) & figure(pixels))
        rows = np.flatnonzero(piece.any(1))
        if worn == "hat" and len(rows):
            tip = figure(pixels)
            tip[rows[0] + round(0.12 * len(rows)) :] = False
            piece = piece | tip
        return piece

    return rule


def glasses(pixels: np.ndarray) -> Mask:
    """The dark piece, as far as it is about as wide as at its widest: a nose below is not."""
    piece = largest_piece((pixels.max(-1) < DARK) & figure(pixels))
    wide = piece.sum(1) >= 0.4 * piece.sum(1).max()
    glasses: Mask = piece & wide[:, None]
    return glasses


def largest_piece(mask: Mask) -> Mask:
    """The piece around the mask's densest place."""
    padded = np.pad(mask.astype(float), 4)
    density = sum(
        padded[y : y + mask.shape[0], x : x + mask.shape[1]] for y in range(9) for x in range(9)
    )
    start = np.zeros_like(mask)
    start.flat[np.argmax(density * mask)] = mask.any()
    return joined(start, mask)


def joined(start: Mask, inside: Mask) -> Mask:
    """All of `inside` that is joined to the start."""
    reached = start & inside
    while True:
        wider = reached.copy()
        wider[1:] |= reached[:-1]
        wider[:-1] |= reached[1:]
        wider[:, 1:] |= reached[:, :-1]
        wider[:, :-1] |= reached[:, 1:]
        wider &= inside
        if (wider == reached).all():
            return reached
        reached = wider


def is_plausible(phrase: str, mask: Mask) -> bool:
    """Return true if the thing was drawn at all."""
    low, high = PLAUSIBLE.get(phrase, (0.02, 0.97))
    return bool(low < mask.mean() < high)


def overlap(mask: Mask, other: Mask) -> float:
    """Intersection over union."""
    return float((mask & other).sum() / max(1, (mask | other).sum()))
