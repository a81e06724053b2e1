"""Classifier-free guidance over a UNet and a sampler's steps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import log
from typing import Any, NamedTuple, Protocol

import torch

from picowatch.engine.control.residuals import Hint, Residuals, residuals_of
from picowatch.engine.previewer import Previewer
from picowatch.engine.unet.conditions import Conditions, ConditionSchedule, Encoded
from picowatch.engine.unet.kept import embed_all, keep_outputs_of
from picowatch.engine.unet.noise import step_noise
from picowatch.engine.unet.samplers import PreparedSampler
from picowatch.errors import EngineStopped
from picowatch.recipe.passes import is_guided
from picowatch.recipe.request import ImageRequest


class Shape(NamedTuple):
    """What a UNet is compiled for.

    `rows` go through it at a time: two an image with guidance, one without. `height` and
    `width` are the latents', `tokens` the length of the encoded prompt. `controlled`: ControlNets
    add to its second half.
    """

    rows: int
    height: int
    width: int
    tokens: int
    controlled: bool = False


class Inputs(NamedTuple):
    """What a UNet predicts from: noisy latents at a timestep, guided by prompts and ControlNets."""

    latents: torch.Tensor
    timestep: torch.Tensor
    prompts: Encoded
    cfg_scale: float = 1.0
    residuals: Residuals | None = None


class Unet(Protocol):
    """A UNet that can be called; `dtype` is the type of its input and output.

    With `embeds_guidance` it is told the `cfg_scale`, and follows it without a negative half.
    """

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def embeds_guidance(self) -> bool: ...

    @property
    def compiled(self) -> bool: ...

    def __call__(self, given: Inputs) -> torch.Tensor:
        """The prediction."""
        ...

    def foresee(self, timesteps: torch.Tensor) -> Sequence[torch.Tensor]:
        """The timesteps of a pass one by one, with what can be computed of all at once."""
        ...


class EagerUnet:
    """diffusers' module itself, layer by layer, with whatever hooks act on it.

    What the text alone decides is computed once for each text (kept.py).
    """

    compiled = False

    def __init__(self, module: Any) -> None:
        self._module = module
        self.dtype: torch.dtype = module.dtype
        self._guidance_width: int | None = module.config.time_cond_proj_dim

    @property
    def embeds_guidance(self) -> bool:
        """See `Unet`."""
        return self._guidance_width is not None

    def __call__(self, given: Inputs) -> torch.Tensor:
        """See `Unet`."""
        latents, timestep, prompts, cfg_scale, residuals = given
        keep_outputs_of(prompts.states)
        guidance = None
        if self._guidance_width is not None:
            guidance = _embedded(
                cfg_scale, self._guidance_width, latents.dtype, latents.device
            ).repeat(len(latents), 1)
        predicted: torch.Tensor = self._module(
            latents,
            timestep,
            encoder_hidden_states=prompts.states,
            timestep_cond=guidance,
            added_cond_kwargs=prompts.added(latents),
            down_block_additional_residuals=residuals and residuals[:-1],
            mid_block_additional_residual=residuals and residuals[-1],
        )[0]
        return predicted

    def foresee(self, timesteps: torch.Tensor) -> Sequence[torch.Tensor]:
        """See `Unet`."""
        return embed_all(self._module, timesteps)


@lru_cache(maxsize=8)
def _embedded(
    cfg_scale: float, width: int, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """The guidance as sines and cosines, 1 x width; each step has the same.

    As "Latent Consistency Models", https://arxiv.org/abs/2310.04378, and diffusers have it: 0 at a
    cfg_scale of 1.
    """
    half = width // 2
    frequencies = torch.exp(torch.arange(half) * (-log(10_000) / (half - 1)))
    angles = (cfg_scale - 1) * 1000 * frequencies
    return torch.cat([angles.sin(), angles.cos()])[None].to(device, dtype)


@dataclass(frozen=True, slots=True)
class Guide:
    """What the steps do besides following the prompt, each a row for each image.

    Where `redrawn` is 0, `start` comes back after each step with the noise that step leaves
    (as diffusers' inpainting pipeline does with ordinary checkpoints). `seen` are the channels
    that an inpainting UNet gets besides the latents: mask and what the mask leaves.
    """

    start: torch.Tensor | None = None
    noise: torch.Tensor | None = None
    redrawn: torch.Tensor | None = None
    seen: torch.Tensor | None = None


def denoise(
    unets: Mapping[bool, Unet],
    sampler: PreparedSampler,
    latents: torch.Tensor,
    schedule: ConditionSchedule,
    request: ImageRequest,
    generators: Sequence[torch.Generator],
    guide: Guide,
    hints: Sequence[Hint],
    on_step: Callable[[], None],
    interrupted: Callable[[], bool],
    previewer: Previewer,
) -> torch.Tensor:
    """Latents without noise, kept in float32 between the steps whatever the UNet works in.

    `latents` have the noise of the sampler's first step. `unets` and `request`: see `_Prediction`.
    """
    scheduler = sampler.scheduler
    drawn = {"generator": list(generators)} if sampler.draws_noise else {}
    queue = _StepQueue(latents.device)
    prediction = _Prediction(unets, request, hints, guide.seen)
    any_unet = next(iter(unets.values()))
    guiding = schedule.evaluations(any_unet.dtype)
    foreseen = any_unet.foresee(sampler.timesteps.to(latents.device))
    steps = zip(sampler.timesteps, foreseen, guiding, strict=True)
    for done, (timestep, given, conditions) in enumerate(steps, 1):
        if interrupted():
            raise EngineStopped("The batch was interrupted.")
        scaled = scheduler.scale_model_input(latents, timestep)
        share = (done - 1) / len(sampler.timesteps)
        predicted = prediction.of(scaled, given, conditions, share)
        with step_noise(generators, latents.device):
            latents = scheduler.step(predicted, timestep, latents, **drawn).prev_sample
        if guide.redrawn is not None and sampler.at_full_step():
            kept = _kept(guide, sampler, done)
            latents = guide.redrawn * latents + (1 - guide.redrawn) * kept
        queue.add()
        on_step()
        if previewer.is_due():
            previewer.show(scheduler, scaled, predicted, timestep)
    queue.finish()
    return latents


class _StepQueue:
    """Keeps a GPU's queue short: what is reported as done is, but for the step in progress.

    A GPU accepts work faster than it does it. One step is always queued, so that it never idles,
    and no more, so that progress is true and an interruption takes effect.
    """

    def __init__(self, device: torch.device) -> None:
        self._event: Any = _EVENTS.get(device.type)
        self._last: Any = None

    def add(self) -> None:
        """A step was queued; wait until the one before is done."""
        if self._event is None:
            return
        event = self._event()
        event.record()
        if self._last is not None:
            self._last.synchronize()
        self._last = event

    def finish(self) -> None:
        """Wait for the last step: its time would count as the decoder's."""
        if self._last is not None:
            self._last.synchronize()


# The mark that a device's queue can be given, by the device's type.
_EVENTS = {"cuda": torch.cuda.Event, "mps": torch.mps.event.Event}


def _kept(guide: Guide, sampler: PreparedSampler, done: int) -> torch.Tensor:
    """The start latents, as noisy as the latents are after `done` steps."""
    assert guide.start is not None and guide.noise is not None
    following = sampler.timesteps[done : done + 1]
    return sampler.noised(guide.start, guide.noise, following) if len(following) else guide.start


@dataclass(frozen=True, slots=True)
class _Prediction:
    """What UNets and ControlNets predict for each step of a batch.

    `unets`: under True the one for steps with guidance, whose rows are double, and the one for the
    others. `request` is any of the batch. `seen`: see `Guide`.
    """

    unets: Mapping[bool, Unet]
    request: ImageRequest
    hints: Sequence[Hint]
    seen: torch.Tensor | None

    def of(
        self, scaled: torch.Tensor, timestep: torch.Tensor, conditions: Conditions, share: float
    ) -> torch.Tensor:
        """The prediction for latents in the sampler's scale, after that share of the steps."""
        cfg_scale = self.request.cfg_scale if is_guided(self.request, share) else 1.0
        doubled = cfg_scale != 1 and True in self.unets
        unet = self.unets[doubled]
        noisy = scaled.to(unet.dtype)
        residuals = residuals_of(
            self.hints, noisy, timestep, conditions, share=share, guided=doubled
        )
        if self.seen is not None:
            noisy = torch.cat([scaled, self.seen], dim=1).to(unet.dtype)
        if not doubled:
            given = Inputs(noisy, timestep, conditions.positive, cfg_scale, residuals)
            return unet(given).float()
        twice = torch.cat([noisy] * 2)
        given = Inputs(twice, timestep, conditions.both, residuals=residuals)
        return self._guided(unet(given).float())

    def _guided(self, both: torch.Tensor) -> torch.Tensor:
        """Away from the negative prompt by the factor `cfg_scale`.

        Equation 6 of "Classifier-Free Diffusion Guidance", https://arxiv.org/abs/2207.12598, in
        Stable Diffusion's form. At 1 the negative prompt would cancel out: it is not computed.
        """
        away, towards = both.chunk(2)
        guided = away + self.request.cfg_scale * (towards - away)
        rescale = self.request.cfg_rescale
        return rescaled(guided, towards, rescale) if rescale else guided


def rescaled(guided: torch.Tensor, towards: torch.Tensor, share: float) -> torch.Tensor:
    """The guided prediction, its standard deviation brought that far back to the prompt's own.

    Equations 15 and 16 of section 3.4 of "Common Diffusion Noise Schedules and Sample Steps Are
    Flawed", https://arxiv.org/abs/2305.08891.
    """
    own, grown = (each.std(dim=(1, 2, 3), keepdim=True) for each in (towards, guided))
    return guided * (share * (own / grown) + (1 - share))
