"""Each sampler is the right diffusers class with the right options, at every number of steps."""

from inspect import signature
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_lms_discrete import LMSDiscreteScheduler
from picowatch.engine.models.parts import SD15
from picowatch.engine.unet.solvers import Dpm2sAncestral, Dpm3mSde, UniPc

from picowatch.catalog import read_config
from picowatch.engine.samplers import _KINDS, build_sampler
from picowatch.engine.unet import solvers
from picowatch.errors import RenderFailed
from picowatch.recipe.samplers import SAMPLERS, KnownSampler

# numpy 2.4 and torch 2.13 inside diffusers 0.42; in the engine process warnings are off.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]

CONFIG = read_config(SD15 / "scheduler" / "scheduler_config.json")
NOISY = (
    *("Euler a", "DPM2 a", "DPM++ 2M SDE", "DPM++ 2M SDE Heun"),
    *("DPM++ 3M SDE", "DPM++ 2S a", "DPM++ SDE", "SA-Solver", "DDPM", "LCM", "TCD"),
)
TWICE = [sampler.name for sampler in SAMPLERS if sampler.evaluations == 2]
COMBINATIONS = [(s.name, schedule_type) for s in SAMPLERS for schedule_type in s.schedule_types]


def build(name: str, schedule_type: str, steps: int = 24) -> Any:
    return build_sampler(name, schedule_type, steps, CONFIG).scheduler


CLASSES: list[tuple[str, Any, dict[str, object]]] = [
    (
        "DPM++ 2M",
        diffusers.DPMSolverMultistepScheduler,
        {"algorithm_type": "dpmsolver++", "solver_order": 2, "final_sigmas_type": "zero"},
    ),
    (
        "DPM++ 2M SDE",
        diffusers.DPMSolverMultistepScheduler,
        {"algorithm_type": "sde-dpmsolver++", "solver_order": 2, "final_sigmas_type": "zero"},
    ),
    (
        "DPM++ 2M SDE Heun",
        diffusers.DPMSolverMultistepScheduler,
        {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun", "solver_order": 2},
    ),
    ("Euler", diffusers.EulerDiscreteScheduler, {"final_sigmas_type": "zero"}),
    ("Euler a", diffusers.EulerAncestralDiscreteScheduler, {}),
    ("DDIM", diffusers.DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": False}),
    ("UniPC", UniPc, {"final_sigmas_type": "zero", "solver_type": "bh2"}),
    ("PNDM", diffusers.PNDMScheduler, {"skip_prk_steps": True, "set_alpha_to_one": False}),
    ("Heun", diffusers.HeunDiscreteScheduler, {"timestep_spacing": "linspace"}),
    ("LMS", LMSDiscreteScheduler, {"timestep_spacing": "linspace"}),
    ("DPM2", diffusers.KDPM2DiscreteScheduler, {"timestep_spacing": "linspace"}),
    ("DPM2 a", diffusers.KDPM2AncestralDiscreteScheduler, {"timestep_spacing": "linspace"}),
    (
        "DPM++ SDE",
        diffusers.DPMSolverSinglestepScheduler,
        {"algorithm_type": "sde-dpmsolver++", "solver_order": 2, "final_sigmas_type": "zero"},
    ),
    ("DPM++ 3M SDE", Dpm3mSde, {"final_sigmas_type": "zero"}),
    ("DPM++ 2S a", Dpm2sAncestral, {"timestep_spacing": "linspace"}),
    ("SA-Solver", diffusers.SASolverScheduler, {"algorithm_type": "data_prediction"}),
    ("DEIS", diffusers.DEISMultistepScheduler, {"algorithm_type": "deis", "solver_order": 2}),
    ("DDPM", diffusers.DDPMScheduler, {"clip_sample": False, "variance_type": "fixed_small"}),
    ("LCM", diffusers.LCMScheduler, {"original_inference_steps": 50, "clip_sample": False}),
    ("TCD", diffusers.TCDScheduler, {"original_inference_steps": 50, "clip_sample": False}),
]


def test_every_sampler_has_a_class_and_a_row_here() -> None:
    """So that none goes untested."""
    assert {sampler.name for sampler in SAMPLERS} == _KINDS.keys() == {one[0] for one in CLASSES}


@pytest.mark.parametrize(("name", "kind", "options"), CLASSES)
def test_each_sampler_is_its_diffusers_class(
    name: str, kind: Any, options: dict[str, object]
) -> None:
    """With docs/moving.md's options, and Stable Diffusion's betas from the checkpoint's config."""
    scheduler = build(name, "uniform")
    assert type(scheduler) is kind
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    expected = options | betas | {"prediction_type": "epsilon"}
    assert {key: scheduler.config[key] for key in expected} == expected


@pytest.mark.parametrize("schedule_type", ["karras", "exponential", "beta"])
@pytest.mark.parametrize("name", [s.name for s in SAMPLERS if "karras" in s.schedule_types])
def test_sigma_schedules_set_their_option_alone(name: str, schedule_type: str) -> None:
    """And span the model's whole range, from 14.6 down to 0.03."""
    scheduler = build(name, schedule_type)
    options = [f"use_{one}_sigmas" for one in ("karras", "exponential", "beta")]
    assert [one for one in options if scheduler.config[one]] == [f"use_{schedule_type}_sigmas"]
    assert float(scheduler.sigmas[0]) == pytest.approx(14.61, abs=0.01)
    assert min(float(sigma) for sigma in scheduler.sigmas if sigma) == pytest.approx(
        0.029, abs=0.001
    )


def test_sgm_uniform_is_trailing_and_begins_at_the_last_training_step() -> None:
    """A1111's SGM Uniform."""
    for name in ("DPM++ 2M", "Euler a", "DDIM"):
        scheduler = build(name, "sgm_uniform")
        assert scheduler.config.timestep_spacing == "trailing"
        assert int(scheduler.timesteps[0]) == 999


def test_beta_sigmas_are_the_quantiles_of_the_beta_distribution() -> None:
    """At 1, 3/4, 1/2, 1/4, 0: what scipy.stats.beta.ppf, which diffusers would use, means."""
    sigmas = build("Euler", "beta", steps=5).sigmas[:-1].double().numpy()
    quantiles = (sigmas - sigmas[-1]) / (sigmas[0] - sigmas[-1])
    assert quantiles == pytest.approx([1, 0.82431962, 0.5, 0.17568038, 0], abs=1e-5)


def test_kl_optimal_has_even_angles() -> None:
    """A1111's values for six steps between SD 1.5's least and most noise, but for its last."""
    sigmas = build("Euler", "kl_optimal", steps=6).sigmas.double().numpy()
    low, high = 0.029167, 14.614647
    angles = np.arctan(sigmas[:-1])
    assert angles[0] == pytest.approx(np.arctan(high), abs=1e-5)
    assert np.diff(angles) == pytest.approx(
        np.full(5, (np.arctan(low) - np.arctan(high)) / 6), abs=1e-5
    )
    assert sigmas[-1] == 0


@pytest.mark.parametrize(
    ("family", "second", "last"), [("sd1", 6.475, 0.029), ("sdxl", 6.315, 0.029)]
)
def test_align_your_steps_has_its_tables(family: str, second: float, last: float) -> None:
    """Eleven steps are the table; another number lies between, evenly in logarithms."""

    def levels(steps: int) -> Any:
        built = build_sampler("Euler", "align_your_steps", steps, CONFIG, family=family)
        return built.scheduler.sigmas.double().numpy()

    table = levels(11)
    assert [*table[:2], *table[-2:]] == pytest.approx([14.615, second, last, 0], abs=1e-5)
    finer = levels(21)
    assert finer[1] == pytest.approx(np.sqrt(14.615 * second), rel=1e-5)
    assert finer[2] == pytest.approx(second, rel=1e-5)


# What k-diffusion 0.1.1 gives with `SIGMAS`, `picture_of` as its model and `noise_of` as its noise:
# sample_dpmpp_2s_ancestral and sample_dpmpp_3m_sde.
SIGMAS = (14.614647, 6.082159, 2.232162, 0.692574, 0.169758, 0.029168, 0.0)
RECORDED = {
    "DPM++ 2S a": (0.747036, -0.022019, 0.466945, 0.536119),
    "DPM++ 3M SDE": (0.329227, -0.394818, 1.013358, 0.479419),
}


def picture_of(x: torch.Tensor, sigma: float) -> torch.Tensor:
    return torch.tanh(x / (1 + sigma)) + 0.1 * torch.cos(sigma * x / (1 + sigma * sigma))


@pytest.mark.parametrize("name", RECORDED)
def test_steps_are_k_diffusions(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a model whose pictures bend, and noise that is known."""
    drawn = iter(range(1, 100))
    monkeypatch.setattr(
        solvers, "_noise", lambda *_: torch.cos(torch.arange(4.0) * next(drawn)).view(1, 1, 2, 2)
    )
    scheduler = build(name, "karras", steps=6)
    ends = scheduler.sigmas[::2] if name in TWICE else scheduler.sigmas
    assert ends[:6].tolist() == pytest.approx(SIGMAS[:6], abs=1e-5)
    x = torch.linspace(-2, 2, 4).view(1, 1, 2, 2) * SIGMAS[0]
    for timestep in scheduler.timesteps:
        index = scheduler.step_index or 0
        first = getattr(scheduler, "state_in_first_order", True)
        sigma = float(scheduler.sigmas[index] if first else scheduler.sigmas_interpol[index - 1])
        predicted = (x - picture_of(x, sigma)) / sigma
        x = scheduler.step(predicted, timestep, x).prev_sample
    assert x.flatten().tolist() == pytest.approx(RECORDED[name], abs=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
@pytest.mark.parametrize(("steps", "strength"), [(1, 1.0), (2, 1.0), (9, 1.0), (9, 0.5)])
def test_unipc_is_diffusers(steps: int, strength: float, prediction: str) -> None:
    """Its own class computes the same on the card, and waits for it."""
    ours = build_sampler("UniPC", "karras", steps, CONFIG, strength, prediction)
    kind: Any = diffusers.UniPCMultistepScheduler
    theirs = kind.from_config(ours.scheduler.config)
    theirs.set_timesteps(steps)
    theirs.set_begin_index(steps - len(ours.timesteps))
    pictures = []
    for scheduler in (ours.scheduler, theirs):
        x = torch.linspace(-20, 20, 32).view(2, 4, 2, 2)
        for timestep in ours.timesteps:
            predicted = torch.tanh(x) + 0.1 * torch.cos(3 * x)
            x = scheduler.step(predicted, timestep, x).prev_sample
        pictures.append(x)
    torch.testing.assert_close(*pictures, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "schedule_type"), COMBINATIONS)
def test_every_number_of_steps_makes_numbers(name: str, schedule_type: str) -> None:
    """1 to 150 steps, with everything recipes accept: as many steps as requested, and no NaN."""
    # Spaced backwards from the last training step, 61 come out as 62 if rounding is not watched.
    most = {"karras": 150, "uniform": 150, "sgm_uniform": 61}.get(schedule_type, 37)
    for steps in (1, 2, 3, 6, most):
        scheduler = build(name, schedule_type, steps)
        extra = 1 if name == "PNDM" and steps > 1 else 0
        # Samplers of second order evaluate the UNet twice in each step but the last.
        evaluations = 2 * steps - 1 if name in TWICE else steps + extra
        assert len(scheduler.timesteps) == evaluations
        assert min(scheduler.timesteps) >= 0
        drawn = {"generator": [torch.Generator().manual_seed(1)]} if name in NOISY else {}
        latents = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(2))
        latents = latents * scheduler.init_noise_sigma
        for timestep in scheduler.timesteps:
            predicted = scheduler.scale_model_input(latents, timestep) * 0.9
            latents = scheduler.step(predicted, timestep, latents, **drawn).prev_sample
        assert np.isfinite(latents.numpy()).all(), steps


@pytest.mark.parametrize("name", NOISY)
def test_samplers_that_draw_noise_say_so(name: str) -> None:
    """They get the images' own generators at each step."""
    assert build_sampler(name, "uniform", 5, CONFIG).draws_noise
    assert not build_sampler("Euler", "uniform", 5, CONFIG).draws_noise


def test_what_recipes_refuse_the_engine_refuses_too() -> None:
    """It never quietly takes another schedule."""
    with pytest.raises(RenderFailed, match="DDIM does not take the schedule type 'karras'"):
        build("DDIM", "karras")
    with pytest.raises(RenderFailed, match="no sampler 'Restart'"):
        build("Restart", "uniform")


def test_lms_integrates_as_scipy_would() -> None:
    """Lagrange polynomials through the last sigmas, against a fine midpoint sum."""
    scheduler = build("LMS", "karras", 10)
    sigmas = scheduler.sigmas.double().numpy()
    points = np.linspace(sigmas[5], sigmas[6], 20001)
    middles = (points[1:] + points[:-1]) / 2
    for j in range(4):
        others = [k for k in range(4) if k != j]
        values = np.prod(
            [(middles - sigmas[5 - k]) / (sigmas[5 - j] - sigmas[5 - k]) for k in others], axis=0
        )
        expected = float(values.mean() * (sigmas[6] - sigmas[5]))
        assert scheduler.get_lms_coefficient(4, 5, j) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["LCM", "TCD"])
def test_more_steps_than_it_was_distilled_for(name: str) -> None:
    """Recipes may have 150; diffusers would refuse more than 50."""
    assert build(name, "uniform", 150).config.original_inference_steps == 150


@pytest.mark.parametrize("name", ["Heun", "LMS", "DPM2", "DPM2 a", "DPM++ SDE", "DEIS", "PNDM"])
def test_samplers_that_cannot_begin_with_pure_noise_are_refused(name: str) -> None:
    """A checkpoint of zero terminal SNR would give grey or noisy pictures without a word."""
    zero_snr = {**CONFIG, "rescale_betas_zero_snr": True}
    with pytest.raises(RenderFailed, match="zero terminal SNR") as refused:
        build_sampler(name, "uniform", 8, zero_snr)
    assert "Euler" in refused.value.remedy and name not in refused.value.remedy.split(", ")


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.name)
def test_recipes_know_which_samplers_can_begin_with_pure_noise(sampler: KnownSampler) -> None:
    """Without importing diffusers, so that a recipe is refused before anything is loaded."""
    parameters = signature(_KINDS[sampler.name].scheduler.__init__).parameters
    assert sampler.reaches_zero_snr == ("rescale_betas_zero_snr" in parameters)


@pytest.mark.parametrize("name", ["Euler", "Euler a", "DPM++ 2M", "UniPC", "DDIM", "LCM", "TCD"])
def test_zero_terminal_snr_begins_with_the_last_training_step(name: str) -> None:
    """Section 3.3 of https://arxiv.org/abs/2305.08891."""
    zero_snr = {**CONFIG, "rescale_betas_zero_snr": True}
    sampler = build_sampler(name, "uniform", 8, zero_snr)
    assert int(sampler.timesteps[0]) == 999


@pytest.mark.parametrize(
    ("prediction", "kind", "zero_snr"),
    [
        ("epsilon", "epsilon", False),
        ("v", "v_prediction", False),
        ("v_zero_snr", "v_prediction", True),
    ],
)
def test_a_recipe_decides_what_the_checkpoint_predicts(
    prediction: str, kind: str, zero_snr: bool
) -> None:
    """Whatever its file says: the other prediction, or zero terminal SNR."""
    for said in ({}, {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}):
        built = build_sampler("Euler", "uniform", 8, CONFIG | said, prediction=prediction)
        config = built.scheduler.config
        assert (config.prediction_type, config.rescale_betas_zero_snr) == (kind, zero_snr)
    with pytest.raises(RenderFailed, match="zero terminal SNR"):
        build_sampler("Heun", "uniform", 8, CONFIG, prediction="v_zero_snr")
