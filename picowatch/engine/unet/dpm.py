"""k-diffusion's samplers that diffusers does not have, as schedulers of diffusers.

"DPM-Solver++", https://arxiv.org/abs/2211.01095, in the form that k-diffusion gives its ancestral
and stochastic steps (k_diffusion/sampling.py, sample_dpmpp_2s_ancestral and
sample_dpmpp_3m_sde). Noise levels and timesteps are those of the schedulers they inherit from.
"""

from math import expm1, log, sqrt
from typing import Any

import torch
from diffusers import EulerDiscreteScheduler, KDPM2AncestralDiscreteScheduler
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from diffusers.utils.torch_utils import randn_tensor

_HISTORY = 2
# diffusers' classes do not declare what their decorators and mixins add.
_Ancestral: Any = KDPM2AncestralDiscreteScheduler
_Euler: Any = EulerDiscreteScheduler


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
