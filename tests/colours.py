"""What a picture of the demo model shows, judged by the pixels."""

from pathlib import Path

import numpy as np
from PIL import Image

from training.scenes import COLOURS


def shares(picture: Image.Image) -> dict[str, float]:
    """Return the share of the picture that is nearest to each colour, the largest first."""
    pixels = np.asarray(picture.convert("RGB"), dtype=np.int64).reshape(-1, 1, 3)
    nearest = ((pixels - np.array([*COLOURS.values()])) ** 2).sum(2).argmin(1)
    counts = np.bincount(nearest, minlength=len(COLOURS)) / len(nearest)
    return {[*COLOURS][index]: float(counts[index]) for index in (-counts).argsort()}


def main_colours(picture: Path) -> set[str]:
    with Image.open(picture) as image:
        return {*list(shares(image))[:2]}
