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
    ("as_reference", "size"), [(False, (96, 64)), (True, (96, 64)), (False, (94, 64))]
)
def test_what_a_mask_leaves_of_a_large_photo_keeps_its_pixels(
    tmp_path: Path, as_reference: bool, size: tuple[int, int]
) -> None:
    """What is drawn is small, and enlarged into the photo; its edge is soft."""
    noise = np.random.default_rng(1).integers(0, 256, (400, 600, 3), np.uint8)
    photo = Image.fromarray(noise)
    mask = Image.new("L", (600, 400))
    mask.paste(255, (201, 101, 401, 301))
    kept = requests.keep(tmp_path, photo)
    named: dict[str, Any] = {"image": "a.png", "image_hash": kept}
    if as_reference:
        named = {"references": (ReferenceUse("a.png", kept),)}
    request = requests.request(
        **named,
        mask="m.png",
        mask_hash=requests.keep(tmp_path, mask),
        mask_blur=2,
        given_size=photo.size,
    )
    canvas = read_canvas(tmp_path, request, size)
    assert canvas and canvas.redrawn and canvas.picture.size == canvas.redrawn.size == size
    made = np.asarray(canvas.under(Image.new("RGB", size, "red")))
    assert made.shape == noise.shape
    edge = 0 if as_reference else 50
    outside = np.ones((400, 600), bool)
    outside[101 - edge : 301 + edge, 201 - edge : 401 + edge] = False
    assert (made[outside] == noise[outside]).all()
    assert (made[151:251, 251:351] == (255, 0, 0)).all()
