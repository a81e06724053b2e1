"""The embedded ControlNet: what the demo model draws is where the sketch is."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from picowatch.catalog import DEMO_CONTROLNET, Catalog, embedded
from picowatch.engine.options import EngineOptions
from picowatch.engine.renderer import Renderer
from picowatch.families import DEMO_WIDTH
from picowatch.recipe.request import ControlUse
from tests.catalog.files import write_model
from tests.catalog.test_controlnets import original
from tests.engine.pictures import keep
from tests.engine.requests import ignore_steps, pixels, request

# numpy 2.4 and torch 2.13 inside diffusers 0.42; in the engine process warnings are off.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]

CENTRE, RADIUS = (40, 44), 20


def middle_of_the_red(image: Any) -> tuple[float, float]:
    red = pixels(image).astype(int)
    rows, columns = np.nonzero(red[:, :, 0] - red[:, :, 2] > 60)
    return float(columns.mean()), float(rows.mean())


def test_a_circle_is_drawn_where_it_is_sketched(tmp_path: Path) -> None:
    """Without the sketch it is in the middle."""
    sketch = Image.new("RGB", (128, 128), "white")
    (x, y), r = CENTRE, RADIUS
    ImageDraw.Draw(sketch).ellipse((x - r, y - r, x + r, y + r), outline="black", width=2)
    catalog = Catalog(tmp_path)
    use = ControlUse(
        "sketch.png",
        DEMO_CONTROLNET,
        preprocess="invert",
        model_hash=catalog.sha256(embedded("controlnet")),
        image_hash=keep(tmp_path, sketch),
    )
    renderer = Renderer(
        EngineOptions(models=tmp_path, device="cpu", threads=1, start_images=tmp_path)
    )
    one = request("a red circle on a blue background", steps=10, control=(use,))
    (found,) = renderer.render([one], ignore_steps)
    assert np.abs(np.subtract(middle_of_the_red(found), CENTRE)).max() < 8
    (plain,) = renderer.render([replace(one, control=())], ignore_steps)
    assert np.abs(np.subtract(middle_of_the_red(plain), (64, 64))).max() < 12


def test_another_file_of_its_name_is_refused(tmp_path: Path) -> None:
    """Recipes say which one they mean by the name alone."""
    write_model(tmp_path / f"controlnet/{DEMO_CONTROLNET}.safetensors", original(DEMO_WIDTH))
    found = Catalog(tmp_path).scan()
    assert [one.reason for one in found.refused] == [
        f"{DEMO_CONTROLNET}.safetensors has the same name as the embedded ControlNet: rename it."
    ]
    assert [one.name for one in Catalog(tmp_path).inventory().controlnets] == [DEMO_CONTROLNET]
