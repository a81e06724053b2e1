"""Draws with a transformer, by a pipeline of diffusers that makes the noise and decodes.

A pipeline applies every reference in a call to every prompt, so each image with references gets its
own call (diffusers 0.42; docs/design.md). All prompts of a batch are encoded before its first step,
so that text encoders are loaded once per batch where parts take turns in memory.

If a recipe's size has the first reference's proportions, which is the default, reference and
picture share one grid: both are scaled or padded to a size that the model takes, and the result is
scaled back to the size of the recipe. Two different grids would move and zoom the contents of the
picture (QwenLM/Qwen-Image #229).
"""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from hashlib import sha256
from math import ceil, sqrt
from typing import Any, NamedTuple

import torch
from PIL import Image

from picowatch.engine.drawing.callbacks import CachedSteps, FlowSteps, restored
from picowatch.engine.drawing.canvas import Size, decoded, fit, padded
from picowatch.engine.drawing.draw import Denoising, Group, Prompted
from picowatch.engine.drawing.latents import as_picture, generators_for, resized
from picowatch.engine.drawing.work import Drawn
from picowatch.engine.model import families
from picowatch.engine.model.samplers import flow_scheduler
from picowatch.engine.private import AUTO_RESIZE
from picowatch.errors import RenderFailed
from picowatch.families.row import References
from picowatch.files.decoding import Original, decode_picture, decode_with_alpha, on_white
from picowatch.recipe.passes import Sampling
from picowatch.recipe.request import ImageRequest


class FlowDenoising(Denoising):
    """Denoising with a transformer: conditions are an `Encoded`, and the results are pictures."""

    def encode(self, request: ImageRequest) -> Prompted:
        """Implement `Denoising.encode`; images share a call only if no text has to be padded."""
        texts, conditions = self._texts(request), dict[str, Any]()
        for name, text in texts.items():
            prefix = name.removesuffix("prompt")
            encoded = self.loaded.texts.encoded(text)
            conditions |= {f"{prefix}{key}": value for key, value in encoded.items()}
        key = tuple(_listed(value) for value in conditions.values())
        return Prompted(key, conditions, warnings=self._warnings(texts))

    def _texts(self, request: ImageRequest) -> dict[str, str]:
        """Return the texts to encode: `prompt`, and with guidance `negative_prompt`."""
        reading = self.loaded.texts.reading
        texts = {"prompt": reading.preamble + (families.words(request.prompt) or reading.empty)}
        negative = families.words(request.negative_prompt) or reading.empty
        row, able = self.loaded.row, "negative_prompt" not in self.loaded.row.lacks
        # A pipeline without a row has its own default.
        if request.cfg_scale > 1 and able and (negative or row.kind != "general"):
            texts["negative_prompt"] = negative
        return texts

    def steps(self, sampling: Sampling) -> int:
        """Implement `Denoising.steps`: diffusers rounds the strength's share of the steps up."""
        return sampling.steps - int(sampling.steps - sampling.steps * sampling.strength)

    def _warnings(self, texts: Mapping[str, str]) -> tuple[str, ...]:
        """Return a warning for each prompt that the text encoder does not read to its end."""
        if not self.loaded.texts.reading.reads:
            return ()
        lengths = ((name, *self.loaded.texts.length(text)) for name, text in texts.items())
        return tuple(
            f"The {name.replace('_', ' ')} has {tokens} tokens: its end was ignored, because this "
            f"checkpoint reads {most}."
            for name, tokens, most in lengths
            if tokens > most
        )

    def run(self, group: Group, sampling: Sampling, before: list[Image.Image]) -> list[Image.Image]:
        self.loaded.bring_denoiser()
        if hires := before and group.requests[0].hires:
            start = [resized(picture, hires.upscaler, sampling.size) for picture in before]
        else:
            start = [canvas.picture for canvas in group.canvases if canvas]
        if start and not sampling.strength:
            return start
        conditions = group.conditions
        inputs = {name: _joined([every[name] for every in conditions]) for name in conditions[0]}
        kind = "text"
        if start:
            masks = [canvas.redrawn for canvas in group.canvases if canvas and canvas.redrawn]
            able = partial(families.pipeline_class, self.loaded.row, self.loaded.variant)
            if not masks and able("image") is None:  # all of the start images is redrawn
                masks = [Image.new("L", sampling.size, "white")] * len(start)
            inputs |= {"image": start, "strength": sampling.strength}
            kind = "image"  # without a pipeline for masks, all of a detail's part
            if masks and able("mask"):
                kind, inputs["mask_image"] = "mask", masks
        return self._call(kind, group, sampling, inputs)

    def _call(
        self, kind: str, group: Group, sampling: Sampling, inputs: dict[str, Any], read: Any = ()
    ) -> list[Image.Image]:
        """Call a pipeline; texts that were `read` before are not encoded again."""
        first, size = group.requests[0], sampling.size
        row, variant = self.loaded.row, self.loaded.variant
        call = families.pipeline_class(row, variant, kind).__call__
        steps = (CachedSteps if self.job.cached else FlowSteps)(self)
        guidance = families.guidance_inputs(row, first, self.steps(sampling))
        inputs |= {name: value for name, value in guidance.items() if families.takes(call, name)}
        has_other_steps = sampling.steps != variant.defaults["steps"]
        if has_other_steps and families.takes(call, "intermediate_timesteps"):
            # Sana-Sprint's noise level between two steps; with more or fewer it is refused.
            inputs["intermediate_timesteps"] = None
        pipeline = self.loaded.parts.pipeline(
            kind, transformer=steps, scheduler=steps.watched(self._scheduler(first), size)
        )
        if read:
            # Called for the prompt, then for the negative: text encoders need not be in memory,
            # and encode each text with its pictures once.
            answers = iter(read)
            pipeline.encode_prompt = lambda *_, **__: next(answers)
        elif self.loaded.texts.reading.answers:
            inputs = families.answer(self.loaded.texts.reading, pipeline, inputs)
        if not (variant.references and variant.references.alone):
            inputs |= {"width": size[0], "height": size[1], **row.inputs}
        with restored(self.loaded.denoiser) if self.job.cached else nullcontext():
            found: torch.Tensor = pipeline(
                **inputs,
                num_inference_steps=sampling.steps,
                # New generators in each pass, as in A1111.
                generator=generators_for(group.requests, self.job.device),
                output_type="pt",
                return_dict=False,
            )[0]
        pictures = list(map(as_picture, found.float()))
        if pictures[0].size != size:  # one of the few sizes of a pipeline without a row
            made, asked = (f"{width}x{height}" for width, height in (pictures[0].size, size))
            says = f"{first.checkpoint}'s pipeline drew {made} instead of {asked}."
            raise RenderFailed(says, f"Write 'size: {made}'.")
        return pictures

    def _scheduler(self, request: ImageRequest) -> Any:
        """Return the scheduler of the recipe's sampler; Lightning LoRAs change its schedule."""
        own, lightning = self.loaded.parts.by_name["scheduler"], self.loaded.row.lightning
        used = (lora.name.casefold() for lora in request.loras if lora.weight)
        if lightning and any("lightning" in name for name in used):
            own = own.from_config(own.config, **lightning)
        return flow_scheduler(request.sampler, own)

    def decode(self, results: list[Image.Image]) -> list[Drawn]:
        """Implement `Denoising.decode`; the pipelines have decoded already."""
        return [Drawn(Original(picture)) for picture in results]


def _listed(value: Any) -> object:
    """Return texts as they are, and the shapes of tensors in lists."""
    if isinstance(value, list):
        return tuple(map(_listed, value))
    return tuple(value.shape) if isinstance(value, torch.Tensor) else value


def _joined(values: list[Any]) -> Any:
    """Join what several images have as one condition: a row or an entry for each."""
    if isinstance(values[0], torch.Tensor):
        return torch.cat(values)
    return [entry for entries in values for entry in entries]


_LEAST = 64  # FLUX.2 refuses smaller pictures (diffusers, flux2/image_processor.py)


class Frame(NamedTuple):
    """The size that a pipeline renders, and the part of it, from the top left, that is shown."""

    size: Size
    shown: Size

    def hold(self, picture: Image.Image) -> Image.Image:
        """Return a picture scaled to the shown part, its edges repeated up to the full size."""
        shown = fit(picture, self.shown, "stretch")
        return shown if self.size == self.shown else padded(shown, self.size, 0, 0)


def frame_for(size: Size, references: References) -> Frame:
    """Return the frame in which a family renders a picture of this size."""
    (width, height), multiple = size, references.multiple
    if references.stretched:
        # Must agree with calculate_dimensions of diffusers' pipeline_qwenimage_edit_plus.py and
        # pipeline_longcat_image_edit.py.
        wide = sqrt(references.area * (width / height))
        counts = [side / multiple for side in (wide, wide / (width / height))]
        sides = [ceil(count) if references.alone else max(1, round(count)) for count in counts]
        shown = sides[0] * multiple, sides[1] * multiple
        return Frame(shown, shown)
    scale = max(min(1.0, sqrt(references.area / (width * height))), _LEAST / min(size))
    shown = int(width * scale), int(height * scale)
    sides = [-(-side // multiple) * multiple for side in shown]
    return Frame((sides[0], sides[1]), shown)


class Edit(NamedTuple):
    """The references of an image in their frame, its texts, and the encoded texts."""

    frame: Frame
    pictures: list[Image.Image]
    texts: dict[str, str]
    read: list[Any]


class EditDenoising(FlowDenoising):
    """Denoising with references: an image's conditions are an `Edit`."""

    def encode(self, request: ImageRequest) -> Prompted:
        """Implement `Denoising.encode`; no images share a call."""
        is_part, hashes = request.mask_padding is not None, [use.hash for use in request.references]
        part = self.job.canvas_of(request, request.drawn_size) if is_part else None
        frame, pictures, told = self._references(request, part and part.picture)
        if part:
            hashes[0] = sha256(pictures[0].tobytes()).hexdigest()
        texts, read, seen = self._texts(request), [], tuple(hashes)
        if self.loaded.row.kind != "general":
            read = [self.loaded.texts.read_with(text, pictures, seen) for text in texts.values()]
        edit = Edit(frame, pictures, texts, read)
        return Prompted(object(), edit, warnings=self._warnings(texts) + told)

    def _references(
        self, request: ImageRequest, part: Image.Image | None
    ) -> tuple[Frame, list[Image.Image], tuple[str, ...]]:
        """Return an image's frame, its references as the family's pipeline takes them, warnings.

        A `part` replaces the first reference. RenderFailed if a picture is missing or damaged.
        """
        references, size = self.loaded.variant.references, request.drawn_size
        assert references
        frame, folder = frame_for(size, references), self.job.start_images
        decode = decode_with_alpha if references.alpha else decode_picture
        pictures = [decoded(decode, folder, use.hash, use.image) for use in request.references]
        if part:
            pictures[0] = part if references.alpha else on_white(part)
        if references.alpha:
            pictures = [picture.convert("RGBA") for picture in pictures]
        (wide, high), (width, height) = pictures[0].size, size
        in_place = abs(wide * height - high * width) <= max(wide, high, width, height)  # rounded
        if not references.stretched:
            small = tuple(
                f"The reference '{use.image}' has only {its.width}x{its.height} pixels, and is "
                "enlarged."
                for use, its in zip(request.references, pictures, strict=True)
                if min(its.size) < _LEAST
            )
            frames = [frame if in_place else frame_for(pictures[0].size, references)]
            frames += [frame_for(other.size, references) for other in pictures[1:]]
            held = [own.hold(picture) for own, picture in zip(frames, pictures, strict=True)]
            return frame, held, small
        if in_place:  # the pipeline scales each in its own proportions
            pictures[0] = fit(pictures[0], size, "stretch")
        elif references.alone:
            pictures[0] = fit(pictures[0], size, "fit")
            named = request.references[0].image
            says = f"The reference '{named}' has other proportions, and its edges are repeated."
            return frame, pictures, (says,)
        return frame, pictures, ()

    def run(self, group: Group, sampling: Sampling, before: list[Image.Image]) -> list[Image.Image]:
        self.loaded.bring_denoiser()
        ((frame, pictures, texts, read),) = group.conditions  # an `Edit`
        rules, (width, height) = self.loaded.variant.references, frame.size
        many = rules and rules.most > 1
        call = families.pipeline_class(self.loaded.row, self.loaded.variant, "edit").__call__
        # FLUX.1 Kontext takes only proportions from the size; the reference keeps its own.
        given: dict[str, Any] = {name: [text] for name, text in texts.items()}
        given |= {"max_area": width * height, AUTO_RESIZE: False}
        inputs = {name: value for name, value in given.items() if families.takes(call, name)}
        inputs |= {"image": pictures if many else pictures[0]}
        (drawn,) = self._call("edit", group, replace(sampling, size=frame.size), inputs, read)
        return [fit(drawn.crop((0, 0, *frame.shown)), sampling.size, "stretch")]
