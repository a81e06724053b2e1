"""Whether another kind of UNet predicts what the eager one does, and how long it takes."""

from time import perf_counter
from typing import Any

import torch

from picowatch.engine.compiled.compile_job import example_inputs, job_for
from picowatch.engine.unet.conditions import Encoded
from picowatch.engine.unet.denoise import Inputs, Shape, Unet

# How far a prediction may be from the eager one, as a part of the largest value: the rounding of
# the type, many layers deep.
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.02, torch.bfloat16: 0.06}
_REPEATS = 3
_SIZE_IDS = 6  # numbers that describe a picture's size to SDXL's UNet


def example_of(unet: Any, shape: Shape) -> Inputs:
    """A UNet's inputs of a shape: the same ones each time, in new tensors."""
    latents, timestep, states, residuals = example_inputs(job_for(unet, shape))
    pooled = None
    if unet.config.addition_embed_type is not None:
        sizes = _SIZE_IDS * unet.config.addition_time_embed_dim
        width = unet.config.projection_class_embeddings_input_dim - sizes
        pooled = states.new_ones(shape.rows, width)
    return Inputs(latents, timestep, Encoded(states, pooled), residuals=residuals or None)


def agree(unet: Unet, eager: Unet, inputs: Inputs) -> bool:
    """Whether both predict the same for these inputs, within rounding."""
    expected, found = eager(inputs).float(), unet(inputs).float()
    tolerance = _TOLERANCE.get(unet.dtype, 0.0) * float(expected.abs().max())
    return float((expected - found).abs().max()) <= tolerance  # False for NaN


def seconds_of(unet: Unet, inputs: Inputs) -> float:
    """How long one prediction takes, in the mean of a few, once what is set up first is there."""
    [timestep] = unet.foresee(inputs.timestep[None])
    inputs = inputs._replace(timestep=timestep)
    unet(inputs)
    _finish(timestep.device)
    began = perf_counter()
    for _ in range(_REPEATS):
        unet(inputs)
    _finish(timestep.device)
    return (perf_counter() - began) / _REPEATS


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
