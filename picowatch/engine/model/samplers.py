"""Turns a request's sampler and schedule type into a diffusers scheduler.

docs/moving.md lists the options. Karras, exponential and beta spread the sigmas over the model's
whole range; "uniform" spaces the steps evenly over the training steps from the last to the first,
as k-diffusion's get_sigmas does, A1111's "Automatic" and ComfyUI's "normal", and for DDIM and PNDM
as they were published ("leading"). "leading" and "linspace" are diffusers' spacings for every
sampler; the first is in the config of a Stable Diffusion 1.x folder.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from inspect import signature
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, PNDMScheduler, TCDScheduler
from diffusers.schedulers import AysSchedules

# diffusers hides this name where scipy is not installed.
from diffusers.schedulers.scheduling_lms_discrete import LMSDiscreteScheduler
from numpy.typing import NDArray

from picowatch.engine.model.solvers import DPMSolver3MSDEScheduler, SolvedFlow
from picowatch.engine.private import replace_beta_levels
from picowatch.recipe.passes import steps_taken
from picowatch.recipe.samplers import EVEN, KnownSampler, sampler_named

Levels = NDArray[np.float64]

_SIGMA_OPTIONS = {"karras": "use_karras_sigmas", "exponential": "use_exponential_sigmas"}
# Classes whose "linspace" leaves out the last of a step more: ten steps end at the training step
# 100. They follow Euler's steps for "uniform".
_STOP_EARLY = (
    *("DPMSolverMultistep", "DPMSolverSinglestep", "UniPCMultistep"),
    *("DEISMultistep", "SASolver"),
)
# Those that diffusers does not offer under their names.
_CLASSES = {"LMSDiscrete": LMSDiscreteScheduler, "DPMSolver3MSDE": DPMSolver3MSDEScheduler}
# Few-step models are distilled on a schedule of 50 steps; more steps need a finer schedule.
_DISTILLED = ("LCM", "TCD")


@dataclass(eq=False)
class PreparedSampler:
    """A scheduler with its timesteps already set, for a pipeline's call.

    Pipelines set the timesteps of their scheduler and scale the initial noise. Here both are done
    already: a pass may begin in the middle, and its latents have their noise. Timesteps are in main
    memory, so that looking them up does not wait for a GPU.
    """

    scheduler: Any
    timesteps: torch.Tensor
    init_noise_sigma = 1.0
    config = SimpleNamespace()  # empty: pipelines would warn about configs from 2022

    def __getattr__(self, name: str) -> Any:
        return getattr(self.scheduler, name)

    def set_timesteps(self, *_: Any, **__: Any) -> None:
        """Do nothing: the timesteps and the begin index are set."""

    set_begin_index = set_timesteps

    @property
    def eta(self) -> float:
        """The noise that a step of TCD adds, its own default (pipelines pass 0); else 0."""
        return 0.3 if isinstance(self.scheduler, TCDScheduler) else 0.0


def build_sampler(
    name: str,
    schedule_type: str,
    steps: int,
    config: dict[str, Any],  # the checkpoint's own: betas, prediction type, steps offset
    strength: float = 1.0,  # the share of the steps that is taken, from the end: none for 0
    prediction: str = "",  # the recipe's, which overrides the config's
    family: str = "",
) -> PreparedSampler:
    """Return a new scheduler, ready for its first step; schedulers keep state between steps."""
    sampler = sampler_named(name)
    if schedule_type not in EVEN and sampler.with_levels:
        sampler = sampler_named(sampler.with_levels)
    if prediction:
        kind = "epsilon" if prediction == "epsilon" else "v_prediction"
        zero_snr = prediction == "v_zero_snr"
        config = config | {"prediction_type": kind, "rescale_betas_zero_snr": zero_snr}
    scheduler = _scheduler(sampler, schedule_type, steps, config, family)
    return PreparedSampler(scheduler, _last_timesteps(scheduler, steps, strength))


def class_of(sampler: KnownSampler) -> Any:
    return _CLASSES.get(sampler.scheduler) or getattr(diffusers, f"{sampler.scheduler}Scheduler")


def _scheduler(
    sampler: KnownSampler, schedule_type: str, steps: int, config: dict[str, Any], family: str
) -> Any:
    kind = class_of(sampler)
    zero_snr = bool(config.get("rescale_betas_zero_snr"))
    spacing = _spacing(sampler.spacing, schedule_type, steps, zero_snr=zero_snr)
    options = {**sampler.options, "timestep_spacing": spacing}
    if sampler.scheduler in _DISTILLED:
        options["original_inference_steps"] = max(steps, 50)
    if schedule_type in _SIGMA_OPTIONS:
        options[_SIGMA_OPTIONS[schedule_type]] = True
    scheduler = kind.from_config(config, **options)
    if schedule_type in NOISE_LEVELS:
        use_noise_levels(scheduler, schedule_type, family)
    if kind is LMSDiscreteScheduler:
        scheduler.get_lms_coefficient = partial(_lms_coefficient, scheduler)
    training = scheduler.config.num_train_timesteps
    # diffusers' np.arange(1000, 0, -1000 / 61) has 62 entries: rounding leaves the last above 0. It
    # would be the timestep -1, for which some schedulers look up the noise of the last timestep.
    too_many = spacing == "trailing" and len(np.arange(training, 0, -training / steps)) != steps
    scheduler.set_timesteps(_Steps(steps) if too_many else steps)
    needed = "timestep_spacing" if schedule_type in EVEN else "use_karras_sigmas"
    lacks = needed not in signature(kind.__init__).parameters and schedule_type != "uniform"
    stops_early = schedule_type == "uniform" and sampler.scheduler in _STOP_EARLY
    if lacks or (stops_early and spacing == "linspace"):
        _follow(scheduler, _scheduler(sampler_named("Euler"), schedule_type, steps, config, family))
    if hasattr(scheduler, "sigmas") and scheduler.sigmas[-1]:
        # Formulas with the logarithm of the last noise level end at the least of the model.
        kept = scheduler.alphas_cumprod[0]
        scheduler.sigmas[-1] = ((1 - kept) / kept) ** 0.5
    return scheduler


def _follow(scheduler: Any, euler: Any) -> None:
    """Let a scheduler without options for a schedule step through Euler's noise levels."""
    # Of training steps it takes the nearest, as A1111's LCM does.
    whole = not scheduler.timesteps.is_floating_point()
    scheduler.timesteps = euler.timesteps.round().long() if whole else euler.timesteps
    if hasattr(scheduler, "sigmas"):
        scheduler.sigmas = torch.cat([euler.sigmas[:-1], scheduler.sigmas[-1:]])


def _last_timesteps(scheduler: Any, steps: int, strength: float) -> torch.Tensor:
    """Return the timesteps of the last share `strength`, and let the scheduler begin there."""
    skipped = steps - steps_taken(steps, strength)
    timesteps: torch.Tensor = scheduler.timesteps
    if isinstance(scheduler, PNDMScheduler):
        if skipped == 0:
            return timesteps
        # Its second timestep occurs twice. diffusers' img2img pipeline just cuts the list, and is a
        # step off from there on.
        rest = torch.cat([timesteps[:1], timesteps[2:]])[skipped:]
        return torch.cat([rest[:2], rest[1:]]) if len(rest) > 1 else rest
    if hasattr(scheduler, "set_begin_index"):
        # Otherwise the first step is looked up by its timestep, which rounding can make ambiguous.
        scheduler.set_begin_index(skipped * scheduler.order)
    return timesteps[skipped * scheduler.order :]


def _spacing(own: str, schedule_type: str, steps: int, *, zero_snr: bool) -> str:
    """Return diffusers' timestep_spacing. A single "linspace" step would be the noiseless last."""
    if schedule_type == "leading" or (schedule_type == "linspace" and steps > 1):
        return schedule_type
    # With zero terminal SNR the first step is of pure noise: https://arxiv.org/abs/2305.08891, 3.3.
    from_the_last = schedule_type == "sgm_uniform" or (zero_snr and schedule_type == "uniform")
    single = steps == 1 and "linspace" in (own, schedule_type)
    return "trailing" if from_the_last or single else own


class _Steps(int):
    """A number of steps by which diffusers divides; the quotient is rounded up."""

    def __rtruediv__(self, training_steps: int) -> float:
        return float(np.nextafter(training_steps / int(self), np.inf))


def _lms_coefficient(scheduler: Any, order: int, t: int, current_order: int) -> float:
    """Integrate a Lagrange polynomial through the last sigmas over this step, without scipy.

    The order is at most the number of derivatives so far: diffusers uses the step's index, which is
    wrong if img2img begins in the middle.
    """
    order = min(order, len(scheduler.derivatives) or order)
    if current_order >= order:
        return 0.0
    sigmas = [float(scheduler.sigmas[t + 1 - back]) for back in range(order + 1)]
    there, here = sigmas[:2]
    others = sigmas[1:]
    own = others.pop(current_order)
    integral = np.poly1d(others, r=True).integ()
    return float((integral(there) - integral(here)) / math.prod(own - other for other in others))


def use_noise_levels(scheduler: Any, schedule_type: str, family: str = "") -> None:
    """Let the scheduler step through some of `NOISE_LEVELS`; diffusers' own beta needs scipy."""

    def levels(in_sigmas: Any, num_inference_steps: int) -> Levels:
        low, high = float(in_sigmas[-1]), float(in_sigmas[0])
        return NOISE_LEVELS[schedule_type](low, high, num_inference_steps, family)

    scheduler.register_to_config(use_beta_sigmas=True)
    replace_beta_levels(scheduler, levels)


def _beta(low: float, high: float, steps: int, _: str) -> Levels:
    """Return even quantiles of the beta distribution over the model's range, without scipy.

    "Beta Sampling is All You Need", https://arxiv.org/abs/2407.12173: alpha = beta = 0.6. It is
    integrated over the angle whose squared sine is the value: that density is finite.
    """
    angles = np.linspace(0, math.pi / 2, 2**16 + 1)
    middles = (angles[1:] + angles[:-1]) / 2
    mass = np.append(0, np.cumsum(np.sin(2 * middles) ** (2 * 0.6 - 1)))
    found = np.interp(np.linspace(1, 0, steps), mass / mass[-1], angles)
    levels: Levels = low + np.sin(found) ** 2 * (high - low)
    return levels


def _kl_optimal(low: float, high: float, steps: int, _: str) -> Levels:
    """Return levels at even angles, by equation 12 of "Align Your Steps".

    A1111 ends at the model's least noise, which stays in the picture; here that step removes it.
    """
    share = np.arange(steps) / steps
    angles: Levels = np.tan((1 - share) * math.atan(high) + share * math.atan(low))
    return angles


def _align_your_steps(_: float, __: float, steps: int, family: str) -> Levels:
    """Return the ten steps, or a number interpolated evenly in logarithms, as in A1111.

    The table of "Align Your Steps", https://arxiv.org/abs/2404.14507, ends with 0.029, not with 0.
    """
    name = "StableDiffusionXLSigmas" if family == "sdxl" else "StableDiffusionSigmas"
    table = np.log([*AysSchedules[name][:-1], 0.029])
    places = np.linspace(0, len(table) - 1, steps)
    levels: Levels = np.exp(np.interp(places, np.arange(len(table)), table))
    return levels


# By the names in requests: functions of the model's least and most noise, steps and family.
NOISE_LEVELS: dict[str, Callable[[float, float, int, str], Levels]] = {
    "beta": _beta,
    "kl_optimal": _kl_optimal,
    "align_your_steps": _align_your_steps,
}


def scheduler_of(kind: Any, config: Mapping[str, Any]) -> Any:
    """Create a scheduler; diffusers would need scipy for a config with beta sigmas."""
    if not config.get("use_beta_sigmas"):
        return kind.from_config(config)
    scheduler = kind.from_config(config, use_beta_sigmas=False)
    use_noise_levels(scheduler, "beta")
    return scheduler


_FLOW_SOLVERS = {
    "DPM++ 2M": diffusers.DPMSolverMultistepScheduler,
    "UniPC": diffusers.UniPCMultistepScheduler,
}


def flow_scheduler(sampler: str, own: Any) -> Any:
    """Return the scheduler of a pass; `own` is the folder's, which stays if it is no flow's."""
    if sampler not in _FLOW_SOLVERS or not isinstance(own, FlowMatchEulerDiscreteScheduler):
        return own
    scheduler = scheduler_of(SolvedFlow, own.config)
    scheduler.solver = _FLOW_SOLVERS[sampler]
    return scheduler
