"""Schedulers that diffusers lacks: DPM-Solver++(3M) SDE, and steps of other solvers for flows."""

import math
from typing import Any

import torch
from diffusers import EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteSchedulerOutput
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from diffusers.utils.torch_utils import randn_tensor

from picowatch.engine.private import begin_steps, count_step


class DPMSolver3MSDEScheduler(EulerDiscreteScheduler):  # type: ignore[misc]
    """Euler's noise levels and predictions, with the steps of k-diffusion's sample_dpmpp_3m_sde.

    diffusers' own of third order with noise differs: the factor of the last term does not vanish
    with the length of the step (diffusers 0.42, `multistep_dpm_solver_third_order_update`).
    The formulas are those of https://github.com/crowsonkb/k-diffusion (sampling.py), with eta 1.
    The noise comes from the images' generators, not from a Brownian tree.
    """

    # The last two denoised latents and lengths of steps, the latest first.
    _earlier: tuple[tuple[torch.Tensor, float], ...] = ()

    def set_timesteps(self, *arguments: Any, **named: Any) -> None:
        """Set the timesteps as Euler's, and forget earlier steps."""
        super().set_timesteps(*arguments, **named)
        self._earlier = ()

    def step(
        self,
        model_output: torch.Tensor,
        timestep: float | torch.Tensor,
        sample: torch.Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> EulerDiscreteSchedulerOutput | tuple[torch.Tensor, torch.Tensor]:
        """Return the latents of the next noise level, and the denoised latents."""
        _, denoised = super().step(model_output, timestep, sample, return_dict=False)
        here, there = (float(sigma) for sigma in self.sigmas[self.step_index - 1 :][:2])
        latents = denoised if there == 0 else self._stepped(sample, denoised, here, there)
        if there != 0:
            noise = randn_tensor(
                latents.shape, generator=generator, device=latents.device, dtype=latents.dtype
            )
            latents = latents + noise * math.sqrt(there**2 - (there**2 / here) ** 2)
        latents = latents.to(model_output.dtype)
        if not return_dict:
            return latents, denoised
        return EulerDiscreteSchedulerOutput(prev_sample=latents, pred_original_sample=denoised)

    def _stepped(
        self, sample: torch.Tensor, denoised: torch.Tensor, here: float, there: float
    ) -> torch.Tensor:
        """Return the latents of the next noise level before noise is added."""
        length = math.log(here / there)
        twice = 2 * length  # with the way back that the noise is for
        latents = math.exp(-twice) * sample.float() - math.expm1(-twice) * denoised
        phi_2 = math.expm1(-twice) / twice + 1
        slopes, before = [], denoised
        for earlier, its_length in self._earlier:
            slopes.append((before - earlier) * (length / its_length))
            before = earlier
        if len(slopes) == 2:
            ratio, other = (its_length / length for _, its_length in self._earlier)
            bend = (slopes[0] - slopes[1]) / (ratio + other)
            latents = latents + phi_2 * (slopes[0] + bend * ratio)
            latents = latents - (phi_2 / twice - 0.5) * bend
        elif slopes:
            latents = latents + phi_2 * slopes[0]
        self._earlier = ((denoised, length), *self._earlier[:1])
        return latents


class SolvedFlow(FlowMatchEulerDiscreteScheduler):  # type: ignore[misc]
    """A scheduler with the model's own noise levels and shifts, and the steps of `solver`."""

    solver: Any
    _running: Any = None

    def step(
        self,
        model_output: torch.Tensor,
        timestep: torch.Tensor,
        sample: torch.Tensor,
        *_: Any,
        return_dict: bool = True,
        **__: Any,
    ) -> Any:
        """Return the sample after this step, in the form of the parent class."""
        if self.step_index is None:  # a pass begins
            begin_steps(self, timestep)
            self._running = solver = self.solver(
                num_train_timesteps=self.config.num_train_timesteps,
                prediction_type="flow_prediction",
                use_flow_sigmas=True,
            )
            # At pure noise, the logarithms in the solvers would be infinite.
            solver.sigmas = self.sigmas.cpu().clamp(max=1 - 1e-6)
            solver.timesteps = self.timesteps
            solver.num_inference_steps = len(self.timesteps)
            solver.set_begin_index(self.step_index)
        (after,) = self._running.step(
            model_output.float(), timestep, sample.float(), return_dict=False
        )
        count_step(self)
        after = after.to(model_output.dtype)
        return SchedulerOutput(after) if return_dict else (after,)

    def scale_model_input(self, sample: torch.Tensor, _: Any = None) -> torch.Tensor:
        """Return the sample as it is; BRIA's pipeline asks all but the parent class."""
        return sample
