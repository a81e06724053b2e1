"""Recognises diffusers folders of families that step along a flow from noise to picture.

An allowlist: which classes of diffusers and transformers each part may have. The engine loads
these and no others, whatever else a folder names or brings along.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from picowatch.catalog.configs import read_json
from picowatch.catalog.folder_files import (
    INDEX,
    WEIGHTS_ENDINGS,
    check_files,
    check_weights,
    is_file,
    is_folder,
)
from picowatch.catalog.models import Recognised
from picowatch.errors import ModelRefused
from picowatch.recipe.messages.problems import shown

NATIVE_SIZE = 1024
_MOST_PIXELS = 2048  # of a side in a recipe
_EULER = ("FlowMatchEulerDiscreteScheduler",)
_PROJECTED = ("CLIPTextModelWithProjection",)
_CLIP_WORDS = ("CLIPTokenizer", "CLIPTokenizerFast")
_T5_WORDS = ("T5Tokenizer", "T5TokenizerFast")
_QWEN_WORDS = ("Qwen2Tokenizer", "Qwen2TokenizerFast")
_GEMMA_WORDS = ("GemmaTokenizer", "GemmaTokenizerFast")
_LLAMA_WORDS = ("LlamaTokenizer", "LlamaTokenizerFast")
_DPM = ("DPMSolverMultistepScheduler",)
_VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model")
# Of numbers in configs: more would take gigabytes or minutes before the first weight is read.
_MOST_LAYERS = 200
_MOST_ENTRIES = 1_000
_MOST_STEPS = 10_000
_MOST = 100_000_000
_DEPTHS = ("layers", "blocks", "depth")


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A pipeline of diffusers: its family, and the classes that its parts may have.

    A folder may do without the `optional` text encoders: its index says null, and the tokenizer
    is not read either. `variant` is the one that its class tells, `native_size` the side of the
    square that its card recommends; with `latent_pixels` that of the transformer's config, which
    counts latents of so many pixels. `settings` of the index must be as here, where it has them.
    """

    family: str
    parts: Mapping[str, tuple[str, ...]]
    optional: tuple[str, ...] = ()
    variant: str = ""
    native_size: int = NATIVE_SIZE
    settings: Mapping[str, Any] = field(default_factory=dict)
    latent_pixels: int = 0


_Z_IMAGE = {
    "scheduler": _EULER,
    "transformer": ("ZImageTransformer2DModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("Qwen3Model", "Qwen3ForCausalLM"),
    "tokenizer": _QWEN_WORDS,
}
_FLUX = {
    "scheduler": _EULER,
    "transformer": ("FluxTransformer2DModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": _CLIP_WORDS,
    "text_encoder_2": ("T5EncoderModel",),
    "tokenizer_2": _T5_WORDS,
}
_KLEIN = {
    "scheduler": _EULER,
    "transformer": ("Flux2Transformer2DModel",),
    "vae": ("AutoencoderKLFlux2",),
    "text_encoder": ("Qwen3ForCausalLM",),
    "tokenizer": _QWEN_WORDS,
}
_QWEN_IMAGE = {
    "scheduler": _EULER,
    "transformer": ("QwenImageTransformer2DModel",),
    "vae": ("AutoencoderKLQwenImage",),
    "text_encoder": ("Qwen2_5_VLForConditionalGeneration",),
    "tokenizer": _QWEN_WORDS,
}
_KREA2 = {
    "scheduler": _EULER,
    "transformer": ("Krea2Transformer2DModel",),
    "vae": ("AutoencoderKLQwenImage",),
    "text_encoder": ("Qwen3VLModel",),
    "tokenizer": _QWEN_WORDS,
}
# The layers of the text encoder that are read.
_KREA2_SETTINGS = {"patch_size": 2, "text_encoder_select_layers": [*range(2, 36, 3)]}
_ERNIE_IMAGE = {
    "scheduler": _EULER,
    "transformer": ("ErnieImageTransformer2DModel",),
    "vae": ("AutoencoderKLFlux2",),
    "text_encoder": ("Mistral3Model",),
    "tokenizer": ("TokenizersBackend", "PreTrainedTokenizerFast"),
}
_OVIS = {
    "scheduler": _EULER,
    "transformer": ("OvisImageTransformer2DModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("Qwen3Model",),
    "tokenizer": _QWEN_WORDS,
}
_KLEIN_SIZES = {"7680": " 4B", "12288": " 9B"}  # by the width of the text
_SD3 = {
    "scheduler": _EULER,
    "transformer": ("SD3Transformer2DModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": _PROJECTED,
    "tokenizer": _CLIP_WORDS,
    "text_encoder_2": _PROJECTED,
    "tokenizer_2": _CLIP_WORDS,
    "text_encoder_3": ("T5EncoderModel",),
    "tokenizer_3": _T5_WORDS,
}
_CHROMA = {
    "scheduler": _EULER,
    "transformer": ("ChromaTransformer2DModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("T5EncoderModel",),
    "tokenizer": _T5_WORDS,
}
_LUMINA2 = {
    "scheduler": _EULER,
    "transformer": ("Lumina2Transformer2DModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("Gemma2Model",),
    "tokenizer": _GEMMA_WORDS,
}
_AURA_FLOW = {
    "scheduler": _EULER,
    "transformer": ("AuraFlowTransformer2DModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("UMT5EncoderModel",),
    "tokenizer": _LLAMA_WORDS,
}
_SANA = {
    "scheduler": _DPM,
    "transformer": ("SanaTransformer2DModel",),
    "vae": ("AutoencoderDC",),
    "text_encoder": ("Gemma2Model",),
    "tokenizer": _GEMMA_WORDS,
}
_PIXART_SIGMA = {
    "scheduler": _DPM,
    # As diffusers called it first.
    "transformer": ("PixArtTransformer2DModel", "Transformer2DModel"),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("T5EncoderModel",),
    "tokenizer": _T5_WORDS,
}
_COGVIEW4 = {
    "scheduler": _EULER,
    "transformer": ("CogView4Transformer2DModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("GlmModel",),
    "tokenizer": ("PreTrainedTokenizerFast", "TokenizersBackend"),
}
_FROM_PICTURES = re.compile("(Img2Img|Inpaint)(?=Pipeline$)")
PIPELINES = {
    "ZImagePipeline": Pipeline("z_image", _Z_IMAGE),
    "FluxPipeline": Pipeline("flux", _FLUX),
    "FluxFillPipeline": Pipeline("flux", _FLUX, variant="Fill"),
    "Flux2KleinPipeline": Pipeline("flux2", _KLEIN),
    "Krea2Pipeline": Pipeline("krea2", _KREA2, settings=_KREA2_SETTINGS),
    "ErnieImagePipeline": Pipeline("ernie_image", _ERNIE_IMAGE),
    "OvisImagePipeline": Pipeline("ovis", _OVIS),
    "QwenImagePipeline": Pipeline("qwen_image", _QWEN_IMAGE, native_size=1328),
    "ChromaPipeline": Pipeline("chroma", _CHROMA),
    "Lumina2Pipeline": Pipeline("lumina2", _LUMINA2),
    "Lumina2Text2ImgPipeline": Pipeline("lumina2", _LUMINA2),  # as diffusers called it first
    "AuraFlowPipeline": Pipeline("aura_flow", _AURA_FLOW),
    "SanaPipeline": Pipeline("sana", _SANA, latent_pixels=32),
    "PixArtSigmaPipeline": Pipeline("pixart", _PIXART_SIGMA, latent_pixels=8, variant="Sigma"),
    "CogView4Pipeline": Pipeline("cogview4", _COGVIEW4),
    "StableDiffusion3Pipeline": Pipeline("sd3", _SD3, optional=("text_encoder_3",)),
}


def pipeline_of(folder: Path) -> Pipeline | None:
    """The pipeline that the folder's index names, if it is in the table.

    Those for start images and masks have the same parts: scripts save folders under their names.
    """
    name = str(read_json(folder / INDEX).get("_class_name"))
    return PIPELINES.get(name) or PIPELINES.get(_FROM_PICTURES.sub("", name))


def recognise_pipeline(folder: Path, pipeline: Pipeline) -> Recognised:
    """A whole folder of this pipeline; ModelRefused says what is missing or not supported."""
    check_files(folder)
    for part in classes_of(folder):
        if part.startswith("tokenizer"):
            _check_vocabulary(folder / part)
        elif part == "scheduler":
            name, key = "scheduler_config.json", "num_train_timesteps"
            check_numbers(f"{part}/{name}", read_json(folder / part / name).get(key), key)
        else:
            if part != "transformer" or not only_lends(folder):
                check_weights(folder / part)
            check_numbers(f"{part}/config.json", read_json(folder / part / "config.json"))
    transformer = read_json(folder / "transformer" / "config.json")
    index = read_json(folder / INDEX)
    for setting, value in pipeline.settings.items():
        if index.get(setting) not in (value, None):
            raise ModelRefused(
                f"cannot be used: {INDEX} says {setting}: {shown(str(index[setting]))}; "
                f"only {value} is supported."
            )
    variant = pipeline.variant or _variant(pipeline.family, index, transformer)
    side = pipeline.native_size
    if pipeline.latent_pixels:
        size = transformer.get("sample_size")
        size = size if isinstance(size, int) and size > 0 else 0
        side = min(pipeline.latent_pixels * size, _MOST_PIXELS)
    return Recognised("checkpoint", pipeline.family, side or NATIVE_SIZE, variant=variant)


def only_lends(folder: Path) -> bool:
    """Whether a folder has no weights in transformer/: it may complete transformer files."""
    return not any(path.suffix in WEIGHTS_ENDINGS for path in (folder / "transformer").iterdir())


def native_size(family: str) -> int:
    """The side of the square that the family was trained for; 0 for families without pipelines."""
    return next((one.native_size for one in PIPELINES.values() if one.family == family), 0)


def classes_of(folder: Path) -> dict[str, str]:
    """The class of each part that is loaded; ModelRefused for one that is not in the allowlist."""
    index, pipeline = read_json(folder / INDEX), pipeline_of(folder)
    found: dict[str, str] = {}
    if pipeline is None:
        raise ModelRefused("is a diffusers folder of an unknown pipeline.")
    for part, allowed in pipeline.parts.items():
        encoder = part.replace("tokenizer", "text_encoder")
        if encoder in pipeline.optional and _class_name(index, encoder) is None:
            continue
        name = _class_name(index, part)
        if name not in allowed:
            raise ModelRefused(
                f"is a diffusers folder whose {part} is {shown(str(name))}, not {allowed[0]}: "
                "not supported."
            )
        if not is_folder(folder / part):
            null = f", or write [null, null] for it in {INDEX}" if part in pipeline.optional else ""
            raise ModelRefused(
                f"is a diffusers folder without {part}/: copy the whole folder{null}."
            )
        found[part] = str(name)
    return found


def _class_name(index: dict[str, Any], part: str) -> str | None:
    """What stands in the index: ["library", "class"], or [null, null]."""
    entry = index.get(part)
    return entry[1] if isinstance(entry, list) and len(entry) == 2 else None


def _variant(family: str, index: dict[str, Any], transformer: dict[str, Any]) -> str:
    """What the index and the transformer's config tell; "" where the name has to."""
    if family == "flux":
        return "dev" if transformer.get("guidance_embeds") else "schnell"
    if family == "flux2":
        base = "" if index.get("is_distilled") else " base"
        return f"klein{base}{_KLEIN_SIZES.get(str(transformer.get('joint_attention_dim')), '')}"
    if family == "krea2":
        return "Turbo" if index.get("is_distilled") else "Raw"
    if family == "aura_flow":
        return "0.3" if transformer.get("pos_embed_max_size") == 9216 else ""
    if family == "sd3" and transformer.get("num_layers") == 38:
        return "3.5 Large"
    if family == "sd3":
        return "3.5 Medium" if transformer.get("pos_embed_max_size") == 384 else "3 Medium"
    return ""


def _check_vocabulary(folder: Path) -> None:
    """transformers makes up a vocabulary where it finds none, without a word."""
    if not any(is_file(folder / name) for name in _VOCABULARIES):
        raise ModelRefused(
            f"is a diffusers folder without a vocabulary in {folder.name}/ "
            "(tokenizer.json, or vocab.json, or spiece.model): copy the whole folder."
        )


def check_numbers(where: str, value: Any, key: str = "") -> None:
    """Refuse a config with which making the model takes too much memory or time."""
    if isinstance(value, dict):
        for name, part in value.items():
            check_numbers(where, part, str(name))
    elif isinstance(value, list):
        if len(value) > _MOST_ENTRIES:
            raise ModelRefused(
                f"cannot be used: {where} says {shown(key)} with {len(value):,} entries; the limit "
                f"is {_MOST_ENTRIES:,}."
            )
        for part in value:
            check_numbers(where, part, key)
    elif isinstance(value, int | float):
        most = _MOST_STEPS if key == "num_train_timesteps" else _MOST
        most = _MOST_LAYERS if any(word in key for word in _DEPTHS) else most
        if not -most <= value <= most:
            raise ModelRefused(
                f"cannot be used: {where} says {shown(key)}: {shown(str(value))}; the limit is "
                f"{most:,}."
            )
    if key == "quantization_config" and value:
        raise ModelRefused("is quantised (quantization_config): not supported. Get it in bfloat16.")
