"""Recognises diffusers folders: a model_index.json and a folder for each part."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from picowatch.catalog.configs import read_config, read_json
from picowatch.catalog.families import NAMES, ONLY
from picowatch.catalog.headers import read_header
from picowatch.catalog.models import Recognised
from picowatch.catalog.recognise import (
    OTHER_INPUTS,
    REFINER,
    TEXT_LAYERS,
    USABLE_INPUTS,
    distilled,
)
from picowatch.errors import ModelRefused
from picowatch.recipe.messages.problems import shown

INDEX = "model_index.json"
# The parts of a checkpoint; the second ones are Stable Diffusion XL's.
_PARTS = ("scheduler", "text_encoder", "tokenizer", "unet", "vae")
_SDXL_PARTS = (*_PARTS, "text_encoder_2", "tokenizer_2")
_WEIGHED_PARTS = ("text_encoder", "text_encoder_2", "unet", "vae")
_WEIGHT_NAMES = (
    re.compile(r"(diffusion_pytorch_)?model\.safetensors"),
    re.compile(r"(diffusion_pytorch_)?model-\d{5}-of-\d{5}\.safetensors"),
    re.compile(r"(diffusion_pytorch_)?model\.fp16\.safetensors"),
)
PICKLE_ENDINGS = {".bin", ".ckpt", ".pt", ".pth"}
_TEXTS = (".json", ".txt")
# Vocabularies and templates with endings of their own.
_OTHER_TEXTS = ("spiece.model", "tokenizer.model", "chat_template.jinja")
_MAX_TEXT_BYTES = 32_000_000  # a vocabulary of CLIP has 1 to 4 MB
_VAE_FACTOR = 8
_SAMPLE_SIZES = range(8, 257)  # sides of 64 to 2048 pixels
_SD_PIPELINES = ("StableDiffusionPipeline", "StableDiffusionInpaintPipeline")
_SDXL_PIPELINES = (
    "StableDiffusionXLPipeline",
    "StableDiffusionXLInpaintPipeline",
    "StableDiffusionXLImg2ImgPipeline",
)
# How many inputs the UNets of other pipelines have.
_PIPELINE_INPUTS = {
    "StableDiffusionDepth2ImgPipeline": 5,
    "StableDiffusionUpscalePipeline": 7,
    "StableDiffusionInstructPix2PixPipeline": 8,
    "StableDiffusionXLInstructPix2PixPipeline": 8,
}
# What the names of other families' pipelines begin with; FLUX.2's before FLUX.1's.
_FAMILIES = {
    "StableDiffusion3": "sd3",
    "Flux2": "flux2",
    "Flux3": "flux3",
    "Flux": "flux",
    "Chroma": "chroma",
    "ZImage": "z_image",
    "Lumina2": "lumina2",
    "QwenImage": "qwen_image",
    "Krea2": "krea2",
    "AuraFlow": "aura_flow",
    "Sana": "sana",
    "PixArt": "pixart",
    "HunyuanDiT": "hunyuan_dit",
    "HunyuanVideo": "hunyuan_video",
    "HiDream": "hidream",
    "Ovis": "ovis",
    "Wan": "wan",
}
# Blocks of transformers in the two levels of the UNet that have them.
_SDXL_DEPTHS = (2, 10)
_DISTILLED_DEPTHS = {
    (2, 4): "SSD-1B",
    (1, 2): "Segmind Vega",
    (2, 5): "KOALA-700M",
    (2, 6): "KOALA-1B",
}


@dataclass(frozen=True, slots=True)
class FolderFile:
    """One file of a folder that takes part in its hash: relative path, and where it is."""

    relative: str
    path: Path


def is_folder(path: Path) -> bool:
    """Whether it is a folder, or a link to one; False if it cannot be examined.

    Unlike pathlib's, for a folder without permission or a link with an overlong target, too.
    """
    return os.path.isdir(path)  # noqa: PTH112


def is_file(path: Path) -> bool:
    """Whether it is a regular file, or a link to one; False if it cannot be examined."""
    return os.path.isfile(path)  # noqa: PTH113


def weight_files(part: Path) -> list[Path]:
    """The safetensors files that hold a part's weights; [] if not found.

    The plain file first, then the plain shards, then a float16 file alone; other variants
    ("non_ema") are for training.
    """
    names = sorted(path.name for path in part.iterdir() if path.suffix == ".safetensors")
    for pattern in _WEIGHT_NAMES:
        found = [part / name for name in names if pattern.fullmatch(name)]
        if found:
            return found
    return []


def folder_files(folder: Path) -> list[FolderFile]:
    """The configs, vocabularies and weights of a diffusers folder, sorted by relative path.

    Of a checkpoint folder the index and the parts' folders count, of a VAE folder its own
    files; weights that are not read, previews and safety checkers do not.
    """
    parts = [folder]
    if is_file(folder / INDEX):
        parts = [folder / part for part in _SDXL_PARTS if is_folder(folder / part)]
    found = [folder / INDEX] if parts != [folder] else []
    for part in parts:
        found += weight_files(part)
        found += (path for path in part.iterdir() if _is_text(path) and not is_folder(path))
    files = [FolderFile(path.relative_to(folder).as_posix(), path) for path in found]
    return sorted(files, key=lambda file: file.relative)


def _is_text(path: Path) -> bool:
    return path.suffix in _TEXTS or path.name in _OTHER_TEXTS


def recognise_checkpoint_folder(folder: Path) -> Recognised:
    """A whole folder of a UNet's family; ModelRefused says what else it is or what is missing."""
    pipeline = str(read_json(folder / INDEX).get("_class_name"))
    if pipeline not in (*_SD_PIPELINES, *_SDXL_PIPELINES):
        raise ModelRefused(_other_pipeline(pipeline))
    _check_files(folder)
    unet = read_config(folder / "unet" / "config.json")
    family = _unet_family(pipeline, unet)
    in_channels, sample_size = unet.get("in_channels"), unet.get("sample_size")
    if in_channels in OTHER_INPUTS:
        raise ModelRefused(OTHER_INPUTS[in_channels])
    if in_channels not in USABLE_INPUTS or not _is_sample_size(sample_size):
        raise ModelRefused("is a diffusers folder with a UNet that picowatch does not support.")
    parts = _SDXL_PARTS if family == "sdxl" else _PARTS
    for part in parts:
        if not is_folder(folder / part):
            raise ModelRefused(f"is a diffusers folder without {part}/: copy the whole folder.")
    weighed = [part for part in parts if part in _WEIGHED_PARTS]
    for part in weighed:
        _check_weights(folder / part)
    configs = {part: read_config(folder / part / "config.json") for part in weighed}
    schedule = read_config(folder / "scheduler" / "scheduler_config.json")
    if str(schedule.get("_class_name")).startswith("EDM"):
        raise ModelRefused(
            "is a diffusers folder with a noise schedule of its own (EDM, as of Playground 2.5): "
            "not supported."
        )
    prediction = schedule.get("prediction_type")
    return Recognised(
        "checkpoint",
        family,
        sample_size * _VAE_FACTOR,
        in_channels,
        min(_text_layers(configs[part]) for part in weighed if part.startswith("text_encoder")),
        prediction if prediction in ("epsilon", "v_prediction") else "",
        schedule.get("rescale_betas_zero_snr") is True,
    )


def _other_pipeline(name: str) -> str:
    """The sentence that refuses a folder of a pipeline that picowatch cannot run."""
    if name in _PIPELINE_INPUTS:
        return OTHER_INPUTS[_PIPELINE_INPUTS[name]]
    family = next((_FAMILIES[start] for start in _FAMILIES if name.startswith(start)), "")
    return f"is a diffusers folder of {NAMES.get(family) or f'a {shown(name)}'}: {ONLY}"


def _unet_family(pipeline: str, unet: dict[str, Any]) -> str:
    """By the pipeline, and the UNet's config; ModelRefused for SDXL's refiner and small kin."""
    width = unet.get("cross_attention_dim")
    if pipeline in _SD_PIPELINES:
        # Stable Diffusion 1.x projects by convolutions.
        return "sd2" if width == 1024 or unet.get("use_linear_projection") else "sd1"
    if width == 1280 or unet.get("projection_class_embeddings_input_dim") == 2560:
        raise ModelRefused(REFINER)
    layers = unet.get("transformer_layers_per_block")
    depths = tuple(layers[1:]) if isinstance(layers, list) else ()
    if width == 2048 and depths != _SDXL_DEPTHS:
        raise ModelRefused(distilled(_DISTILLED_DEPTHS.get(depths)))
    return "sdxl"


def _text_layers(config: dict[str, Any]) -> int:
    layers = config.get("num_hidden_layers")
    return layers if isinstance(layers, int) else TEXT_LAYERS["sd1"]  # as transformers has it then


def _check_files(folder: Path) -> None:
    """Whatever takes part in its hash, or is read with its tokenizer, can be read to its end."""
    for file in folder_files(folder):
        if not is_file(file.path):  # a FIFO or a link to a device, which have no end
            raise ModelRefused(f"cannot be used: {file.relative} is not a regular file. Remove it.")
        if _is_text(file.path) and file.path.stat().st_size > _MAX_TEXT_BYTES:
            raise ModelRefused(
                f"cannot be used: {file.relative} is too large; the limit is "
                f"{_MAX_TEXT_BYTES:,} bytes."
            )


def _is_sample_size(value: object) -> TypeGuard[int]:
    return type(value) is int and value in _SAMPLE_SIZES


def recognise_vae_folder(folder: Path) -> Recognised:
    """A diffusers AutoencoderKL with 4 latent channels."""
    _check_files(folder)
    config = read_config(folder / "config.json")
    if config.get("_class_name") != "AutoencoderKL":
        raise ModelRefused("is a diffusers folder, but not of a VAE (AutoencoderKL).")
    if config.get("latent_channels", 4) != 4:
        raise ModelRefused(
            f"is a VAE with {shown(str(config['latent_channels']))} latent channels: "
            "the supported families have 4."
        )
    _check_weights(folder)
    return Recognised("vae", "")


def is_vae_folder(folder: Path) -> bool:
    """True for a folder with a config.json of its own and some weights."""
    return is_file(folder / "config.json") and not is_file(folder / INDEX)


def _check_weights(part: Path) -> None:
    """A part has whole safetensors weights."""
    weights = weight_files(part)
    for path in weights:
        try:
            read_header(path)
        except ModelRefused as refused:
            raise ModelRefused(
                f"cannot be used: its file {part.name}/{path.name} {refused.message}"
            ) from refused
    if weights:
        return
    if any(path.suffix in PICKLE_ENDINGS for path in part.iterdir()):
        raise ModelRefused(
            f"has its weights in {part.name}/ only as pickle files (.bin), which can run code: "
            "get the folder's .safetensors files instead."
        )
    raise ModelRefused(f"is a diffusers folder without weights in {part.name}/.")
