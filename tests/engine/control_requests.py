"""Requests with ControlNets, and the pictures of diffusers' pipelines for them."""

from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image, ImageDraw

from picowatch.catalog import Catalog
from picowatch.engine.renderer import Renderer
from picowatch.recipe.request import ControlUse, ImageRequest
from tests.engine.pictures import keep
from tests.engine.requests import Pixels, ignore_steps, pixels, request

SIDE = 64
DEMO = Catalog(Path("nowhere")).demo.path


@cache
def components(folder: Path) -> dict[str, Any]:
    """The parts of a checkpoint, in diffusers' hands, with Euler's steps."""
    pipeline = diffusers.DiffusionPipeline.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True
    )
    scheduler: Any = diffusers.EulerDiscreteScheduler
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)
    # Not set by transformers once a card was pretended in this process, as other tests do.
    found: dict[str, Any] = pipeline.components
    for encoder in (found["text_encoder"], found.get("text_encoder_2")):
        for name, positions in encoder.named_buffers() if encoder else ():
            assert name.endswith("position_ids")
            positions.copy_(torch.arange(positions.shape[1]))
    return found


def unet_of(folder: Path) -> Any:
    return components(folder)["unet"]


def lines(shift: int = 0) -> Image.Image:
    """White lines on black."""
    picture = Image.new("RGB", (SIDE, SIDE))
    ImageDraw.Draw(picture).line((8 + shift, 8, 50, 40, 12, 50), "white", 3)
    return picture


def use(models: Path, name: str, picture: Image.Image | None = None, **values: Any) -> ControlUse:
    catalog = Catalog(models)
    return ControlUse(
        image="lines.png",
        image_hash=keep(models, picture or lines()),
        model=name,
        model_hash=catalog.sha256(catalog.find("controlnet", name)),
        **values,
    )


def requested(models: Path, *uses: ControlUse, checkpoint: str = "demo", **values: Any) -> Any:
    catalog = Catalog(models)
    given = {
        "checkpoint": checkpoint,
        "checkpoint_hash": catalog.sha256(catalog.find("checkpoint", checkpoint)),
        "sampler": "Euler",
        "schedule_type": "leading",
        "negative_prompt": "a cat",
        "steps": 5,
        "width": SIDE,
        "height": SIDE,
        "control": uses,
    }
    return request("a corgi", **(given | values))


def theirs(kind: Any, folder: Path, controlnet: Any) -> Any:
    pipeline = kind(**components(folder), controlnet=controlnet)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def expected(pipeline: Any, one: ImageRequest, **values: Any) -> Any:
    given = {
        "prompt": one.prompt,
        "negative_prompt": one.negative_prompt,
        "num_inference_steps": one.steps,
        "guidance_scale": one.cfg_scale,
        "width": SIDE,
        "height": SIDE,
        "generator": [torch.Generator("cpu").manual_seed(one.seed)],
        "output_type": "np",
    }
    return (pipeline(**(given | values)).images[0] * 255).round()


def drawn(ours: Renderer, one: ImageRequest) -> Pixels:
    (image,) = ours.render([one], ignore_steps)
    return pixels(image)


def assert_equal(found: Pixels, wanted: Any, plain: Pixels) -> None:
    """1 of 255 at most, and the ControlNet acted."""
    assert np.abs(found - wanted).max() <= 1
    assert np.abs(found - plain).max() > 5
