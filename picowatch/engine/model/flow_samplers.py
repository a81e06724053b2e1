"""Samplers of flow models: the model's own schedule, with the steps of another solver."""

from typing import Any

import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from diffusers.schedulers.scheduling_utils import SchedulerOutput

from picowatch.engine.model.samplers import scheduler_of
from picowatch.engine.private import begin_steps, count_step

_ALMOST_ONE = 1 - 1e-6  # at pure noise, the logarithms in the solvers would be infinite


class _Solved(FlowMatchEulerDiscreteScheduler):  # type: ignore[misc]
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
            self._running = self._begun()
        (after,) = self._running.step(
            model_output.float(), timestep, sample.float(), return_dict=False
        )
        count_step(self)
        after = after.to(model_output.dtype)
        return SchedulerOutput(after) if return_dict else (after,)

    def scale_model_input(self, sample: torch.Tensor, _: Any = None) -> torch.Tensor:
        """Return the sample as it is; BRIA's pipeline asks all but the parent class."""
        return sample

    def _begun(self) -> Any:
        """Return a solver at the step where this pass begins."""
        solver = self.solver(
            num_train_timesteps=self.config.num_train_timesteps,
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
        )
        solver.sigmas = self.sigmas.cpu().clamp(max=_ALMOST_ONE)
        solver.timesteps = self.timesteps
        solver.num_inference_steps = len(self.timesteps)
        solver.set_begin_index(self.step_index)
        return solver


_SOLVERS: dict[str, Any] = {
    "DPM++ 2M": DPMSolverMultistepScheduler,
    "UniPC": UniPCMultistepScheduler,
}


def scheduler_for(sampler: str, own: Any) -> Any:
    """Return the scheduler of a pass; `own` is the folder's, which stays if it is no flow's."""
    if sampler not in _SOLVERS or not isinstance(own, FlowMatchEulerDiscreteScheduler):
        return own
    scheduler = scheduler_of(_Solved, own.config)
    scheduler.solver = _SOLVERS[sampler]
    return scheduler
