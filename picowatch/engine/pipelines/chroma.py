"""Chroma, https://huggingface.co/lodestones/Chroma: FLUX.1 schnell with T5 alone, and guidance."""

from typing import Any

from diffusers import ChromaImg2ImgPipeline, ChromaInpaintPipeline, ChromaPipeline

from picowatch.engine.pipelines.family import Encoded, Family, read_by, usual_guidance


def _inpaint(**parts: Any) -> Any:
    """diffusers 0.42 asks for a setting of FLUX.1 that Chroma's configs do not have."""
    parts["transformer"].register_to_config(guidance_embeds=False)
    kind: Any = ChromaInpaintPipeline
    return kind(**parts)


def _encode(pipeline: Any, prompt: str) -> Encoded:
    embeds, _, mask, *_ = pipeline.encode_prompt(prompt, do_classifier_free_guidance=False)
    return {"prompt_embeds": embeds, "prompt_attention_mask": mask}


FAMILY = Family(
    from_text=ChromaPipeline,
    from_image=ChromaImg2ImgPipeline,
    from_mask=_inpaint,
    encode=_encode,
    guidance=usual_guidance,
    length=read_by("tokenizer", 512),
)
