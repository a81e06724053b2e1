"""Draws images that go through the UNet together: encode, denoise in one or two passes, decode."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from picowatch.engine.control.hints import hints_of
from picowatch.engine.control.residuals import Hint
from picowatch.engine.devices import LARGE_NATIVE_SIZE
from picowatch.engine.drawn import Enlarge, Job, Picture, timed
from picowatch.engine.models.loaded import Loaded
from picowatch.engine.unet import latents as vaes
from picowatch.engine.unet.canvas import Bytes, Canvas, read_canvases
from picowatch.engine.unet.conditions import ConditionSchedule
from picowatch.engine.unet.denoise import Guide, Shape, Unet, denoise
from picowatch.engine.unet.latents import LATENT_FACTOR, upscale
from picowatch.engine.unet.noise import noise_of
from picowatch.engine.unet.samplers import PreparedSampler, build_sampler
from picowatch.errors import RenderFailed
from picowatch.recipe.passes import is_guided
from picowatch.recipe.request import ImageRequest


class _Pass(NamedTuple):
    """One run from noise to latents, at one size."""

    sampler: PreparedSampler
    width: int
    height: int


class Group(NamedTuple):
    """Images that go through the UNet together, and their prompts, encoded for each pass."""

    requests: Sequence[ImageRequest]
    schedules: Sequence[ConditionSchedule]


class _Begun(NamedTuple):
    """What the VAE has done for a group before the UNet begins with a pass.

    `start` are the start images' latents, `before` those of the pass before, enlarged, `kept` what
    an inpainting UNet is shown of the start images; each None where it is not needed.
    """

    canvases: Sequence[Canvas | None]
    start: torch.Tensor | None
    before: torch.Tensor | None
    kept: torch.Tensor | None


class Denoised(NamedTuple):
    """Images without noise, a row of latents each, and what their pictures still need."""

    latents: torch.Tensor
    canvases: Sequence[Canvas | None]
    control_maps: Sequence[Any]
    repeats: bool


@dataclass(frozen=True, slots=True)
class Drawing:
    """Draws pictures from noise to pixels.

    `unet` gives the UNet for so many steps of a shape, `on_step` is called after each of them;
    `enlarge` makes the second pass' pictures of the first one's, if a model does that.
    """

    loaded: Loaded
    job: Job
    unet: Callable[[Shape, int], Unet]
    on_step: Callable[[], None]
    enlarge: Enlarge | None

    def draw(
        self, requests: Sequence[ImageRequest], schedules: Sequence[ConditionSchedule]
    ) -> list[Picture]:
        """The pictures of images that go through the UNet together."""
        [denoised] = self.denoise([Group(requests, schedules)])
        return self.decode(denoised)

    def denoise(self, groups: Sequence[Group]) -> list[Denoised]:
        """From noise to latents, in one or two passes.

        In each pass the VAE does its part for all groups before the UNet begins: models that take
        turns on a GPU go there once.
        """
        if not groups:
            return []
        with timed(self.job.timings, "denoise"):
            found: list[Denoised | None] = [None] * len(groups)
            # Of each group its own, because a sampler remembers its last steps.
            for index, passes in enumerate(zip(*map(self._passes, groups), strict=True)):
                begun = [
                    self._begun(one, group.requests, before and before.latents)
                    for one, group, before in zip(passes, groups, found, strict=True)
                ]
                found = [
                    self._run(one, group.requests, group.schedules[index], each)
                    for one, group, each in zip(passes, groups, begun, strict=True)
                ]
            return [denoised for denoised in found if denoised]

    def decode(self, denoised: Denoised) -> list[Picture]:
        """From latents to pictures."""
        with timed(self.job.timings, "decode"):
            latents, canvases, control_maps, repeats = denoised
            decoded = vaes.decoded(self.loaded.vae, latents, repeats=repeats)
            return [
                _picture(one, canvas)._replace(control_maps=shown)
                for one, canvas, shown in zip(decoded, canvases, control_maps, strict=True)
            ]

    def _passes(self, group: Group) -> list[_Pass]:
        """The first pass and, with hires, the second: img2img at the larger size."""
        request = group.requests[0]

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
            second = sampler(hires.steps or request.steps, hires.denoising_strength)
            passes.append(_Pass(second, *request.size_before_upscale))
        return passes

    def _begun(
        self, one: _Pass, requests: Sequence[ImageRequest], before: torch.Tensor | None
    ) -> _Begun:
        """What a pass begins with besides noise."""
        first = requests[0]
        canvases = read_canvases(self.job.start_images, requests, one.width, one.height)
        start = kept = None
        if before is None or first.mask:
            start = self._start_latents(canvases)
        if self.loaded.inpaints:
            kept = torch.cat([self._kept_latents(canvas, one) for canvas in canvases])
        if before is not None:
            assert first.hires is not None
            before = upscale(
                self.loaded.vae,
                before,
                first.hires.upscaler,
                one.width,
                one.height,
                self.enlarge,
                repeats=self._repeats(first),
            )
        return _Begun(canvases, start, before, kept)

    def _run(
        self,
        one: _Pass,
        requests: Sequence[ImageRequest],
        schedule: ConditionSchedule,
        begun: _Begun,
    ) -> Denoised:
        """One pass of a group's images."""
        size, second = (one.width, one.height), begun.before is not None
        hints, maps = hints_of(requests, begun.canvases, size, self.loaded, self.job, second=second)
        latents = self._steps(one, requests, schedule, begun, hints)
        return Denoised(latents, begun.canvases, maps, self._repeats(requests[0]))

    def _steps(
        self,
        one: _Pass,
        requests: Sequence[ImageRequest],
        schedule: ConditionSchedule,
        begun: _Begun,
        hints: Sequence[Hint],
    ) -> torch.Tensor:
        """From pure noise, from the start images or from the latents of the last pass."""
        sampler, request = one.sampler, requests[0]
        noise, generators = noise_of(requests, one.width, one.height)
        noise = noise.to(self.job.device)
        guide = self._guide(begun, noise)
        before = begun.before
        begin = before if before is not None else _visible(begun.start, request)
        if begin is None:
            latents: torch.Tensor = noise * sampler.scheduler.init_noise_sigma
        elif len(sampler.timesteps):
            latents = sampler.noised(begin, noise, sampler.timesteps[:1])
        else:
            return begin
        steps = len(sampler.timesteps)
        height, width = latents.shape[2:]
        unets = {}
        kinds = Counter(self._is_doubled(request, step / steps) for step in range(steps))
        for doubled, count in kinds.items():
            rows = len(requests) * (2 if doubled else 1)
            shape = Shape(rows, height, width, schedule.tokens, controlled=bool(hints))
            unets[doubled] = self.unet(shape, count)
        with self._threads_for(latents):
            return denoise(
                unets,
                sampler,
                latents,
                schedule,
                request,
                generators,
                guide,
                hints,
                self.on_step,
                self.job.interrupted,
                self.job.previewer,
            )

    @contextmanager
    def _threads_for(self, latents: torch.Tensor) -> Iterator[None]:
        """One thread for a small picture, until it is denoised.

        To share its short layers out takes longer than it saves (benchmarks/RESULTS.md).
        """
        threads = torch.get_num_threads()
        small = latents[:, 0].numel() <= (self.loaded.native_size // LATENT_FACTOR) ** 2
        if small and self.is_small:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)

    @property
    def is_small(self) -> bool:
        """Whether a core alone is no slower than several that share each layer out."""
        loaded = self.loaded
        small = loaded.native_size < LARGE_NATIVE_SIZE and loaded.unet.dtype == torch.float32
        return small and self.job.device.type == "cpu"

    def _is_doubled(self, request: ImageRequest, share: float) -> bool:
        """Whether images go through the UNet with and without their prompt."""
        return is_guided(request, share) and not self.loaded.embeds_guidance

    def _start_latents(self, canvases: Sequence[Canvas | None]) -> torch.Tensor | None:
        """The start images' latents; images of one batch all have one or none has."""
        encoded = [
            vaes.encode(self.loaded.vae, one.picture, self.job.device) for one in canvases if one
        ]
        return torch.cat(encoded) if encoded else None

    def _guide(self, begun: _Begun, noise: torch.Tensor) -> Guide:
        """What the steps keep of the start images, or show an inpainting UNet."""
        masks = [one.redrawn for one in begun.canvases if one and one.redrawn is not None]
        redrawn = None
        if masks:
            # A latent with one white pixel below it is redrawn; the pixels decide in the end.
            grey = torch.from_numpy(np.stack(masks)).to(self.job.device).float()[:, None] / 255
            redrawn = functional.max_pool2d(grey, LATENT_FACTOR)
        if begun.kept is None:
            return Guide(begun.start, noise, redrawn)
        shown = torch.ones_like(noise[:, :1]) if redrawn is None else redrawn
        return Guide(seen=torch.cat([shown, begun.kept], dim=1))

    def _kept_latents(self, canvas: Canvas | None, one: _Pass) -> torch.Tensor:
        """What an inpainting UNet gets of a start image: all but the mask, which is mid-grey."""
        seen = np.full((one.height, one.width, 3), 127.5, np.float32)
        if canvas and canvas.redrawn is not None:
            seen = np.where(canvas.redrawn[:, :, None] > 0, seen, canvas.picture)
        return vaes.encode(self.loaded.vae, seen, self.job.device)

    def _repeats(self, request: ImageRequest) -> bool:
        """Whether opposite edges have to be made to meet, since the VAE decodes in tiles."""
        return request.tiling and bool(self.loaded.vae.use_tiling)


def _picture(decoded: vaes.Decoded, canvas: Canvas | None) -> Picture:
    """The finished picture: only what its mask lets through."""
    array = decoded.pixels
    if decoded.flat and not (canvas and of_one_colour(canvas.picture)):
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
    """Every pixel equals the first, in all channels."""
    return bool((picture == picture[0, 0]).all())
