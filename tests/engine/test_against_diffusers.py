"""Stable Diffusion's pictures are those of a plain script with diffusers, except for rounding.

test_flows.py has the other families. `exact: true` with `precision: float32`.
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
from picowatch.recipe.samplers import SAMPLERS, sampler_named
from tests.engine.flow_requests import SIDE, flow_renderer, requests_of, square
from tests.engine.requests import circle, draw, pixels
from tests.engine.test_flows import same, seeded
from tests.engine.tiny_flows import UNETS, checkpoints_of, tiny_unet

CAT = "negative_prompt: a cat"
START = "image: start.png\ndenoising_strength: 0.6"
MASK = f"{START}\nmask: mask.png\nmask_blur: 0"
GIVEN = {"image": circle(SIDE), "strength": 0.6}
MASKED = GIVEN | {"mask_image": square()}
# By folder: what a recipe says, and what a script calls its pipeline with. XL's empty negative
# prompt is zeros, that of the others is encoded, as in their pipelines.
CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("sdxl", "size: 96x64", {"width": 96, "height": 64}),
    ("demo", CAT, {"negative_prompt": "a cat"}),
    ("demo", f"{CAT}\ncfg_scale: 1", {"negative_prompt": "a cat", "guidance_scale": 1.0}),
    ("sd2", f"{CAT}\ncfg_rescale: 0.7", {"negative_prompt": "a cat", "guidance_rescale": 0.7}),
    *(("sd2", START, GIVEN), ("sdxl", START, GIVEN)),
    *(("demo", f"{START}\nsampler: {sampler}", GIVEN) for sampler in ("Euler a", "DDIM")),
    *((name, MASK, MASKED) for name in ("demo", "sdxl", "sdxl-inpainting")),
    ("sd2-inpainting", MASK.replace("0.6", "1.0"), MASKED | {"strength": 1.0}),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All folders but the demo, which is always there; a start image and a mask."""
    folders = {name: tiny_unet(name) for name in UNETS}
    models = checkpoints_of(tmp_path_factory.mktemp("against") / "models", **folders)
    circle(SIDE).save(models / "start.png")
    square().save(models / "mask.png")
    return models


@pytest.fixture(scope="module")
def ours(models: Path) -> Renderer:
    return flow_renderer(models)


@cache
def loaded(name: str, kind: str = "") -> Any:
    """What a script loads as "", "Img2Img" or "Inpaint"; the demo is a Stable Diffusion 1.x."""
    made = getattr(diffusers, f"StableDiffusion{'XL' * name.startswith('sdxl')}{kind}Pipeline")
    folder = Catalog(Path("nowhere")).demo.path if name == "demo" else tiny_unet(name)
    found = made.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    found.set_progress_bar_config(disable=True)
    return found


@pytest.mark.parametrize(("name", "lines", "values"), CASES)
def test_a_picture_is_diffusers_picture(
    name: str,
    lines: str,
    values: dict[str, Any],
    models: Path,
    ours: Renderer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From text, from the middle of the steps, and in a mask: outside are the photo's own bytes."""
    how = "".join(
        f"{line}\n"
        for line in ("sampler: Euler", "cfg_scale: 5", "schedule_type: leading", "steps: 4")
        if line.partition(" ")[0] not in lines
    )
    (wanted,) = requests_of(models, name, f"prompt: a corgi\n{how}{lines}")
    # diffusers encodes pictures to the mode, too: samples would use up random numbers.
    monkeypatch.setattr(
        DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode()
    )
    kind = "Inpaint" if "mask_image" in values else "Img2Img" if "image" in values else ""
    script = copy(loaded(name, kind))
    script.scheduler = class_of(sampler_named(wanted.sampler)).from_config(script.scheduler.config)
    size = {"width": SIDE, "height": SIDE} if kind != "Img2Img" else {}
    usual = {"guidance_scale": 5.0, "num_inference_steps": 4, "generator": seeded(7)}
    given = usual | size | values
    theirs = (script("a corgi", output_type="np", **given).images[0] * 255).round()
    (image,) = draw(ours, wanted)
    if kind == "Inpaint":
        outside = np.asarray(square()) == 0
        theirs[outside] = np.asarray(circle(SIDE))[outside]
    assert same(pixels(image), theirs)


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
