"""ERNIE-Image: Mistral 3 reads the prompt, as it is written: nothing rewrites it before."""

from typing import Any

from diffusers import ErnieImagePipeline

from picowatch.engine.pipelines.family import (
    Components,
    Encoded,
    Family,
    Length,
    count_tokens,
    usual_guidance,
)


def _encode(pipeline: Any, prompt: str) -> Encoded:
    return {"prompt_embeds": pipeline.encode_prompt(prompt, pipeline.text_encoder.device)}


def _length(components: Components, prompt: str) -> Length:
    """As many as its tokenizer's configuration says."""
    tokenizer = components["tokenizer"]
    return count_tokens(tokenizer, prompt), tokenizer.model_max_length


FAMILY = Family(
    from_text=ErnieImagePipeline,
    encode=_encode,
    guidance=usual_guidance,
    length=_length,
)
