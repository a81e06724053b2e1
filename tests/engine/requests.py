"""Image requests for the demo model, start images and masks, and how to compare pictures."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from picowatch.catalog import Catalog, embedded
from picowatch.engine.protocol import (
    Engine,
    EngineOptions,
    Look,
    OnProgress,
    Progress,
    RenderedImage,
    RgbPicture,
    go_on,
)
from picowatch.recipe.request import ImageRequest

DEMO_UPSCALER, DEMO_CONTROLNET = "demo-compact", "demo-sketch"
PATIENCE = 120.0  # seconds a batch may take on a busy machine
_CATALOG = Catalog(Path("nowhere"))
_DEMO_HASH = _CATALOG.sha256(embedded("checkpoint"))

if TYPE_CHECKING:
    from picowatch.engine.drawing.renderer import Renderer

Pixels = NDArray[np.int16]


def request(prompt: str = "a red circle on a blue background", **values: Any) -> ImageRequest:
    """Return a request for a small, quick image of the demo model, with these values."""
    given: dict[str, Any] = {
        "prompt": prompt, "negative_prompt": "", "checkpoint": "demo", "seed": 1, "clip_skip": 1,
        "checkpoint_hash": _DEMO_HASH, "vae": "baked", "vae_hash": "", "sampler": "DPM++ 2M",
        "schedule_type": "karras", "steps": 6, "cfg_scale": 5.0, "width": 128, "height": 128,
        "exact": False,
    }  # fmt: skip
    return ImageRequest(**(given | values))


def plain_options(models: Path, start_images: Path | None = None) -> EngineOptions:
    """An engine on one thread of the CPU; start images are among the models, if nowhere else."""
    return EngineOptions(
        models=models,
        device="cpu",
        precision="float32",
        threads=1,  # more would spin on a busy machine
        start_images=start_images or models,
    )


def ignore_progress(progress: Progress) -> None:
    """For tests that ignore progress."""


def make(engine: Engine, *requests: ImageRequest) -> list[RenderedImage]:
    return engine.render(requests, ignore_progress)


def begin(
    engine: Engine,
    requested: ImageRequest,
    on_progress: OnProgress = ignore_progress,
    look: Look = go_on,
) -> Future[list[RenderedImage]]:
    pool = ThreadPoolExecutor(1)
    future = pool.submit(engine.render, [requested], on_progress, look=look)
    pool.shutdown(wait=False)
    return future


def draw(renderer: "Renderer", *requests: ImageRequest) -> list[RenderedImage]:
    return [*renderer.render(requests, ignore_progress)]


def progress_of(renderer: "Renderer", batch: Sequence[ImageRequest]) -> list[Progress]:
    """The steps that a batch reports, without the signs of life between them."""
    found: list[Progress] = []
    list(renderer.render(batch, found.append))
    return [now for before, now in pairwise([None, *found]) if now and now.done and now != before]


def picture_of(image: RenderedImage | RgbPicture) -> Image.Image:
    """Return a rendered picture with its transparency, a preview or a map."""
    picture = Image.frombytes("RGB", (image.width, image.height), image.pixels)
    if isinstance(image, RenderedImage) and image.alpha:
        picture.putalpha(Image.frombytes("L", picture.size, image.alpha))
    return picture


def pixels(image: RenderedImage | RgbPicture) -> Pixels:
    """Height x width x RGB, in a type that can be subtracted."""
    return as_pixels(picture_of(image))[..., :3]


def numbers_of(image: RenderedImage) -> NDArray[np.int32]:
    low = np.frombuffer(image.low, np.uint8).reshape(image.height, image.width, 3)
    return pixels(image).astype(np.int32) << 8 | low


def difference(first: RenderedImage, second: RenderedImage) -> int:
    return int(np.abs(pixels(first) - pixels(second)).max())


BLUE, RED, GREEN = (44, 100, 226), (222, 44, 44), (52, 168, 70)


def keep(folder: Path, picture: Image.Image) -> str:
    written = BytesIO()
    picture.save(written, "PNG")
    return keep_file(folder, written.getvalue())


def keep_file(folder: Path, content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    (folder / digest).write_bytes(content)
    return digest


def circle(width: int = 128, height: int = 0) -> Image.Image:
    """A red circle in the upper left of a blue picture, a square without a height."""
    picture = Image.new("RGB", (width, height or width), BLUE)
    side = min(picture.size)
    ImageDraw.Draw(picture).ellipse((side // 8, side // 8, side // 2, side // 2), fill=RED)
    return picture


def half() -> Image.Image:
    mask = Image.new("L", (128, 128))
    mask.paste(255, (64, 0, 128, 128))
    return mask


def as_pixels(picture: Image.Image) -> Pixels:
    return np.asarray(picture).astype(np.int16)
