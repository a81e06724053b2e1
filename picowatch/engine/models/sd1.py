"""Stable Diffusion 1.x: from a single file or a diffusers folder to the parts that compute.

Another family of UNets is another module with `load` and `load_vae`. Its text encoding is its
`Loaded.prompts`, which also says what its UNet is shown besides latents (`Conditions` in
unet/prompts.py). Its prediction type and betas are its scheduler's config, `Loaded.schedule`.
"""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from picowatch.catalog import Kind, Model, read_config, weight_files
from picowatch.engine.devices import Target
from picowatch.engine.models.loaded import Loaded
from picowatch.engine.models.weights import Tensors, empty, fill, read_tensors
from picowatch.engine.unet.embeddings import Embeddings
from picowatch.engine.unet.loras import Loras
from picowatch.engine.unet.onednn import onednn_is_faster, use_onednn
from picowatch.engine.unet.prompts import PromptEncoder

# Configs and tokenizer, which single files leave out.
SD15 = Path(__file__).parents[2] / "assets" / "sd15"

# In single files; the UNet's EMA copy (`model_ema.`) is not read.
_UNET = "model.diffusion_model."
_TEXT = "cond_stage_model.transformer."
_VAE = "first_stage_model."
_VAE_PARTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
# diffusers renamed the VAE's attention in 0.15; files from before have the old names.
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

FindFile = Callable[[Kind, str, str], Path]


def load(
    model: Model, configs: Path, target: Target, read_to: Target, find_file: FindFile
) -> Loaded:
    """All of a checkpoint but its VAE, its weights on `read_to`, to compute on `target`.

    `configs` is the folder that describes single files. `find_file` gives the file of a LoRA or
    an embedding by kind, name and hash.
    """
    single = model.layout == "file"
    configs = configs if single else model.path
    text_encoder = _text_encoder(model, configs, read_to)
    unet = _unet(model, configs, read_to.for_unet(model.native_size))
    # The device it computes on, not the one that holds it until the memory ladder moves it.
    if onednn_is_faster(target.device, unet.dtype):
        use_onednn(unet)
    embeddings = Embeddings(text_encoder, lambda use: find_file("embedding", use.name, use.hash))
    tokenizer = _tokenizer_of_single_files(configs) if single else _tokenizer(configs)
    return Loaded(
        prompts=PromptEncoder(tokenizer, text_encoder, embeddings, target.device),
        text_encoder=text_encoder,
        unet=unet,
        vae=None,
        schedule=read_config(configs / "scheduler" / "scheduler_config.json"),
        loras=Loras(
            unet, text_encoder, lambda use: find_file("lora", use.name, use.hash), target.device
        ),
        native_size=model.native_size,
    )


def load_vae(model: Model, configs: Path, target: Target) -> Any:
    """The VAE of a checkpoint, or one that is a file or folder of its own."""
    folder = model.path / "vae" if model.kind == "checkpoint" else model.path
    single = model.layout == "file"
    config = read_config((configs / "vae" if single else folder) / "config.json")
    if single:
        tensors = read_single_vae(model.path, config, target)
    else:
        tensors = _modern_vae_names(read_tensors(weight_files(folder), target))
    return fill(empty(AutoencoderKL, config), tensors, f"VAE of {model.name!r}", target)


def _unet(model: Model, configs: Path, target: Target) -> Any:
    config = read_config(configs / "unet" / "config.json")
    config["in_channels"] = model.in_channels
    if model.layout == "file":
        tensors = read_single_unet(model.path, config, target)
    else:
        tensors = read_tensors(weight_files(model.path / "unet"), target)
    return fill(empty(UNet2DConditionModel, config), tensors, f"UNet of {model.name!r}", target)


def _text_encoder(model: Model, configs: Path, target: Target) -> Any:
    encoder = empty(
        CLIPTextModel, CLIPTextConfig(**read_config(configs / "text_encoder" / "config.json"))
    )
    if model.layout == "file":
        tensors = read_single_text_encoder(model.path, target)
    else:
        tensors = read_tensors(weight_files(model.path / "text_encoder"), target)
    tensors = text_encoder_names(encoder, tensors)
    return fill(encoder, tensors, f"text encoder of {model.name!r}", target)


def _tokenizer(configs: Path) -> Any:
    return CLIPTokenizer.from_pretrained(configs / "tokenizer", local_files_only=True)


# Single files all share one, which takes a third of a second to read.
_tokenizer_of_single_files = cache(_tokenizer)


def read_single_unet(file: Path, config: dict[str, Any], target: Target) -> Tensors:
    """The UNet of a single file."""
    tensors = read_tensors([file], target, lambda name: name.startswith(_UNET))
    converted: Tensors = convert_ldm_unet_checkpoint(tensors, config)  # type: ignore[no-untyped-call]
    return converted


def read_single_text_encoder(file: Path, target: Target) -> Tensors:
    """The text encoder of a single file."""
    tensors = read_tensors([file], target, lambda name: name.startswith(_TEXT))
    return {name.removeprefix(_TEXT): tensor for name, tensor in tensors.items()}


def read_single_vae(file: Path, config: dict[str, Any], target: Target) -> Tensors:
    """The VAE in a checkpoint, or a VAE file in the original's or in diffusers' names."""
    tensors = read_tensors([file], target, lambda name: name.startswith((_VAE, *_VAE_PARTS)))
    tensors = {name.removeprefix(_VAE): tensor for name, tensor in tensors.items()}
    if "decoder.up_blocks.0.resnets.0.conv1.weight" in tensors:
        return _modern_vae_names(tensors)
    converted: Tensors = convert_ldm_vae_checkpoint(tensors, config)  # type: ignore[no-untyped-call]
    return converted


def _modern_vae_names(tensors: Tensors) -> Tensors:
    """diffusers' names of today; attention weights as matrices, not 1x1 convolutions."""
    renamed = {}
    for name, tensor in tensors.items():
        for old, new in _OLD_ATTENTION.items():
            name = re.sub(rf"(attentions\.\d+)\.{old}\.", rf"\1.{new}.", name)
        flat = ".attentions." in name and tensor.ndim == 4
        renamed[name] = tensor[:, :, 0, 0] if flat else tensor
    return renamed


def text_encoder_names(model: Any, tensors: Tensors) -> Tensors:
    """Names as this transformers has them: without `text_model.` since 5.6, with it before."""
    bare = {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
    prefix = "text_model." if hasattr(model, "text_model") else ""
    return {f"{prefix}{name}": tensor for name, tensor in bare.items()}
