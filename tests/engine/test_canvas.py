"""Where the start image is on the canvas that a checkpoint draws on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from picowatch.engine.drawing.canvas import read_canvas
from picowatch.recipe.request import ReferenceUse
from tests.engine import requests


@pytest.mark.parametrize(
    ("photo", "extend", "size", "inner"),
    [
        ((256, 256), "16:9", (256, 128), (64, 0, 192, 128)),
        ((640, 480), "bottom 25 %", (128, 128), (0, 0, 128, 96)),
        ((100, 100), "left 10 %, right 10 %, top 10 %", (192, 128), (38, 12, 154, 128)),
    ],
)
def test_an_extended_photo_keeps_its_shape(
    tmp_path: Path,
    photo: tuple[int, int],
    extend: str,
    size: tuple[int, int],
    inner: tuple[int, int, int, int],
) -> None:
    """The margins take what a checkpoint's multiples of pixels add or leave out."""
    kept = requests.keep(tmp_path, Image.new("RGB", photo, "red"))
    request = requests.request(image="a.png", image_hash=kept, extend=extend, mask_blur=0)
    canvas = read_canvas(tmp_path, request, size)
    assert canvas and canvas.redrawn
    stays = np.argwhere(np.asarray(canvas.redrawn) == 0)
    (top, left), (bottom, right) = stays.min(0), stays.max(0) + 1
    assert (left, top, right, bottom) == inner


@pytest.mark.parametrize(
    ("photo", "as_reference", "size", "blur"),
    [
        ((600, 400), False, (96, 64), 2),
        ((600, 400), True, (96, 64), 2),
        ((600, 400), False, (94, 64), 0),
        ((201, 135), False, (200, 136), 2),
        ((201, 135), False, (200, 136), 0),
        ((300, 40), False, (304, 64), 2),
        ((61, 77), True, (64, 77), 2),
    ],
)
def test_what_a_mask_leaves_of_a_photo_keeps_its_pixels(
    tmp_path: Path, photo: tuple[int, int], as_reference: bool, size: tuple[int, int], blur: int
) -> None:
    """What is drawn is in a size that can be drawn, and put into the photo; with a soft edge."""
    wide, high = photo
    noise = np.random.default_rng(1).integers(0, 256, (high, wide, 3), np.uint8)
    mask = Image.new("L", photo)
    left, top, right, bottom = box = wide // 3, high // 4, wide * 2 // 3, high * 3 // 4
    mask.paste(255, box)
    kept = requests.keep(tmp_path, Image.fromarray(noise))
    named: dict[str, Any] = {"image": "a.png", "image_hash": kept}
    if as_reference:
        named = {"references": (ReferenceUse("a.png", kept),)}
    request = requests.request(
        **named,
        mask="m.png",
        mask_hash=requests.keep(tmp_path, mask),
        mask_blur=blur,
        given_size=photo,
    )
    canvas = read_canvas(tmp_path, request, size)
    assert canvas and canvas.redrawn and canvas.picture.size == canvas.redrawn.size == size
    made = np.asarray(canvas.under(Image.new("RGB", size, "red")))
    assert made.shape == noise.shape
    edge = 0 if as_reference or not blur else 8 * max(1, wide // size[0])
    outside = np.ones((high, wide), bool)
    outside[max(0, top - edge) : bottom + edge, left - edge : right + edge] = False
    assert (made[outside] == noise[outside]).all()
    middle = made[high // 2 - 2 : high // 2 + 2, wide // 2 - 2 : wide // 2 + 2]
    assert (middle == (255, 0, 0)).all()
