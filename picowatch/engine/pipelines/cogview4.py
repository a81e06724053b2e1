"""CogView4, https://github.com/THUDM/CogView4: GLM-4 reads the prompt."""

from typing import Any

from diffusers import CogView4Pipeline

from picowatch.engine.pipelines.family import Encoded, Family, read_by
from picowatch.recipe.request import ImageRequest


def _encode(pipeline: Any, prompt: str) -> Encoded:
    embeds, _ = pipeline.encode_prompt(prompt, do_classifier_free_guidance=False)
    return {"prompt_embeds": embeds}


def _guidance(request: ImageRequest) -> dict[str, Any]:
    return {"guidance_scale": request.cfg_scale}


FAMILY = Family(
    from_text=CogView4Pipeline,
    encode=_encode,
    guidance=_guidance,
    length=read_by("tokenizer", 1024),
)
