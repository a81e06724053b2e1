"""The code of families beside their rows: their pipelines, and how their texts are read.

Modular pipelines are called as classic pipelines here. diffusers composes them of blocks. The block
that reads prompts is a pipeline of its own, so that texts are encoded before the first step, and
the other blocks are the pipeline that draws. Both get parts that are loaded already.
"""

import logging
import re
import sys
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from inspect import signature
from typing import Any

import diffusers
import torch
from PIL import Image

from picowatch.engine import private
from picowatch.engine.model.cache import Cache
from picowatch.engine.model.prompts import PromptEncoder, TextTower
from picowatch.engine.model.verify import Verified
from picowatch.families.row import GUIDER, Family, Reading, Variant
from picowatch.recipe.passes import is_guided
from picowatch.recipe.prompts.grammar import plain_prompt, without_weights
from picowatch.recipe.request import ImageRequest

# Otherwise it logs a line for what the engine leaves out on purpose.
diffusers.logging.set_verbosity_error()
# It logs the traceback of each block around that which raised, also where a batch is to end.
logging.getLogger("diffusers.modular_pipelines.modular_pipeline").setLevel(logging.CRITICAL)

_BEFORE_TAG = re.compile(r"\s+(?=<lora:)")
_D: Any = diffusers


class Modular:
    """A modular pipeline that is called as a classic pipeline, the base of `adapted` classes.

    It is created from all `parts` of its blocks, of which text encoders may be None while they are
    not in memory. TypeError names a part that is missing or an argument that no block takes:
    diffusers would draw without.
    """

    component_names: Sequence[str]
    default_blocks_name: str
    _drawn: Any  # diffusers' own class

    def __init__(self, **parts: Any) -> None:
        blocks = getattr(_D, self.default_blocks_name)()
        blocks.sub_blocks.pop("prompt_upsampler", None)  # a language model that rewrites prompts
        self._reading_blocks = blocks.sub_blocks.pop("text_encoder")
        for loop in _loops(blocks):
            loop.set_progress_bar_config(disable=True)
        super().__init__(blocks=blocks)  # type: ignore[call-arg]
        self._parts = parts
        self._names = {parameter.name for parameter in blocks.inputs}
        self._names |= {output.name for output in self._reading_blocks.intermediate_outputs}
        _give(self, parts)

    def encode_prompt(self, prompt: str | list[str], **named: Any) -> dict[str, Any]:
        """Return what the text encoder's block makes of a prompt, by the names of its outputs."""
        text = prompt if isinstance(prompt, str) else prompt[0]
        outputs = [output.name for output in self._reading_blocks.intermediate_outputs]
        reader = self._drawn(blocks=self._reading_blocks)
        _give(reader, self._parts)
        if "guider" in reader.component_names:  # it would encode a negative prompt, too
            reader.guider = _D.ClassifierFreeGuidance(guidance_scale=1.0)
        found = reader(prompt=text, output=outputs, **named)
        return {name: value for name, value in found.items() if value is not None}

    def __call__(
        self,
        *,
        prompt: list[str] | None = None,
        negative_prompt: list[str] | None = None,
        guider: Any = None,
        return_dict: bool = False,
        **named: Any,
    ) -> tuple[Any]:
        """Draw, with embeddings or prompts."""
        for prefix, text in (("", prompt), ("negative_", negative_prompt)):
            if text is not None:
                found = self.encode_prompt(prompt=text)
                named |= {f"{prefix}{name}": value for name, value in found.items()}
        if unknown := named.keys() - self._names:
            raise TypeError(f"{type(self).__name__} takes no {min(unknown)}")
        if "guider" in self.component_names:
            self.guider = guider
        drawn: Any = super()
        return (drawn.__call__(output="images", **named),)


def _loops(block: Any) -> Iterator[Any]:
    """Yield the denoising loops: a pipeline's own setting for bars reaches only outer blocks."""
    if hasattr(block, "loop_step"):
        yield block
    for inner in getattr(block, "sub_blocks", {}).values():
        yield from _loops(inner)


def _give(pipeline: Any, parts: Mapping[str, Any]) -> None:
    """Give a pipeline its parts: `update_components` takes no wrappers of modules."""
    if missing := {*pipeline.null_component_names} - parts.keys():
        raise TypeError(f"{type(pipeline).__name__} needs a {min(missing)}")
    for name in {*pipeline.component_names} & parts.keys():
        setattr(pipeline, name, parts[name])


@cache
def adapted(kind: Any) -> Any:
    """Return the class that is called as a classic pipeline, for a class of modular pipelines."""
    return type(kind.__name__, (Modular, kind), {"_drawn": kind})


def words(prompt: str) -> str:
    """Return a prompt without weights and tags; unlike CLIP, T5 reads the space around tags."""
    return without_weights(plain_prompt(_BEFORE_TAG.sub("", prompt))).strip()


def pipeline_class(row: Family, variant: Variant, kind: str) -> Any:
    """Return diffusers' pipeline class for "text", "image", "mask" or "edit"; or None."""
    name: str = getattr(variant.pipelines, kind)
    if not name:
        return None
    own = getattr(diffusers, name)
    return adapted(own) if row.modular else own


def takes(function: Callable[..., Any], argument: str) -> bool:
    """Return whether a function can be called with an argument of this name."""
    return argument in signature(function).parameters


def guidance_inputs(row: Family, request: ImageRequest, steps: int) -> dict[str, Any]:
    """Return a request's guidance as its family's pipelines take it, for a run of so many steps."""
    if row.guidance != GUIDER:
        values = {field: getattr(request, field) for field in ("cfg_scale", "guidance")}
        values["cfg_scale - 1"] = request.cfg_scale - 1
        return {argument: values[field] for argument, field in row.guidance.items()}
    guided = [step for step in range(steps) if is_guided(request, step / steps)]
    if not guided:
        return {"guider": _D.ClassifierFreeGuidance(guidance_scale=1.0)}
    guider = _D.ClassifierFreeGuidance(
        guidance_scale=request.cfg_scale,
        guidance_rescale=request.cfg_rescale,
        # In the middle of a step, because diffusers rounds shares of the steps down.
        start=(guided[0] + 0.5) / steps if guided[0] else 0.0,
        stop=min(1.0, (guided[-1] + 1.5) / steps),
    )
    return {"guider": guider}


def built(row: Family, variant: Variant, kind: str, parts: Mapping[str, Any]) -> Any:
    """Return a diffusers pipeline of these parts, which is cheap to create."""
    cls = pipeline_class(row, variant, kind)
    if row.modular:
        return cls(**parts)
    # None for safety checkers, and for parts that a folder may lack.
    arguments = signature(cls).parameters.items()
    given = {name: None for name, own in arguments if own.default is own.empty} | dict(parts)
    if row.key == "chroma" and kind == "mask":
        # diffusers 0.42 asks for a setting of FLUX.1 that Chroma's configs do not have.
        given["transformer"].register_to_config(guidance_embeds=False)
    pipeline = cls(**given, **variant.options)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


# A pipeline's arguments in place of prompts: tensors or lists, a row or an entry for each image.
Encoded = Mapping[str, Any]


def _by_pipeline(reading: Reading, pipeline: Any, prompt: str) -> Encoded:
    found = pipeline.encode_prompt(prompt, **reading.options)
    return {name: embeds for name, embeds in zip(reading.results, found, strict=False) if name}


# The ways of `Reading.encode`. Pipelines without a row encode prompts themselves.
_ENCODE: Mapping[str, Callable[[Reading, Any, str], Encoded]] = {
    "pipeline": _by_pipeline,
    "blocks": lambda _, pipeline, prompt: pipeline.encode_prompt(prompt),
    "ernie": lambda _, pipeline, prompt: {
        "prompt_embeds": pipeline.encode_prompt(prompt, private.execution_device(pipeline))
    },
    "lumina2": lambda _, pipeline, prompt: private.lumina2_embeds(pipeline, prompt),
    "ideogram4": lambda _, pipeline, prompt: {
        "prompt_embeds": private.ideogram4_embeds(pipeline, prompt)
    },
    "later": lambda _, __, prompt: {"prompt": [prompt]},
}


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
    "tokenizer": lambda tokenizer, prompt: len(tokenizer(prompt)["input_ids"]),
    "processor": lambda processor, prompt: len(processor.tokenizer(prompt)["input_ids"]),
    "flux2_dev": _flux2_dev_tokens,
    "longcat": _longcat_tokens,
}


def answer(reading: Reading, pipeline: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """Let a pipeline's own `encode_prompt` return the embeddings in `inputs`; return the others."""
    names = ("prompt_embeds", "negative_prompt_embeds")
    embeds, own = [inputs[name] for name in names if name in inputs], pipeline.encode_prompt
    given = iter(embeds)  # it is called for the prompt, then for the negative prompt

    def encode(*_: Any, grid_h: int = 0, grid_w: int = 0, **__: Any) -> list[torch.Tensor]:
        found = next(given)
        if reading.encode == "ideogram4":
            return private.ideogram4_inputs(pipeline, found, grid_h, grid_w)
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
    _parts: Mapping[str, Any]  # those in memory, by diffusers' names
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
            if not self.reading.sees:
                # FLUX.2 klein KV's for edits would change the transformer, which may be away.
                return self._pipeline("text").encode_prompt(prompt=[text])
            pipeline, scaled = self._pipeline("edit"), []
            module = sys.modules[type(pipeline).__module__]  # importing it here would take 0.1 s
            area = getattr(module, "CONDITION_IMAGE_SIZE", 1024 * 1024)
            for picture in pictures:  # as the pipeline scales them for its text encoder
                width, height, *_ = module.calculate_dimensions(
                    area, picture.width / picture.height
                )
                small = pipeline.image_processor.resize(picture, height, width)
                if self.reading.halves:
                    small = pipeline.image_processor.resize(small, height // 2, width // 2)
                scaled.append(small)
            return pipeline.encode_prompt(prompt=[text], image=scaled)

        return self._encoded_once(key, read)

    def _encoded_once(self, key: Hashable, encode: Callable[[], Any]) -> Any:
        """Return a kept result, or bring the text encoders and make it now."""

        def read() -> Any:
            self._bring()
            return encode()

        return self._cache.encoded(("text", self._checkpoint, self.loras, key), read)
