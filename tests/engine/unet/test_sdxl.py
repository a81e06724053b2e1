"""Stable Diffusion XL: our own loop gives what diffusers' pipelines give for the same folder."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
)

from picowatch.catalog import Catalog
from picowatch.engine.options import EngineOptions
from picowatch.engine.renderer import Renderer
from tests.engine.requests import ignore_steps, pixels, request
from tests.engine.tiny_sdxl import tiny_sdxl

# numpy 2.4 and torch 2.13 inside diffusers 0.42; in the engine process warnings are off.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with the tiny checkpoint."""
    models = tmp_path_factory.mktemp("models")
    (models / "checkpoints").mkdir()
    (models / "checkpoints/tiny").symlink_to(tiny_sdxl())
    return models


@pytest.fixture(scope="module")
def ours(models: Path) -> Renderer:
    """In this process and on one thread, as theirs."""
    return Renderer(EngineOptions(models=models, device="cpu", threads=1))


@pytest.fixture(scope="module")
def theirs() -> Any:
    """diffusers' pipeline for the same folder."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(  # type: ignore[no-untyped-call]
        tiny_sdxl(), dtype=torch.float32, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def asked(models: Path, prompt: str = "a corgi", **values: Any) -> Any:
    catalog = Catalog(models)
    hashed = catalog.sha256(catalog.find("checkpoint", "tiny"))
    given = {
        "checkpoint": "tiny",
        "checkpoint_hash": hashed,
        "sampler": "Euler",
        "schedule_type": "leading",
        "steps": 3,
        "width": 64,
        "height": 96,
        "exact": True,
    }
    return request(prompt, **(given | values))


def rendered(ours: Renderer, *requests: Any) -> list[Any]:
    return [pixels(image) for image in ours.render(requests, ignore_steps)]


def expected(pipeline: Any, wanted: Any, **values: Any) -> Any:
    """As docs/moving.md calls it; an empty negative prompt is none."""
    given = {
        "prompt": wanted.prompt,
        "negative_prompt": wanted.negative_prompt or None,
        "num_inference_steps": wanted.steps,
        "guidance_scale": wanted.cfg_scale,
        "width": wanted.width,
        "height": wanted.height,
        "generator": [torch.Generator("cpu").manual_seed(wanted.seed)],
    }
    picture = pipeline(**(given | values), output_type="np").images[0]
    return (picture * 255).round()


@pytest.mark.parametrize("negative", ["", "a cat"])
def test_a_picture_is_diffusers_picture(
    models: Path, ours: Renderer, theirs: Any, negative: str
) -> None:
    """Two text encoders, the summary, the size; zeros for an empty negative prompt."""
    wanted = asked(models, negative_prompt=negative)
    (picture,) = rendered(ours, wanted)
    assert np.abs(picture - expected(theirs, wanted)).max() <= 1
    assert picture.std() > 5


def test_without_guidance_there_is_no_negative_half(
    models: Path, ours: Renderer, theirs: Any
) -> None:
    """As few-step checkpoints need it."""
    wanted = asked(models, cfg_scale=1.0)
    (picture,) = rendered(ours, wanted)
    assert np.abs(picture - expected(theirs, wanted)).max() <= 1


def test_pictures_of_a_batch_are_those_made_alone(models: Path, ours: Renderer) -> None:
    """Each with its own summary."""
    wanted = [asked(models, prompt, seed=seed, exact=False)
              for seed, prompt in enumerate(("a corgi", "a cat", "a red star", "x"))]
    together = rendered(ours, *wanted)
    alone = [rendered(ours, one)[0] for one in wanted]
    for one, other in zip(together, alone, strict=True):
        assert np.abs(one - other).max() <= 1
    assert np.abs(together[0] - together[1]).max() > 5
