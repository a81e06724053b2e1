"""Draws images that go through the UNet together: encode, denoise in one or two passes, decode."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from picowatch.engine.control.hints import GuessDepth, hints_of
from picowatch.engine.control.residuals import Hint
from picowatch.engine.drawn import Enlarge, Interrupted, Picture, timed
from picowatch.engine.models.loaded import Loaded
from picowatch.engine.previewer import Previewer
from picowatch.engine.unet import latents as vaes
from picowatch.engine.unet.canvas import Bytes, Canvas, read_canvas
from picowatch.engine.unet.conditions import ConditionSchedule
from picowatch.engine.unet.denoise import Guide, Shape, Unet, denoise
from picowatch.engine.unet.latents import LATENT_FACTOR, upscale
from picowatch.engine.unet.noise import noise_of
from picowatch.engine.unet.samplers import PreparedSampler, build_sampler
from picowatch.errors import RenderFailed
from picowatch.recipe.request import ImageRequest
from picowatch.recipe.resolve.hires import final_side


class _Pass(NamedTuple):
    """One run from noise to latents, at one size."""

    sampler: PreparedSampler
    width: int
    height: int


class Denoised(NamedTuple):
    """Images without noise, a row of latents each, and what their pictures still need."""

    latents: torch.Tensor
    canvases: Sequence[Canvas | None]
    control_maps: Sequence[Any]
    repeats: bool


@dataclass(frozen=True, slots=True)
class Drawing:
    """Draws pictures from noise to pixels.

    `unet` gives the UNet for a shape; `enlarge` makes the second pass' pictures of the first one's,
    if a model does that.
    """

    loaded: Loaded
    device: torch.device
    start_images: Path | None
    guess_depth: GuessDepth
    unet: Callable[[Shape], Unet]
    on_step: Callable[[], None]
    interrupted: Interrupted
    timings: dict[str, float]
    previewer: Previewer
    enlarge: Enlarge | None

    def draw(
        self, requests: Sequence[ImageRequest], schedules: Sequence[ConditionSchedule]
    ) -> list[Picture]:
        """The pictures of images that go through the UNet together."""
        return self.decode(self.denoise(requests, schedules))

    def denoise(
        self, requests: Sequence[ImageRequest], schedules: Sequence[ConditionSchedule]
    ) -> Denoised:
        """From noise to latents, in one or two passes."""
        first = requests[0]
        with timed(self.timings, "denoise"):
            latents: torch.Tensor | None = None
            for one, schedule in zip(self._passes(first), schedules, strict=True):
                canvases = self._canvases(requests, one)
                hints, maps = hints_of(
                    requests,
                    canvases,
                    (one.width, one.height),
                    self.loaded,
                    self.device,
                    self.start_images,
                    self.guess_depth,
                    second=latents is not None,
                )
                if latents is not None:
                    assert first.hires is not None
                    latents = upscale(
                        self.loaded.vae,
                        latents,
                        first.hires.upscaler,
                        one.width,
                        one.height,
                        self.enlarge,
                        repeats=self._repeats(first),
                    )
                latents = self._run(one, requests, canvases, hints, latents, schedule)
            assert latents is not None
            return Denoised(latents, canvases, maps, self._repeats(first))

    def decode(self, denoised: Denoised) -> list[Picture]:
        """From latents to pictures."""
        with timed(self.timings, "decode"):
            latents, *others, repeats = denoised
            decoded = vaes.decode_all(self.loaded.vae, latents, repeats=repeats)
            return [
                _picture(one, canvas)._replace(control_maps=shown)
                for one, canvas, shown in zip(decoded, *others, strict=True)
            ]

    def _passes(self, request: ImageRequest) -> list[_Pass]:
        """The first pass and, with hires, the second: img2img at the larger size."""

        def sampler(steps: int, strength: float) -> PreparedSampler:
            return build_sampler(
                request.sampler,
                request.schedule_type,
                steps,
                self.loaded.schedule,
                strength,
                request.prediction,
                self.loaded.family,
            )

        hires = request.hires
        strength = request.denoising_strength if request.image else 1.0
        passes = [_Pass(sampler(request.steps, strength), request.width, request.height)]
        if hires:
            width, height = (
                final_side(side, hires.scale) for side in (request.width, request.height)
            )
            second = sampler(hires.steps or request.steps, hires.denoising_strength)
            passes.append(_Pass(second, width, height))
        return passes

    def _run(
        self,
        one: _Pass,
        requests: Sequence[ImageRequest],
        canvases: Sequence[Canvas | None],
        hints: Sequence[Hint],
        before: torch.Tensor | None,
        schedule: ConditionSchedule,
    ) -> torch.Tensor:
        """One pass from pure noise, from the start images or from the latents of the last pass."""
        sampler, request = one.sampler, requests[0]
        noise, generators = noise_of(requests, one.width, one.height)
        noise = noise.to(self.device)
        start = self._start_latents(canvases)
        guide = self._guide(canvases, start, noise)
        begin = before if before is not None else _visible(start, request)
        if begin is None:
            latents: torch.Tensor = noise * sampler.scheduler.init_noise_sigma
        elif len(sampler.timesteps):
            latents = sampler.noised(begin, noise, sampler.timesteps[:1])
        else:
            return begin
        without_negative = request.cfg_scale == 1 or self.loaded.embeds_guidance
        rows = len(requests) * (1 if without_negative else 2)
        height, width = latents.shape[2:]
        shape = Shape(rows, height, width, schedule.tokens, controlled=bool(hints))
        return denoise(
            self.unet(shape),
            sampler,
            latents,
            schedule,
            request,
            generators,
            guide,
            hints,
            self.on_step,
            self.interrupted,
            self.previewer,
        )

    def _canvases(self, requests: Sequence[ImageRequest], one: _Pass) -> list[Canvas | None]:
        """Each request's start image and mask at the pass's size."""
        return [
            read_canvas(self.start_images, request, one.width, one.height)
            if request.image
            else None
            for request in requests
        ]

    def _start_latents(self, canvases: Sequence[Canvas | None]) -> torch.Tensor | None:
        """The start images' latents; images of one batch all have one or none has."""
        encoded = [
            vaes.encode(self.loaded.vae, one.picture, self.device) for one in canvases if one
        ]
        return torch.cat(encoded) if encoded else None

    def _guide(
        self,
        canvases: Sequence[Canvas | None],
        start: torch.Tensor | None,
        noise: torch.Tensor,
    ) -> Guide:
        """What the steps keep of the start images, or show an inpainting UNet."""
        masks = [one.redrawn for one in canvases if one and one.redrawn is not None]
        redrawn = None
        if masks:
            # A latent with one white pixel below it is redrawn; the pixels decide in the end.
            grey = torch.from_numpy(np.stack(masks)).to(self.device).float()[:, None] / 255
            redrawn = functional.max_pool2d(grey, LATENT_FACTOR)
        if not self.loaded.inpaints:
            return Guide(start, noise, redrawn)
        everything = torch.ones_like(noise[:, :1])
        kept = torch.cat([self._kept_latents(one, noise) for one in canvases])
        return Guide(seen=torch.cat([everything if redrawn is None else redrawn, kept], dim=1))

    def _kept_latents(self, canvas: Canvas | None, noise: torch.Tensor) -> torch.Tensor:
        """What an inpainting UNet gets of a start image: all but the mask, which is mid-grey."""
        height, width = (side * LATENT_FACTOR for side in noise.shape[2:])
        seen = np.full((height, width, 3), 127.5, np.float32)
        if canvas and canvas.redrawn is not None:
            seen = np.where(canvas.redrawn[:, :, None] > 0, seen, canvas.picture)
        return vaes.encode(self.loaded.vae, seen, self.device)

    def _repeats(self, request: ImageRequest) -> bool:
        """Whether opposite edges have to be made to meet, since the VAE decodes in tiles."""
        return request.tiling and bool(self.loaded.vae.use_tiling)


def _picture(decoded: vaes.Decoded, canvas: Canvas | None) -> Picture:
    """The finished picture: only what its mask lets through."""
    array = decoded.pixels
    empty = decoded.flat or of_one_colour(array)
    if empty and not (canvas and of_one_colour(canvas.picture)):
        raise RenderFailed(
            f"The picture came out as one single colour ({', '.join(map(str, array[0, 0]))}), "
            "which means that the checkpoint or VAE overflowed or is damaged.",
            "Set precision: float32; if that does not help, get the checkpoint or VAE again.",
        )
    pixels = canvas.paste(array.tobytes()) if canvas else array.tobytes()
    return Picture(array.shape[1], array.shape[0], pixels)


def _visible(start: torch.Tensor | None, request: ImageRequest) -> torch.Tensor | None:
    """The start images' latents, if anything of them shows through the noise where it is redrawn.

    Not under a mask at full strength, as in diffusers' inpainting pipelines.
    """
    return None if request.mask and request.denoising_strength == 1 else start


def of_one_colour(picture: Bytes) -> bool:
    """Every pixel equals the first, in all channels.

    No working VAE gives that, however plain the prompt; a start image may be so.
    """
    return bool((picture == picture[0, 0]).all())
