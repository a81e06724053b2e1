"""Lumina-Image 2.0, https://arxiv.org/abs/2503.21758: Gemma 2 reads the prompt."""

from typing import Any

from diffusers import Lumina2Pipeline

from picowatch.engine.pipelines.family import Encoded, Family, read_by, usual_guidance

# diffusers' default, which it writes before prompts, but not before negative ones.
_PREAMBLE = (
    "You are an assistant designed to generate superior images with the superior degree of "
    "image-text alignment based on textual prompts or user prompts. <Prompt Start> "
)


def _encode(pipeline: Any, prompt: str) -> Encoded:
    embeds, mask = pipeline._get_gemma_prompt_embeds(prompt)
    return {"prompt_embeds": embeds, "prompt_attention_mask": mask}


FAMILY = Family(
    from_text=Lumina2Pipeline,
    preamble=_PREAMBLE,
    encode=_encode,
    guidance=usual_guidance,
    length=read_by("tokenizer", 256),
)
