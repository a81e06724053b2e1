"""Sana, https://arxiv.org/abs/2410.10629: Gemma 2 reads the prompt, after an instruction."""

from inspect import signature
from typing import Any

from diffusers import SanaPipeline

from picowatch.engine.pipelines.family import (
    Components,
    Encoded,
    Family,
    Length,
    count_tokens,
    guidance_without_binning,
)

# diffusers' own, which asks for an enhanced prompt. Only what stands after it is drawn.
_INSTRUCTION = signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default
_PREAMBLE = "\n".join(_INSTRUCTION)


def _encode(pipeline: Any, prompt: str) -> Encoded:
    embeds, mask, *_ = pipeline.encode_prompt(
        prompt.removeprefix(_PREAMBLE),
        do_classifier_free_guidance=False,
        complex_human_instruction=_INSTRUCTION if prompt.startswith(_PREAMBLE) else None,
    )
    return {"prompt_embeds": embeds, "prompt_attention_mask": mask}


def _length(components: Components, prompt: str) -> Length:
    """The instruction takes one of 300 tokens."""
    tokens = count_tokens(components["tokenizer"], prompt.removeprefix(_PREAMBLE))
    return tokens + prompt.startswith(_PREAMBLE), 300


FAMILY = Family(
    from_text=SanaPipeline,
    preamble=_PREAMBLE,
    encode=_encode,
    guidance=guidance_without_binning,
    length=_length,
)
