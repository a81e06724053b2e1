"""Schedule types that choose noise levels themselves, for every scheduler that takes some."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from diffusers.schedulers import AysSchedules
from numpy.typing import NDArray

# "Beta Sampling is All You Need", https://arxiv.org/abs/2407.12173: alpha = beta = 0.6.
_BETA_SHAPE = 0.6
_QUADRATURE = 2**16  # steps of the integral of its density
# "Align Your Steps", https://arxiv.org/abs/2404.14507. Its own table ends with this step; that of
# diffusers has 0 there.
_LEAST_ALIGNED = 0.029

Levels = NDArray[np.float64]


def use_noise_levels(scheduler: Any, schedule_type: str, family: str = "") -> None:
    """Let the scheduler step through one of `NOISE_LEVELS`, and then to no noise at all.

    diffusers has a place for the first of them, which needs scipy there, and none for the others:
    its private method is replaced (test_samplers.py fails if that changes).
    """
    levels = NOISE_LEVELS[schedule_type]
    scheduler.register_to_config(use_beta_sigmas=True)
    scheduler._convert_to_beta = partial(_of_range, levels=levels, family=family)


def _of_range(
    in_sigmas: Any, num_inference_steps: int, *_: Any, levels: Any, family: str, **__: Any
) -> Levels:
    low, high = float(in_sigmas[-1]), float(in_sigmas[0])
    found: Levels = levels(low, high, num_inference_steps, family)
    return found


def _beta(low: float, high: float, steps: int, _: str) -> Levels:
    """Even quantiles of the beta distribution over the model's range, without scipy.

    Of the squared sine of an angle, the density is the power of a sine, which is never infinite.
    """
    angles = np.linspace(0, math.pi / 2, _QUADRATURE + 1)
    middles = (angles[1:] + angles[:-1]) / 2
    mass = np.append(0, np.cumsum(np.sin(2 * middles) ** (2 * _BETA_SHAPE - 1)))
    found = np.interp(np.linspace(1, 0, steps), mass / mass[-1], angles)
    levels: Levels = low + np.sin(found) ** 2 * (high - low)
    return levels


def _kl_optimal(low: float, high: float, steps: int, _: str) -> Levels:
    """Even angles, by equation 12 of "Align Your Steps".

    A1111 ends at the model's least noise, which stays in the picture; here that step removes it.
    """
    share = np.arange(steps) / steps
    angles: Levels = np.tan((1 - share) * math.atan(high) + share * math.atan(low))
    return angles


def _align_your_steps(_: float, __: float, steps: int, family: str) -> Levels:
    """The ten steps, or as many as wanted between them, evenly in logarithms as A1111 has it."""
    name = "StableDiffusionXLSigmas" if family == "sdxl" else "StableDiffusionSigmas"
    table = np.log([*AysSchedules[name][:-1], _LEAST_ALIGNED])
    places = np.linspace(0, len(table) - 1, steps)
    levels: Levels = np.exp(np.interp(places, np.arange(len(table)), table))
    return levels


# By the names that requests have: from the model's least and most noise, steps and family.
NOISE_LEVELS: dict[str, Callable[[float, float, int, str], Levels]] = {
    "beta": _beta,
    "kl_optimal": _kl_optimal,
    "align_your_steps": _align_your_steps,
}
