"""Stable Diffusion XL: two text encoders, a pooled prompt and the picture's size for its UNet.

"SDXL: Improving Latent Diffusion Models", https://arxiv.org/abs/2307.01952.
"""

from pathlib import Path
from typing import Any

from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from picowatch.catalog import Model
from picowatch.engine.devices import Target
from picowatch.engine.models.loaded import Loaded
from picowatch.engine.models.parts import (
    ASSETS,
    FindFile,
    load_text_encoder,
    load_tokenizer,
    load_unet,
    schedule_of,
    tokenizer_of_single_files,
)
from picowatch.engine.models.weights import Tensors, read_tensors
from picowatch.engine.unet.embeddings import Embeddings
from picowatch.engine.unet.loras import Loras
from picowatch.engine.unet.prompts import PromptEncoder, TextTower

# Configs, which single files leave out.
SDXL = ASSETS / "sdxl"

_FIRST = "conditioner.embedders.0.transformer."
_SECOND = "conditioner.embedders.1.model."
# Both encoders are read at their last layer but one, without its norm: clip_skip 2 is the least.
_LEAST_SKIP = 2
# In an embedding's file, the vectors for each encoder.
_KEYS = ("clip_l", "clip_g")
# OpenCLIP pads with the token 0, "!".
_PADDING = 0


def load(
    model: Model, configs: Path, target: Target, read_to: Target, find_file: FindFile
) -> Loaded:
    """All of a checkpoint but its VAE; see `sd1.load`."""
    single = model.layout == "file"
    configs = configs if single else model.path
    encoders = (
        load_text_encoder(model, configs, read_to, "text_encoder", CLIPTextModel, _read_first),
        load_text_encoder(
            model, configs, read_to, "text_encoder_2", CLIPTextModelWithProjection, _read_second
        ),
    )
    unet = load_unet(model, configs, target, read_to)
    return Loaded(
        family=model.family,
        prompts=_prompts(encoders, configs, single, target, find_file),
        text_encoders=encoders,
        unet=unet,
        vae=None,
        schedule=schedule_of(model, configs),
        loras=Loras(
            model.family,
            unet,
            encoders,
            lambda use: find_file("lora", use.name, use.hash),
            target.device,
        ),
        native_size=model.native_size,
    )


def _prompts(
    encoders: tuple[Any, Any], configs: Path, single: bool, target: Target, find_file: FindFile
) -> PromptEncoder:
    """Empty negative prompts are zeros, as in A1111 and in diffusers without one."""
    tokens: dict[str, tuple[int, ...]] = {}
    towers = [
        TextTower(
            encoder,
            Embeddings(
                encoder, lambda use: find_file("embedding", use.name, use.hash), key, tokens
            ),
            padding,
            _LEAST_SKIP,
            normed=False,
        )
        for encoder, key, padding in zip(
            encoders, ("clip_l", "clip_g"), (None, _PADDING), strict=True
        )
    ]
    tokenizer = (
        tokenizer_of_single_files(configs) if single else load_tokenizer(configs / "tokenizer")
    )
    return PromptEncoder(tokenizer, towers, target.device, zeros_for_empty_negative=True)


def _read_first(_: Any, file: Path, target: Target) -> Tensors:
    """CLIP ViT-L of a single file."""
    tensors = read_tensors([file], target, lambda name: name.startswith(_FIRST))
    return {name.removeprefix(_FIRST): tensor for name, tensor in tensors.items()}


def _read_second(encoder: Any, file: Path, target: Target) -> Tensors:
    """OpenCLIP ViT-bigG of a single file, in transformers' names."""
    tensors = read_tensors([file], target, lambda name: name.startswith(_SECOND))
    converted: Tensors = convert_open_clip_checkpoint(encoder, tensors, _SECOND)  # type: ignore[no-untyped-call]
    return converted
