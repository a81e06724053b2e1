"""Our own loop gives what diffusers' pipeline gives."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from picowatch.catalog import Catalog, read_config
from picowatch.engine.loading import SD15
from picowatch.engine.local import LocalEngine
from picowatch.engine.noise import generators_for, initial_noise
from picowatch.engine.options import EngineOptions
from picowatch.engine.samplers import build_sampler
from tests.engine.requests import ignore_steps, pixels, request

# numpy 2.4 and torch 2.13 inside diffusers 0.42; in the engine process warnings are off.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

DEMO = Catalog(Path("nowhere")).demo.path


@pytest.fixture(scope="module")
def ours() -> LocalEngine:
    """In this process and on one thread, as theirs: several spin on a busy machine."""
    return LocalEngine(EngineOptions(models=Path("nowhere"), device="cpu", threads=1))


@pytest.fixture(scope="module")
def theirs() -> Any:
    """diffusers' pipeline for the same model."""
    pipeline = StableDiffusionPipeline.from_pretrained(  # type: ignore[no-untyped-call]
        DEMO, dtype=torch.float32, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize(
    ("sampler", "schedule_type"),
    [("DPM++ 2M", "karras"), ("Euler a", "uniform"), ("PNDM", "uniform")],
)
def test_a_picture_is_the_one_of_diffusers_pipeline(
    ours: LocalEngine, theirs: Any, sampler: str, schedule_type: str
) -> None:
    """The same words, negative words, seed and sampler; at most rounding differs.

    clip_skip is left out: diffusers 0.42's pipeline cannot do it with transformers 5.6 or later.
    """
    asked = request(
        "a corgi with a red hat",
        negative_prompt="blurry",
        sampler=sampler,
        schedule_type=schedule_type,
        seed=4,
        steps=8,
    )
    (image,) = ours.make([asked], ignore_steps)
    generators = generators_for([asked.seed])
    config = read_config(SD15 / "scheduler" / "scheduler_config.json")
    theirs.scheduler = build_sampler(sampler, schedule_type, asked.steps, config, "cpu").scheduler
    expected = theirs(
        asked.prompt,
        negative_prompt=asked.negative_prompt,
        latents=initial_noise(generators, asked.width, asked.height),
        generator=generators[0],
        guidance_scale=asked.cfg_scale,
        num_inference_steps=asked.steps,
        width=asked.width,
        height=asked.height,
        output_type="np",
    ).images[0]
    assert np.abs(pixels(image) - (expected * 255).round()).max() <= 1
