"""Draws with a UNet of Stable Diffusion 1.x, 2.x or XL.

Its pipelines take latents and prompts that are made here: noise of each image's own seed, start
images, masks and the second pass of hires all begin as latents in the middle of a schedule, so one
pipeline call serves all. ControlNets and inpainting UNets get theirs by `UnetSteps`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from picowatch.engine.callbacks import Guide, UnetSteps
from picowatch.engine.canvas import Canvas
from picowatch.engine.conditions import Conditions, at_each_evaluation
from picowatch.engine.control import hints_of
from picowatch.engine.devices import LARGE_NATIVE_SIZE
from picowatch.engine.draw import Group, OnEvaluation, Pass, Passes
from picowatch.engine.latents import Decoded, decode, encode, upscale
from picowatch.engine.noise import LATENT_FACTOR, noise_of
from picowatch.engine.protocol import ControlMap
from picowatch.engine.samplers import PreparedSampler, build_sampler
from picowatch.engine.tiling import seamless
from picowatch.recipe.passes import evaluations
from picowatch.recipe.request import ImageRequest

# Latents, mask, and the latents of what the mask leaves.
INPAINTING_CHANNELS = 9


class Prompted(NamedTuple):
    """What guides one image: its chunks of 75 tokens, and its prompts at each pass' evaluations."""

    chunks: int
    passes: Sequence[Sequence[Conditions]]


class Denoised(NamedTuple):
    """Images without noise, a row of latents each, and the maps that their ControlNets followed."""

    latents: torch.Tensor
    control_maps: Sequence[tuple[ControlMap, ...]]


class UnetPasses(Passes):
    """A UNet's way to encode, denoise and decode a batch."""

    def encode(self, batch: Sequence[ImageRequest]) -> list[Prompted]:
        """Encode the prompts of each image, at a length of its own."""
        prompts = self.loaded.prompts
        found = []
        with self.watched():
            for request in batch:
                chunks = prompts.chunk_count(request)
                found.append(Prompted(chunks, prompts.guiding(request, chunks)))
        return found

    def key(self, conditions: Prompted) -> object:
        """Return the number of chunks: rows of other lengths cannot be joined."""
        return conditions.chunks

    def chunks(self, conditions: Prompted) -> int:
        """Return how many chunks the prompts have."""
        return conditions.chunks

    def evaluations(self, request: ImageRequest) -> int:
        """Count the evaluations of the UNet in both passes."""
        return evaluations(request)

    @property
    def parts(self) -> int:
        """Count the parts of a batch: a small model is as fast on one core as on several."""
        small = self.loaded.components.native_size < LARGE_NATIVE_SIZE
        small = small and self.loaded.denoiser.dtype == torch.float32
        small = small and self.job.device.type == "cpu" and self.job.compiled is None
        return torch.get_num_threads() if small else 1

    def run(
        self,
        group: Group,
        one: Pass,
        before: Denoised | None,
        canvases: Sequence[Canvas | None],
        on_step: OnEvaluation,
    ) -> Denoised:
        """Denoise the group, from noise, start images or the enlarged result of the first pass."""
        first, device = group.requests[0], self.job.device
        sampler = build_sampler(
            first.sampler,
            first.schedule_type,
            one.steps,
            self.loaded.schedule,
            one.strength,
            first.prediction,
            self.loaded.row.key,
        )
        hints, maps = hints_of(
            group.requests,
            canvases,
            one.size,
            self.loaded.components.controlnets,
            self.job,
            second=one.number > 0,
        )
        start = self._start_latents(canvases) if first.mask or before is None else None
        begin = self._enlarged(before, first) if before else _visible(start, first)
        if begin is not None and not len(sampler.timesteps):
            return Denoised(begin, maps)
        noise, generators = noise_of(group.requests, *one.size, device)
        if begin is None:
            latents = noise * sampler.scheduler.init_noise_sigma
        else:
            latents = sampler.noised(begin, noise, sampler.timesteps[:1])
        conditions = at_each_evaluation(each.passes[one.number] for each in group.conditions)
        steps = UnetSteps(
            self.loaded.denoiser,
            self.job.compiled,
            first,
            sampler,
            conditions,
            self._guide(canvases, start, noise, one),
            hints,
            on_step,
            self.job.previewer,
            device,
        )
        result = self._call(steps, sampler, latents, generators, one)
        return Denoised(result, maps)

    def decode(self, result: Denoised) -> list[Decoded]:
        """Decode the latents, image by image."""
        decoded = decode(self.loaded.vae, result.latents, repeats=self._repeats)
        return [
            each._replace(control_maps=shown)
            for each, shown in zip(decoded, result.control_maps, strict=True)
        ]

    def _call(
        self,
        steps: UnetSteps,
        sampler: PreparedSampler,
        latents: torch.Tensor,
        generators: list[torch.Generator],
        one: Pass,
    ) -> torch.Tensor:
        """The latents of a pipeline's call, which makes all steps."""
        pipeline = self.loaded.pipeline(unet=steps, scheduler=sampler)
        found: torch.Tensor = pipeline(
            **steps.inputs(),
            width=one.width,
            height=one.height,
            latents=latents,
            generator=generators,
            output_type="latent",
            return_dict=False,
        )[0]
        return found

    def _start_latents(self, canvases: Sequence[Canvas | None]) -> torch.Tensor | None:
        """The start images' latents; images of one batch all have one or none has."""
        encoded = [
            encode(self.loaded.vae, each.picture, self.job.device) for each in canvases if each
        ]
        return torch.cat(encoded) if encoded else None

    def _enlarged(self, before: Denoised, request: ImageRequest) -> torch.Tensor:
        """What the second pass begins with."""
        assert request.hires is not None
        return upscale(
            self.loaded.vae,
            before.latents,
            request.hires.upscaler,
            request.size_before_upscale,
            self.job.enlarge_for_hires(request),
            repeats=self._repeats,
        )

    def _guide(
        self,
        canvases: Sequence[Canvas | None],
        start: torch.Tensor | None,
        noise: torch.Tensor,
        one: Pass,
    ) -> Guide:
        """What the steps keep of the start images, or show an inpainting UNet."""
        masks = [each.redrawn for each in canvases if each and each.redrawn is not None]
        redrawn = None
        if masks:
            # A latent with one white pixel below it is redrawn; the pixels decide in the end.
            grey = torch.from_numpy(np.stack(masks)).to(self.job.device).float()[:, None] / 255
            redrawn = functional.max_pool2d(grey, LATENT_FACTOR)
        if self.loaded.denoiser.config.in_channels != INPAINTING_CHANNELS:
            return Guide(start, noise, redrawn)
        kept = torch.cat([self._kept_latents(canvas, one) for canvas in canvases])
        shown = torch.ones_like(noise[:, :1]) if redrawn is None else redrawn
        return Guide(seen=torch.cat([shown, kept], dim=1))

    def _kept_latents(self, canvas: Canvas | None, one: Pass) -> torch.Tensor:
        """What an inpainting UNet gets of a start image: all but the mask, which is mid-grey."""
        seen = np.full((one.height, one.width, 3), 127.5, np.float32)
        if canvas and canvas.redrawn is not None:
            seen = np.where(canvas.redrawn[:, :, None] > 0, seen, canvas.picture)
        return encode(self.loaded.vae, seen, self.job.device)

    @property
    def _repeats(self) -> bool:
        """Whether opposite edges have to be made to meet, since the VAE decodes in tiles."""
        return self.job.repeats and bool(self.loaded.vae.use_tiling)

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Let convolutions continue at the opposite edge, if pictures repeat.

        Not those of a VAE with tiles of its own, whose edges `tiling.wrapped` joins.
        """
        models: list[Any] = []
        if self.job.repeats:
            models = [self.loaded.denoiser, *self.loaded.components.controlnets.values()]
            models += [] if self.loaded.vae.use_tiling else [self.loaded.vae]
        with seamless(models), self.watched():
            yield


def _visible(start: torch.Tensor | None, request: ImageRequest) -> torch.Tensor | None:
    """The start images' latents, if anything of them shows through the noise where it is redrawn.

    Not under a mask at full strength, as in diffusers' inpainting pipelines.
    """
    return None if request.mask and request.denoising_strength == 1 else start
