"""Classifier-free guidance over a UNet and a sampler's steps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from picowatch.engine.protocol import OnStep
from picowatch.engine.samplers import Sampler
from picowatch.errors import EngineStopped

Conditions = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Guide:
    """What the steps do besides following the prompt, each a row for each image.

    Where `redrawn` is 0, `start` comes back after each step with the noise that step leaves
    (as diffusers' inpainting pipeline does with ordinary checkpoints). `seen` are the channels
    an inpainting UNet looks at besides the latents: mask and what the mask leaves.
    """

    start: torch.Tensor | None = None
    noise: torch.Tensor | None = None
    redrawn: torch.Tensor | None = None
    seen: torch.Tensor | None = None


def denoise(
    unet: Any,
    sampler: Sampler,
    latents: torch.Tensor,
    conditions: Conditions,
    cfg_scale: float,
    generators: Sequence[torch.Generator],
    guide: Guide,
    on_step: OnStep,
    interrupted: Callable[[], bool],
) -> torch.Tensor:
    """Latents without noise, kept in float32 between the steps whatever the UNet works in.

    `latents` have the noise of the sampler's first step; `conditions` are the encoded negative
    prompts and prompts, one row for each image.
    """
    scheduler = sampler.scheduler
    negative, positive = (states.to(unet.dtype) for states in conditions)
    drawn = {"generator": list(generators)} if sampler.draws_noise else {}
    total = len(sampler.timesteps)
    for done, timestep in enumerate(sampler.timesteps, start=1):
        if interrupted():
            raise EngineStopped("The batch was interrupted.")
        scaled = scheduler.scale_model_input(latents, timestep)
        if guide.seen is not None:
            scaled = torch.cat([scaled, guide.seen], dim=1)
        predicted = _guided(unet, scaled, timestep, (negative, positive), cfg_scale)
        latents = scheduler.step(predicted, timestep, latents, **drawn).prev_sample
        if guide.redrawn is not None and sampler.at_full_step():
            kept = _kept(guide, sampler, done)
            latents = guide.redrawn * latents + (1 - guide.redrawn) * kept
        on_step(done, total)
    return latents


def _kept(guide: Guide, sampler: Sampler, done: int) -> torch.Tensor:
    """The start latents, as noisy as the latents are after `done` steps."""
    assert guide.start is not None and guide.noise is not None
    following = sampler.timesteps[done : done + 1]
    return sampler.noised(guide.start, guide.noise, following) if len(following) else guide.start


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
