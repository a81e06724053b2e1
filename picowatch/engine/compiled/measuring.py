"""Whether another kind of UNet predicts what the eager one does, and how long it takes."""

from collections.abc import Sequence
from time import perf_counter
from typing import Any

import torch

from picowatch.engine.unet.denoise import Unet

# How far a prediction may be from the eager one, as a part of the largest value: the rounding of
# the type, many layers deep.
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.02, torch.bfloat16: 0.06}
_REPEATS = 3


def agree(unet: Unet, eager: Unet, inputs: Sequence[Any]) -> bool:
    """Whether both predict the same for these inputs, within rounding."""
    expected, found = eager(*inputs).float(), unet(*inputs).float()
    tolerance = _TOLERANCE.get(unet.dtype, 0.0) * float(expected.abs().max())
    return float((expected - found).abs().max()) <= tolerance  # False for NaN


def seconds_of(unet: Unet, inputs: Sequence[Any]) -> float:
    """How long one prediction takes, in the mean of a few, once what is set up first is there."""
    latents, timestep, *others = inputs
    [timestep] = unet.foresee(timestep[None])
    unet(latents, timestep, *others)
    _finish(latents.device)
    began = perf_counter()
    for _ in range(_REPEATS):
        unet(latents, timestep, *others)
    _finish(latents.device)
    return (perf_counter() - began) / _REPEATS


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
