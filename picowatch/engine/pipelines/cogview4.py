"""CogView4, https://github.com/THUDM/CogView4: GLM-4 reads the prompt."""

from typing import Any

from diffusers import CogView4Pipeline

from picowatch.engine.pipelines.family import Encoded, Family, read_by, usual_guidance


def _encode(pipeline: Any, prompt: str) -> Encoded:
    embeds, _ = pipeline.encode_prompt(prompt, do_classifier_free_guidance=False)
    return {"prompt_embeds": embeds}


FAMILY = Family(
    from_text=CogView4Pipeline,
    encode=_encode,
    guidance=usual_guidance,
    length=read_by("tokenizer", 1024),
)
