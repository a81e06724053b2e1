"""Each sampler is the right class of diffusers, at every number of steps, and for each image."""

from inspect import signature
from typing import Any

import numpy as np
import pytest
import torch

from picowatch.catalog import read_config
from picowatch.catalog.parts import CONFIGS
from picowatch.engine.samplers import _KINDS, build_sampler
from picowatch.recipe.passes import evaluations
from picowatch.recipe.samplers import SAMPLERS, KnownSampler
from tests.engine.requests import NUMPY_WARNINGS, request

pytestmark = NUMPY_WARNINGS

CONFIG = read_config(CONFIGS["sd1"] / "scheduler" / "scheduler_config.json")
ZERO_SNR = {**CONFIG, "rescale_betas_zero_snr": True}
# Those whose steps draw noise: a table of its own, so that a sampler that forgets to is noticed.
NOISY = {
    *("Euler a", "DPM2 a", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ SDE"),
    *("SA-Solver", "DDPM", "LCM", "TCD"),
}
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.name)


def build(name: str, schedule_type: str, steps: int = 24, **more: Any) -> Any:
    return build_sampler(name, schedule_type, steps, CONFIG, **more).scheduler


@pytest.mark.parametrize(
    ("name", "schedule_type"),
    [(one.name, schedule_type) for one in SAMPLERS for schedule_type in one.schedule_types],
)
def test_every_number_of_steps_makes_numbers(name: str, schedule_type: str) -> None:
    """With everything recipes accept: as many evaluations as recipes count, and no NaN."""
    # Spaced backwards from the last training step, 61 come out as 62 if rounding is not watched.
    most = {"karras": 150, "uniform": 150, "sgm_uniform": 61}.get(schedule_type, 37)
    for steps in (1, 2, 6, most):
        scheduler = build(name, schedule_type, steps)
        wanted = request(sampler=name, schedule_type=schedule_type, steps=steps)
        assert len(scheduler.timesteps) == evaluations(wanted)
        assert min(scheduler.timesteps) >= 0
        latents = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(2))
        latents = latents * scheduler.init_noise_sigma
        assert np.isfinite(denoised(scheduler, latents, [1]).numpy()).all(), steps


def denoised(scheduler: Any, latents: torch.Tensor, seeds: list[int]) -> torch.Tensor:
    """All steps, as a pipeline makes them, of a UNet that finds most of everything to be noise."""
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
    """So that a picture does not depend on its neighbours, nor on what was drawn before."""

    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("drawn without the images' generators")

    for name in ("randn_like", "normal", "rand"):
        monkeypatch.setattr(torch, name, forbidden)
    before = torch.get_rng_state()

    def made(seeds: list[int]) -> torch.Tensor:
        return denoised(
            build(sampler.name, sampler.automatic, 6), torch.ones(len(seeds), 4, 8, 8), seeds
        )

    together = made([1, 2])
    for row, seed in enumerate((1, 2)):
        assert torch.allclose(together[row], made([seed])[0], atol=1e-5)
    assert torch.equal(*together) == (sampler.name not in NOISY)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("strength", [0.5, 0.05])
@every_sampler
def test_a_start_image_takes_as_many_evaluations_as_recipes_count(
    sampler: KnownSampler, strength: float
) -> None:
    """Measurements of the one sampler are compared with those of the other."""
    for steps in (1, 2, 9):
        wanted = request(sampler=sampler.name, steps=steps, image="a", denoising_strength=strength)
        built = build_sampler(sampler.name, sampler.automatic, steps, CONFIG, strength)
        assert evaluations(wanted) == len(built.timesteps)


@every_sampler
def test_zero_terminal_snr_begins_with_pure_noise(sampler: KnownSampler) -> None:
    """Section 3.3 of https://arxiv.org/abs/2305.08891; grey or noisy pictures otherwise.

    Recipes know which samplers can without importing diffusers, and refuse the others.
    """
    parameters = signature(_KINDS[sampler.name].scheduler.__init__).parameters
    assert sampler.reaches_zero_snr == ("rescale_betas_zero_snr" in parameters)
    if sampler.reaches_zero_snr:
        assert int(build_sampler(sampler.name, "uniform", 8, ZERO_SNR).timesteps[0]) == 999
