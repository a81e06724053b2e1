"""FLUX.1: CLIP's pooled text and T5 read the prompt; dev was trained with guidance as an input."""

from typing import Any

from diffusers import (
    FluxFillPipeline,
    FluxImg2ImgPipeline,
    FluxInpaintPipeline,
    FluxPipeline,
)

from picowatch.engine.pipelines.family import Components, Encoded, Family, Length, count_tokens
from picowatch.recipe.request import ImageRequest


def _most_tokens(transformer: Any) -> int:
    """schnell was trained with half as many tokens as dev (its model card)."""
    return 512 if transformer.config.guidance_embeds else 256


def _encode(pipeline: Any, prompt: str) -> Encoded:
    tokens = _most_tokens(pipeline.transformer)
    embeds, pooled, _ = pipeline.encode_prompt(prompt, max_sequence_length=tokens)
    return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}


def _length(components: Components, prompt: str) -> Length:
    """T5's: of CLIP only the pooled output is used, of the first 77 tokens."""
    return count_tokens(components["tokenizer_2"], prompt), _most_tokens(components["transformer"])


def _guidance(request: ImageRequest) -> dict[str, Any]:
    return {"guidance_scale": request.guidance, "true_cfg_scale": request.cfg_scale}


FAMILY = Family(
    from_text=FluxPipeline,
    from_image=FluxImg2ImgPipeline,
    from_mask=FluxInpaintPipeline,
    encode=_encode,
    guidance=_guidance,
    length=_length,
)
FILL = Family(
    from_text=FluxFillPipeline,
    from_mask=FluxFillPipeline,
    encode=_encode,
    guidance=lambda request: {"guidance_scale": request.guidance},
    length=_length,
)
