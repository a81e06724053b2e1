"""UniPC without waiting for the GPU that the latents are on.

diffusers computes a step's numbers where the latents are and solves two equations there, which
looks whether that failed. Here they are numbers of Python, and the equations have their solution.
"""

from math import expm1, inf, log, sqrt
from typing import Any

import torch
from diffusers import UniPCMultistepScheduler

# diffusers' classes do not declare what their decorators and mixins add.
_UniPc: Any = UniPCMultistepScheduler


class UniPc(_UniPc):  # type: ignore[misc]
    """The algorithms of https://arxiv.org/abs/2302.04867 for order 2, which begin with order 1.

    With B(h) = e^h - 1, on predictions of the picture (diffusers' "bh2" and `predict_x0`).
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
