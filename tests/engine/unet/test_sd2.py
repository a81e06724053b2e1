"""Stable Diffusion 2.x: our own loop gives what diffusers' pipeline gives for the same folder."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from picowatch.catalog import Catalog
from picowatch.engine.models.sd2 import _TELLING, _prediction
from picowatch.engine.renderer import Renderer
from tests.engine.ldm import write_single_file
from tests.engine.requests import ignore_steps, pixels, request
from tests.engine.tiny_models import tiny_renderer, tiny_sd2

# numpy 2.4 and torch 2.13 inside diffusers 0.42; in the engine process warnings are off.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with the tiny checkpoint, as a folder and as a single file."""
    models = tmp_path_factory.mktemp("models")
    (models / "checkpoints").mkdir()
    (models / "checkpoints/tiny").symlink_to(tiny_sd2())
    marks = {"v_pred": torch.zeros(1)}
    write_single_file(tiny_sd2(), models / "checkpoints/single.safetensors", torch.float32, marks)
    return models


@pytest.fixture(scope="module")
def ours(models: Path) -> Renderer:
    """Single files are as small as the folder."""
    return tiny_renderer(models, "sd2", tiny_sd2())


def rendered(ours: Renderer, models: Path, checkpoint: str, negative: str = "") -> Any:
    catalog = Catalog(models)
    wanted = request(
        "a corgi",
        negative_prompt=negative,
        checkpoint=checkpoint,
        checkpoint_hash=catalog.sha256(catalog.find("checkpoint", checkpoint)),
        sampler="Euler",
        schedule_type="leading",
        steps=3,
        width=64,
        height=96,
        exact=True,
    )
    return pixels(ours.render([wanted], ignore_steps)[0])


@pytest.mark.parametrize("negative", ["", "a cat"])
def test_a_picture_is_diffusers_picture(models: Path, ours: Renderer, negative: str) -> None:
    """Padded with "!", and by v; an empty negative prompt is encoded."""
    pipeline = StableDiffusionPipeline.from_pretrained(  # type: ignore[no-untyped-call]
        tiny_sd2(), dtype=torch.float32, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        "a corgi",
        negative_prompt=negative,
        num_inference_steps=3,
        guidance_scale=5.0,
        width=64,
        height=96,
        generator=[torch.Generator("cpu").manual_seed(1)],
        output_type="np",
    ).images[0]
    picture = rendered(ours, models, "tiny", negative)
    assert np.abs(picture - (expected * 255).round()).max() <= 1
    assert picture.std() > 5


def test_a_single_file_gives_the_pictures_of_its_folder(models: Path, ours: Renderer) -> None:
    """In the original's names."""
    assert np.array_equal(*(rendered(ours, models, name) for name in ("tiny", "single")))


@pytest.mark.parametrize(("spread", "prediction"), [(0.2, "v_prediction"), (0.05, "epsilon")])
def test_a_single_file_without_marks_is_told_by_its_weights(spread: float, prediction: str) -> None:
    """As ComfyUI tells 768-v from 512-base, whose headers are equal."""
    bias = torch.tensor([-spread, spread])
    unet = SimpleNamespace(state_dict=lambda: {_TELLING: bias})
    model = Catalog(Path("nowhere")).demo
    assert _prediction(model, unet) == prediction
    assert _prediction(replace(model, in_channels=9), unet) == "epsilon"
