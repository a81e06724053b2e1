"""Stable Diffusion 1.x, and what it shares with other families of one text encoder."""

from pathlib import Path
from typing import Any

from transformers import CLIPTextModel

from picowatch.catalog import Model
from picowatch.engine.devices import Target
from picowatch.engine.models.loaded import Loaded
from picowatch.engine.models.parts import (
    ASSETS,
    FindFile,
    ReadText,
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
SD15 = ASSETS / "sd15"

_TEXT = "cond_stage_model.transformer."


def load(
    model: Model, configs: Path, target: Target, read_to: Target, find_file: FindFile
) -> Loaded:
    """All of a checkpoint but its VAE, its weights on `read_to`, to compute on `target`.

    `configs` is the folder that describes single files. `find_file` gives the file of a LoRA or
    an embedding by kind, name and hash.
    """
    return load_one_encoder(model, configs, target, read_to, find_file, read_single_text_encoder)


def load_one_encoder(
    model: Model,
    configs: Path,
    target: Target,
    read_to: Target,
    find_file: FindFile,
    read_single: ReadText,
    padding: int | None = None,
) -> Loaded:
    """See `load`; `read_single` reads the text encoder of a single file, `padding` is its token."""
    single = model.layout == "file"
    configs = configs if single else model.path
    encoder = load_text_encoder(model, configs, read_to, "text_encoder", CLIPTextModel, read_single)
    unet = load_unet(model, configs, target, read_to)
    embeddings = Embeddings(encoder, lambda use: find_file("embedding", use.name, use.hash))
    tokenizer = (
        tokenizer_of_single_files(configs) if single else load_tokenizer(configs / "tokenizer")
    )
    return Loaded(
        family=model.family,
        prompts=PromptEncoder(tokenizer, [TextTower(encoder, embeddings, padding)], target.device),
        text_encoders=(encoder,),
        unet=unet,
        vae=None,
        schedule=schedule_of(model, configs),
        loras=Loras(
            model.family,
            unet,
            (encoder,),
            lambda use: find_file("lora", use.name, use.hash),
            target.device,
        ),
        native_size=model.native_size,
    )


def read_single_text_encoder(_: Any, file: Path, target: Target) -> Tensors:
    """The text encoder of a single file."""
    tensors = read_tensors([file], target, lambda name: name.startswith(_TEXT))
    return {name.removeprefix(_TEXT): tensor for name, tensor in tensors.items()}
