"""What demo-cutout is trained with."""

import random

import numpy as np

from training.cutout import drawn_pair


def test_a_drawing_knows_what_is_figure() -> None:
    """Nothing in its mask is ground, and outside of it each row has one colour."""
    rng = random.Random(1)
    for size in ((128, 128), (192, 128)):
        picture, mask = drawn_pair(rng, size)
        assert picture.size == mask.size == size
        pixels, figure = np.asarray(picture).astype(int), np.asarray(mask)
        assert 0.02 < (figure == 255).mean() < 0.95
        ground = [row[~shown] for row, shown in zip(pixels, figure > 0, strict=True)]
        assert all(np.ptp(row, 0).max() <= 1 for row in ground if len(row))
