"""Qwen-Image, https://arxiv.org/abs/2508.02324: Qwen2.5-VL reads the prompt."""

from typing import Any

import torch
from diffusers import QwenImageImg2ImgPipeline, QwenImageInpaintPipeline, QwenImagePipeline

from picowatch.engine.pipelines.family import Encoded, Family, read_by
from picowatch.recipe.request import ImageRequest


def _encode(pipeline: Any, prompt: str) -> Encoded:
    # A space where there is no negative prompt, as its card has it.
    embeds, _ = pipeline.encode_prompt(prompt or " ", max_sequence_length=512)
    whole = torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device)
    return {"prompt_embeds": embeds, "prompt_embeds_mask": whole}


def _guidance(request: ImageRequest) -> dict[str, Any]:
    return {"true_cfg_scale": request.cfg_scale}


FAMILY = Family(
    from_text=QwenImagePipeline,
    from_image=QwenImageImg2ImgPipeline,
    from_mask=QwenImageInpaintPipeline,
    encode=_encode,
    guidance=_guidance,
    length=read_by("tokenizer", 512),
)
