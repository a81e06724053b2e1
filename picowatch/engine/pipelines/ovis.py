"""Ovis-Image, https://arxiv.org/abs/2511.22982: Qwen3 reads the prompt."""

from typing import Any

from diffusers import OvisImagePipeline

from picowatch.engine.pipelines.family import Encoded, Family, read_by
from picowatch.recipe.request import ImageRequest

_TOKENS = 256


def _encode(pipeline: Any, prompt: str) -> Encoded:
    embeds, *_ = pipeline.encode_prompt(
        prompt, do_classifier_free_guidance=False, max_sequence_length=_TOKENS
    )
    return {"prompt_embeds": embeds}


def _guidance(request: ImageRequest) -> dict[str, Any]:
    # Its own negative prompt, which is "", would be one too many beside embeddings.
    return {"guidance_scale": request.cfg_scale, "negative_prompt": None}


FAMILY = Family(
    from_text=OvisImagePipeline,
    encode=_encode,
    guidance=_guidance,
    length=read_by("tokenizer", _TOKENS),
)
