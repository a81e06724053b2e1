"""Stable Diffusion's pictures are those of a plain script with diffusers, except for rounding.

`exact: true` with `precision: float32`.
"""

from copy import copy
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from picowatch.catalog import Catalog
from picowatch.engine.drawing.renderer import Renderer
from picowatch.engine.model.samplers import build_sampler, class_of
from picowatch.recipe.request import ImageRequest
from picowatch.recipe.samplers import SAMPLERS, sampler_named
from tests.engine.demo import named
from tests.engine.requests import (
    Pixels,
    as_pixels,
    circle,
    draw,
    half,
    pixels,
    plain_options,
    right_half,
    start,
)
from tests.engine.tiny_flows import checkpoints_of, tiny_unet

_D: Any = diffusers


FAMILIES = ("demo", "sd2", "sdxl")
INPAINTING = ("sd2-inpainting", "sdxl-inpainting")
EULER: dict[str, Any] = {"sampler": "Euler", "schedule_type": "leading", "steps": 4}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All folders but the demo, which is always there; start images, too."""
    folders = {name: tiny_unet(name) for name in (*FAMILIES[1:], *INPAINTING)}
    return checkpoints_of(tmp_path_factory.mktemp("against") / "models", **folders)


@pytest.fixture(scope="module")
def ours(models: Path) -> Renderer:
    return Renderer(plain_options(models))


@cache
def loaded(name: str, kind: str = "") -> Any:
    """What a script loads as "", "Img2Img" or "Inpaint"; the demo is a Stable Diffusion 1.x."""
    made = getattr(diffusers, f"StableDiffusion{'XL' * name.startswith('sdxl')}{kind}Pipeline")
    folder = Catalog(Path("nowhere")).demo.path if name == "demo" else tiny_unet(name)
    found = made.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    found.set_progress_bar_config(disable=True)
    return found


@cache
def pipeline(name: str, kind: str = "", scheduler: Any = None) -> Any:
    """The same with a scheduler created from the folder's as usual."""
    found = copy(loaded(name, kind))
    made = scheduler or (_D.EulerDiscreteScheduler if name == "demo" else type(found.scheduler))
    found.scheduler = made.from_config(found.scheduler.config)
    return found


def asked(models: Path, name: str, prompt: str = "a corgi", **values: Any) -> ImageRequest:
    """Return a request for a small picture; wider than high, unless it has a start image."""
    given = {"prompt": prompt, "checkpoint": name, "exact": True, "seed": 4, **EULER}
    size = {} if "image" in values else {"width": 96, "height": 64}
    wanted: ImageRequest = named(models, **given | size | values)
    return wanted


def theirs(of: Any, wanted: ImageRequest, **more: Any) -> Pixels:
    """Return a pipeline's picture for a request; it gets a negative prompt only if there is one."""
    given = {
        "prompt": wanted.prompt,
        "negative_prompt": wanted.negative_prompt or None,
        "num_inference_steps": wanted.steps,
        "guidance_scale": wanted.cfg_scale,
        "generator": torch.Generator("cpu").manual_seed(wanted.seed),
        "output_type": "np",
    }
    if not wanted.image:
        given |= {"width": wanted.width, "height": wanted.height}
    found: Pixels = (of(**given | more).images[0] * 255).round().astype(np.int16)
    return found


def assert_equal(ours: Renderer, wanted: ImageRequest, expected: Pixels) -> None:
    """Assert that pictures are equal except for rounding, and not empty."""
    (image,) = draw(ours, wanted)
    picture = pixels(image)
    assert np.abs(picture - expected).max() <= 1
    assert picture.std() > 5


@pytest.fixture
def modes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let diffusers encode pictures to the mode, too: samples would use up random numbers."""
    monkeypatch.setattr(
        DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode()
    )


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("sdxl", {}),
        *(("demo", {"cfg_scale": scale, "negative_prompt": "a cat"}) for scale in (1.0, 5.0)),
        ("sd2", {"negative_prompt": "a cat", "cfg_scale": 9.0, "cfg_rescale": 0.7}),
    ],
)
def test_a_picture_from_text(
    name: str, values: dict[str, Any], models: Path, ours: Renderer
) -> None:
    """XL's empty negative prompt is zeros, that of the others is encoded, as in their pipelines."""
    wanted = asked(models, name, **values)
    expected = theirs(pipeline(name), wanted, guidance_rescale=wanted.cfg_rescale)
    assert_equal(ours, wanted, expected)


@pytest.mark.parametrize(
    ("name", "sampler"),
    [("sd2", "Euler"), ("sdxl", "Euler"), ("demo", "Euler a"), ("demo", "DDIM")],
)
@pytest.mark.usefixtures("modes")
def test_a_picture_from_a_start_image(
    name: str, sampler: str, models: Path, ours: Renderer
) -> None:
    """The picture begins in the middle of the steps, with the seed's noise."""
    wanted = asked(models, name, sampler=sampler, **start(models, 0.6))
    of = pipeline(name, "Img2Img", class_of(sampler_named(sampler)))
    assert_equal(ours, wanted, theirs(of, wanted, image=circle(), strength=0.6))


@pytest.mark.parametrize(
    ("name", "strength"),
    [*((name, 0.6) for name in ("demo", "sdxl", INPAINTING[1])), (INPAINTING[0], 1.0)],
)
@pytest.mark.usefixtures("modes")
def test_a_part_of_a_picture(name: str, strength: float, models: Path, ours: Renderer) -> None:
    """Only the masked part is compared: outside, diffusers decodes the start image from latents."""
    wanted = asked(models, name, **start(models, strength), **right_half(models))
    expected = theirs(
        pipeline(name, "Inpaint"), wanted, image=circle(), mask_image=half(), strength=strength
    )
    picture = pixels(draw(ours, wanted)[0])
    assert np.abs(picture - expected)[:, 64:].max() <= 1
    assert np.abs(picture - as_pixels(circle()))[:, 64:].max() > 5
    assert np.array_equal(picture[:, :64], as_pixels(circle())[:, :64])


@pytest.mark.parametrize("spacing", ["leading", "linspace"])
def test_diffusers_spacings_are_those_of_its_classes(spacing: str) -> None:
    """For the demo's folder, to the bit; test_samplers.py has the others' noise levels."""
    config, none = loaded("demo").scheduler.config, torch.zeros(0)
    for sampler in (each for each in SAMPLERS if spacing in each.schedule_types):
        made = class_of(sampler)
        if "timestep_spacing" not in signature(made.__init__).parameters:
            continue
        expected = made.from_config(config, **sampler.options, timestep_spacing=spacing)
        for steps in (4, 20):
            expected.set_timesteps(steps)
            scheduler = build_sampler(sampler.name, spacing, steps, config).scheduler
            assert torch.equal(scheduler.timesteps, expected.timesteps), sampler.name
            assert float(scheduler.init_noise_sigma) == float(expected.init_noise_sigma)
            levels = (getattr(schedule, "sigmas", none) for schedule in (scheduler, expected))
            assert torch.equal(*levels), (sampler.name, steps)
