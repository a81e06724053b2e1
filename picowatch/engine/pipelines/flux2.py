"""FLUX.2 klein: Qwen3 reads the prompt, and the transformer looks at a start image, too."""

from typing import Any

from diffusers import Flux2KleinInpaintPipeline, Flux2KleinPipeline

from picowatch.engine.pipelines.family import Encoded, Family, read_by, usual_guidance


def _encode(pipeline: Any, prompt: str) -> Encoded:
    embeds, _ = pipeline.encode_prompt(prompt)
    return {"prompt_embeds": embeds}


FAMILY = Family(
    from_text=Flux2KleinPipeline,
    from_mask=Flux2KleinInpaintPipeline,
    encode=_encode,
    guidance=usual_guidance,
    length=read_by("tokenizer", 512 - 3),  # the chat template begins with three
)
