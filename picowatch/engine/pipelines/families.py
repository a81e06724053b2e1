"""The families that diffusers' pipelines render, one row each; loaded.py does the rest."""

from collections.abc import Callable
from dataclasses import replace
from inspect import signature
from typing import Any

import torch
from diffusers import (
    AuraFlowPipeline,
    ChromaImg2ImgPipeline,
    ChromaInpaintPipeline,
    ChromaPipeline,
    CogView4Pipeline,
    ErnieImagePipeline,
    Flux2KleinInpaintPipeline,
    Flux2KleinPipeline,
    FluxFillPipeline,
    FluxImg2ImgPipeline,
    FluxInpaintPipeline,
    FluxPipeline,
    Krea2Pipeline,
    Lumina2Pipeline,
    OvisImagePipeline,
    PixArtSigmaPipeline,
    QwenImageImg2ImgPipeline,
    QwenImageInpaintPipeline,
    QwenImagePipeline,
    SanaPipeline,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3InpaintPipeline,
    StableDiffusion3Pipeline,
    ZImageImg2ImgPipeline,
    ZImageInpaintPipeline,
    ZImagePipeline,
)

from picowatch.engine.pipelines.family import (
    Components,
    CountTokens,
    Encode,
    Encoded,
    Family,
    Length,
)
from picowatch.recipe.request import ImageRequest


def _encoding(*names: str, **options: Any) -> Encode:
    """By the pipeline's own `encode_prompt`; what it gives is called `names`, "" if not needed."""

    def encode(pipeline: Any, prompt: str) -> Encoded:
        found = pipeline.encode_prompt(prompt, **options)
        return {name: embeds for name, embeds in zip(names, found, strict=False) if name}

    return encode


# Of the prompt alone: the negative one is encoded by itself.
_ALONE = {"do_classifier_free_guidance": False}


def _count(tokenizer: Any, text: str) -> int:
    """How many tokens a text has, with the marks that the tokenizer adds."""
    return len(tokenizer(text)["input_ids"])


def _up_to(most: int) -> CountTokens:
    """Of a text encoder that reads the prompt alone, up to a number of tokens."""
    return lambda components, prompt: (_count(components["tokenizer"], prompt), most)


def _cfg_scale(request: ImageRequest) -> dict[str, Any]:
    """Where the pipeline's guidance_scale is what recipes call cfg_scale."""
    return {"guidance_scale": request.cfg_scale}


def _cfg_scale_less_one(request: ImageRequest) -> dict[str, Any]:
    """The pipeline adds its guidance_scale times the difference to the prompt's prediction."""
    return {"guidance_scale": request.cfg_scale - 1}


def _without_binning(request: ImageRequest) -> dict[str, Any]:
    """For pipelines that draw in one of a few sizes and scale the picture to the requested one."""
    return _cfg_scale(request) | {
        "negative_prompt": None,  # it is encoded
        "use_resolution_binning": False,
    }


def _chroma_inpaint(**parts: Any) -> Any:
    """diffusers 0.42 asks for a setting of FLUX.1 that Chroma's configs do not have."""
    parts["transformer"].register_to_config(guidance_embeds=False)
    kind: Any = ChromaInpaintPipeline
    return kind(**parts)


def _ernie_encode(pipeline: Any, prompt: str) -> Encoded:
    return {"prompt_embeds": pipeline.encode_prompt(prompt, pipeline.text_encoder.device)}


def _ernie_length(components: Components, prompt: str) -> Length:
    """As many as its tokenizer's configuration says."""
    tokenizer = components["tokenizer"]
    return _count(tokenizer, prompt), tokenizer.model_max_length


def _flux_tokens(transformer: Any) -> int:
    """schnell was trained with half as many tokens as dev (its model card)."""
    return 512 if transformer.config.guidance_embeds else 256


def _flux_encode(pipeline: Any, prompt: str) -> Encoded:
    tokens = _flux_tokens(pipeline.transformer)
    embeds, pooled, _ = pipeline.encode_prompt(prompt, max_sequence_length=tokens)
    return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}


def _flux_length(components: Components, prompt: str) -> Length:
    """T5's: of CLIP only the pooled output is used, of the first 77 tokens."""
    return _count(components["tokenizer_2"], prompt), _flux_tokens(components["transformer"])


def _lumina2_encode(pipeline: Any, prompt: str) -> Encoded:
    embeds, mask = pipeline._get_gemma_prompt_embeds(prompt)
    return {"prompt_embeds": embeds, "prompt_attention_mask": mask}


class _PixArtSigma(PixArtSigmaPipeline):  # type: ignore[misc]
    """With the callback that the other pipelines have."""

    def __call__(self, *, callback_on_step_end: Callable[..., Any], **inputs: Any) -> Any:
        def after_step(step: int, timestep: Any, latents: Any) -> None:
            callback_on_step_end(self, step, timestep, {"latents": latents})

        pipeline: Any = super()
        return pipeline.__call__(callback=after_step, **inputs)


def _qwen_encode(pipeline: Any, prompt: str) -> Encoded:
    # A space where there is no negative prompt, as its card has it.
    embeds, _ = pipeline.encode_prompt(prompt or " ", max_sequence_length=512)
    whole = torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device)
    return {"prompt_embeds": embeds, "prompt_embeds_mask": whole}


# diffusers' own, which asks for an enhanced prompt. Only what stands after it is drawn.
_SANA_INSTRUCTION = signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default
_SANA_PREAMBLE = "\n".join(_SANA_INSTRUCTION)


def _sana_encode(pipeline: Any, prompt: str) -> Encoded:
    embeds, mask, *_ = pipeline.encode_prompt(
        prompt.removeprefix(_SANA_PREAMBLE),
        do_classifier_free_guidance=False,
        complex_human_instruction=_SANA_INSTRUCTION if prompt.startswith(_SANA_PREAMBLE) else None,
    )
    return {"prompt_embeds": embeds, "prompt_attention_mask": mask}


def _sana_length(components: Components, prompt: str) -> Length:
    """The instruction takes one of 300 tokens."""
    tokens = _count(components["tokenizer"], prompt.removeprefix(_SANA_PREAMBLE))
    return tokens + prompt.startswith(_SANA_PREAMBLE), 300


def _sd3_length(components: Components, prompt: str) -> Length:
    """T5's, which reads further than CLIP; many do without it, for it is the largest part."""
    if "text_encoder_3" in components:
        return _count(components["tokenizer_3"], prompt), 256
    return _count(components["tokenizer"], prompt), 77


def _z_image_encode(pipeline: Any, prompt: str) -> Encoded:
    # A list of its own: the pipeline writes its chat template into it.
    found, _ = pipeline.encode_prompt([prompt], do_classifier_free_guidance=False)
    return {"prompt_embeds": found}


def _z_image_length(components: Components, prompt: str) -> Length:
    """With the chat template around it."""
    tokenizer = components["tokenizer"]
    message = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=True,
    )
    return _count(tokenizer, message), 512


_FAMILIES = {
    # https://arxiv.org/abs/2511.22699: Qwen3 reads the prompt.
    "z_image": Family(
        from_text=ZImagePipeline,
        from_image=ZImageImg2ImgPipeline,
        from_mask=ZImageInpaintPipeline,
        encode=_z_image_encode,
        guidance=_cfg_scale_less_one,
        length=_z_image_length,
    ),
    # CLIP's pooled text and T5 read the prompt; dev was trained with guidance as an input.
    "flux": Family(
        from_text=FluxPipeline,
        from_image=FluxImg2ImgPipeline,
        from_mask=FluxInpaintPipeline,
        encode=_flux_encode,
        guidance=lambda request: {
            "guidance_scale": request.guidance,
            "true_cfg_scale": request.cfg_scale,
        },
        length=_flux_length,
    ),
    # FLUX.2 klein: Qwen3 reads the prompt, and the transformer looks at a start image, too.
    "flux2": Family(
        from_text=Flux2KleinPipeline,
        from_mask=Flux2KleinInpaintPipeline,
        encode=_encoding("prompt_embeds"),
        guidance=_cfg_scale,
        length=_up_to(512 - 3),  # the chat template begins with three
    ),
    # https://arxiv.org/abs/2508.02324: Qwen2.5-VL reads the prompt.
    "qwen_image": Family(
        from_text=QwenImagePipeline,
        from_image=QwenImageImg2ImgPipeline,
        from_mask=QwenImageInpaintPipeline,
        encode=_qwen_encode,
        guidance=lambda request: {"true_cfg_scale": request.cfg_scale},
        length=_up_to(512),
    ),
    # Krea 2: Qwen3-VL reads the prompt, and the transformer looks at twelve of its layers.
    "krea2": Family(
        from_text=Krea2Pipeline,
        encode=_encoding("prompt_embeds", "prompt_embeds_mask"),
        guidance=_cfg_scale_less_one,
        length=_up_to(512 - 5),  # the chat template ends with five
    ),
    # Mistral 3 reads the prompt, as it is written: nothing rewrites it before.
    "ernie_image": Family(
        from_text=ErnieImagePipeline,
        encode=_ernie_encode,
        guidance=_cfg_scale,
        length=_ernie_length,
    ),
    # https://arxiv.org/abs/2511.22982: Qwen3 reads the prompt.
    "ovis": Family(
        from_text=OvisImagePipeline,
        encode=_encoding("prompt_embeds", **_ALONE, max_sequence_length=256),
        # Its own negative prompt, which is "", would be one too many beside embeddings.
        guidance=lambda request: _cfg_scale(request) | {"negative_prompt": None},
        length=_up_to(256),
    ),
    # Stable Diffusion 3.x, https://arxiv.org/abs/2403.03206: two CLIPs and T5 read the prompt.
    "sd3": Family(
        from_text=StableDiffusion3Pipeline,
        from_image=StableDiffusion3Img2ImgPipeline,
        from_mask=StableDiffusion3InpaintPipeline,
        encode=_encoding(
            *("prompt_embeds", "", "pooled_prompt_embeds"), prompt_2=None, prompt_3=None, **_ALONE
        ),
        guidance=_cfg_scale,
        length=_sd3_length,
        optional=("text_encoder_3", "tokenizer_3"),
    ),
    # https://huggingface.co/lodestones/Chroma: FLUX.1 schnell with T5 alone, and guidance.
    "chroma": Family(
        from_text=ChromaPipeline,
        from_image=ChromaImg2ImgPipeline,
        from_mask=_chroma_inpaint,
        encode=_encoding("prompt_embeds", "", "prompt_attention_mask", **_ALONE),
        guidance=_cfg_scale,
        length=_up_to(512),
    ),
    # https://arxiv.org/abs/2503.21758: Gemma 2 reads the prompt.
    "lumina2": Family(
        from_text=Lumina2Pipeline,
        # diffusers' default, which it writes before prompts, but not before negative ones.
        preamble=(
            "You are an assistant designed to generate superior images with the superior degree of "
            "image-text alignment based on textual prompts or user prompts. <Prompt Start> "
        ),
        encode=_lumina2_encode,
        guidance=_cfg_scale,
        length=_up_to(256),
    ),
    # https://blog.fal.ai/auraflow/: UMT5 reads the prompt.
    "aura_flow": Family(
        from_text=AuraFlowPipeline,
        encode=_encoding("prompt_embeds", "prompt_attention_mask", **_ALONE),
        guidance=_cfg_scale,
        length=_up_to(256),
    ),
    # https://arxiv.org/abs/2410.10629: Gemma 2 reads the prompt, after an instruction.
    "sana": Family(
        from_text=SanaPipeline,
        preamble=_SANA_PREAMBLE,
        encode=_sana_encode,
        guidance=_without_binning,
        length=_sana_length,
    ),
    # https://arxiv.org/abs/2403.04692: T5 reads the prompt, and it removes noise.
    "pixart": Family(
        from_text=_PixArtSigma,
        encode=_encoding(
            "prompt_embeds", "prompt_attention_mask", **_ALONE, max_sequence_length=300
        ),
        guidance=_without_binning,
        length=_up_to(300),
    ),
    # https://github.com/THUDM/CogView4: GLM-4 reads the prompt.
    "cogview4": Family(
        from_text=CogView4Pipeline,
        encode=_encoding("prompt_embeds", **_ALONE),
        guidance=_cfg_scale,
        length=_up_to(1024),
    ),
}
# Variants that have pipelines of their own.
_VARIANTS = {
    ("flux", "Fill"): Family(
        from_text=FluxFillPipeline,
        from_mask=FluxFillPipeline,
        encode=_flux_encode,
        guidance=lambda request: {"guidance_scale": request.guidance},
        length=_flux_length,
    ),
    # Its noise levels do not move with the size.
    ("krea2", "Turbo"): replace(_FAMILIES["krea2"], options={"is_distilled": True}),
}


def rules_of(family: str, variant: str) -> Family:
    """The row of a checkpoint."""
    return _VARIANTS.get((family, variant)) or _FAMILIES[family]
