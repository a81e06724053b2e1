"""Recognises diffusers folders of families that step along a flow from noise to picture.

An allowlist: which classes of diffusers and transformers each part may have. The engine loads
these and no others, whatever else a folder names or brings along.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from picowatch.catalog.configs import read_json, refuse_beyond
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
_Classes = tuple[str, ...]
_KL, _KL_FLUX2, _KL_QWEN = "AutoencoderKL", "AutoencoderKLFlux2", "AutoencoderKLQwenImage"
_DPM = "DPMSolverMultistepScheduler"
_CLIP_WORDS = ("CLIPTokenizer", "CLIPTokenizerFast")
_T5_WORDS = ("T5Tokenizer", "T5TokenizerFast")
_QWEN_WORDS = ("Qwen2Tokenizer", "Qwen2TokenizerFast")
_GEMMA_WORDS = ("GemmaTokenizer", "GemmaTokenizerFast")
_LLAMA_WORDS = ("LlamaTokenizer", "LlamaTokenizerFast")
_ANY_WORDS = ("PreTrainedTokenizerFast", "TokenizersBackend")
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


def _parts(
    transformer: str | _Classes,
    vae: str,
    *texts: tuple[str | _Classes, _Classes],
    scheduler: str = "FlowMatchEulerDiscreteScheduler",
) -> Mapping[str, _Classes]:
    """The classes of a pipeline's parts; of each text encoder with the tokenizer's."""
    found: dict[str, str | _Classes] = {
        "scheduler": scheduler,
        "transformer": transformer,
        "vae": vae,
    }
    for ending, (encoder, tokenizer) in zip(("", "_2", "_3"), texts, strict=False):
        found |= {f"text_encoder{ending}": encoder, f"tokenizer{ending}": tokenizer}
    return {part: (one,) if isinstance(one, str) else one for part, one in found.items()}


_PROJECTED = ("CLIPTextModelWithProjection", _CLIP_WORDS)
_T5 = ("T5EncoderModel", _T5_WORDS)
_QWEN_VL = ("Qwen2_5_VLForConditionalGeneration", _QWEN_WORDS)
_FLUX = _parts("FluxTransformer2DModel", _KL, ("CLIPTextModel", _CLIP_WORDS), _T5)
_LUMINA2 = _parts("Lumina2Transformer2DModel", _KL, ("Gemma2Model", _GEMMA_WORDS))
# The layers of the text encoder that are read.
_KREA2_SETTINGS = {"patch_size": 2, "text_encoder_select_layers": [*range(2, 36, 3)]}
_KLEIN_SIZES = {"7680": " 4B", "12288": " 9B"}  # by the width of the text
_FROM_PICTURES = re.compile("(Img2Img|Inpaint)(?=Pipeline$)")
PIPELINES = {
    "ZImagePipeline": Pipeline(
        "z_image",
        _parts("ZImageTransformer2DModel", _KL, (("Qwen3Model", "Qwen3ForCausalLM"), _QWEN_WORDS)),
    ),
    "FluxPipeline": Pipeline("flux", _FLUX),
    "FluxFillPipeline": Pipeline("flux", _FLUX, variant="Fill"),
    "Flux2KleinPipeline": Pipeline(
        "flux2", _parts("Flux2Transformer2DModel", _KL_FLUX2, ("Qwen3ForCausalLM", _QWEN_WORDS))
    ),
    "Krea2Pipeline": Pipeline(
        "krea2",
        _parts("Krea2Transformer2DModel", _KL_QWEN, ("Qwen3VLModel", _QWEN_WORDS)),
        settings=_KREA2_SETTINGS,
    ),
    "ErnieImagePipeline": Pipeline(
        "ernie_image",
        _parts("ErnieImageTransformer2DModel", _KL_FLUX2, ("Mistral3Model", _ANY_WORDS)),
    ),
    "OvisImagePipeline": Pipeline(
        "ovis", _parts("OvisImageTransformer2DModel", _KL, ("Qwen3Model", _QWEN_WORDS))
    ),
    "QwenImagePipeline": Pipeline(
        "qwen_image",
        _parts("QwenImageTransformer2DModel", _KL_QWEN, _QWEN_VL),
        native_size=1328,
    ),
    "ChromaPipeline": Pipeline("chroma", _parts("ChromaTransformer2DModel", _KL, _T5)),
    "Lumina2Pipeline": Pipeline("lumina2", _LUMINA2),
    "Lumina2Text2ImgPipeline": Pipeline("lumina2", _LUMINA2),  # as diffusers called it first
    "AuraFlowPipeline": Pipeline(
        "aura_flow", _parts("AuraFlowTransformer2DModel", _KL, ("UMT5EncoderModel", _LLAMA_WORDS))
    ),
    "SanaPipeline": Pipeline(
        "sana",
        _parts(
            "SanaTransformer2DModel", "AutoencoderDC", ("Gemma2Model", _GEMMA_WORDS), scheduler=_DPM
        ),
        latent_pixels=32,
    ),
    "PixArtSigmaPipeline": Pipeline(
        "pixart",
        # The second is what diffusers called it first.
        _parts(("PixArtTransformer2DModel", "Transformer2DModel"), _KL, _T5, scheduler=_DPM),
        latent_pixels=8,
        variant="Sigma",
    ),
    "CogView4Pipeline": Pipeline(
        "cogview4", _parts("CogView4Transformer2DModel", _KL, ("GlmModel", _ANY_WORDS))
    ),
    "StableDiffusion3Pipeline": Pipeline(
        "sd3",
        _parts("SD3Transformer2DModel", _KL, _PROJECTED, _PROJECTED, _T5),
        optional=("text_encoder_3",),
    ),
}


def from_text(pipeline: str) -> str:
    """The pipeline without start images and masks.

    Those with them have the same parts: scripts save folders under their names.
    """
    return _FROM_PICTURES.sub("", pipeline)


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
    index = read_json(folder / INDEX)
    pipeline = PIPELINES.get(from_text(str(index.get("_class_name"))))
    found: dict[str, str] = {}
    if pipeline is None:
        raise ModelRefused("is a diffusers folder of an unknown pipeline.")
    for part, allowed in pipeline.parts.items():
        encoder = encoder_of(part)
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


def encoder_of(part: str) -> str:
    """The text encoder that reads what this tokenizer gives; other parts are their own."""
    return part.replace("tokenizer", "text_encoder")


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
    most = _MOST_STEPS if key == "num_train_timesteps" else _MOST
    most = _MOST_LAYERS if any(word in key for word in _DEPTHS) else most
    refuse_beyond(f"{where} says {shown(key)}", value, most, _MOST_ENTRIES)
    if isinstance(value, dict):
        for name, part in value.items():
            check_numbers(where, part, str(name))
    elif isinstance(value, list):
        for part in value:
            check_numbers(where, part, key)
    if key == "quantization_config" and value:
        raise ModelRefused("is quantised (quantization_config): not supported. Get it in bfloat16.")
