"""Krea 2: Qwen3-VL reads the prompt, and the transformer looks at twelve of its layers."""

from dataclasses import replace
from typing import Any

from diffusers import Krea2Pipeline

from picowatch.engine.pipelines.family import Encoded, Family, read_by
from picowatch.recipe.request import ImageRequest


def _encode(pipeline: Any, prompt: str) -> Encoded:
    embeds, read = pipeline.encode_prompt(prompt)
    return {"prompt_embeds": embeds, "prompt_embeds_mask": read}


def _guidance(request: ImageRequest) -> dict[str, Any]:
    """The pipeline adds its guidance_scale times the difference to the prompt's prediction."""
    return {"guidance_scale": request.cfg_scale - 1}


FAMILY = Family(
    from_text=Krea2Pipeline,
    encode=_encode,
    guidance=_guidance,
    length=read_by("tokenizer", 512 - 5),  # the chat template ends with five
)
# Its noise levels do not move with the size.
TURBO = replace(FAMILY, options={"is_distilled": True})
