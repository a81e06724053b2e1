"""Two functions that diffusers' schedulers take from scipy, of which they need nothing else."""

import math
from types import MethodType
from typing import Any

import numpy as np

# "Beta Sampling is All You Need", https://arxiv.org/abs/2407.12173: alpha = beta = 0.6.
_BETA_SHAPE = 0.6
# Two points integrate polynomials up to the third degree exactly, and LMS has order 4.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(2)


def use_beta_sigmas(scheduler: Any) -> None:
    """The option use_beta_sigmas without scipy."""
    scheduler.register_to_config(use_beta_sigmas=True)
    scheduler._convert_to_beta = MethodType(_beta_sigmas, scheduler)


def integrate_lms_without_scipy(scheduler: Any) -> None:
    """LMSDiscreteScheduler's coefficients by Gauss-Legendre quadrature, exact here."""
    scheduler.get_lms_coefficient = MethodType(_lms_coefficient, scheduler)


def _lms_coefficient(scheduler: Any, order: int, t: int, current_order: int) -> float:
    """The integral of a Lagrange polynomial through the last sigmas over this step.

    The order is at most the number of derivatives there are: diffusers goes by the step's index,
    which is wrong where img2img begins in the middle.
    """
    order = min(order, len(scheduler.derivatives) or order)
    if current_order >= order:
        return 0.0
    sigmas = [float(sigma) for sigma in scheduler.sigmas[t - order + 1 : t + 2]]
    past, here, there = sigmas[-2::-1], sigmas[-2], sigmas[-1]
    points = (there - here) / 2 * _NODES + (there + here) / 2
    values = np.ones_like(points)
    for k in range(order):
        if k != current_order:
            values *= (points - past[k]) / (past[current_order] - past[k])
    return float((there - here) / 2 * (_WEIGHTS @ values))


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
