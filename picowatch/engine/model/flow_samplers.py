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

# At pure noise, the logarithms in the solvers would be infinite.
_ALMOST_ONE = 1 - 1e-6


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
        """Return a solver at the step where this pass begins."""
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
    """Return the scheduler of one pass; `own` is the folder's."""
    if sampler not in _SOLVERS or isinstance(own, _SOLVERS[sampler]):
        return own
    scheduler = scheduler_of(_Solved, own.config)
    scheduler.solver = _SOLVERS[sampler]
    return scheduler
