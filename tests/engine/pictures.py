"""Start images and masks for tests of the engine, and how pictures differ from them."""

import hashlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from tests.engine.requests import Pixels

BLUE, RED, GREEN = (44, 100, 226), (222, 44, 44), (52, 168, 70)


def keep(folder: Path, picture: Image.Image) -> str:
    """Store a picture as the daemon does, and return its hash."""
    written = BytesIO()
    picture.save(written, "PNG")
    digest = hashlib.sha256(written.getvalue()).hexdigest()
    (folder / digest).write_bytes(written.getvalue())
    return digest


def circle(width: int = 128, height: int = 0) -> Image.Image:
    """A red circle in the upper left of a blue picture, a square without a height."""
    picture = Image.new("RGB", (width, height or width), BLUE)
    side = min(picture.size)
    ImageDraw.Draw(picture).ellipse((side // 8, side // 8, side // 2, side // 2), fill=RED)
    return picture


def start(kept: Path, strength: float, picture: Image.Image | None = None) -> dict[str, Any]:
    digest = keep(kept, picture or circle())
    return {"image": "it.png", "image_hash": digest, "denoising_strength": strength}


def half() -> Image.Image:
    """A mask whose right half is white."""
    mask = Image.new("L", (128, 128))
    mask.paste(255, (64, 0, 128, 128))
    return mask


def right_half(kept: Path, invert: bool = False) -> dict[str, Any]:
    values = {"mask": "mask.png", "mask_blur": 0, "mask_invert": invert}
    return values | {"mask_hash": keep(kept, half())}


def as_pixels(picture: Image.Image) -> Pixels:
    return np.asarray(picture).astype(np.int16)
