"""PixArt-Sigma, https://arxiv.org/abs/2403.04692: T5 reads the prompt, and it removes noise."""

from collections.abc import Callable
from typing import Any

from diffusers import PixArtSigmaPipeline

from picowatch.engine.pipelines.family import Encoded, Family, guidance_without_binning, read_by


class _Sigma(PixArtSigmaPipeline):
    """With the callback that the other pipelines have."""

    def __call__(self, *, callback_on_step_end: Callable[..., Any], **inputs: Any) -> Any:
        def after_step(step: int, timestep: Any, latents: Any) -> None:
            callback_on_step_end(self, step, timestep, {"latents": latents})

        pipeline: Any = super()
        return pipeline.__call__(callback=after_step, **inputs)


def _encode(pipeline: Any, prompt: str) -> Encoded:
    embeds, mask, *_ = pipeline.encode_prompt(
        prompt, do_classifier_free_guidance=False, max_sequence_length=300
    )
    return {"prompt_embeds": embeds, "prompt_attention_mask": mask}


FAMILY = Family(
    from_text=_Sigma,
    encode=_encode,
    guidance=guidance_without_binning,
    length=read_by("tokenizer", 300),
)
