"""Draws with a UNet of Stable Diffusion 1.x, 2.x or XL.

Pipelines are given latents and encoded prompts: noise from each image's own seed, start images and
the second pass of hires are all latents at some step of a schedule, so one kind of pipeline draws
all of them. `UnetSteps` adds ControlNets, masks and the inputs of inpainting UNets.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from picowatch.engine.drawing.callbacks import Guide, UnetSteps
from picowatch.engine.drawing.canvas import Canvas
from picowatch.engine.drawing.control import hints_of
from picowatch.engine.drawing.draw import Drawn, Group, Passes, Prompted
from picowatch.engine.drawing.latents import decode, encode, noise_of, upscale
from picowatch.engine.model.devices import LARGE_NATIVE_SIZE
from picowatch.engine.model.samplers import build_sampler
from picowatch.engine.model.vae import LATENT_FACTOR
from picowatch.engine.protocol import RgbPicture
from picowatch.recipe.passes import Pass, evaluations
from picowatch.recipe.request import ImageRequest

# Latents, mask, and the latents of the unmasked part.
INPAINTING_CHANNELS = 9


class Denoised(NamedTuple):
    """Images without noise, a row of latents each, and the maps that their ControlNets followed."""

    latents: torch.Tensor
    control_maps: Sequence[tuple[RgbPicture, ...]]


class UnetPasses(Passes):
    """Passes with a UNet."""

    def encode(self, request: ImageRequest) -> Prompted:
        """Encode an image's prompts; only rows with equal numbers of chunks can be joined."""
        chunks, conditions = self.loaded.texts.prompts.guiding(request)
        return Prompted(chunks, conditions, chunks)

    def evaluations(self, request: ImageRequest) -> int:
        """Count the evaluations of the UNet in both passes."""
        return evaluations(request)

    @property
    def parts(self) -> int:  # type: ignore[override]
        """The number of parts of a batch: a small model is as fast on one core as on several."""
        small = self.loaded.native_size < LARGE_NATIVE_SIZE
        small = small and self.loaded.denoiser.dtype == torch.float32
        small = small and self.job.device.type == "cpu" and self.job.instead is None
        return torch.get_num_threads() if small else 1

    def run(self, group: Group, one: Pass, before: Denoised | None) -> Denoised:
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
        hints, maps = hints_of(group, one, self.loaded.weights.controlnets, self.job)
        start = self._start_latents(group) if first.redraws_a_part or before is None else None
        # As in diffusers' inpainting pipelines, at full strength masked areas begin with noise.
        visible = None if first.redraws_a_part and first.denoising_strength == 1 else start
        begin = self._enlarged(before, first) if before else visible
        if begin is not None and not len(sampler.timesteps):
            return Denoised(begin, maps)
        noise, generators = noise_of(group.requests, *one.size, device)
        if begin is None:
            latents = noise * sampler.scheduler.init_noise_sigma
        else:
            latents = sampler.add_noise(begin, noise, sampler.timesteps[:1])
        steps = UnetSteps(
            self,
            request=first,
            sampler=sampler,
            conditions=[
                *zip(*(each[before is not None] for each in group.conditions), strict=True)
            ],
            guide=self._guide(group, start, noise, one),
            hints=hints,
        )
        result = self.loaded.weights.pipeline(unet=steps, scheduler=sampler)(
            **steps.inputs(),
            width=one.size[0],
            height=one.size[1],
            latents=latents,
            generator=generators,
            output_type="latent",
            return_dict=False,
        )[0]
        return Denoised(result, maps)

    def decode(self, result: Denoised) -> list[Drawn]:
        images = decode(self.loaded.vae, result.latents)
        return list(map(Drawn, images, result.control_maps))

    def _start_latents(self, group: Group) -> torch.Tensor | None:
        """Return the start images' latents; either all images of a batch have one or none has."""
        starts = [each.picture for each in group.canvases if each]
        encoded = [encode(self.loaded.vae, each, self.job.device) for each in starts]
        return torch.cat(encoded) if encoded else None

    def _enlarged(self, before: Denoised, request: ImageRequest) -> torch.Tensor:
        """Return the latents that the second pass begins with."""
        assert request.hires is not None
        return upscale(
            self.loaded.vae,
            before.latents,
            request.hires.upscaler,
            request.drawn_size,
            self.job.enlarge_for_hires(request),
        )

    def _guide(
        self, group: Group, start: torch.Tensor | None, noise: torch.Tensor, one: Pass
    ) -> Guide:
        """Return the parts of start images that steps keep, or an inpainting UNet's inputs."""
        masks = [np.asarray(each.redrawn) for each in group.canvases if each and each.redrawn]
        redrawn = None
        if masks:
            # A latent is redrawn if any of its pixels is white; pasting is exact to the pixel.
            grey = torch.from_numpy(np.stack(masks)).to(self.job.device).float()[:, None] / 255
            redrawn = functional.max_pool2d(grey, LATENT_FACTOR)
        if self.loaded.denoiser.config.in_channels != INPAINTING_CHANNELS:
            return Guide(start, noise, redrawn)
        kept = torch.cat([self._kept_latents(canvas, one) for canvas in group.canvases])
        shown = torch.ones_like(noise[:, :1]) if redrawn is None else redrawn
        return Guide(seen=torch.cat([shown, kept], dim=1))

    def _kept_latents(self, canvas: Canvas | None, one: Pass) -> torch.Tensor:
        """Encode a start image for an inpainting UNet, with the masked area in mid-grey."""
        seen = np.full((*reversed(one.size), 3), 127.5, np.float32)
        if canvas and canvas.redrawn:
            masked = np.asarray(canvas.redrawn)[:, :, None] > 0
            seen = np.where(masked, seen, np.asarray(canvas.picture))
        return encode(self.loaded.vae, seen, self.job.device)


@contextmanager
def seamless(models: Iterable[nn.Module]) -> Iterator[None]:
    """Let the convolutions continue at the opposite edge, as A1111's modules/sd_hijack.py does."""
    found = [
        layer
        for model in models
        for layer in model.modules()
        if isinstance(layer, nn.Conv2d) and any(layer.padding) and layer.padding_mode == "zeros"
    ]
    for layer in found:
        layer.padding_mode = "circular"
    try:
        yield
    finally:
        for layer in found:
            layer.padding_mode = "zeros"
