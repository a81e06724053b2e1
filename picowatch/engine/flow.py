"""Draws with a transformer: families that diffusers' own pipelines know how to begin and to end."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from picowatch.engine.callbacks import FlowSteps
from picowatch.engine.canvas import RESAMPLING, Bytes, Canvas
from picowatch.engine.draw import Group, OnEvaluation, Pass, Passes
from picowatch.engine.families import (
    READERS,
    Encoded,
    Reader,
    guidance_inputs,
    pipeline_class,
    takes,
    words,
)
from picowatch.engine.flow_samplers import scheduler_for
from picowatch.engine.latents import Decoded
from picowatch.engine.noise import generators_for
from picowatch.engine.preview import FlowPreview
from picowatch.errors import RenderFailed
from picowatch.recipe.request import ImageRequest


class _Start(NamedTuple):
    """What a pass starts from: pictures, perhaps with masks."""

    pictures: list[Image.Image]
    masks: list[Image.Image]


class FlowPasses(Passes):
    """Draws with a transformer; see `Passes`. What guides an image is an `Encoded`."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._reader = READERS.get(self.loaded.row.key)

    def encode(self, batch: Sequence[ImageRequest]) -> list[Encoded]:
        """Implement `Passes.encode`: prompts, and with guidance the negative ones."""
        return [self._encoded(request) for request in batch]

    def _encoded(self, request: ImageRequest) -> Encoded:
        texts, reader = self._texts(request), self._reader
        if reader is None:
            # The pipeline reads prompts itself, and knows what stands for no negative one.
            return {name: [text] for name, text in texts.items() if text or name == "prompt"}
        found: dict[str, Any] = {}
        for name, text in texts.items():
            one = self.loaded.prompts.encoded(text, partial(self._read, reader, text))
            prefix = name.removesuffix("prompt")
            found |= {f"{prefix}{key}": value for key, value in one.items()}
        return found

    def _read(self, reader: Reader, text: str) -> Encoded:
        self.loaded.bring_encoders()
        with self.watched():
            return reader.encode(self.loaded.pipeline(), text, self.loaded.components.variant)

    def _texts(self, request: ImageRequest) -> dict[str, str]:
        """What the text encoder reads: `prompt`, and with guidance `negative_prompt`."""
        preamble = self._reader.preamble if self._reader else ""
        texts = {"prompt": preamble + words(request.prompt)}
        if request.cfg_scale > 1:
            texts["negative_prompt"] = words(request.negative_prompt)
        return texts

    def key(self, conditions: Encoded) -> object:
        """Implement `Passes.key`; texts that would be padded to one length must be equal."""
        return tuple(
            tuple(value.shape) if isinstance(value, torch.Tensor) else _listed(value)
            for value in conditions.values()
        )

    def evaluations(self, request: ImageRequest) -> int:
        """Implement `Passes.evaluations`: diffusers rounds the strength's share of the steps up."""
        strength = request.denoising_strength if request.image else 1.0
        passes = [(request.steps, strength)]
        if hires := request.hires:
            passes.append((hires.steps or request.steps, hires.denoising_strength))
        return sum(steps - int(steps - steps * strength) for steps, strength in passes)

    def warnings(self, request: ImageRequest) -> tuple[str, ...]:
        """Implement `Passes.warnings`: prompts that the text encoder did not read to their end."""
        found = []
        for name, text in self._texts(request).items() if self._reader else ():
            assert self._reader
            components = self.loaded.components
            tokens, most = self._reader.length(components.parts, text, components.variant)
            if tokens > most:
                found.append(
                    f"The {name.replace('_', ' ')} has {tokens} tokens: its end was ignored, "
                    f"because this checkpoint reads {most}."
                )
        return tuple(found)

    def run(
        self,
        group: Group,
        one: Pass,
        before: list[Decoded] | None,
        canvases: Sequence[Canvas | None],
        on_step: OnEvaluation,
    ) -> list[Decoded]:
        """Implement `Passes.run`."""
        first = group.requests[0]
        self.loaded.bring_denoiser()
        start = self._start(first, before, canvases)
        if start and not one.strength:
            return [_as_decoded(picture) for picture in start.pictures]
        row, variant = self.loaded.row, self.loaded.variant
        kind, inputs = self._inputs(start, one)
        has_callback = takes(pipeline_class(row, variant, kind).__call__, "callback_on_step_end")
        steps = FlowSteps(
            self.loaded.denoiser,
            self.job.compiled,
            on_step,
            FlowPreview(self.job.previewer, *one.size),
            self.job.interrupted,
            self.job.device,
            has_callback=has_callback,
        )
        scheduler = scheduler_for(first.sampler, self.loaded.components.parts["scheduler"])
        pipeline = self.loaded.pipeline(kind, transformer=steps, scheduler=scheduler)
        if steps.after_step:
            inputs["callback_on_step_end"] = steps.after_step
        if one.steps != variant.defaults["steps"]:
            inputs |= row.inputs_at_other_steps
        with self.watched():
            found: torch.Tensor = pipeline(
                **_joined(group.conditions),
                **inputs,
                **row.inputs,
                **guidance_inputs(row, variant, first),
                width=one.width,
                height=one.height,
                num_inference_steps=one.steps,
                # Anew in each pass, as in A1111.
                generator=generators_for(group.requests, self.job.device),
                output_type="pt",
                return_dict=False,
            )[0]
        return _decoded(found)

    def decode(self, result: list[Decoded]) -> list[Decoded]:
        """Implement `Passes.decode`: the pipelines have done so."""
        return result

    def _start(
        self,
        request: ImageRequest,
        before: list[Decoded] | None,
        canvases: Sequence[Canvas | None],
    ) -> _Start | None:
        """What a pass starts from, if not from noise alone: the pass before, or start images."""
        found = [canvas for canvas in canvases if canvas]
        masks = [Image.fromarray(each.redrawn) for each in found if each.redrawn is not None]
        if before is None:
            pictures = [Image.fromarray(each.picture) for each in found]
            return _Start(pictures, masks) if pictures else None
        assert request.hires is not None
        by_model = self.job.enlarge_for_hires(request)
        size, upscaler = request.size_before_upscale, request.hires.upscaler
        drawn = [Image.fromarray(each.pixels) for each in before]
        larger = [
            by_model(each) if by_model else each.resize(size, RESAMPLING[upscaler])
            for each in drawn
        ]
        return _Start(larger, masks)

    def _inputs(self, start: _Start | None, one: Pass) -> tuple[str, dict[str, Any]]:
        """Which of the family's pipelines a pass takes, and what it starts from by its names.

        A family without a pipeline for start images redraws all of one by a white mask.
        """
        if start is None:
            return "text", {}
        masks = start.masks
        if not self.loaded.has_pipeline("image") and not masks:
            masks = [Image.new("L", one.size, "white")] * len(start.pictures)
        inputs: dict[str, Any] = {"image": start.pictures, "strength": one.strength}
        if masks:
            return "mask", inputs | {"mask_image": masks}
        return "image", inputs


def _listed(value: Sequence[Any]) -> object:
    """Return texts as they are, and the shapes of tensors in a list."""
    return tuple(tuple(one.shape) if isinstance(one, torch.Tensor) else one for one in value)


def _joined(conditions: Sequence[Encoded]) -> dict[str, Any]:
    """What guides several images, a row or an entry for each."""
    joined: dict[str, Any] = {}
    for name, first in conditions[0].items():
        values: list[Any] = [encoded[name] for encoded in conditions]
        if isinstance(first, torch.Tensor):
            joined[name] = torch.cat(values)
        else:
            joined[name] = [entry for entries in values for entry in entries]
    return joined


def _decoded(images: torch.Tensor) -> list[Decoded]:
    """Pictures of a pipeline's images, 0 to 1, rows x RGB x height x width."""
    found = []
    for image in images.float():
        if not bool(torch.isfinite(image).all()):
            raise RenderFailed(
                "The picture came out as invalid numbers (NaN): the checkpoint overflowed.",
                "Set precision: bfloat16, or precision: float32.",
            )
        levels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
        pixels: Bytes = levels.cpu().numpy()
        # Plain black or white is cut off there, and may be what was asked for.
        colour = image[:, :1, :1]
        plain = bool(((colour == 0) | (colour == 1)).all())
        found.append(Decoded(pixels, not plain and bool((image == colour).all())))
    return found


def _as_decoded(picture: Image.Image) -> Decoded:
    """A picture that no step changes."""
    pixels = np.asarray(picture)
    return Decoded(pixels, bool((pixels == pixels[0, 0]).all()))
