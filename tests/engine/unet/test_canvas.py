"""Start images and masks, fitted and laid over each other; without any model."""

import hashlib
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from picowatch.engine.canvas import Canvas, fit, read_canvas
from picowatch.errors import RenderFailed
from tests.engine.requests import request


def gradient(width: int, height: int) -> Image.Image:
    """Red grows to the right, green to the bottom."""
    columns, rows = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([columns, rows, columns * 0], 2).astype(np.uint8))


def keep(folder: Path, picture: Image.Image) -> str:
    written = BytesIO()
    picture.save(written, "PNG")
    digest = hashlib.sha256(written.getvalue()).hexdigest()
    (folder / digest).write_bytes(written.getvalue())
    return digest


@pytest.mark.parametrize("resize", ["crop", "fit", "stretch"])
@pytest.mark.parametrize("size", [(64, 64), (200, 40), (1, 300)])
def test_every_way_of_fitting_gives_the_size(resize: str, size: tuple[int, int]) -> None:
    """Colour and grey alike."""
    for picture in (gradient(*size), gradient(*size).convert("L")):
        assert fit(picture, 96, 64, resize).size == (96, 64)
        assert fit(picture, 96, 64, resize).mode == picture.mode


@pytest.mark.parametrize("resize", ["crop", "fit", "stretch"])
def test_a_picture_of_the_size_stays_as_it_is(resize: str) -> None:
    """No filter touches it."""
    picture = gradient(96, 64)
    assert fit(picture, 96, 64, resize).tobytes() == picture.tobytes()


def test_crop_cuts_the_sides_fit_keeps_them_stretch_squeezes_them() -> None:
    """A wide picture in a square."""
    wide = gradient(400, 100)
    crop, whole, squeezed = (
        np.asarray(fit(wide, 64, 64, resize)) for resize in ("crop", "fit", "stretch")
    )
    assert crop[32, 0, 0] > 85 and crop[32, 63, 0] < 170
    assert whole[32, 0, 0] < 10 and whole[32, 63, 0] > 245
    assert squeezed[32, 0, 0] < 10 and squeezed[0, 32, 1] < 10


def test_fit_fills_the_rest_with_the_outermost_pixels() -> None:
    """Above and below a wide picture."""
    whole = np.asarray(fit(gradient(400, 100), 64, 64, "fit"))
    assert (whole[:24] == whole[24]).all()
    assert (whole[40:] == whole[39]).all()


def test_a_mask_is_black_or_white_before_it_is_blurred(tmp_path: Path) -> None:
    """Grey counts as white from the middle on; invert swaps them."""
    steps = Image.fromarray(np.tile(np.array([0, 127, 128, 255], np.uint8), (64, 16)))
    picture = keep(tmp_path, gradient(64, 64))
    mask = keep(tmp_path, steps)
    for invert in (False, True):
        requested = request(
            image="a.png",
            image_hash=picture,
            mask="m.png",
            mask_hash=mask,
            mask_blur=0,
            mask_invert=invert,
        )
        canvas = read_canvas(tmp_path, requested, 64, 64)
        assert canvas.redrawn is not None
        expected = [0, 0, 255, 255] if not invert else [255, 255, 0, 0]
        assert canvas.redrawn[0, :4].tolist() == expected
        assert canvas.opacity is canvas.redrawn or (canvas.opacity == canvas.redrawn).all()  # type: ignore[union-attr]


def test_the_soft_edge_of_a_mask_goes_on_at_the_opposite_edge_of_a_picture_that_repeats(
    tmp_path: Path,
) -> None:
    """Otherwise what is redrawn there would end in a seam."""
    left = np.zeros((64, 64), np.uint8)
    left[:, :20] = 255
    requested = request(
        image="a.png",
        image_hash=keep(tmp_path, gradient(64, 64)),
        mask="m.png",
        mask_hash=keep(tmp_path, Image.fromarray(left)),
        mask_blur=4,
    )
    plain = read_canvas(tmp_path, requested, 64, 64).opacity
    repeating = read_canvas(tmp_path, replace(requested, tiling=True), 64, 64).opacity
    assert plain is not None and repeating is not None
    assert plain[0, 0] == 255 and plain[0, 63] == 0
    assert 120 < repeating[0, 0] < 160 and 90 < repeating[0, 63] < 135
    assert (plain[:, 12:50] == repeating[:, 12:50]).all()


def test_pasting_keeps_the_outside_byte_for_byte() -> None:
    """And the rendered picture inside; between them both are mixed by opacity."""
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 256, (4, 3, 3), np.uint8)
    drawn = rng.integers(0, 256, (4, 3, 3), np.uint8)
    opacity = np.array([[0, 255, 128]] * 4, np.uint8)
    canvas = Canvas(picture, opacity, opacity)
    pasted = np.frombuffer(canvas.paste(drawn.tobytes()), np.uint8).reshape(4, 3, 3)
    assert (pasted[:, 0] == picture[:, 0]).all()
    assert (pasted[:, 1] == drawn[:, 1]).all()
    mixed = (drawn[:, 2] * (128 / 255) + picture[:, 2] * (127 / 255)).round()
    assert np.abs(pasted[:, 2] - mixed).max() <= 1


def test_without_a_mask_everything_is_new() -> None:
    """The bytes pass through."""
    picture = np.zeros((2, 2, 3), np.uint8)
    assert Canvas(picture, None, None).paste(b"x" * 12) == b"x" * 12


def test_a_kept_copy_that_is_damaged_is_not_used(tmp_path: Path) -> None:
    """Its name is its hash."""
    digest = keep(tmp_path, gradient(8, 8))
    (tmp_path / digest).write_bytes(b"something else")
    requested = request(image="a.png", image_hash=digest)
    with pytest.raises(RenderFailed, match="is missing or damaged"):
        read_canvas(tmp_path, requested, 64, 64)
    with pytest.raises(RenderFailed, match="is missing or damaged"):
        read_canvas(None, requested, 64, 64)
