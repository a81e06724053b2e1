"""The code of families for diffusers' pipelines, beside their rows in `picowatch.families`."""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from inspect import signature
from typing import Any

import diffusers
import torch
from PIL import Image

from picowatch.engine.model.prompts import PromptEncoder, TextTower
from picowatch.engine.model.verify import Verified
from picowatch.families import Family, Variant
from picowatch.recipe.prompts.grammar import plain_prompt, without_weights
from picowatch.recipe.request import ImageRequest

# Otherwise it logs a line for what the engine leaves out on purpose.
diffusers.logging.set_verbosity_error()
# A pipeline's arguments in place of prompts: tensors with a row, or lists with an entry, for each
# image.
Encoded = Mapping[str, Any]
# A checkpoint's parts by diffusers' names.
Parts = Mapping[str, Any]
_BEFORE_TAG = re.compile(r"\s+(?=<lora:)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """How a flow family's prompts are encoded.

    `encode` returns the embeddings of a prompt, given a pipeline. `reads` are tokenizers, of which
    the first that a checkpoint has counts the tokens by `count`, and their limits: 0 is the one in
    the tokenizer's configuration; without tokenizers there is no limit. `preamble` is put before
    prompts, but not before negative ones; `empty` replaces an empty prompt.
    """

    encode: Callable[[Any, str], Encoded]
    reads: Mapping[str, int] = field(default_factory=lambda: {"tokenizer": 512})
    count: Callable[[Any, str], int] = lambda tokenizer, prompt: len(tokenizer(prompt)["input_ids"])
    preamble: str = ""
    empty: str = ""

    def length(self, parts: Parts, prompt: str) -> tuple[int, int]:
        """Return the number of tokens of a prompt, and the limit of the text encoder."""
        name = next(one for one in self.reads if parts.get(one))
        return self.count(parts[name], prompt), self.reads[name] or parts[name].model_max_length


def words(prompt: str) -> str:
    """Return a prompt without weights and tags; unlike CLIP, T5 reads the space around tags."""
    return without_weights(plain_prompt(_BEFORE_TAG.sub("", prompt))).strip()


def pipeline_class(row: Family, variant: Variant, kind: str) -> Any:
    """Return diffusers' pipeline class for "text", "image", "mask" or "edit"; None without one."""
    name: str = getattr(variant.pipelines or row.pipelines, kind)
    return getattr(diffusers, name) if name else None


@cache
def takes(function: Callable[..., Any], argument: str) -> bool:
    """Return whether a function can be called with an argument of this name."""
    return argument in signature(function).parameters


def guidance_inputs(row: Family, variant: Variant, request: ImageRequest) -> dict[str, Any]:
    """Return a request's guidance as its family's pipelines take it."""
    match variant.guidance_as or row.guidance:
        case "cfg_scale":
            return {"guidance_scale": request.cfg_scale}
        case "cfg_scale_less_one":
            return {"guidance_scale": request.cfg_scale - 1}
        case "true_cfg_scale":
            return {"true_cfg_scale": request.cfg_scale}
        case "guidance":
            return {"guidance_scale": request.guidance}
        case "guidance_and_true_cfg_scale":
            return {"guidance_scale": request.guidance, "true_cfg_scale": request.cfg_scale}


# Stable Diffusion: how each text encoder is read; see TextTower. 2.x reads OpenCLIP ViT-H at its
# last layer but one, with the final norm; diffusers' folders leave the last layer out, so that this
# is the last one of 23. XL (https://arxiv.org/abs/2307.01952) joins two encoders, both read at
# their last layer but one without its norm. OpenCLIP pads with the token 0, "!".
_TOWERS: dict[str, dict[str, dict[str, Any]]] = {
    "demo": {"text_encoder": {}},
    "sd1": {"text_encoder": {}},
    "sd2": {"text_encoder": {"padding": 0}},
    "sdxl": {
        "text_encoder": {"least_skip": 2, "normed": False},
        "text_encoder_2": {"key": "clip_g", "padding": 0, "least_skip": 2, "normed": False},
    },
}


def prompt_encoder(
    family: str, parts: Parts, verified: Verified, device: torch.device
) -> PromptEncoder:
    """Return the encoder of a Stable Diffusion's prompts; `verified` opens embeddings.

    SDXL's empty negative prompts are zeros, as in A1111 and in diffusers without one.
    """
    towers = [TextTower(parts[part], **reading) for part, reading in _TOWERS[family].items()]
    zeros = family == "sdxl"
    return PromptEncoder(
        parts["tokenizer"], towers, verified, device, zeros_for_empty_negative=zeros
    )


def _encoding(*names: str, **options: Any) -> Callable[[Any, str], Encoded]:
    """Return an encoder by the pipeline's `encode_prompt`; `names` are its results, "" to skip."""

    def encode(pipeline: Any, prompt: str) -> Encoded:
        found = pipeline.encode_prompt(prompt, **options)
        return {name: embeds for name, embeds in zip(names, found, strict=False) if name}

    return encode


# Encodes one prompt: the negative one is encoded by itself.
_ALONE = {"do_classifier_free_guidance": False}


def _ernie_encode(pipeline: Any, prompt: str) -> Encoded:
    return {"prompt_embeds": pipeline.encode_prompt(prompt, pipeline._execution_device)}


def _lumina2_encode(pipeline: Any, prompt: str) -> Encoded:
    # Its public method puts a preamble before every prompt (test_flows.py compares both).
    embeds, mask = pipeline._get_gemma_prompt_embeds(prompt)
    return {"prompt_embeds": embeds, "prompt_attention_mask": mask}


def _flux(tokens: int) -> Reader:
    """Return the reader of FLUX.1: CLIP gives only the pooled output, from the first 77 tokens."""
    embeds = ("prompt_embeds", "pooled_prompt_embeds")
    encode = _encoding(*embeds, max_sequence_length=tokens)
    return Reader(encode=encode, reads={"tokenizer_2": tokens})


def _flux2_dev_tokens(tokenizer: Any, prompt: str) -> int:
    """Count the tokens of a prompt together with the instruction that its pipeline adds."""
    from diffusers.pipelines.flux2 import pipeline_flux2 as flux2

    messages = flux2.format_input([prompt], flux2.SYSTEM_MESSAGE)
    return len(tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"][0])


# The chat template has eight tokens.
_Z_IMAGE = Reader(encode=_encoding("prompt_embeds", **_ALONE), reads={"tokenizer": 512 - 8})
# By family, or by family and variant.
_READERS = {
    "z_image": _Z_IMAGE,
    "z_image_omni": _Z_IMAGE,
    "flux": _flux(512),
    "flux schnell": _flux(256),  # trained with half as many as dev (its model card)
    "flux2_dev": Reader(encode=_encoding("prompt_embeds"), count=_flux2_dev_tokens),
    # The chat template begins with three tokens.
    "flux2": Reader(encode=_encoding("prompt_embeds"), reads={"tokenizer": 512 - 3}),
    # A space where there is no negative prompt, as its card has it.
    "qwen_image": Reader(encode=_encoding("prompt_embeds", max_sequence_length=512), empty=" "),
    # Its tokenizer is the processor's, and its pipeline cuts no prompt off.
    "qwen_image_21": Reader(encode=_encoding("prompt_embeds"), reads={}),
    # The chat template ends with five tokens.
    "krea2": Reader(
        encode=_encoding("prompt_embeds", "prompt_embeds_mask"), reads={"tokenizer": 512 - 5}
    ),
    "ernie_image": Reader(encode=_ernie_encode, reads={"tokenizer": 0}),
    # T5 reads further than CLIP; many omit it, since it is the largest part.
    "sd3": Reader(
        encode=_encoding(
            *("prompt_embeds", "", "pooled_prompt_embeds"), prompt_2=None, prompt_3=None, **_ALONE
        ),
        reads={"tokenizer_3": 256, "tokenizer": 77},
    ),
    "chroma": Reader(encode=_encoding("prompt_embeds", "", "prompt_attention_mask", **_ALONE)),
    "lumina2": Reader(
        # diffusers' default, which it writes before prompts, but not before negative ones.
        preamble=(
            "You are an assistant designed to generate superior images with the superior degree of "
            "image-text alignment based on textual prompts or user prompts. <Prompt Start> "
        ),
        encode=_lumina2_encode,
        reads={"tokenizer": 256},
    ),
}


# The pipelines of short families encode prompts themselves.
SHORT = Reader(encode=lambda _, prompt: {"prompt": [prompt]}, reads={})


def reader_of(family: str, variant: str) -> Reader:
    """Return how a checkpoint's prompts are encoded."""
    return _READERS.get(f"{family} {variant}") or _READERS.get(family, SHORT)


def _seen(pipeline: Any, pictures: Sequence[Image.Image]) -> Encoded:
    """Return the pictures as the pipeline scales them for its text encoder: to an area."""
    module = sys.modules[type(pipeline).__module__]  # importing it here would take 0.1 s
    area, found = getattr(module, "CONDITION_IMAGE_SIZE", 1024 * 1024), []
    for one in pictures:
        width, height, *_ = module.calculate_dimensions(area, one.width / one.height)
        found.append(pipeline.image_processor.resize(one, height, width))
    return {"image": found}


@dataclass(frozen=True, slots=True, kw_only=True)
class Editor:
    """How an editing pipeline is called.

    `reads` returns the arguments of its `encode_prompt` besides the prompt, given the pipeline and
    the pictures in their frames. `answers` turns the encoded prompt and negative prompt into the
    results of the pipeline's own calls of `encode_prompt`. `many`: it takes a list of pictures.
    `inputs` returns further arguments of each call, given the size that is rendered.
    """

    reads: Callable[[Any, Sequence[Image.Image]], Encoded] = lambda *_: {}
    answers: Callable[[list[Any]], list[Any]] = lambda read: read
    many: bool = True
    inputs: Callable[[tuple[int, int]], dict[str, Any]] = lambda _: {}

    @property
    def sees(self) -> bool:
        """True if its text encoder reads the pictures."""
        return self.reads is _seen


EDITORS = {
    # The size gives only the proportions, `max_area` the pixels. The reference keeps its size.
    "FluxKontextPipeline": Editor(
        many=False,
        inputs=lambda size: {"max_area": size[0] * size[1], "_auto_resize": False},
    ),
    "QwenImageEditPipeline": Editor(many=False, reads=_seen),
    "QwenImageEditPlusPipeline": Editor(reads=_seen),
    "QwenImage21Pipeline": Editor(reads=_seen),
    # It encodes both prompts in one call.
    "ZImageOmniPipeline": Editor(
        reads=lambda _, pictures: {"num_condition_images": len(pictures), **_ALONE},
        answers=lambda read: [(read[0][0], read[1][0] if len(read) > 1 else [])],
    ),
}


def editor_of(row: Family, variant: Variant) -> Editor:
    """Return how the variant's pipeline for references is called."""
    return EDITORS.get((variant.pipelines or row.pipelines).edit, Editor())


@cache
def _required(pipeline: Any) -> frozenset[str]:
    """Return the required arguments of a pipeline's class."""
    arguments = signature(pipeline).parameters.values()
    return frozenset(one.name for one in arguments if one.default is one.empty)


def built(row: Family, variant: Variant, kind: str, parts: Parts) -> Any:
    """Return a diffusers pipeline of these parts, which is cheap to create."""
    cls = pipeline_class(row, variant, kind)
    # None for safety checkers, and for parts that a folder may lack.
    given = {**dict.fromkeys(_required(cls) - parts.keys()), **parts}
    if row.key == "chroma" and kind == "mask":
        # diffusers 0.42 asks for a setting of FLUX.1 that Chroma's configs do not have.
        given["transformer"].register_to_config(guidance_embeds=False)
    pipeline = cls(**given, **variant.options)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
