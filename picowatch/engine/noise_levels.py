"""Schedule types that choose noise levels themselves, for every scheduler that takes some."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

# "Beta Sampling is All You Need", https://arxiv.org/abs/2407.12173: alpha = beta = 0.6.
_BETA_SHAPE = 0.6
# "Align Your Steps", https://arxiv.org/abs/2404.14507: ten steps of Stable Diffusion 1.5 and XL,
# from https://research.nvidia.com/labs/toronto-ai/AlignYourSteps/howto.html.
_ALIGNED = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
_ALIGNED_XL = (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029)

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
    """Even quantiles of the beta distribution over the model's range."""
    probabilities = 1 - np.linspace(0, 1, steps)
    quantiles = np.array([_beta_quantile(float(one)) for one in probabilities])
    return low + quantiles * (high - low)


def _kl_optimal(low: float, high: float, steps: int, _: str) -> Levels:
    """Even angles, by equation 12 of "Align Your Steps".

    A1111 ends at the model's least noise, which stays in the picture; here that step removes it.
    """
    share = np.arange(steps) / steps
    angles: Levels = np.tan((1 - share) * math.atan(high) + share * math.atan(low))
    return angles


def _align_your_steps(_: float, __: float, steps: int, family: str) -> Levels:
    """The ten steps, or as many as wanted between them, evenly in logarithms as A1111 has it."""
    table = np.log(_ALIGNED_XL if family == "sdxl" else _ALIGNED)
    places = np.linspace(0, len(table) - 1, steps)
    levels: Levels = np.exp(np.interp(places, np.arange(len(table)), table))
    return levels


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


# By the names that requests have: from the model's least and most noise, steps and family.
NOISE_LEVELS: dict[str, Callable[[float, float, int, str], Levels]] = {
    "beta": _beta,
    "kl_optimal": _kl_optimal,
    "align_your_steps": _align_your_steps,
}
