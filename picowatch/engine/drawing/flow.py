"""Draws with a transformer, by a pipeline of diffusers that makes the noise and decodes."""

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from PIL import Image

from picowatch.engine.drawing.callbacks import FlowSteps
from picowatch.engine.drawing.draw import Drawn, Group, Passes, Prompted
from picowatch.engine.drawing.latents import as_picture, generators_for
from picowatch.engine.drawing.preview import FlowPreview
from picowatch.engine.drawing.step_cache import cached
from picowatch.engine.model.families import guidance_inputs, pipeline_class, takes, words
from picowatch.engine.model.flow_samplers import scheduler_for
from picowatch.engine.model.texts import SHORT, Encoded
from picowatch.recipe.passes import Pass, passes_of
from picowatch.recipe.request import ImageRequest


class FlowPasses(Passes):
    """Passes with a transformer: conditions are an `Encoded`, and the results are pictures."""

    def encode(self, request: ImageRequest) -> Prompted:
        """Implement `Passes.encode`; images share a call only if no text has to be padded."""
        conditions: dict[str, Any] = {}
        for name, text in self._texts(request).items():
            prefix = name.removesuffix("prompt")
            encoded = self.loaded.texts.encoded(text)
            conditions |= {f"{prefix}{key}": value for key, value in encoded.items()}
        key = tuple(_listed(value) for value in conditions.values())
        return Prompted(key, conditions, warnings=self._warnings(request))

    def _texts(self, request: ImageRequest) -> dict[str, str]:
        """Return the texts to encode: `prompt`, and with guidance `negative_prompt`."""
        reader = self.loaded.texts.reader
        texts = {"prompt": reader.preamble + (words(request.prompt) or reader.empty)}
        negative = words(request.negative_prompt) or reader.empty
        # A short family's pipeline has its own default.
        if request.cfg_scale > 1 and (negative or reader is not SHORT):
            texts["negative_prompt"] = negative
        return texts

    def evaluations(self, request: ImageRequest) -> int:
        """Implement `Passes.evaluations`: diffusers rounds the strength's share of the steps up."""
        passes = passes_of(request)
        return sum(one.steps - int(one.steps - one.steps * one.strength) for one in passes)

    def _warnings(self, request: ImageRequest) -> tuple[str, ...]:
        """Return a warning for each prompt that the text encoder does not read to its end."""
        reader = self.loaded.texts.reader
        if not reader.reads:
            return ()
        found: list[str] = []
        for name, text in self._texts(request).items():
            tokens, most = reader.length(self.loaded.weights.parts, text)
            if tokens > most:
                found.append(
                    f"The {name.replace('_', ' ')} has {tokens} tokens: its end was ignored, "
                    f"because this checkpoint reads {most}."
                )
        return tuple(found)

    def run(self, group: Group, one: Pass, before: list[Image.Image] | None) -> list[Image.Image]:
        self.loaded.bring_denoiser()
        if before:
            start = list(map(self.job.enlarge_for_hires(group.requests[0]), before))
        else:
            start = [canvas.picture for canvas in group.canvases if canvas]
        if start and not one.strength:
            return start
        kind, inputs = self._inputs(start, group, one)
        return self._call(kind, group, one, one.size, _joined(group.conditions) | inputs)

    def _call(
        self,
        kind: str,
        group: Group,
        one: Pass,
        size: tuple[int, int],
        inputs: dict[str, Any],
        read: Sequence[Any] = (),
    ) -> list[Image.Image]:
        """Call a pipeline for this size; texts that were `read` before are not encoded again."""
        first, row, variant = group.requests[0], self.loaded.row, self.loaded.variant
        steps = FlowSteps(
            self,
            preview=FlowPreview(self.job.previewer, *size),
            has_callback=takes(pipeline_class(row, variant, kind).__call__, "callback_on_step_end"),
        )
        if one.steps != variant.defaults["steps"]:
            inputs |= row.inputs_at_other_steps
        own = self.loaded.weights.parts["scheduler"]
        used = (one.name.casefold() for one in first.loras if one.weight)
        if row.lightning and any("lightning" in name for name in used):
            own = own.from_config(own.config, **row.lightning)
        scheduler = scheduler_for(first.sampler, own)
        pipeline = self.loaded.weights.pipeline(kind, transformer=steps, scheduler=scheduler)
        if read:
            # Called for the prompt, then for the negative one: text encoders need not be in memory,
            # and encode each text with its pictures once.
            answers = iter(read)
            pipeline.encode_prompt = lambda *_, **__: next(answers)
        with cached(steps, self.loaded.denoiser) if self.job.cached else nullcontext():
            found: torch.Tensor = pipeline(
                **inputs,
                **steps.inputs(),
                **row.inputs,
                **guidance_inputs(row, variant, first),
                width=size[0],
                height=size[1],
                num_inference_steps=one.steps,
                # New ones in each pass, as in A1111.
                generator=generators_for(group.requests, self.job.device),
                output_type="pt",
                return_dict=False,
            )[0]
        return list(map(as_picture, found.float()))

    def decode(self, result: list[Image.Image]) -> list[Drawn]:
        """Implement `Passes.decode`; the pipelines have decoded already."""
        return list(map(Drawn, result))

    def _inputs(
        self, start: list[Image.Image], group: Group, one: Pass
    ) -> tuple[str, dict[str, Any]]:
        """Return the kind of pipeline for a pass, and its arguments for start images and masks.

        A family without a pipeline for start images redraws all of one with a white mask; one
        without a pipeline for masks draws all of a detail's part.
        """
        if not start:
            return "text", {}
        masks = [canvas.redrawn for canvas in group.canvases if canvas and canvas.redrawn]
        able = partial(pipeline_class, self.loaded.row, self.loaded.variant)
        if not masks and able("image") is None:
            masks = [Image.new("L", one.size, "white")] * len(start)
        inputs: dict[str, Any] = {"image": start, "strength": one.strength}
        if masks and able("mask"):
            return "mask", inputs | {"mask_image": masks}
        return "image", inputs


def _listed(value: Any) -> object:
    """Return texts as they are, and the shapes of tensors in lists."""
    if isinstance(value, list):
        return tuple(map(_listed, value))
    return tuple(value.shape) if isinstance(value, torch.Tensor) else value


def _joined(conditions: Sequence[Encoded]) -> dict[str, Any]:
    """Join the conditions of several images: a row or an entry for each."""
    joined: dict[str, Any] = {}
    for name, first in conditions[0].items():
        values: list[Any] = [encoded[name] for encoded in conditions]
        if isinstance(first, torch.Tensor):
            joined[name] = torch.cat(values)
        else:
            joined[name] = [entry for entries in values for entry in entries]
    return joined
