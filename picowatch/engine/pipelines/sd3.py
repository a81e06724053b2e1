"""Stable Diffusion 3.x, https://arxiv.org/abs/2403.03206: two CLIPs and T5 read the prompt."""

from typing import Any

from diffusers import (
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3InpaintPipeline,
    StableDiffusion3Pipeline,
)

from picowatch.engine.pipelines.family import (
    Components,
    Encoded,
    Family,
    Length,
    count_tokens,
    usual_guidance,
)


def _encode(pipeline: Any, prompt: str) -> Encoded:
    embeds, _, pooled, _ = pipeline.encode_prompt(
        prompt, None, None, do_classifier_free_guidance=False
    )
    return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}


def _length(components: Components, prompt: str) -> Length:
    """T5's, which reads further than CLIP; many do without it, for it is the largest part."""
    if "text_encoder_3" in components:
        return count_tokens(components["tokenizer_3"], prompt), 256
    return count_tokens(components["tokenizer"], prompt), 77


FAMILY = Family(
    from_text=StableDiffusion3Pipeline,
    from_image=StableDiffusion3Img2ImgPipeline,
    from_mask=StableDiffusion3InpaintPipeline,
    encode=_encode,
    guidance=usual_guidance,
    length=_length,
    optional=("text_encoder_3", "tokenizer_3"),
)
