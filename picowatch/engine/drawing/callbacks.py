"""Progress, interruption, previews and prompt editing during a pipeline's call.

A pipeline calls its denoiser once or twice per step, and its scheduler or its callback after that.
Here a wrapper replaces the checkpoint's denoiser, and a copy its scheduler, so that a call
changes nothing that others share.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from typing import Any

import torch

from picowatch.engine.drawing.control import Hint, residuals_of
from picowatch.engine.drawing.draw import Denoising
from picowatch.engine.drawing.latents import final_latents, unpacked, without_noise
from picowatch.engine.model.prompts import Conditions, joined
from picowatch.engine.model.samplers import PreparedSampler
from picowatch.engine.private import forget_hooked_forward, set_guidance_scale
from picowatch.errors import RenderFailed, install_command
from picowatch.recipe.passes import is_guided
from picowatch.recipe.request import ImageRequest


class Steps:
    """A pipeline's denoiser in one call; attributes that are not here are the module's."""

    def __init__(self, denoising: Denoising) -> None:
        self._loaded, self._module = denoising.loaded, denoising.loaded.denoiser
        self._job = denoising.job
        self._computing = denoising.job.accelerated or self._module
        self._queued: Any = None  # the end of a GPU's last step

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def __call__(self, *given: Any, **named: Any) -> Any:
        self._job.work.raise_if_interrupted()
        return self._computing(*given, **named)

    def tell_step(self) -> None:
        if self._job.device.type == "cuda":
            # A GPU accepts work faster than it does it. With a single step queued it never idles,
            # yet progress is true and an interruption takes effect.
            event: Any = torch.cuda.Event
            before, self._queued = self._queued, event(blocking=True)  # the others spin
            self._queued.record()
            if before:
                before.synchronize()
        self._job.work.step()


class FlowSteps(Steps):
    """The transformer; the scheduler tells the steps.

    Not all pipelines have a callback; the blocks of modular pipelines are shared by all of a
    process, so that another block among them would stay (diffusers 0.42).
    """

    def watched(self, scheduler: Any, size: tuple[int, int]) -> Any:
        """Return the scheduler of this call, for a picture of this size."""
        found = copy(scheduler)
        own = found.step
        arguments = signature(own)

        @wraps(own)  # pipelines look at what it takes
        def step(*given: Any, **named: Any) -> Any:
            before = arguments.bind(*given, **named).arguments["sample"]
            made = own(*given, **named)
            if self._job.previewer.is_due():
                final = final_latents(found, before, made[0])
                last, vae = self._loaded.row.channels_last, self._loaded.vae
                self._job.previewer.show(unpacked(final, size, vae, channels_last=last))
            self.tell_step()
            return made

        found.step = step
        return found


# `step_cache: true`: cache-dit computes the first block of each step, and reuses what the others
# did to the picture in an earlier step if the first changed little since. The numbers are those
# of SGLang (docs/speed.md).
_NUMBERS = {
    "max_warmup_steps": 3,  # of a picture, after the first, which tells how to cache
    "Fn_compute_blocks": 1,
    "Bn_compute_blocks": 0,
    "residual_diff_threshold": 0.24,
    "max_continuous_cached_steps": 3,
}


def need_cache_dit() -> None:
    """Raise RenderFailed if cache-dit is not installed."""
    if find_spec("cache_dit") is None:
        raise RenderFailed(
            "step_cache needs cache-dit, which is not installed.",
            f"Type: {install_command('cache')}. Or remove step_cache from the recipe.",
        )


@contextmanager
def restored(denoiser: Any) -> Iterator[None]:
    """Restore the denoiser at the end: cache-dit itself would leave other methods behind."""
    before = [(module, dict(vars(module))) for module in denoiser.modules()]
    try:
        yield
    finally:
        for module, own in before:
            vars(module).clear()
            vars(module).update(own)


class CachedSteps(FlowSteps):
    """A transformer that caches once it is known how often the pipeline calls it in a step.

    With guidance some pipelines call it twice, each time with half of the image's prompts.
    """

    _calls = 0  # in the first step
    _is_first = True

    def __call__(self, *given: Any, **named: Any) -> Any:
        self._calls += self._is_first
        return super().__call__(*given, **named)

    def tell_step(self) -> None:
        """Tell the step; after the first, begin to cache."""
        super().tell_step()
        if not self._is_first:
            return
        self._is_first, denoiser = False, self._module
        os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")  # it would print on standard output
        cache_dit, cached = import_module("cache_dit"), denoiser
        forget_hooked_forward(denoiser)
        if type(denoiser).__name__ == "SD3Transformer2DModel":  # it knows the pipeline's name only
            blocks, pattern = denoiser.transformer_blocks, cache_dit.ForwardPattern.Pattern_1
            cached = cache_dit.BlockAdapter(
                transformer=denoiser, blocks=blocks, forward_pattern=pattern
            )
        config = cache_dit.DBCacheConfig(enable_separate_cfg=self._calls == 2, **_NUMBERS)
        cache_dit.enable_cache(cached, cache_config=config)


@dataclass(eq=False)
class UnetSteps(Steps):
    """The UNet, guided by `conditions`, those of all images at each evaluation.

    Tensors have a row for each image. Where `redrawn` is 0, `start` with the step's remaining
    `noise` replaces the latents after each step, as in diffusers' inpainting pipeline with ordinary
    checkpoints. `seen` are an inpainting UNet's further channels.
    """

    denoising: Denoising
    request: ImageRequest
    sampler: PreparedSampler
    conditions: Sequence[Sequence[Conditions]]
    hints: Sequence[Hint]
    start: torch.Tensor | None
    noise: torch.Tensor
    redrawn: torch.Tensor | None
    seen: torch.Tensor | None  # the mask and what it leaves of the picture
    _evaluation: int = 0

    def __post_init__(self) -> None:
        super().__init__(self.denoising)
        self._dtype = self.dtype  # diffusers looks at all modules for it, for milliseconds
        # A distilled checkpoint (LCM) is told the guidance to follow.
        self._embeds_guidance = self.config.time_cond_proj_dim is not None

    def inputs(self) -> dict[str, Any]:
        """Return the pipeline's arguments, for the first evaluation."""
        positive = joined([condition.positive for condition in self.conditions[0]])
        negative = joined([condition.negative for condition in self.conditions[0]])
        given = {
            "prompt_embeds": positive.states,
            "negative_prompt_embeds": negative.states,
            "guidance_scale": self._guidance_scale(),
            "guidance_rescale": self.request.cfg_rescale,
            "num_inference_steps": self.request.steps,
            "eta": self.sampler.eta,
            "callback_on_step_end": self.after_step,
            "callback_on_step_end_tensor_inputs": ["latents"],
        }
        if positive.pooled is None:
            return given
        return given | {
            "pooled_prompt_embeds": positive.pooled,
            "negative_pooled_prompt_embeds": negative.pooled,
            "callback_on_step_end_tensor_inputs": ["latents", "add_time_ids"],
        }

    def __call__(
        self,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        *,
        encoder_hidden_states: torch.Tensor,
        added_cond_kwargs: Mapping[str, torch.Tensor] | None = None,
        timestep_cond: torch.Tensor | None = None,
        **named: Any,
    ) -> tuple[torch.Tensor]:
        """Predict in the UNet's type, guided by ControlNets and by what an inpainting UNet sees."""
        dtype = self._dtype
        # diffusers would wait until a card has done all that is queued, and move float64 to MPS.
        moved = timestep.float().to(latents.device, non_blocking=True)
        noisy, states = latents.to(dtype), encoder_hidden_states.to(dtype)
        added = added_cond_kwargs and {n: value.to(dtype) for n, value in added_cond_kwargs.items()}
        if hints := self.hints:
            residuals = residuals_of(hints, self._share(), noisy, moved, states, added)
            if residuals:
                named["down_block_additional_residuals"] = residuals[:-1]
                named["mid_block_additional_residual"] = residuals[-1]
        if self.seen is not None:
            seen = torch.cat([self.seen] * (len(latents) // len(self.seen)))
            noisy = torch.cat([latents, seen], dim=1).to(dtype)
        (predicted,) = super().__call__(
            noisy,
            moved,
            encoder_hidden_states=states,
            added_cond_kwargs=added,
            timestep_cond=None if timestep_cond is None else timestep_cond.to(dtype),
            **named,
        )
        predicted = predicted.to(latents.dtype)  # float32 between the steps
        if self._job.previewer.is_due():
            self._show(latents, predicted, timestep)
        return (predicted,)

    def after_step(
        self, pipeline: Any, step: int, timestep: Any, kept: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Return the latents outside the mask reset, and the prompts of the next evaluation."""
        self.tell_step()
        self._evaluation = step + 1
        latents = kept["latents"]
        # False between the two evaluations of a step of second-order samplers.
        at_full_step = getattr(self.sampler, "state_in_first_order", True)
        if self.redrawn is not None and at_full_step:
            assert self.start is not None
            start, following = self.start, self.sampler.timesteps[step + 1 : step + 2]
            if len(following):
                start = self.sampler.add_noise(start, self.noise, following)
            latents = self.redrawn * latents + (1 - self.redrawn) * start
        changed = {"latents": latents}
        if self._evaluation < len(self.conditions):
            set_guidance_scale(pipeline, self._guidance_scale())
            conditions = self.conditions[self._evaluation]
            guided = self._is_guided() and not self._embeds_guidance
            rows = [condition.negative for condition in conditions] if guided else []
            encoded = joined([*rows, *(condition.positive for condition in conditions)])
            changed["prompt_embeds"] = encoded.states
            if encoded.pooled is not None:
                changed["add_text_embeds"] = encoded.pooled
                changed["add_time_ids"] = kept["add_time_ids"][:1].repeat(len(encoded.pooled), 1)
        return changed

    def _share(self) -> float:
        return self._evaluation / len(self.conditions)

    def _is_guided(self) -> bool:
        return is_guided(self.request, self._share())

    def _guidance_scale(self) -> float:
        return self.request.cfg_scale if self._is_guided() or self._embeds_guidance else 1.0

    def _show(self, scaled: torch.Tensor, predicted: torch.Tensor, timestep: torch.Tensor) -> None:
        """Show a preview of the first image by the prediction, with the pipeline's guidance."""
        first = predicted[0]
        if self._is_guided() and not self._embeds_guidance:
            towards = predicted[len(predicted) // 2]
            first = first + self.request.cfg_scale * (towards - first)
        scheduler = self.sampler.scheduler
        self._job.previewer.show(without_noise(scheduler, scaled[0], first, timestep))
