"""Draws with a UNet of Stable Diffusion 1.x, 2.x or XL.

Pipelines are given latents and encoded prompts: noise from each image's own seed, start images and
the second pass of hires are all latents at some step of a schedule, so a single kind of
pipeline draws all of them. `UnetSteps` adds ControlNets, masks and the inputs of inpainting UNets.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from picowatch.engine.drawing.callbacks import UnetSteps
from picowatch.engine.drawing.control import hints_of
from picowatch.engine.drawing.draw import Denoising, Group, Prompted
from picowatch.engine.drawing.latents import LATENT, decode, encode, noise_of, resized
from picowatch.engine.drawing.work import Drawn
from picowatch.engine.model.devices import LARGE_NATIVE_SIZE
from picowatch.engine.model.samplers import build_sampler
from picowatch.engine.model.vae import LATENT_FACTOR
from picowatch.engine.protocol import RgbPicture
from picowatch.files.decoding import Original
from picowatch.recipe.passes import Sampling
from picowatch.recipe.request import ImageRequest

INPAINTING_CHANNELS = 9  # latents, mask, and the latents of the unmasked part


class Denoised(NamedTuple):
    """An image without noise, a row of latents, and the maps that its ControlNets followed."""

    latents: torch.Tensor
    control_maps: tuple[RgbPicture, ...]


class UnetDenoising(Denoising):
    def encode(self, request: ImageRequest) -> Prompted:
        """Encode an image's prompts; only rows with equal numbers of chunks can be joined."""
        chunks, conditions = self.loaded.texts.prompts.guiding(request)
        return Prompted(chunks, conditions, chunks)

    def steps(self, sampling: Sampling) -> int:
        """Implement `Denoising.steps`: an evaluation is a step."""
        return sampling.evaluations

    @property
    def parts(self) -> int:  # type: ignore[override]
        """The number of parts of a batch: a small model is as fast on one core as on several."""
        small = self.loaded.native_size < LARGE_NATIVE_SIZE
        small = small and self.loaded.denoiser.dtype == torch.float32
        small = small and self.job.device.type == "cpu" and self.job.accelerated is None
        return torch.get_num_threads() if small else 1

    def run(self, group: Group, sampling: Sampling, before: list[Any]) -> list[Denoised]:
        """Denoise the group, from noise, start images or the enlarged result of the first pass."""
        first, device = group.requests[0], self.job.device
        sampler = build_sampler(
            first.sampler,
            first.schedule_type,
            sampling.steps,
            self.loaded.schedule,
            sampling.strength,
            first.prediction,
            self.loaded.row.key,
        )
        hints, maps = hints_of(group, sampling, self.loaded.parts.controlnets, self.job)
        start = None  # all images of a batch have one, or none has
        if first.redraws_a_part or not before:
            pictures = (canvas.picture for canvas in group.canvases if canvas)
            encoded = [encode(self.loaded.vae, picture, device) for picture in pictures]
            start = torch.cat(encoded) if encoded else None
        # As in diffusers' inpainting pipelines, at full strength masked areas begin with noise.
        visible = None if first.redraws_a_part and first.denoising_strength == 1 else start
        begin = self._enlarged(before, first, sampling.size) if before else visible
        if begin is not None and not len(sampler.timesteps):
            return _rows(begin, maps)
        noise, generators = noise_of(group.requests, *sampling.size, device)
        if begin is None:
            latents = noise * sampler.scheduler.init_noise_sigma
        else:
            latents = sampler.add_noise(begin, noise, sampler.timesteps[:1])
        conditions = [*zip(*(each[bool(before)] for each in group.conditions), strict=True)]
        redrawn, seen = self._masks(group, noise, sampling)
        steps = UnetSteps(self, first, sampler, conditions, hints, start, noise, redrawn, seen)
        result = self.loaded.parts.pipeline(unet=steps, scheduler=sampler)(
            **steps.inputs(),
            width=sampling.size[0],
            height=sampling.size[1],
            latents=latents,
            generator=generators,
            output_type="latent",
            return_dict=False,
        )[0]
        return _rows(result, maps)

    def decode(self, results: list[Denoised]) -> list[Drawn]:
        pictures = decode(self.loaded.vae, torch.cat([denoised.latents for denoised in results]))
        return [
            Drawn(Original(picture), denoised.control_maps)
            for picture, denoised in zip(pictures, results, strict=True)
        ]

    def _enlarged(
        self, before: list[Any], request: ImageRequest, size: tuple[int, int]
    ) -> torch.Tensor:
        """Return the latents that the second run begins with, from latents or larger pictures."""
        assert request.hires is not None
        vae, upscaler = self.loaded.vae, request.hires.upscaler
        if isinstance(before[0], Denoised):
            latents = torch.cat([denoised.latents for denoised in before])
            if how := LATENT.get(upscaler):
                sides = [side // LATENT_FACTOR for side in reversed(size)]
                return functional.interpolate(latents, size=sides, **how)
            before = decode(vae, latents)
        larger = (resized(picture, upscaler, size) for picture in before)
        return torch.cat([encode(vae, picture, self.job.device) for picture in larger])

    def _masks(
        self, group: Group, noise: torch.Tensor, sampling: Sampling
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return the parts of start images that are redrawn, or an inpainting UNet's inputs."""
        masks = [np.asarray(each.redrawn) for each in group.canvases if each and each.redrawn]
        redrawn = None
        if masks:
            # A latent is redrawn if any of its pixels is white; pasting is exact to the pixel.
            grey = torch.from_numpy(np.stack(masks)).to(self.job.device).float()[:, None] / 255
            redrawn = functional.max_pool2d(grey, LATENT_FACTOR)
        if self.loaded.denoiser.config.in_channels != INPAINTING_CHANNELS:
            return redrawn, None
        kept = []
        for canvas in group.canvases:
            seen = np.full((*reversed(sampling.size), 3), 127.5, np.float32)
            if canvas and canvas.redrawn:  # its area is mid-grey
                masked = np.asarray(canvas.redrawn)[:, :, None] > 0
                seen = np.where(masked, seen, np.asarray(canvas.picture))
            kept.append(encode(self.loaded.vae, seen, self.job.device))
        shown = torch.ones_like(noise[:, :1]) if redrawn is None else redrawn
        return None, torch.cat([shown, torch.cat(kept)], dim=1)


def _rows(latents: torch.Tensor, maps: Sequence[tuple[RgbPicture, ...]]) -> list[Denoised]:
    return [Denoised(*pair) for pair in zip(latents[:, None], maps, strict=True)]


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
