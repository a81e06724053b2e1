"""From a request's sampler and schedule type to a diffusers scheduler: the one place for both.

Options: metadata.md's table. Karras, exponential and beta spread the sigmas over the model's
whole range; "uniform" spaces the steps evenly over the training steps, as A1111's "Automatic"
does for the samplers it has from k-diffusion, and as DDIM and PNDM were published ("leading").
"""

import math
from dataclasses import dataclass
from types import MethodType
from typing import Any

import numpy as np
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from picowatch.errors import RenderFailed

_SIGMA_OPTIONS = {
    "karras": "use_karras_sigmas",
    "exponential": "use_exponential_sigmas",
    "beta": "use_beta_sigmas",
}
# "Beta Sampling is All You Need", https://arxiv.org/abs/2407.12173: alpha = beta = 0.6.
_BETA_SHAPE = 0.6


@dataclass(frozen=True, slots=True)
class _Kind:
    """A scheduler class, its fixed options, how "uniform" spaces steps, if it draws noise."""

    scheduler: Any
    options: dict[str, Any]
    uniform_spacing: str
    takes_sigmas: bool
    draws_noise: bool = False


_KINDS = {
    "DPM++ 2M": _Kind(
        DPMSolverMultistepScheduler,
        {"algorithm_type": "dpmsolver++", "solver_order": 2, "final_sigmas_type": "zero"},
        "linspace",
        takes_sigmas=True,
    ),
    "DPM++ 2M SDE": _Kind(
        DPMSolverMultistepScheduler,
        {"algorithm_type": "sde-dpmsolver++", "solver_order": 2, "final_sigmas_type": "zero"},
        "linspace",
        takes_sigmas=True,
        draws_noise=True,
    ),
    "Euler": _Kind(
        EulerDiscreteScheduler, {"final_sigmas_type": "zero"}, "linspace", takes_sigmas=True
    ),
    "Euler a": _Kind(
        EulerAncestralDiscreteScheduler, {}, "linspace", takes_sigmas=False, draws_noise=True
    ),
    # Without clip_sample=False, DDIM's default, latents are cut to -1..1.
    "DDIM": _Kind(DDIMScheduler, {"clip_sample": False}, "leading", takes_sigmas=False),
    "UniPC": _Kind(
        UniPCMultistepScheduler,
        {"solver_order": 2, "final_sigmas_type": "zero"},
        "linspace",
        takes_sigmas=True,
    ),
    "PNDM": _Kind(PNDMScheduler, {"skip_prk_steps": True}, "leading", takes_sigmas=False),
}


@dataclass(frozen=True, slots=True)
class Sampler:
    """A scheduler with its timesteps set, and whether its steps draw noise."""

    scheduler: Any
    draws_noise: bool


def build_sampler(
    name: str, schedule_type: str, steps: int, config: dict[str, Any], device: Any
) -> Sampler:
    """A fresh scheduler, ready for its first step; schedulers keep state between steps.

    `config` is the checkpoint's own: betas, prediction type, steps offset.
    """
    kind = _KINDS.get(name)
    if kind is None:
        raise RenderFailed(f"The engine has no sampler {name!r}.")
    if schedule_type in _SIGMA_OPTIONS and not kind.takes_sigmas:
        raise RenderFailed(f"The sampler {name} does not take the schedule type {schedule_type!r}.")
    options = kind.options | {"timestep_spacing": _spacing(kind, schedule_type, steps)}
    if schedule_type in ("karras", "exponential"):
        options[_SIGMA_OPTIONS[schedule_type]] = True
    scheduler = kind.scheduler.from_config(config, **options)
    if schedule_type == "beta":
        _use_beta_sigmas(scheduler)
    scheduler.set_timesteps(steps, device=device)
    if hasattr(scheduler, "set_begin_index"):
        # Else the first step is looked up by its timestep, which rounding can make ambiguous.
        scheduler.set_begin_index(0)
    return Sampler(scheduler, kind.draws_noise)


def _spacing(kind: _Kind, schedule_type: str, steps: int) -> str:
    """diffusers' timestep_spacing. A single "linspace" step would be the last, without noise."""
    if schedule_type == "sgm_uniform" or (steps == 1 and kind.uniform_spacing == "linspace"):
        return "trailing"
    return kind.uniform_spacing


def _use_beta_sigmas(scheduler: Any) -> None:
    """The option use_beta_sigmas without scipy, of which diffusers needs this one function."""
    scheduler.register_to_config(use_beta_sigmas=True)
    scheduler._convert_to_beta = MethodType(_beta_sigmas, scheduler)


def _beta_sigmas(_: Any, in_sigmas: Any, num_inference_steps: int, **__: Any) -> Any:
    """Sigmas at even quantiles of the beta distribution over the model's range."""
    low, high = float(in_sigmas[-1]), float(in_sigmas[0])
    probabilities = 1 - np.linspace(0, 1, num_inference_steps)
    quantiles = np.array([_beta_quantile(float(one)) for one in probabilities])
    return low + quantiles * (high - low)


def _beta_quantile(probability: float) -> float:
    """The inverse of the symmetric beta distribution function, by bisection."""
    if probability > 0.5:
        return 1 - _beta_quantile(1 - probability)
    low, high = 0.0, 0.5
    for _ in range(52):
        middle = (low + high) / 2
        low, high = (middle, high) if _beta_mass(middle) < probability else (low, middle)
    return low


def _beta_mass(x: float) -> float:
    """The distribution function up to x <= 0.5: https://dlmf.nist.gov/8.17.E7 as a series."""
    shape = _BETA_SHAPE
    total, term = 0.0, 1.0
    for n in range(60):
        total += term / (shape + n)
        term *= (n + 1 - shape) * x / (n + 1)
    whole = math.gamma(shape) ** 2 / math.gamma(2 * shape)
    return math.pow(x, shape) * total / whole
