"""Masks and sketches that change nothing, or something else: the picture comes with a warning."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from picowatch.catalog import DEMO_CONTROLNET, Catalog, embedded
from picowatch.engine.options import EngineOptions
from picowatch.engine.renderer import Renderer
from picowatch.recipe.request import ControlUse, ImageRequest
from tests.engine.pictures import keep
from tests.engine.requests import NUMPY_WARNINGS, draw, request

pytestmark = NUMPY_WARNINGS


def drawing(ground: str, line: str) -> Image.Image:
    picture = Image.new("RGB", (128, 128), ground)
    ImageDraw.Draw(picture).ellipse((20, 20, 60, 60), outline=line, width=3)
    return picture


def warnings_of(folder: Path, requested: ImageRequest) -> list[str]:
    options = EngineOptions(models=folder, device="cpu", threads=1, start_images=folder)
    return list(draw(Renderer(options), requested)[0].warnings)


@pytest.mark.parametrize(
    ("mask", "fields", "said"),
    [
        (drawing("black", "white"), {}, ""),
        (drawing("black", "black"), {}, "The mask 'mask.png' has no white"),
        (drawing("white", "white"), {}, ""),
        (drawing("white", "white"), {"mask_invert": True}, "The mask 'mask.png' has no black"),
    ],
)
def test_a_mask_that_does_not_fit(
    tmp_path: Path, mask: Image.Image, fields: dict[str, object], said: str
) -> None:
    found = warnings_of(
        tmp_path,
        request(
            "a corgi",
            steps=2,
            image="corgi.png",
            image_hash=keep(tmp_path, Image.new("RGB", (128, 128), "blue")),
            mask="mask.png",
            mask_hash=keep(tmp_path, mask),
            **fields,
        ),
    )
    assert len(found) == bool(said)
    assert said in "".join(found)


@pytest.mark.parametrize(
    ("ground", "line", "preprocess", "said"),
    [
        ("white", "black", "none", "'sketch.png' has dark lines on a light ground"),
        ("white", "black", "invert", ""),
        ("black", "white", "none", ""),
    ],
)
def test_a_sketch_on_paper(
    tmp_path: Path, ground: str, line: str, preprocess: Any, said: str
) -> None:
    use = ControlUse(
        "sketch.png",
        DEMO_CONTROLNET,
        preprocess=preprocess,
        model_hash=Catalog(tmp_path).sha256(embedded("controlnet")),
        image_hash=keep(tmp_path, drawing(ground, line)),
    )
    found = warnings_of(tmp_path, request("a red circle", steps=2, control=(use,)))
    assert len(found) == bool(said)
    assert said in "".join(found)
