"""Classifier-free guidance over a UNet and a sampler's steps."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from picowatch.engine.protocol import OnStep
from picowatch.engine.samplers import Sampler
from picowatch.errors import EngineStopped

Conditions = tuple[torch.Tensor, torch.Tensor]


def denoise(
    unet: Any,
    sampler: Sampler,
    noise: torch.Tensor,
    conditions: Conditions,
    cfg_scale: float,
    generators: Sequence[torch.Generator],
    on_step: OnStep,
    interrupted: Callable[[], bool],
) -> torch.Tensor:
    """Latents from noise, kept in float32 between the steps whatever the UNet works in.

    `conditions` are the encoded negative prompts and prompts, one row for each image.
    """
    scheduler = sampler.scheduler
    negative, positive = (states.to(unet.dtype) for states in conditions)
    drawn = {"generator": list(generators)} if sampler.draws_noise else {}
    latents: torch.Tensor = noise * scheduler.init_noise_sigma
    total = len(scheduler.timesteps)
    for done, timestep in enumerate(scheduler.timesteps, start=1):
        if interrupted():
            raise EngineStopped("The batch was interrupted.")
        scaled = scheduler.scale_model_input(latents, timestep)
        predicted = _guided(unet, scaled, timestep, (negative, positive), cfg_scale)
        latents = scheduler.step(predicted, timestep, latents, **drawn).prev_sample
        on_step(done, total)
    return latents


def _guided(
    unet: Any,
    latents: torch.Tensor,
    timestep: torch.Tensor,
    conditions: Conditions,
    cfg_scale: float,
) -> torch.Tensor:
    """The UNet's prediction, away from the negative prompt by the factor `cfg_scale`.

    Equation 6 of "Classifier-Free Diffusion Guidance", https://arxiv.org/abs/2207.12598, in
    Stable Diffusion's form. At 1 the negative prompt cancels out and is not computed.
    """
    negative, positive = conditions
    latents = latents.to(unet.dtype)
    if cfg_scale == 1:
        return _predict(unet, latents, timestep, positive)
    both = _predict(unet, torch.cat([latents] * 2), timestep, torch.cat([negative, positive]))
    away, towards = both.chunk(2)
    return away + cfg_scale * (towards - away)


def _predict(
    unet: Any, latents: torch.Tensor, timestep: torch.Tensor, states: torch.Tensor
) -> torch.Tensor:
    predicted: torch.Tensor = unet(latents, timestep, encoder_hidden_states=states).sample
    return predicted.float()
