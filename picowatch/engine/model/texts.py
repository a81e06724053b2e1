"""How each family's texts are read, and what a checkpoint's text encoders made of them."""

import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from PIL import Image

from picowatch.engine.model.cache import Cache
from picowatch.engine.model.prompts import PromptEncoder, TextTower
from picowatch.engine.model.verify import Verified
from picowatch.engine.private import (
    execution_device,
    ideogram4_embeds,
    ideogram4_inputs,
    lumina2_embeds,
)
from picowatch.families.row import Family, Reading, Variant

# A pipeline's arguments in place of prompts: tensors or lists, a row or an entry for each image.
Encoded = Mapping[str, Any]
Parts = Mapping[str, Any]  # a checkpoint's, by diffusers' names


def _by_pipeline(reading: Reading, pipeline: Any, prompt: str) -> Encoded:
    found = pipeline.encode_prompt(prompt, **reading.options)
    return {name: embeds for name, embeds in zip(reading.results, found, strict=False) if name}


# The ways of `Reading.encode`. Pipelines without a row encode prompts themselves.
_ENCODE: Mapping[str, Callable[[Reading, Any, str], Encoded]] = {
    "pipeline": _by_pipeline,
    "blocks": lambda _, pipeline, prompt: pipeline.encode_prompt(prompt),
    "ernie": lambda _, pipeline, prompt: {
        "prompt_embeds": pipeline.encode_prompt(prompt, execution_device(pipeline))
    },
    "lumina2": lambda _, pipeline, prompt: lumina2_embeds(pipeline, prompt),
    "ideogram4": lambda _, pipeline, prompt: {"prompt_embeds": ideogram4_embeds(pipeline, prompt)},
    "later": lambda _, __, prompt: {"prompt": [prompt]},
}


def _length(tokenizer: Any, prompt: str) -> int:
    return len(tokenizer(prompt)["input_ids"])


def _flux2_dev_tokens(tokenizer: Any, prompt: str) -> int:
    """Count the tokens of a prompt together with the instruction that its pipeline adds."""
    from diffusers.pipelines.flux2 import pipeline_flux2 as flux2

    messages = flux2.format_input([prompt], flux2.SYSTEM_MESSAGE)
    return len(tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"][0])


def _longcat_tokens(tokenizer: Any, prompt: str) -> int:
    """Count the tokens of a prompt, of which quotations are read letter by letter."""
    from diffusers.pipelines.longcat_image.pipeline_longcat_image import split_quotation

    parts = split_quotation(prompt)
    pieces = (piece for part, quoted in parts for piece in (part if quoted else [part]))
    return sum(len(tokenizer(piece, add_special_tokens=False)["input_ids"]) for piece in pieces)


_COUNT: Mapping[str, Callable[[Any, str], int]] = {
    "tokenizer": _length,
    "processor": lambda processor, prompt: _length(processor.tokenizer, prompt),
    "flux2_dev": _flux2_dev_tokens,
    "longcat": _longcat_tokens,
}


def _scaled(pipeline: Any, pictures: Sequence[Image.Image], reading: Reading) -> list[Any]:
    """Return the pictures as the pipeline scales them for its text encoder: to an area."""
    module = sys.modules[type(pipeline).__module__]  # importing it here would take 0.1 s
    area, found = getattr(module, "CONDITION_IMAGE_SIZE", 1024 * 1024), []
    for picture in pictures:
        width, height, *_ = module.calculate_dimensions(area, picture.width / picture.height)
        scaled = pipeline.image_processor.resize(picture, height, width)
        if reading.halves:
            scaled = pipeline.image_processor.resize(scaled, height // 2, width // 2)
        found.append(scaled)
    return found


def answer(reading: Reading, pipeline: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """Let a pipeline's own `encode_prompt` return the embeddings in `inputs`; return the others."""
    names = ("prompt_embeds", "negative_prompt_embeds")
    embeds, own = [inputs[name] for name in names if name in inputs], pipeline.encode_prompt
    given = iter(embeds)  # it is called for the prompt, then for the negative prompt

    def encode(*_: Any, grid_h: int = 0, grid_w: int = 0, **__: Any) -> list[torch.Tensor]:
        found = next(given)
        if reading.encode == "ideogram4":
            return ideogram4_inputs(pipeline, found, grid_h, grid_w)
        return [result.to(found.device) for result in own([""] * len(found), prompt_embeds=found)]

    pipeline.encode_prompt = encode
    others = {name: value for name, value in inputs.items() if name not in names}
    if reading.encode == "ideogram4":
        others["max_sequence_length"] = embeds[0].shape[1]
    return {"prompt": [""] * len(embeds[0]), **others}


def reading_of(row: Family, variant: Variant) -> Reading:
    if most := variant.tokens:
        told = {**row.texts.options, "max_sequence_length": most}
        return replace(row.texts, options=told, reads=dict.fromkeys(row.texts.reads, most))
    return row.texts


@dataclass(eq=False)
class Texts:
    """What a checkpoint's text encoders made of texts."""

    reading: Reading
    _parts: Parts  # those in memory
    _pipeline: Callable[[str], Any]  # makes a pipeline of them
    _bring: Callable[[], None]  # restores the encoders
    _verified: Verified  # opens embeddings
    _device: torch.device
    _cache: Cache  # keeps the results of this checkpoint
    _checkpoint: Hashable
    loras: Hashable = ()  # those that change what the encoders make of a text

    @cached_property
    def prompts(self) -> PromptEncoder:
        towers = [TextTower(self._parts[part], **own) for part, own in self.reading.towers.items()]
        words, zeros = self._parts["tokenizer"], self.reading.zeros
        return PromptEncoder(words, towers, self._verified, self._device, self._encoded_once, zeros)

    def encoded(self, text: str) -> Encoded:
        """Return the embeddings of a text for a transformer."""
        encode, text = _ENCODE[self.reading.encode], self._cut(text)
        found: Encoded = self._encoded_once(
            text, lambda: encode(self.reading, self._pipeline("text"), text)
        )
        return found

    def length(self, text: str) -> tuple[int, int]:
        """Return the number of tokens of a text, and the limit of the text encoder."""
        reads, parts = self.reading.reads, self._parts
        name = next(tokenizer for tokenizer in reads if parts.get(tokenizer))
        tokens = _COUNT[self.reading.count](parts[name], text)
        return tokens, reads[name] or parts[name].model_max_length

    def _cut(self, text: str) -> str:
        """Return what is read of a text: some of these pipelines fail for a longer text."""
        while self.reading.answers and (over := int.__sub__(*self.length(text))) > 0:
            text = text[: -max(1, over // 4)]  # a character has four tokens at most
        return text

    def read_with(self, text: str, pictures: Sequence[Image.Image], hashes: tuple[str, ...]) -> Any:
        """Return the result of the editing pipeline's `encode_prompt` for a text and pictures."""
        seen = (hashes, tuple(picture.size for picture in pictures))  # in the size of the picture
        text = self._cut(text)
        key = text, seen if self.reading.sees else len(hashes)

        def read() -> Any:
            # FLUX.2 klein KV's for edits would change the transformer, which may not be in memory.
            pipeline = self._pipeline("edit" if self.reading.sees else "text")
            looks = (
                {"image": _scaled(pipeline, pictures, self.reading)} if self.reading.sees else {}
            )
            return pipeline.encode_prompt(prompt=[text], **looks)

        return self._encoded_once(key, read)

    def _encoded_once(self, key: Hashable, encode: Callable[[], Any]) -> Any:
        """Return a kept result, or bring the text encoders and make it now."""

        def read() -> Any:
            self._bring()
            return encode()

        return self._cache.encoded(("text", self._checkpoint, self.loras, key), read)
