"""Says what a picture shows, by looking at its pixels; measures by this judge are in the card."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from training.animals import FURS
from training.canvas import NATIVE_SIZE, Canvas, Frame
from training.scenes import (
    ANIMALS,
    COLOURS,
    SHAPES,
    THINGS,
    AnimalScene,
    PairScene,
    Scene,
    ShapeScene,
    Subject,
)
from training.shapes import TILTS, draw_shape

Pixels = NDArray[np.float64]
Mask = NDArray[np.bool_]

LEAST_SUBJECT_SHARE = 0.008
CENTRED_WITHIN = 12.0
SMALL_BELOW, LARGE_ABOVE = 24.5, 38.0
TEMPLATE_SIZE = 48
# How a thing may look: enough drawings of each that one is near to any other.
DRAWINGS_OF_A_KIND = 40
LEAST_RAYS = 7
SECTORS = 72  # of the outline
UNEVEN = 0.14  # of the mean distance from the middle
# Where a thing has its own colour, as shares of its height; all of it where nothing is said.
COLOURED_PARTS = {
    "house": (0.5, 1.0),
    "tree": (0.0, 0.6),
    "cupcake": (0.15, 0.55),
    "balloon": (0.0, 0.6),
}


def pixels_of(picture: Image.Image) -> Pixels:
    """The picture's colours as numbers."""
    return np.asarray(picture.convert("RGB")).astype(np.float64)


def nearest_colour(rgb: Pixels) -> str:
    """The name of the closest colour."""
    return min(COLOURS, key=lambda name: float(np.square(np.subtract(COLOURS[name], rgb)).sum()))


def most_frequent_colour(pixels: Pixels) -> str:
    """The named colour that is nearest to most of the pixels."""
    palette = np.array(list(COLOURS.values()), dtype=np.float64)
    nearest = np.square(pixels[:, None, :] - palette[None]).sum(axis=2).argmin(axis=1)
    return list(COLOURS)[int(np.bincount(nearest, minlength=len(palette)).argmax())]


def background_of(pixels: Pixels) -> Pixels:
    """The median colour of the four corners."""
    corner = max(4, pixels.shape[0] // 16)
    rows = np.concatenate([pixels[:corner], pixels[-corner:]])
    corners = np.concatenate([rows[:, :corner], rows[:, -corner:]], axis=1)
    median: Pixels = np.median(corners.reshape(-1, 3), axis=0)
    return median


def subject_mask(pixels: Pixels) -> Mask:
    """Where the picture clearly differs from its background."""
    distance = np.sqrt(np.square(pixels - background_of(pixels)).sum(axis=2))
    threshold = min(72.0, max(30.0, 0.38 * float(np.percentile(distance, 98.8))))
    return filtered(distance > threshold, ImageFilter.MedianFilter(3))


def filtered(mask: Mask, rule: ImageFilter.Filter) -> Mask:
    """The mask after one of PIL's rank filters."""
    picture = Image.fromarray((mask * 255).astype(np.uint8)).filter(rule)
    return np.asarray(picture) > 127


def subject_core(mask: Mask) -> Mask:
    """The mask without its outline, as far as something is left."""
    for width in (9, 7, 5, 3):
        core = filtered(mask, ImageFilter.MinFilter(width))
        if core.sum() >= 25:
            return core
    return mask


def subject_box(mask: Mask, tail: float) -> tuple[float, float, float, float]:
    """Left, top, right and bottom, without the outermost `tail` percent of pixels."""
    rows, columns = np.where(mask)
    left, right = np.percentile(columns, [tail, 100 - tail])
    top, bottom = np.percentile(rows, [tail, 100 - tail])
    return float(left), float(top), float(right), float(bottom)


def cropped(mask: Mask) -> Mask:
    """The subject alone, brought to the templates' size; its shape's proportions are kept."""
    left, top, right, bottom = (int(edge) for edge in subject_box(mask, 0.3))
    piece = (mask[top : bottom + 1, left : right + 1] * 255).astype(np.uint8)
    height, width = piece.shape
    side = max(height, width)
    square = Image.new("L", (side, side), 0)
    square.paste(Image.fromarray(piece), ((side - width) // 2, (side - height) // 2))
    picture = square.resize((TEMPLATE_SIZE, TEMPLATE_SIZE), Image.Resampling.BILINEAR)
    return np.asarray(picture) > 127


@cache
def templates() -> tuple[list[str], Mask]:
    """Names and cropped drawings of each shape and thing, tilted and large as they may be."""
    names, masks = [], []
    for kind in (*SHAPES, *THINGS):
        for number in range(DRAWINGS_OF_A_KIND):
            rng = random.Random(number)
            canvas = Canvas(NATIVE_SIZE, NATIVE_SIZE, (0, 0, 0))
            tilt = TILTS[kind] * (2 * number / (DRAWINGS_OF_A_KIND - 1) - 1)
            radius = (16, 30, 45)[number % 3]
            frame = Frame(canvas, (64, 64), radius, tilt, rng.choice((0.0, 2.2)))
            draw_shape(frame, kind, (250, 250, 250), rng)
            # A balloon's string is so thin that the judge may not see it.
            least = 170 if kind == "balloon" and number % 2 else 45
            mask = pixels_of(canvas.reduced()).max(axis=2) > least
            if kind == "cupcake" and number % 2:
                # Nor does it see a red cherry on a red background.
                mask[: int(64 - 0.8 * radius)] = False
            masks.append(cropped(mask))
            names.append(kind)
    return names, np.stack(masks)


def kind_of(mask: Mask) -> tuple[str, float]:
    """The kind whose drawing is most like the mask, and how like it is, 1 at most."""
    names, masks = templates()
    piece = cropped(mask)[None]
    likeness = (piece & masks).sum(axis=(1, 2)) / (piece | masks).sum(axis=(1, 2))
    if has_rays(mask):
        likeness[[name != "sun" for name in names]] = 0.0
    best = int(likeness.argmax())
    return names[best], float(likeness[best])


def has_rays(mask: Mask) -> bool:
    """Whether so many points stand out all around as only a sun has.

    Compared as a whole, a sun whose rays are round or uneven is more like a balloon.
    """
    left, top, right, bottom = subject_box(mask, 0.3)
    is_round = 0.7 < (right - left + 1) / (bottom - top + 1) < 1.4
    return is_round and points_around(mask) >= LEAST_RAYS


def points_around(mask: Mask) -> int:
    """How often the outline goes out and in again, by more than an uneven line does."""
    rows, columns = np.where(mask)
    down, across = rows - rows.mean(), columns - columns.mean()
    sectors = ((np.arctan2(down, across) / (2 * np.pi) + 0.5) * SECTORS).astype(int) % SECTORS
    reach = np.zeros(SECTORS)
    np.maximum.at(reach, sectors, np.hypot(down, across))
    reach /= reach.mean()
    points, going_out = 0, False
    last = float(reach.min())
    for now in np.roll(reach, -int(reach.argmin())):
        turns_back = last - now if going_out else now - last
        if turns_back > UNEVEN:
            going_out = not going_out
            points += going_out
            last = now
        elif turns_back < 0:
            last = now
    return points


def colour_of(pixels: Pixels, mask: Mask, kind: str) -> str:
    """The colour of a thing, where its kind has it."""
    _, top, _, bottom = subject_box(mask, 0.3)
    begin, end = COLOURED_PARTS.get(kind, (0.0, 1.0))
    rows = np.arange(len(mask))[:, None]
    part = (rows >= top + begin * (bottom - top)) & (rows <= top + end * (bottom - top))
    core = subject_core(mask) & part
    return most_frequent_colour(pixels[core if core.any() else mask & part])


@dataclass(frozen=True)
class ShapeSeen:
    """What the judge sees in a picture of a shape."""

    background: str
    colour: str
    shape: str
    position: str
    size: str
    likeness: float

    def matches(self, scene: ShapeScene) -> dict[str, bool]:
        """Which properties are as the scene says; what it leaves open is not among them."""
        right = {
            "background": self.background == scene.background,
            "colour": self.colour == scene.colour,
            "shape": self.shape == scene.shape,
        }
        if scene.size:
            right["size"] = self.size == scene.size
        if scene.position:
            right["position"] = self.position == scene.position
        return right


def see_shape(picture: Image.Image) -> ShapeSeen:
    """Background, and colour, kind and place of what is on it; empty words if nothing is."""
    pixels = pixels_of(picture)
    mask = subject_mask(pixels)
    background = nearest_colour(background_of(pixels))
    if mask.mean() < LEAST_SUBJECT_SHARE:
        return ShapeSeen(background, "", "", "", "", 0.0)
    shape, likeness = kind_of(mask)
    colour = colour_of(pixels, mask, shape)
    return ShapeSeen(background, colour, shape, position_of(mask), size_of(mask), likeness)


def position_of(mask: Mask) -> str:
    """The side to which the subject's middle is moved furthest, if it is moved at all."""
    height, width = mask.shape
    scale = NATIVE_SIZE / min(width, height)
    left, top, right, bottom = subject_box(mask, 1.0)
    across = ((left + right) / 2 - (width - 1) / 2) * scale
    down = ((top + bottom) / 2 - (height - 1) / 2) * scale
    if max(abs(across), abs(down)) < CENTRED_WITHIN:
        return "middle"
    if abs(across) > abs(down):
        return "left" if across < 0 else "right"
    return "top" if down < 0 else "bottom"


def size_of(mask: Mask) -> str:
    """Small, large or neither, by the longer side of the subject's box."""
    left, top, right, bottom = subject_box(mask, 0.3)
    reach = max(right - left, bottom - top) / 2 * NATIVE_SIZE / min(mask.shape)
    if reach < SMALL_BELOW:
        return "small"
    return "large" if reach > LARGE_ABOVE else ""


class AnimalFace:
    """Reads an animal's picture, or a part of one, where the parts must be.

    The face is found by its chin and its width, given what the scene says it wears.
    """

    CHIN, BOW_TIE_FOOT = 0.88, 1.34

    def __init__(self, pixels: Pixels, scene: AnimalScene, mask: Mask | None = None) -> None:
        self.pixels = pixels
        self.background = background_of(pixels)
        self.tilt = self.lift = 0.0
        seen = subject_mask(pixels) if mask is None else mask
        if seen.mean() < LEAST_SUBJECT_SHARE / 2:
            seen = np.ones_like(seen)
        # Whiskers are thin: what is left without them is as wide as the face.
        solid = filtered(filtered(seen, ImageFilter.MinFilter(5)), ImageFilter.MaxFilter(5)).copy()
        solid = solid if solid.any() else seen.copy()
        _, top, _, bottom = subject_box(solid, 0.2)
        # The upper half has the ears, which may stand out to one side.
        solid[: int((top + bottom) / 2)] = False
        left, _, right, _ = subject_box(solid, 0.2)
        self.half_width = max(4.0, (right - left + 1) / 2 / 1.01)
        self.x = (left + right) / 2
        foot = self.BOW_TIE_FOOT if scene.bow_tie else self.CHIN
        self.y = bottom - foot * self.half_width

    def window(self, x: float, y: float, across: float, down: float) -> Pixels:
        """The pixels around a point of the face; distances in halves of its width."""
        cosine, sine = math.cos(self.tilt), math.sin(self.tilt)
        y -= self.lift
        column = self.x + (x * cosine - y * sine) * self.half_width
        row = self.y + (x * sine + y * cosine) * self.half_width
        reach_x, reach_y = across * self.half_width, down * self.half_width
        last_row, last_column = self.pixels.shape[0] - 1, self.pixels.shape[1] - 1
        top = min(last_row, max(0, round(row - reach_y)))
        left = min(last_column, max(0, round(column - reach_x)))
        rows = slice(top, max(top, round(row + reach_y)) + 1)
        columns = slice(left, max(left, round(column + reach_x)) + 1)
        return self.pixels[rows, columns].reshape(-1, 3)

    def colour_at(self, x: float, y: float) -> Pixels:
        """The median colour around a point."""
        median: Pixels = np.median(self.window(x, y, 0.08, 0.08), axis=0)
        return median

    def stands_out(self, colour: Pixels) -> bool:
        """Whether the colour is clearly not the background's."""
        return float(np.linalg.norm(colour - self.background)) > 45

    def hat(self) -> str | None:
        """The colour of what is above the forehead."""
        colour = self.colour_at(0, -1.0)
        return nearest_colour(colour) if self.stands_out(colour) else None

    def bow_tie(self) -> str | None:
        """The colour of both wings under the chin."""
        wings = [self.colour_at(side * 0.46, 1.02) for side in (-1, 1)]
        if not all(self.stands_out(wing) for wing in wings):
            return None
        return nearest_colour((wings[0] + wings[1]) / 2)

    def sunglasses(self) -> bool:
        """Whether both eyes lie in wide dark areas."""
        windows = [self.window(side * 0.44, -0.1, 0.22, 0.12) for side in (-1, 1)]
        return all(float((window.mean(axis=1) < 70).mean()) > 0.55 for window in windows)

    def kind(self) -> str:
        """A corgi has a white blaze on brown fur; a cat has not."""
        blaze = np.median(self.window(0, -0.44, 0.03, 0.03), axis=0)
        furs = [self.colour_at(side * 0.84, 0.02) for side in (-1, 1)]
        for animal in ("corgi", "cat"):
            near = [
                min(float(np.linalg.norm(fur - known)) for known in FURS[animal]) < 65
                for fur in furs
            ]
            white = bool(blaze.min() > 205) and float(np.linalg.norm(blaze - furs[0])) > 50
            if all(near) and white == (animal == "corgi"):
                return animal
        return ""

    def is_kind(self, animal: str) -> bool:
        """Whether it is the animal, in one of the poses that a face may have."""
        return any(self.kind() == animal for _ in self.poses())

    def poses(self) -> Iterator[None]:
        """Tilts the head each way, and lifts it a little; what is read is then read there."""
        for self.lift in (0.0, 0.09, -0.09, 0.19):
            for self.tilt in (0.0, 0.09, -0.09, 0.17, -0.17):
                yield

    def matches(self, scene: AnimalScene) -> dict[str, bool]:
        """Which properties are as the scene says, in the pose in which most of them are."""
        return max((self.matches_here(scene) for _ in self.poses()), key=lambda r: sum(r.values()))

    def matches_here(self, scene: AnimalScene) -> dict[str, bool]:
        """Which properties are as the scene says, in the present pose."""
        return {
            "background": nearest_colour(self.background) == scene.background,
            "hat": self.hat() == scene.hat,
            "bow tie": self.bow_tie() == scene.bow_tie,
            "sunglasses": self.sunglasses() == scene.sunglasses,
            "face": self.kind() == scene.animal,
        }


def matches(picture: Image.Image, scene: Scene) -> dict[str, bool]:
    """Which properties of the picture are as the scene says."""
    if isinstance(scene, ShapeScene):
        return see_shape(picture).matches(scene)
    if isinstance(scene, AnimalScene):
        return AnimalFace(pixels_of(picture), scene).matches(scene)
    return pair_matches(pixels_of(picture), scene)


def pair_matches(pixels: Pixels, scene: PairScene) -> dict[str, bool]:
    """Whether each subject is where its words say it is: cut apart there, each is looked at."""
    background = nearest_colour(background_of(pixels)) == scene.background
    if scene.relation == "under" and scene.second.kind == "tree":
        return {"background": background, **under_tree(pixels, scene)}
    mask = subject_mask(pixels)
    if mask.mean() < LEAST_SUBJECT_SHARE:
        return {"background": background, "first": False, "second": False}
    first, second = cut_apart(mask, down=scene.relation in ("above", "under"))
    if scene.relation in ("under", "right of"):
        first, second = second, first
    right = {
        "first": is_subject(pixels, first, scene.first),
        "second": is_subject(pixels, second, scene.second),
    }
    if scene.relation == "next to" and not all(right.values()):
        other = {
            "first": is_subject(pixels, second, scene.first),
            "second": is_subject(pixels, first, scene.second),
        }
        right = max(right, other, key=lambda answer: sum(answer.values()))
    return {"background": background, **right}


def cut_apart(mask: Mask, *, down: bool) -> tuple[Mask, Mask]:
    """What is above and below, or left and right of the emptiest line near the middle."""
    filled = mask.sum(axis=1 if down else 0).astype(np.float64)
    places = np.arange(len(filled))
    middle = len(filled) / 2
    near = np.abs(places - middle) < 0.2 * len(filled)
    costs = np.where(near, filled + 0.02 * np.abs(places - middle), np.inf)
    cut = int(costs.argmin())
    before = (places < cut)[:, None] if down else (places < cut)[None, :]
    return mask & before, mask & ~before


def is_subject(pixels: Pixels, mask: Mask, subject: Subject) -> bool:
    """Whether the masked part shows the subject."""
    if mask.mean() < LEAST_SUBJECT_SHARE / 2:
        return False
    if subject.kind in ANIMALS:
        return AnimalFace(pixels, AnimalScene("", subject.kind), mask).is_kind(subject.kind)
    kind, _ = kind_of(mask)
    return kind == subject.kind and colour_of(pixels, mask, kind) == subject.colour


def under_tree(pixels: Pixels, scene: PairScene) -> dict[str, bool]:
    """The tree's crown in the upper half; what is at the foot, by its colours."""
    mask = subject_mask(pixels)
    half = len(mask) // 2
    upper, lower = mask.copy(), mask.copy()
    upper[half:], lower[: int(1.2 * half)] = False, False
    tree = upper.any() and most_frequent_colour(pixels[upper]) == scene.second.colour
    first = False
    if lower.any():
        if scene.first.kind in ANIMALS:
            furs = np.array(FURS[scene.first.kind], dtype=np.float64)
            distance = np.linalg.norm(pixels[lower][:, None] - furs[None], axis=2).min(axis=1)
            first = bool((distance < 45).sum() > 0.01 * mask.size)
        else:
            wanted = np.array(COLOURS[scene.first.colour])
            distance = np.linalg.norm(pixels[lower] - wanted, axis=1)
            first = bool((distance < 60).sum() > 0.008 * mask.size)
    return {"first": first, "second": bool(tree)}


def roundness(picture: Image.Image) -> float:
    """The overlap of the subject with the ellipse of the same moments: 0.99 for a drawn disc."""
    mask = subject_mask(pixels_of(picture))
    rows, columns = np.where(mask)
    if len(rows) < 20:
        return 0.0
    points = np.stack([columns, rows]).astype(np.float64)
    centre = points.mean(axis=1, keepdims=True)
    spread = np.cov(points - centre) + np.eye(2) / 12
    grid_rows, grid_columns = np.indices(mask.shape)
    away = np.stack([grid_columns.ravel(), grid_rows.ravel()]) - centre
    # A filled ellipse's variance along an axis is a quarter of the half axis squared.
    inside = (away * np.linalg.solve(spread, away)).sum(axis=0).reshape(mask.shape) <= 4
    return overlap(mask, inside)


def straightness(picture: Image.Image) -> float:
    """The overlap of the subject with the best square of its size, turned as it is."""
    mask = subject_mask(pixels_of(picture))
    rows, columns = np.where(mask)
    if len(rows) < 20:
        return 0.0
    grid_rows, grid_columns = np.indices(mask.shape)
    down, across = grid_rows - rows.mean(), grid_columns - columns.mean()
    half = math.sqrt(len(rows)) / 2
    best = 0.0
    for degrees in range(-45, 45):
        cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        x, y = across * cosine + down * sine, down * cosine - across * sine
        best = max(best, overlap(mask, (np.abs(x) <= half) & (np.abs(y) <= half)))
    return best


def overlap(first: Mask, second: Mask) -> float:
    """Intersection over union."""
    return float((first & second).sum() / max(1, (first | second).sum()))


def mean_distance(pictures: Sequence[Image.Image]) -> float:
    """How far any two of the pictures are from each other, in levels."""
    pixels = [pixels_of(picture) for picture in pictures]
    distances = [
        float(np.abs(pixels[i] - pixels[j]).mean())
        for i in range(len(pixels))
        for j in range(i + 1, len(pixels))
    ]
    return sum(distances) / len(distances)


def edge_sharpness(picture: Image.Image) -> float:
    """The brightness step across the picture's clearest edges."""
    grey = np.asarray(picture.convert("L")).astype(np.float64)
    steps = [np.abs(np.diff(grey, axis=axis)).ravel() for axis in (0, 1)]
    return float(np.percentile(np.concatenate(steps), 99.3))


def background_roughness(picture: Image.Image) -> float:
    """The spread of brightness along the picture's border, 0 where it is quite flat."""
    pixels = pixels_of(picture).mean(axis=2)
    border = np.concatenate([pixels[:4].ravel(), pixels[-4:].ravel()])
    return float(np.percentile(np.abs(border - np.median(border)), 90))
