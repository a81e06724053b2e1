"""Says what a picture shows, by looking at its pixels; measures by this judge are in the card."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from training.drawing import FUR, Canvas, draw_shape
from training.scenes import COLOURS, SHAPES, CorgiScene, ShapeScene

Pixels = NDArray[np.float64]
Mask = NDArray[np.bool_]

NATIVE_SIZE = 128
LEAST_SUBJECT_SHARE = 0.008
CENTRED_WITHIN = 12.0
SMALL_BELOW, LARGE_ABOVE = 21.5, 35.5
TEMPLATE_SIZE = 48


def pixels_of(picture: Image.Image) -> Pixels:
    """The picture's colours as numbers."""
    return np.asarray(picture.convert("RGB")).astype(np.float64)


def nearest_colour(rgb: Pixels) -> str:
    """The name of the closest colour."""
    return min(COLOURS, key=lambda name: float(np.square(np.subtract(COLOURS[name], rgb)).sum()))


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
    threshold = max(30.0, 0.38 * float(np.percentile(distance, 98.8)))
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
    """The subject alone, brought to the templates' size."""
    left, top, right, bottom = (int(edge) for edge in subject_box(mask, 0.3))
    piece = (mask[top : bottom + 1, left : right + 1] * 255).astype(np.uint8)
    picture = Image.fromarray(piece).resize(
        (TEMPLATE_SIZE, TEMPLATE_SIZE), Image.Resampling.BILINEAR
    )
    return np.asarray(picture) > 127


@cache
def templates() -> dict[tuple[str, int], Mask]:
    """Each shape as it is drawn, cropped; in three sizes, since outlines do not grow with them."""
    masks = {}
    for shape in SHAPES:
        for radius in (16, 30, 47):
            canvas = Canvas(NATIVE_SIZE, NATIVE_SIZE, (0, 0, 0))
            draw_shape(canvas, shape, (64, 64), radius, (255, 255, 255))
            masks[shape, radius] = cropped(pixels_of(canvas.reduced())[..., 0] > 60)
    return masks


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
        """Which properties are as the scene says."""
        return {
            "background": self.background == scene.background,
            "colour": self.colour == scene.colour,
            "shape": self.shape == scene.shape,
            "size": self.size == scene.size,
            "position": self.position == scene.position,
        }


def see_shape(picture: Image.Image) -> ShapeSeen:
    """Background, and colour, kind and place of what is on it; empty words if nothing is."""
    pixels = pixels_of(picture)
    mask = subject_mask(pixels)
    background = nearest_colour(background_of(pixels))
    if mask.mean() < LEAST_SUBJECT_SHARE:
        return ShapeSeen(background, "", "", "", "", 0.0)
    piece = cropped(mask)
    likeness, shape = max(
        (float((piece & template).sum() / (piece | template).sum()), shape)
        for (shape, _), template in templates().items()
    )
    colour = nearest_colour(np.median(pixels[subject_core(mask)], axis=0))
    return ShapeSeen(background, colour, shape, position_of(mask), size_of(mask), likeness)


def position_of(mask: Mask) -> str:
    """The side to which the subject's middle is moved furthest, if it is moved at all."""
    height, width = mask.shape
    scale = NATIVE_SIZE / min(width, height)
    left, top, right, bottom = subject_box(mask, 1.0)
    across = ((left + right) / 2 - (width - 1) / 2) * scale
    down = ((top + bottom) / 2 - (height - 1) / 2) * scale
    if max(abs(across), abs(down)) < CENTRED_WITHIN:
        return ""
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


class CorgiFace:
    """Reads a picture where a corgi's parts must be, given what its scene says it wears."""

    def __init__(self, picture: Image.Image, scene: CorgiScene) -> None:
        self.pixels = pixels_of(picture)
        self.background = background_of(self.pixels)
        self.scale = min(picture.size) / NATIVE_SIZE
        self.half_width = 36 * self.scale
        self.x = picture.width / 2
        shift = 1.5 + (8 if scene.hat else 0) - (6 if scene.bow_tie else 0)
        self.y = picture.height / 2 + shift * self.scale

    def window(self, x: float, y: float, across: float, down: float) -> Pixels:
        """The pixels around a point of the face; distances in halves of its width."""
        column, row = self.x + x * self.half_width, self.y + y * self.half_width
        reach_x, reach_y = across * self.half_width, down * self.half_width
        rows = slice(max(0, round(row - reach_y)), round(row + reach_y) + 1)
        columns = slice(max(0, round(column - reach_x)), round(column + reach_x) + 1)
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
        colour = self.colour_at(0, -1.05)
        return nearest_colour(colour) if self.stands_out(colour) else None

    def bow_tie(self) -> str | None:
        """The colour of both wings under the chin."""
        wings = [self.colour_at(side * 0.46, 1.02) for side in (-1, 1)]
        if not all(self.stands_out(wing) for wing in wings):
            return None
        return nearest_colour((wings[0] + wings[1]) / 2)

    def sunglasses(self) -> bool:
        """Whether both eyes lie in wide dark areas."""
        windows = [self.window(side * 0.44, -0.12, 0.24, 0.12) for side in (-1, 1)]
        return float((np.concatenate(windows).mean(axis=1) < 90).mean()) > 0.72

    def fur(self) -> bool:
        """Whether both cheeks have the fur's colour."""
        cheeks = [self.colour_at(side * 0.72, 0.2) for side in (-1, 1)]
        return all(float(np.linalg.norm(cheek - FUR)) < 60 for cheek in cheeks)

    def muzzle(self) -> bool:
        """Whether the muzzle is white."""
        return bool(self.colour_at(0.36, 0.42).min() > 190)

    def matches(self, scene: CorgiScene) -> dict[str, bool]:
        """Which properties are as the scene says."""
        return {
            "background": nearest_colour(self.background) == scene.background,
            "hat": self.hat() == scene.hat,
            "bow tie": self.bow_tie() == scene.bow_tie,
            "sunglasses": self.sunglasses() == scene.sunglasses,
            "face": self.fur() and self.muzzle(),
        }


def matches(picture: Image.Image, scene: ShapeScene | CorgiScene) -> dict[str, bool]:
    """Which properties of the picture are as the scene says."""
    if isinstance(scene, ShapeScene):
        return see_shape(picture).matches(scene)
    return CorgiFace(picture, scene).matches(scene)


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
