"""What a picture of the demo model shows, judged by the pixels."""

from pathlib import Path

import numpy as np
from PIL import Image

from training.scenes import COLOURS


def colour_at(picture: Path, x: float, y: float) -> str:
    """Return the name of the colour around a place, given as fractions of width and height."""
    with Image.open(picture) as image:
        rgb = image.convert("RGB")
        column, row = round(x * (rgb.width - 1)), round(y * (rgb.height - 1))
        box = (max(0, column - 2), max(0, row - 2), column + 3, row + 3)
        average = rgb.crop(box).resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    assert isinstance(average, tuple)
    return min(
        COLOURS,
        key=lambda name: sum((a - b) ** 2 for a, b in zip(average, COLOURS[name], strict=True)),
    )


def main_colours(picture: Path, count: int = 2) -> set[str]:
    """Return the names of the most frequent colours of a picture."""
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB"), dtype=np.int64).reshape(-1, 1, 3)
    nearest = ((pixels - np.array([*COLOURS.values()])) ** 2).sum(2).argmin(1)
    shares = np.bincount(nearest, minlength=len(COLOURS))
    return {[*COLOURS][index] for index in shares.argsort()[-count:]}


def background_of(picture: Path) -> str:
    """Return the colour of the corners, which must be the same in all four."""
    corners = {colour_at(picture, x, y) for x in (0.03, 0.97) for y in (0.03, 0.97)}
    assert len(corners) == 1, corners
    return corners.pop()
