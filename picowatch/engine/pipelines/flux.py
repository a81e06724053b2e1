"""FLUX.1: CLIP's pooled text and T5 read the prompt; dev was trained with guidance as an input."""

from typing import Any

from diffusers import (
    FluxFillPipeline,
    FluxImg2ImgPipeline,
    FluxInpaintPipeline,
    FluxPipeline,
)

from picowatch.engine.pipelines.family import Encoded, Family
from picowatch.recipe.request import ImageRequest


def _encode(pipeline: Any, prompt: str) -> Encoded:
    # schnell was trained with half as many tokens (its model card).
    tokens = 512 if pipeline.transformer.config.guidance_embeds else 256
    embeds, pooled, _ = pipeline.encode_prompt(prompt, max_sequence_length=tokens)
    return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}


def _guidance(request: ImageRequest) -> dict[str, Any]:
    return {"guidance_scale": request.guidance, "true_cfg_scale": request.cfg_scale}


FAMILY = Family(
    from_text=FluxPipeline,
    from_image=FluxImg2ImgPipeline,
    from_mask=FluxInpaintPipeline,
    encode=_encode,
    guidance=_guidance,
    tokenizer="tokenizer_2",
)
FILL = Family(
    from_text=FluxFillPipeline,
    from_mask=FluxFillPipeline,
    encode=_encode,
    guidance=lambda request: {"guidance_scale": request.guidance},
    tokenizer="tokenizer_2",
)
