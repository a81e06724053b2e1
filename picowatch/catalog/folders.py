"""Recognises diffusers folders: a model_index.json and a folder for each part."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from picowatch.catalog.configs import read_config, read_json
from picowatch.catalog.headers import read_header
from picowatch.catalog.models import Recognised
from picowatch.catalog.recognise import TEXT_LAYERS, USABLE_INPUTS
from picowatch.errors import ModelRefused
from picowatch.recipe.messages.problems import shown

INDEX = "model_index.json"
_PARTS = ("scheduler", "text_encoder", "tokenizer", "unet", "vae")
_WEIGHED_PARTS = ("text_encoder", "unet", "vae")
_WEIGHT_NAMES = (
    re.compile(r"(diffusion_pytorch_)?model\.safetensors"),
    re.compile(r"(diffusion_pytorch_)?model-\d{5}-of-\d{5}\.safetensors"),
    re.compile(r"(diffusion_pytorch_)?model\.fp16\.safetensors"),
)
PICKLE_ENDINGS = {".bin", ".ckpt", ".pt", ".pth"}
_CONFIGS = (
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "vae/config.json",
)
_TEXTS = (".json", ".txt")
_MAX_TEXT_BYTES = 32_000_000  # a vocabulary of CLIP has 1 to 4 MB
_VAE_FACTOR = 8
_SAMPLE_SIZES = range(8, 257)  # sides of 64 to 2048 pixels
_FAMILIES = {
    "StableDiffusionXLPipeline": "Stable Diffusion XL",
    "StableDiffusion3Pipeline": "Stable Diffusion 3",
    "FluxPipeline": "Flux",
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

    Of a checkpoint folder the index and the five parts' folders count, of a VAE folder its own
    files; weights that are not read, previews and safety checkers do not.
    """
    parts = [folder]
    if is_file(folder / INDEX):
        parts = [folder / part for part in _PARTS if is_folder(folder / part)]
    found = [folder / INDEX] if parts != [folder] else []
    for part in parts:
        found += weight_files(part)
        found += (path for path in part.iterdir() if path.suffix in _TEXTS and not is_folder(path))
    files = [FolderFile(path.relative_to(folder).as_posix(), path) for path in found]
    return sorted(files, key=lambda file: file.relative)


def recognise_checkpoint_folder(folder: Path) -> Recognised:
    """A whole Stable Diffusion 1.x folder; ModelRefused says what else it is or what is missing."""
    pipeline = str(read_json(folder / INDEX).get("_class_name"))
    if pipeline not in ("StableDiffusionPipeline", "StableDiffusionInpaintPipeline"):
        name = _FAMILIES.get(pipeline, f"a {shown(pipeline)}")
        raise ModelRefused(
            f"is a diffusers folder of {name}: picowatch only supports Stable Diffusion 1.x."
        )
    _check_files(folder)
    unet = read_config(folder / "unet" / "config.json")
    if unet.get("cross_attention_dim") == 1024:
        raise ModelRefused(
            "is a diffusers folder of Stable Diffusion 2.x: "
            "picowatch only supports Stable Diffusion 1.x."
        )
    in_channels, sample_size = unet.get("in_channels"), unet.get("sample_size")
    if in_channels not in USABLE_INPUTS or not _is_sample_size(sample_size):
        raise ModelRefused("is a diffusers folder with a UNet that picowatch does not support.")
    for part in _PARTS:
        if not is_folder(folder / part):
            raise ModelRefused(f"is a diffusers folder without {part}/: copy the whole folder.")
    for part in _WEIGHED_PARTS:
        _check_weights(folder / part)
    for config in _CONFIGS:
        read_config(folder / config)
    text_layers = read_config(folder / "text_encoder" / "config.json").get("num_hidden_layers")
    if not isinstance(text_layers, int):  # what transformers takes then
        text_layers = TEXT_LAYERS["sd1"]
    return Recognised("checkpoint", "sd1", sample_size * _VAE_FACTOR, in_channels, text_layers)


def _check_files(folder: Path) -> None:
    """Whatever takes part in its hash, or is read with its tokenizer, can be read to its end."""
    for file in folder_files(folder):
        if not is_file(file.path):  # a FIFO or a link to a device, which have no end
            raise ModelRefused(f"cannot be used: {file.relative} is not a regular file. Remove it.")
        if file.path.suffix in _TEXTS and file.path.stat().st_size > _MAX_TEXT_BYTES:
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
            "picowatch only supports Stable Diffusion 1.x, which has 4."
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
