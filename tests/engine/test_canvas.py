"""Where the start image is on the canvas that a checkpoint draws on."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from picowatch.engine.drawing.canvas import read_canvas
from tests.engine import requests


@pytest.mark.parametrize(
    ("photo", "extend", "size", "inner"),
    [
        ((256, 256), "16:9", (256, 128), (64, 0, 192, 128)),
        ((336, 187), "16:9", (256, 128), (13, 0, 243, 128)),
        ((240, 320), "right 100 %", (384, 320), (0, 0, 240, 320)),
        ((640, 480), "1:1", (128, 128), (0, 16, 128, 112)),
        ((640, 480), "bottom 25 %", (128, 128), (0, 0, 128, 96)),
        (
            (100, 100),
            "left 10 %, top 10 %, right 10 %, bottom 10 %",
            (192, 128),
            (42, 10, 149, 117),
        ),
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
