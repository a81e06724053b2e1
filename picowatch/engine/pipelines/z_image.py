"""Z-Image, https://arxiv.org/abs/2511.22699: Qwen3 reads the prompt."""

from typing import Any

from diffusers import ZImageImg2ImgPipeline, ZImageInpaintPipeline, ZImagePipeline

from picowatch.engine.pipelines.family import Components, Encoded, Family, Length, count_tokens
from picowatch.recipe.request import ImageRequest


def _encode(pipeline: Any, prompt: str) -> Encoded:
    # A list of its own: the pipeline writes its chat template into it.
    found, _ = pipeline.encode_prompt([prompt], do_classifier_free_guidance=False)
    return {"prompt_embeds": found}


def _guidance(request: ImageRequest) -> dict[str, Any]:
    """The pipeline adds its guidance_scale times the difference to the prompt's prediction."""
    return {"guidance_scale": request.cfg_scale - 1}


def _length(components: Components, prompt: str) -> Length:
    """With the chat template around it."""
    tokenizer = components["tokenizer"]
    message = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=True,
    )
    return count_tokens(tokenizer, message), 512


FAMILY = Family(
    from_text=ZImagePipeline,
    from_image=ZImageImg2ImgPipeline,
    from_mask=ZImageInpaintPipeline,
    encode=_encode,
    guidance=_guidance,
    length=_length,
)
