"""Schedulers that diffusers does not have, or that wait for the GPU there.

k-diffusion's are "DPM-Solver++", https://arxiv.org/abs/2211.01095, in the form that k-diffusion
gives its ancestral and stochastic steps (k_diffusion/sampling.py, sample_dpmpp_2s_ancestral and
sample_dpmpp_3m_sde). Noise levels and timesteps are those of the schedulers they inherit from.
"""

from math import expm1, inf, log, sqrt
from typing import Any

import torch
from diffusers import (
    EulerDiscreteScheduler,
    KDPM2AncestralDiscreteScheduler,
    UniPCMultistepScheduler,
)
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from diffusers.utils.torch_utils import randn_tensor

_HISTORY = 2
# diffusers' classes do not declare what their decorators and mixins add.
_Ancestral: Any = KDPM2AncestralDiscreteScheduler
_Euler: Any = EulerDiscreteScheduler
_UniPc: Any = UniPCMultistepScheduler


def _clean(scheduler: Any, output: torch.Tensor, sample: torch.Tensor, sigma: float) -> Any:
    """The picture without noise that a prediction means; `sample` has noise of `sigma`."""
    if scheduler.config.prediction_type == "v_prediction":
        return sample / (sigma**2 + 1) - output * (sigma / sqrt(sigma**2 + 1))
    return sample - sigma * output


def _noise(like: torch.Tensor, generator: Any) -> torch.Tensor:
    noise: torch.Tensor = randn_tensor(
        like.shape, generator=generator, device=like.device, dtype=like.dtype
    )
    return noise


class Dpm2sAncestral(_Ancestral):  # type: ignore[misc]
    """DPM++ 2S a: two evaluations a step, the second half the way, in logarithms of the noise."""

    sample: Any  # what the step began with, before its second evaluation

    def step(
        self,
        model_output: torch.Tensor,
        timestep: Any,
        sample: torch.Tensor,
        generator: Any = None,
        return_dict: bool = True,
    ) -> Any:
        """One evaluation; noise is added after the second."""
        if self.step_index is None:
            self._init_step_index(timestep)
        index, first = self.step_index, self.state_in_first_order
        begin = index if first else index - 1
        sigma, middle = float(self.sigmas[begin]), float(self.sigmas_interpol[begin])
        if first:
            clean = _clean(self, model_output, sample, sigma)
            self.sample = sample
            result = middle / sigma * sample + (1 - middle / sigma) * clean
        else:
            clean = _clean(self, model_output, sample, middle)
            down = float(self.sigmas_down[begin])
            result = down / sigma * self.sample + (1 - down / sigma) * clean
            result = result + _noise(result, generator) * float(self.sigmas_up[begin])
            self.sample = None
        self._step_index += 1
        return SchedulerOutput(prev_sample=result)


class Dpm3mSde(_Euler):  # type: ignore[misc]
    """DPM++ 3M SDE: one evaluation a step, and the last two steps' pictures for the third order."""

    def set_timesteps(self, *arguments: Any, **named: Any) -> None:
        """As the parent does; what earlier steps predicted is forgotten."""
        super().set_timesteps(*arguments, **named)
        self._earlier: list[tuple[torch.Tensor, float]] = []  # pictures and steps, the newest first

    def step(
        self,
        model_output: torch.Tensor,
        timestep: Any,
        sample: torch.Tensor,
        generator: Any = None,
        return_dict: bool = True,
    ) -> Any:
        """One step, with fresh noise but for the last."""
        if self.step_index is None:
            self._init_step_index(timestep)
        sigma, following = (float(one) for one in self.sigmas[self.step_index :][:2])
        sample = sample.float()
        clean = _clean(self, model_output.float(), sample, sigma)
        self._step_index += 1
        if not following:
            return SchedulerOutput(prev_sample=clean)
        step = log(sigma) - log(following)
        # Eta is 1, as in A1111: as much of the noise is drawn anew as can be.
        result = sample * (following / sigma) ** 2 - expm1(-2 * step) * clean
        result = result + self._correction(clean, step)
        result = result + _noise(result, generator) * following * sqrt(-expm1(-2 * step))
        self._earlier = [(clean, step), *self._earlier][:_HISTORY]
        return SchedulerOutput(prev_sample=result)

    def _correction(self, clean: torch.Tensor, step: float) -> Any:
        """What the last pictures say of the picture's first and second derivatives."""
        if not self._earlier:
            return 0.0
        phi_2 = expm1(-2 * step) / (2 * step) + 1
        (last, last_step), *before = self._earlier
        ratio = last_step / step
        first = (clean - last) / ratio
        if not before:
            return phi_2 * first
        (oldest, oldest_step) = before[0]
        other = oldest_step / step
        second = (last - oldest) / other
        bend = (first - second) / (ratio + other)
        phi_3 = phi_2 / (2 * step) - 0.5
        return phi_2 * (first + bend * ratio) - phi_3 * bend


class UniPc(_UniPc):  # type: ignore[misc]
    """The algorithms of https://arxiv.org/abs/2302.04867 for order 2, which begin with order 1.

    With B(h) = e^h - 1, on predictions of the picture (diffusers' "bh2" and `predict_x0`).
    diffusers computes a step's numbers where the latents are and solves two equations there, which
    looks whether that failed. Here they are numbers of Python, and the equations have their
    solution.
    """

    def multistep_uni_p_bh_update(
        self, model_output: torch.Tensor, *, sample: torch.Tensor, order: int
    ) -> torch.Tensor:
        """From this step's latents to the next one's."""
        step = _Step(self.sigmas, self.step_index)
        before, now = self._pictures
        moved = step.moved(sample, now)
        if order > 1:
            moved = moved - step.grown * 0.5 / step.ratio * (before - now)
        return moved

    def multistep_uni_c_bh_update(
        self,
        this_model_output: torch.Tensor,
        *,
        last_sample: torch.Tensor,
        this_sample: torch.Tensor,
        order: int,
    ) -> torch.Tensor:
        """This step's latents again, from the last one's, now that their picture is known."""
        step = _Step(self.sigmas, self.step_index - 1)
        before, now = self._pictures
        moved = step.moved(last_sample, now)
        if order == 1:
            return moved - step.grown * 0.5 * (this_model_output - now)
        earlier, this = step.corrections()
        moved = moved - step.grown * earlier / step.ratio * (before - now)
        return moved - step.grown * this * (this_model_output - now)

    @property
    def _pictures(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Those predicted last; the first of them is None in the first step."""
        before, now = self.model_outputs
        return before, now


class _Step:
    """The numbers of a step from one noise level to the next; `sigmas` are in main memory."""

    def __init__(self, sigmas: torch.Tensor, index: int) -> None:
        begin, end = (float(sigma) for sigma in sigmas[index : index + 2])
        self._h = _signal(end) - _signal(begin)
        alpha = 1 / sqrt(end**2 + 1)
        self._kept = end * alpha / (begin / sqrt(begin**2 + 1))
        self.grown = alpha * expm1(-self._h)
        # How far the step before began from here, as a part of this one.
        self.ratio = (
            (_signal(float(sigmas[index - 1])) - _signal(begin)) / self._h if index else 0.0
        )

    def moved(self, sample: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
        """The latents, as the picture alone moves them."""
        return self._kept * sample - self.grown * picture

    def corrections(self) -> tuple[float, float]:
        """The weights a and b of equations a + b = p and a r + b = q, for the `ratio` r."""
        growth = expm1(-self._h)
        second = growth / -self._h - 1
        third = second / -self._h - 0.5
        p, q = second / growth, 2 * third / growth
        earlier = (p - q) / (1 - self.ratio)
        return earlier, p - earlier


def _signal(sigma: float) -> float:
    """The logarithm of the ratio of signal to noise, half of it."""
    return -log(sigma) if sigma else inf
