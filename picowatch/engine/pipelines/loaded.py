"""A pipeline of diffusers in memory, and the pictures that it draws."""

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from picowatch.engine.drawn import Drawn, Interrupted, Job, Picture, timed
from picowatch.engine.memory.ladder import Rung
from picowatch.engine.models.loaded import Placed
from picowatch.engine.models.offload import send_back
from picowatch.engine.models.weights import has_weights
from picowatch.engine.pipelines.coding import decoded, encoded, undecoded
from picowatch.engine.pipelines.family import Encoded, Family
from picowatch.engine.pipelines.samplers import scheduler_for
from picowatch.engine.previewer import FlowPreview
from picowatch.engine.unet.canvas import RESAMPLING, Canvas, read_canvases
from picowatch.engine.unet.draw import of_one_colour
from picowatch.engine.unet.latents import Decoded
from picowatch.engine.unet.loras import Loras
from picowatch.engine.unet.noise import generators_for, numbers_of
from picowatch.errors import EngineStopped, RenderFailed
from picowatch.families import EULER
from picowatch.recipe.prompts.grammar import plain_prompt, without_weights
from picowatch.recipe.request import ImageRequest

_KEPT_PROMPTS = 64
# Where the VAE makes room for the transformer.
_VAE_TAKES_TURNS = ("model", "encoder layers")
_BEFORE_TAG = re.compile(r"\s+(?=<lora:)")


class _Start(NamedTuple):
    """What a pass starts from: a picture, perhaps with a mask, and how far to move from it."""

    pictures: list[Image.Image]
    masks: list[Image.Image]
    strength: float


class _Group(NamedTuple):
    """Images that go through the transformer together, and what guides them."""

    requests: list[ImageRequest]
    conditions: Encoded


@dataclass
class LoadedPipeline(Placed):
    """A checkpoint's parts by the pipeline's names, ready to compute; see `Loaded`."""

    family: str
    rules: Family
    components: dict[str, Any]
    loras: Loras
    native_size: int
    interruption: "Interruption"
    read_part: Callable[[str], None]
    rung: Rung | None = None
    _cast: bool = False
    _prompts: OrderedDict[str, Encoded] = field(default_factory=OrderedDict)

    @property
    def vae(self) -> Any:
        """The VAE, None while another one is read."""
        return self.components.get("vae")

    @vae.setter
    def vae(self, vae: Any) -> None:
        if vae is not None:
            vae.enable_slicing()  # a picture does not depend on its neighbours
        self.components["vae"] = vae

    @property
    def turns(self) -> tuple[Sequence[Any], ...]:
        """See `Placed.turns`."""
        return self._encoders, (self.components["transformer"],), (self.vae,)

    @property
    def _encoders(self) -> list[Any]:
        return [self.components[name] for name in _encoder_names(self.components)]

    def suits(self, rung: Rung) -> bool:
        """Whether it can compute on this rung without being read again."""
        whole = all(has_weights(model) for model in self.models if model)
        return (rung.cast or not self._cast) and (whole or rung.offload == "disk")

    def cast_weights(self) -> None:
        """Keep the transformer's weights in 8 bits; each layer computes in the type it had.

        For good: they cannot be cast back. Text encoders stay, because some look at the type of
        their weights; so do the norms and embeddings that diffusers leaves out.
        """
        if not self._cast:
            self.components["transformer"].enable_layerwise_casting(
                storage_dtype=torch.float8_e4m3fn, compute_dtype=self.dtype
            )
            self._cast = True

    def read_again(self, model: Any) -> None:
        """See `Placed.read_again`."""
        self.read_part(next(name for name, part in self.components.items() if part is model))

    def encode_anew(self) -> None:
        """Forget encoded prompts: its text encoders have changed."""
        self._prompts.clear()

    def draw_batch(self, batch: Sequence[ImageRequest], job: Job) -> list[Drawn]:
        """The pictures of a batch, in its order.

        Those whose embeddings differ in their shape go through the transformer group after group.
        """
        self.interruption.interrupted = job.interrupted
        job.previewer.follow(self.vae, self.family)
        with timed(job.timings, "encode"):
            conditions = [self._conditions(request) for request in batch]
            if self.rung and self.rung.offload == "encoders":
                for encoder in self._encoders:
                    send_back(encoder)
        indexes: dict[tuple[object, ...], list[int]] = {}
        for index, given in enumerate(conditions):
            indexes.setdefault((_shapes(given), index if job.alone else 0), []).append(index)
        groups = [
            _Group([batch[one] for one in of_group], _joined([conditions[one] for one in of_group]))
            for of_group in indexes.values()
        ]
        numbers, total = count(1), len(groups) * sum(_steps(batch[0]))
        pictures = self._draw(groups, job, lambda: job.on_step(next(numbers), total))
        drawn: dict[int, Drawn] = {}
        for of_group, found in zip(indexes.values(), pictures, strict=True):
            for index, picture in zip(of_group, found, strict=True):
                warnings = tuple(self._unread(batch[index]))
                drawn[index] = Drawn(picture, 1, len(of_group), warnings=warnings)
        return [drawn[index] for index in range(len(batch))]

    def _conditions(self, request: ImageRequest) -> Encoded:
        """The encoded prompt, and with guidance the negative one."""
        found = dict(self._encoded(self._text(request)))
        if request.cfg_scale > 1:
            negative = self._encoded(_words(request.negative_prompt))
            found |= {f"negative_{name}": value for name, value in negative.items()}
        return found

    def _text(self, request: ImageRequest) -> str:
        """What the text encoder reads as the prompt."""
        return self.rules.preamble + _words(request.prompt)

    def _encoded(self, text: str) -> Encoded:
        """One prompt, from memory if it was encoded before."""
        if text not in self._prompts:
            while len(self._prompts) >= _KEPT_PROMPTS:
                self._prompts.popitem(last=False)
            self._prompts[text] = self.rules.encode(self._pipeline(self.rules.from_text), text)
        self._prompts.move_to_end(text)
        return self._prompts[text]

    def _unread(self, request: ImageRequest) -> Iterator[str]:
        """A warning for each prompt that the text encoder did not read to its end."""
        texts = {"prompt": self._text(request)}
        if request.cfg_scale > 1:
            texts["negative prompt"] = _words(request.negative_prompt)
        for name, text in texts.items():
            tokens, most = self.rules.length(self.components, text)
            if tokens > most:
                yield (
                    f"The {name} has {tokens} tokens: its end was ignored, because this checkpoint "
                    f"reads {most}."
                )

    def _pipeline(self, kind: Any, sampler: str = EULER) -> Any:
        """A pipeline of this class with the parts that are in memory."""
        scheduler = scheduler_for(sampler, self.components["scheduler"])
        parts = {**dict.fromkeys(self.rules.optional), **self.components, "scheduler": scheduler}
        pipeline = kind(**parts, **self.rules.options)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _draw(
        self, groups: Sequence[_Group], job: Job, on_step: Callable[[], None]
    ) -> list[list[Picture]]:
        """The pictures of each group, in one or two passes."""
        first = groups[0].requests[0]
        size = (first.width, first.height)
        canvases = [read_canvases(job.start_images, group.requests, *size) for group in groups]
        strength = first.denoising_strength
        starts = [_start_of(each, strength) if first.image else None for each in canvases]
        pixels = self._pass(groups, starts, size, first.steps, job, on_step)
        hires = first.hires
        if hires:
            size = first.size_before_upscale
            canvases = [read_canvases(job.start_images, group.requests, *size) for group in groups]
            by_model = job.enlarge_for_hires(first)
            starts = [
                _Start(
                    [
                        by_model(one) if by_model else one.resize(size, RESAMPLING[hires.upscaler])
                        for one in (Image.fromarray(drawn.pixels) for drawn in of_group)
                    ],
                    _start_of(each, 1).masks if first.image else [],
                    hires.denoising_strength,
                )
                for of_group, each in zip(pixels, canvases, strict=True)
            ]
            pixels = self._pass(groups, starts, size, hires.steps or first.steps, job, on_step)
        return [
            [_picture(one, canvas) for one, canvas in zip(of_group, each, strict=True)]
            for of_group, each in zip(pixels, canvases, strict=True)
        ]

    def _pass(
        self,
        groups: Sequence[_Group],
        starts: Sequence[_Start | None],
        size: tuple[int, int],
        steps: int,
        job: Job,
        on_step: Callable[[], None],
    ) -> list[list[Decoded]]:
        """One pass of all groups.

        All start images are encoded before the first group is denoised, and all groups are denoised
        before the first is decoded: models that take turns on a GPU go there once.
        """
        start = starts[0]
        if start and not start.strength:
            return [[_as_decoded(one) for one in each.pictures] for each in starts if each]
        with timed(job.timings, "denoise"):
            runs = [
                self._run(group, start, size, steps, job, on_step)
                for group, start in zip(groups, starts, strict=True)
            ]
            codings: list[Sequence[Any] | None] = [None] * len(runs)
            if start and len(runs) > 1 and self.rung and self.rung.offload in _VAE_TAKES_TURNS:
                transformer = self.components["transformer"]
                codings = [encoded(self.vae, transformer, run) for run in runs]
            latents = [undecoded(self.vae, *one) for one in zip(runs, codings, strict=True)]
        with timed(job.timings, "decode"):
            return decoded(self.vae, latents, size)

    def _run(
        self,
        group: _Group,
        start: _Start | None,
        size: tuple[int, int],
        steps: int,
        job: Job,
        on_step: Callable[[], None],
    ) -> Callable[[], object]:
        """A run of a pipeline, from its beginning each time."""
        request = group.requests[0]
        kind, inputs = self._inputs(start, size)
        preview = FlowPreview(job.previewer, *size)

        def after_step(pipeline: Any, _: int, __: Any, kept: dict[str, Any]) -> dict[str, Any]:
            on_step()
            self.interruption.check()
            preview.after_step(pipeline.scheduler, kept["latents"])
            return {}

        def run() -> None:
            pipeline = self._pipeline(kind, request.sampler)
            generators = generators_for(group.requests)  # anew in each pass, as in A1111
            with numbers_of(generators):
                pipeline(
                    **group.conditions,
                    **inputs,
                    **self.rules.guidance(request),
                    width=size[0],
                    height=size[1],
                    num_inference_steps=steps,
                    generator=generators,
                    callback_on_step_end=after_step,
                    output_type="np",
                )

        return run

    def _inputs(self, start: _Start | None, size: tuple[int, int]) -> tuple[Any, dict[str, Any]]:
        """The pipeline's class for a pass, and what it starts from by its names."""
        if start is None:
            return self.rules.from_text, {}
        masks = start.masks
        if not self.rules.from_image and not masks:
            masks = [Image.new("L", size, "white")] * len(start.pictures)
        inputs = {"image": start.pictures, "strength": start.strength}
        if masks:
            return self.rules.from_mask, inputs | {"mask_image": masks}
        return self.rules.from_image, inputs


class Interruption:
    """Ends a batch within a step: blocks of layers look here before they compute."""

    def __init__(self, *models: Any) -> None:
        self.interrupted: Interrupted = lambda: False
        for model in models:
            for module in model.modules():
                if isinstance(module, torch.nn.ModuleList):
                    for block in module:
                        block.register_forward_pre_hook(self._before_block)

    def check(self) -> None:
        """Raise EngineStopped if the batch is to end."""
        if self.interrupted():
            raise EngineStopped("The batch was interrupted.")

    def _before_block(self, *_: Any) -> None:
        self.check()


def _encoder_names(components: dict[str, Any]) -> list[str]:
    return sorted(name for name in components if name.startswith("text_encoder"))


def _words(prompt: str) -> str:
    """What a text encoder of words reads. Unlike CLIP, it also reads the space around LoRA tags."""
    return without_weights(plain_prompt(_BEFORE_TAG.sub("", prompt))).strip()


def _shapes(encoded: Encoded) -> tuple[object, ...]:
    """Equal for embeddings that can go through a transformer together."""
    return tuple(
        tuple(value.shape) for value in encoded.values() if isinstance(value, torch.Tensor)
    )


def _joined(conditions: Sequence[Encoded]) -> Encoded:
    """The embeddings of several images, a row or an entry for each."""
    joined: dict[str, Any] = {}
    for name, first in conditions[0].items():
        values: list[Any] = [encoded[name] for encoded in conditions]
        if isinstance(first, torch.Tensor):
            joined[name] = torch.cat(values)
        else:
            joined[name] = [entry for entries in values for entry in entries]
    return joined


def _steps(request: ImageRequest) -> tuple[int, ...]:
    """The steps of each pass: diffusers rounds the strength's share up."""
    first = request.denoising_strength if request.image else 1.0
    passes = [(request.steps, first)]
    if request.hires:
        passes.append((request.hires.steps or request.steps, request.hires.denoising_strength))
    return tuple(steps - int(steps - steps * strength) for steps, strength in passes)


def _start_of(canvases: Sequence[Canvas | None], strength: float) -> _Start:
    found = [canvas for canvas in canvases if canvas]
    return _Start(
        [Image.fromarray(canvas.picture) for canvas in found],
        [Image.fromarray(canvas.redrawn) for canvas in found if canvas.redrawn is not None],
        strength,
    )


def _as_decoded(picture: Image.Image) -> Decoded:
    """A picture that no step changes."""
    pixels = np.asarray(picture)
    return Decoded(pixels, of_one_colour(pixels))


def _picture(one: Decoded, canvas: Canvas | None) -> Picture:
    """One picture, the start image pasted over what its mask keeps."""
    array = one.pixels
    if one.flat and not (canvas and of_one_colour(canvas.picture)):
        raise RenderFailed(
            "The picture came out as one single colour, which means that the checkpoint overflowed "
            "or is damaged.",
            "Set precision: bfloat16 or float32; if that does not help, get the checkpoint again.",
        )
    pixels = canvas.paste(array.tobytes()) if canvas else array.tobytes()
    return Picture(array.shape[1], array.shape[0], pixels)
