"""AuraFlow, https://blog.fal.ai/auraflow/: UMT5 reads the prompt."""

from typing import Any

from diffusers import AuraFlowPipeline

from picowatch.engine.pipelines.family import Encoded, Family, read_by, usual_guidance


def _encode(pipeline: Any, prompt: str) -> Encoded:
    embeds, mask, *_ = pipeline.encode_prompt(prompt, do_classifier_free_guidance=False)
    return {"prompt_embeds": embeds, "prompt_attention_mask": mask}


FAMILY = Family(
    from_text=AuraFlowPipeline,
    encode=_encode,
    guidance=usual_guidance,
    length=read_by("tokenizer", 256),
)
