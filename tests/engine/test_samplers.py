"""Each sampler is the right class of diffusers, at every number of steps, and for each image."""

from collections.abc import Callable
from copy import copy
from functools import cache
from inspect import signature
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import diffusers
import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from picowatch.catalog import embedded
from picowatch.catalog.folder_files import read_schedule
from picowatch.catalog.parts import CONFIGS
from picowatch.engine.drawing.renderer import Renderer
from picowatch.engine.model.samplers import build_sampler, class_of
from picowatch.recipe.passes import evaluations
from picowatch.recipe.samplers import EVEN, SAMPLERS, KnownSampler, sampler_named
from tests.engine.flow_requests import SIDE, flow_renderer, requests_of, square
from tests.engine.requests import circle, draw, pixels, request
from tests.engine.test_flows import same, seeded
from tests.engine.tiny_flows import UNETS, checkpoints_of, tiny_unet

CONFIG = read_schedule(CONFIGS["sd1"] / "scheduler")
ZERO_SNR = {**CONFIG, "rescale_betas_zero_snr": True}
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.name)


def build(name: str, schedule_type: str, steps: int) -> Any:
    return build_sampler(name, schedule_type, steps, CONFIG).scheduler


# The noise levels of https://github.com/crowsonkb/k-diffusion (external.py, sampling.py) and of
# A1111's modules/sd_schedulers.py for a number of steps; `beta` for 9 and 5 steps is by scipy's
# stats.beta.ppf(…, 0.6, 0.6).
KEPT = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
TRAINED = np.sqrt((1 - KEPT) / KEPT)
LOW, HIGH = TRAINED[0], TRAINED[-1]
HALF = [1, 0.942844, 0.82432, 0.670619]
QUANTILES = np.array([*HALF, 0.5, *(1 - each for each in reversed(HALF))])
ALIGNED = np.log([14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029])


def at(steps: Any) -> Any:
    return np.exp(np.interp(steps, np.arange(1000), np.log(TRAINED)))


def angles(share: Any) -> Any:
    return np.tan(share * np.arctan(LOW) + (1 - share) * np.arctan(HIGH))


LEVELS: dict[str, Callable[[int], Any]] = {
    "karras": lambda n: np.linspace(HIGH ** (1 / 7), LOW ** (1 / 7), n) ** 7,
    "exponential": lambda n: np.exp(np.linspace(np.log(HIGH), np.log(LOW), n)),
    "beta": lambda n: LOW + QUANTILES[:: 8 // (n - 1)] * (HIGH - LOW),
    "uniform": lambda n: at(np.linspace(999, 0, n)),
    "sgm_uniform": lambda n: at(np.linspace(999, 0, n + 1)[:-1]),
    "kl_optimal": lambda n: angles(np.linspace(0, 1, n + 1)[:-1]),
    "align_your_steps": lambda n: np.exp(np.interp(np.linspace(0, 10, n), range(11), ALIGNED)),
}
# These take the distillation's steps, or those that they were published with.
OWN_STEPS = {"LCM": EVEN, "TCD": EVEN, "DDIM": ("uniform",), "DDPM": ("uniform",), "PNDM": LEVELS}


@every_sampler
def test_noise_levels_are_those_of_k_diffusion_and_a1111(sampler: KnownSampler) -> None:
    """Each sampler takes a third of the schedules, Euler all; the UNet may get times in between."""
    name, every = sampler.name, sampler.evaluations
    some = [*LEVELS] if name == "Euler" else [*LEVELS][SAMPLERS.index(sampler) % 3 :: 3]
    taken = [schedule for schedule in some if schedule not in OWN_STEPS.get(name, ())]
    for schedule_type, steps in product(taken, (5, 9)):
        levels = LEVELS[schedule_type](steps)
        times = np.interp(np.log(levels), np.log(TRAINED), np.arange(1000))
        scheduler = build(name, schedule_type, steps)
        assert np.abs(scheduler.timesteps[::every].numpy() - times).max() <= 1, schedule_type
        if name not in OWN_STEPS:
            assert np.allclose(scheduler.sigmas[: every * steps : every], levels, rtol=0.01)
            assert scheduler.sigmas[-1] < LOW * 1.01


@pytest.mark.parametrize("name", [sampler.name for sampler in SAMPLERS if sampler.with_levels])
def test_what_stands_in_for_a_sampler_takes_the_same_steps(name: str) -> None:
    """DDIM is Euler's method, and DDPM that with noise, for latents that are scaled otherwise."""
    latents = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(1))
    after = []
    for each in (name, sampler_named(name).with_levels):
        scheduler = build(each, "leading", 8)
        sigmas = getattr(scheduler, "sigmas", torch.zeros(9))
        before, behind = ((sigma**2 + 1) ** 0.5 for sigma in sigmas[:2])
        timestep, drawn = scheduler.timesteps[0], torch.Generator().manual_seed(2)
        scheduler.scale_model_input(latents, timestep)
        stepped = scheduler.step(latents * 0.9, timestep, latents * before, generator=drawn)
        after.append(stepped.prev_sample / behind)
    assert (after[0] - after[1]).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("name", "schedule_type"),
    [
        pytest.param(sampler.name, schedule_type, marks=[pytest.mark.heavy] if index else [])
        for sampler in SAMPLERS
        for index, schedule_type in enumerate(sampler.schedule_types)
    ],
)
def test_every_number_of_steps_makes_numbers(name: str, schedule_type: str) -> None:
    """For all values of recipes there are as many evaluations as recipes count, and no NaN."""
    # Spaced backwards from the last training step, 61 come out as 62 if rounding is not watched.
    most = {"uniform": 150, "sgm_uniform": 61}.get(schedule_type, 37)
    given: dict[str, Any] = {"sampler": name, "schedule_type": schedule_type}
    for steps, strength in ((1, 1.0), (2, 1.0), (most, 1.0), (6, 0.5), (6, 0.05)):
        wanted = request(**given, steps=steps, image="a", denoising_strength=strength)
        built = build_sampler(name, schedule_type, steps, CONFIG, strength)
        assert len(built.timesteps) == evaluations(wanted)
        assert min(built.timesteps) >= 0
        latents = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(2))
        latents = latents * built.scheduler.init_noise_sigma
        assert np.isfinite(denoised(built, latents, [1]).numpy()).all(), steps


def test_dpmpp_3m_sde_takes_the_steps_of_k_diffusion() -> None:
    """The numbers are those of its sample_dpmpp_3m_sde with the same noise (k-diffusion 0.1.1)."""
    scheduler = build("DPM++ 3M SDE", "exponential", 6)
    latents = torch.tensor([-1.5, -0.5, 0.4, 1.2]).reshape(1, 4, 1, 1) * scheduler.sigmas[0]
    generator = torch.Generator().manual_seed(7)
    for timestep, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
        scheduler.scale_model_input(latents, timestep)
        noise = (latents - torch.tanh(latents / (1 + sigma))) / sigma
        latents = scheduler.step(noise, timestep, latents, generator=generator).prev_sample
    expected = torch.tensor([0.269196, -0.579829, 0.008703, 0.662811])
    assert torch.allclose(latents.flatten(), expected, atol=1e-5)


def denoised(scheduler: Any, latents: torch.Tensor, seeds: list[int]) -> torch.Tensor:
    """Return the result of all steps with a UNet that predicts most of its input as noise."""
    drawn = {}
    if "generator" in signature(scheduler.step).parameters:
        drawn["generator"] = [torch.Generator().manual_seed(seed) for seed in seeds]
    for timestep in scheduler.timesteps:
        predicted = scheduler.scale_model_input(latents, timestep) * 0.9
        latents = scheduler.step(predicted, timestep, latents, **drawn).prev_sample
    return latents


@every_sampler
def test_steps_draw_from_the_generators_of_their_images_alone(
    sampler: KnownSampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a picture would depend on its neighbours and on earlier ones."""
    for name in ("randn_like", "normal", "rand"):
        monkeypatch.setattr(torch, name, Mock(side_effect=AssertionError("without a generator")))
    before = torch.get_rng_state()

    def made(seeds: list[int]) -> torch.Tensor:
        return denoised(
            build(sampler.name, sampler.automatic, 6), torch.ones(len(seeds), 4, 8, 8), seeds
        )

    together = made([1, 2])
    for row, seed in enumerate((1, 2)):
        assert torch.allclose(together[row], made([seed])[0], atol=1e-5)
    assert torch.equal(*together) == (not sampler.noisy)
    assert torch.equal(torch.get_rng_state(), before)


@every_sampler
def test_zero_terminal_snr_begins_with_pure_noise(sampler: KnownSampler) -> None:
    """Section 3.3 of https://arxiv.org/abs/2305.08891; pictures are grey or noisy otherwise."""
    parameters = signature(class_of(sampler).__init__).parameters
    assert sampler.zero_snr == ("rescale_betas_zero_snr" in parameters)
    if sampler.zero_snr:
        assert int(build_sampler(sampler.name, "uniform", 8, ZERO_SNR).timesteps[0]) == 999


# -- Stable Diffusion's pictures are those of a plain script with diffusers, except for rounding.
# test_flows.py has the other families. `exact: true` with `precision: float32`.


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
    folder = embedded("checkpoint").path if name == "demo" else tiny_unet(name)
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
