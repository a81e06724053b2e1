"""Samplers for flows: the model's own schedule, with the steps of another solver."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from diffusers.schedulers.scheduling_utils import SchedulerOutput

from picowatch.engine.samplers import use_noise_levels

# Where there is nothing but noise, the logarithms of the solvers are infinite.
_ALMOST_ONE = 1 - 1e-6


class _Solved(FlowMatchEulerDiscreteScheduler):  # type: ignore[misc]
    """Noise levels and shifts are the model's; `solver` goes from one to the next."""

    solver: Any
    _running: Any = None
    # diffusers has no types.
    config: Any
    sigmas: Any
    timesteps: Any
    _step_index: Any
    _init_step_index: Any

    def step(
        self,
        model_output: torch.Tensor,
        timestep: torch.Tensor,
        sample: torch.Tensor,
        *_: Any,
        return_dict: bool = True,
        **__: Any,
    ) -> Any:
        """The sample after this step, as its parent gives it."""
        if self._step_index is None:  # a pass begins
            self._init_step_index(timestep)
            self._running = self._begun()
        (after,) = self._running.step(
            model_output.float(), timestep, sample.float(), return_dict=False
        )
        self._step_index += 1
        after = after.to(model_output.dtype)
        return SchedulerOutput(after) if return_dict else (after,)

    def _begun(self) -> Any:
        """A solver at the step where this pass begins."""
        solver = self.solver(
            num_train_timesteps=self.config.num_train_timesteps,
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
        )
        solver.sigmas = self.sigmas.cpu().clamp(max=_ALMOST_ONE)
        solver.timesteps = self.timesteps
        solver.num_inference_steps = len(self.timesteps)
        solver.set_begin_index(self._step_index)
        return solver


_SOLVERS: dict[str, Any] = {
    "DPM++ 2M": DPMSolverMultistepScheduler,
    "UniPC": UniPCMultistepScheduler,
}


def scheduler_for(sampler: str, own: Any) -> Any:
    """The scheduler of one pass; `own` is the folder's."""
    if sampler not in _SOLVERS or isinstance(own, _SOLVERS[sampler]):
        return own
    scheduler = scheduler_of(_Solved, own.config)
    scheduler.solver = _SOLVERS[sampler]
    return scheduler


def scheduler_of(kind: Any, config: Mapping[str, Any]) -> Any:
    """diffusers would want scipy for beta sigmas, which a folder's config may name."""
    if not config.get("use_beta_sigmas"):
        return kind.from_config(config)
    scheduler = kind.from_config(config, use_beta_sigmas=False)
    use_noise_levels(scheduler, "beta")
    return scheduler
