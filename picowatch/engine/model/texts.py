"""How each family's texts are read, and what a checkpoint's text encoders made of them."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from PIL import Image

from picowatch.engine.model.prompts import PromptEncoder, TextTower
from picowatch.engine.model.verify import Verified
from picowatch.families import Family, Variant

# A pipeline's arguments in place of prompts: tensors with a row, or lists with an entry, for each
# image.
Encoded = Mapping[str, Any]
# A checkpoint's parts by diffusers' names.
Parts = Mapping[str, Any]
_KEPT = 32  # up to ten megabytes each


def _by_pipeline(reader: "Reader", pipeline: Any, prompt: str) -> Encoded:
    found = pipeline.encode_prompt(prompt, **reader.options)
    named = zip(reader.results, found, strict=False)
    return {name: embeds for name, embeds in named if name}


def _length(tokenizer: Any, prompt: str) -> int:
    return len(tokenizer(prompt)["input_ids"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """How a family's texts are read.

    `towers` are a UNet's text encoders, with what differs of each (TextTower); with `zeros` an
    empty negative prompt is zeros, not the encoded "".

    The others are for transformers. `encode` returns the embeddings of a prompt, given a pipeline,
    whose `encode_prompt` takes `options`; `results` name what it returns, "" to skip. `reads` are
    tokenizers, of which the first that a checkpoint has counts the tokens by `count`, and their
    limits: 0 is the one in the tokenizer's configuration; without tokenizers there is no limit.
    `preamble` is put before prompts, but not before negative ones; `empty` replaces an empty
    prompt.

    With references, the encoder `sees` them, or is only told their number and reads both prompts
    `at_once`.
    """

    towers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    zeros: bool = False
    encode: Callable[["Reader", Any, str], Encoded] = _by_pipeline
    options: Mapping[str, Any] = field(default_factory=dict)
    results: tuple[str, ...] = ("prompt_embeds",)
    reads: Mapping[str, int] = field(default_factory=lambda: {"tokenizer": 512})
    count: Callable[[Any, str], int] = _length
    preamble: str = ""
    empty: str = ""
    sees: bool = False
    at_once: bool = False

    def length(self, parts: Parts, prompt: str) -> tuple[int, int]:
        """Return the number of tokens of a prompt, and the limit of the text encoder."""
        name = next(one for one in self.reads if parts.get(one))
        return self.count(parts[name], prompt), self.reads[name] or parts[name].model_max_length

    def looks(self, pipeline: Any, pictures: Sequence[Image.Image]) -> Mapping[str, Any]:
        """Return the arguments for references of the editing pipeline's `encode_prompt`."""
        if self.sees:
            return {"image": _scaled(pipeline, pictures)}
        return {"num_condition_images": len(pictures), **_ALONE} if self.at_once else {}

    def answers(self, read: list[Any]) -> list[Any]:
        """Return what the pipeline's own calls of `encode_prompt` give for texts that were read."""
        if not self.at_once:
            return read
        return [(read[0][0], read[1][0] if len(read) > 1 else [])]


def _scaled(pipeline: Any, pictures: Sequence[Image.Image]) -> list[Any]:
    """Return the pictures as the pipeline scales them for its text encoder: to an area."""
    module = sys.modules[type(pipeline).__module__]  # importing it here would take 0.1 s
    area, found = getattr(module, "CONDITION_IMAGE_SIZE", 1024 * 1024), []
    for one in pictures:
        width, height, *_ = module.calculate_dimensions(area, one.width / one.height)
        found.append(pipeline.image_processor.resize(one, height, width))
    return found


# Encodes one prompt: the negative one is encoded by itself.
_ALONE = {"do_classifier_free_guidance": False}


def _by_ernie(_: Reader, pipeline: Any, prompt: str) -> Encoded:
    return {"prompt_embeds": pipeline.encode_prompt(prompt, pipeline._execution_device)}


def _by_lumina2(_: Reader, pipeline: Any, prompt: str) -> Encoded:
    # Its public method puts a preamble before every prompt (test_flows.py compares both).
    embeds, mask = pipeline._get_gemma_prompt_embeds(prompt)
    return {"prompt_embeds": embeds, "prompt_attention_mask": mask}


def _flux2_dev_tokens(tokenizer: Any, prompt: str) -> int:
    """Count the tokens of a prompt together with the instruction that its pipeline adds."""
    from diffusers.pipelines.flux2 import pipeline_flux2 as flux2

    messages = flux2.format_input([prompt], flux2.SYSTEM_MESSAGE)
    return len(tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"][0])


# The pipelines of short families encode prompts themselves.
SHORT = Reader(encode=lambda _, __, prompt: {"prompt": [prompt]}, reads={})
_CLIP = Reader(towers={"text_encoder": {}})
# The chat template has eight tokens.
_Z_IMAGE = Reader(options=_ALONE, reads={"tokenizer": 512 - 8})
_READERS = {
    "demo": _CLIP,
    "sd1": _CLIP,
    # OpenCLIP ViT-H, read at its last layer but one, with the final norm: diffusers' folders leave
    # the last layer out, so that this is the last one of 23. OpenCLIP pads with the token 0, "!".
    "sd2": Reader(towers={"text_encoder": {"padding": 0}}),
    # https://arxiv.org/abs/2307.01952: both are read at their last layer but one, without its norm.
    # Empty negative prompts are zeros, as in A1111 and in diffusers without one.
    "sdxl": Reader(
        towers={
            "text_encoder": {"least_skip": 2, "normed": False},
            "text_encoder_2": {"key": "clip_g", "padding": 0, "least_skip": 2, "normed": False},
        },
        zeros=True,
    ),
    "z_image": _Z_IMAGE,
    "z_image_omni": Reader(options=_ALONE, reads=_Z_IMAGE.reads, at_once=True),
    # CLIP gives only the pooled output, from the first 77 tokens.
    "flux": Reader(
        options={"max_sequence_length": 512},
        results=("prompt_embeds", "pooled_prompt_embeds"),
        reads={"tokenizer_2": 512},
    ),
    "flux2_dev": Reader(count=_flux2_dev_tokens),
    # The chat template begins with three tokens.
    "flux2": Reader(reads={"tokenizer": 512 - 3}),
    # A space where there is no negative prompt, as its card has it.
    "qwen_image": Reader(options={"max_sequence_length": 512}, empty=" ", sees=True),
    # Its tokenizer is the processor's, and its pipeline cuts no prompt off.
    "qwen_image_21": Reader(reads={}, sees=True),
    # The chat template ends with five tokens.
    "krea2": Reader(results=("prompt_embeds", "prompt_embeds_mask"), reads={"tokenizer": 512 - 5}),
    "ernie_image": Reader(encode=_by_ernie, reads={"tokenizer": 0}),
    # T5 reads further than CLIP; many omit it, since it is the largest part.
    "sd3": Reader(
        options={"prompt_2": None, "prompt_3": None, **_ALONE},
        results=("prompt_embeds", "", "pooled_prompt_embeds"),
        reads={"tokenizer_3": 256, "tokenizer": 77},
    ),
    "chroma": Reader(options=_ALONE, results=("prompt_embeds", "", "prompt_attention_mask")),
    "lumina2": Reader(
        # diffusers' default, which it writes before prompts, but not before negative ones.
        preamble=(
            "You are an assistant designed to generate superior images with the superior degree of "
            "image-text alignment based on textual prompts or user prompts. <Prompt Start> "
        ),
        encode=_by_lumina2,
        reads={"tokenizer": 256},
    ),
}


def reader_of(row: Family, variant: Variant) -> Reader:
    """Return how a checkpoint's texts are read."""
    reader = _READERS.get(row.key, SHORT)
    if most := variant.tokens:
        told = {**reader.options, "max_sequence_length": most}
        return replace(reader, options=told, reads=dict.fromkeys(reader.reads, most))
    return reader


class Texts:
    """What a checkpoint's text encoders made of texts.

    `parts` are those in memory, `pipeline` makes one of them, and `bring` restores the encoders.
    `verified` opens embeddings.
    """

    def __init__(
        self,
        reader: Reader,
        parts: Parts,
        pipeline: Callable[[str], Any],
        bring: Callable[[], None],
        verified: Verified,
        device: torch.device,
    ) -> None:
        self.reader = reader
        self._parts = parts
        self._pipeline = pipeline
        self._bring = bring
        self._verified = verified
        self._device = device
        self._kept: dict[object, Any] = {}
        self._loras: object = ()

    @cached_property
    def prompts(self) -> PromptEncoder:
        """The encoder of a UNet's prompts."""
        towers = [TextTower(self._parts[one], **own) for one, own in self.reader.towers.items()]
        return PromptEncoder(
            self._parts["tokenizer"],
            towers,
            self._verified,
            self._device,
            zeros_for_empty_negative=self.reader.zeros,
        )

    def follow(self, loras: object) -> None:
        """Forget all texts if other LoRAs change what the encoders make of them."""
        if loras != self._loras:
            self._loras = loras
            self._kept.clear()
            if self.reader.towers:
                self.prompts.forget()

    def encoded(self, text: str) -> Encoded:
        """Return the embeddings of a text for a transformer."""
        encode = self.reader.encode
        found: Encoded = self._known(
            text, lambda: encode(self.reader, self._pipeline("text"), text)
        )
        return found

    def read_with(self, text: str, pictures: Sequence[Image.Image], hashes: tuple[str, ...]) -> Any:
        """Return the result of the editing pipeline's `encode_prompt` for a text and pictures."""
        seen = (hashes, tuple(one.size for one in pictures))  # in the size of the picture
        key = text, seen if self.reader.sees else len(hashes)

        def read() -> Any:
            pipeline = self._pipeline("edit")
            return pipeline.encode_prompt(prompt=[text], **self.reader.looks(pipeline, pictures))

        return self._known(key, read)

    def _known(self, key: object, encode: Callable[[], Any]) -> Any:
        """Return what the text encoders, which come for it, made of a text before or make now."""
        if key not in self._kept:
            self._bring()
            while len(self._kept) >= _KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = encode()
        return self._kept[key]
