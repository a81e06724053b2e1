"""Stable Diffusion 1.x, and what it shares with the other families of UNets."""

from collections.abc import Sequence
from dataclasses import dataclass
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
)
from picowatch.engine.models.weights import Tensors, read_tensors
from picowatch.engine.unet.embeddings import Embeddings
from picowatch.engine.unet.loras import Loras
from picowatch.engine.unet.prompts import PromptEncoder, TextTower

# Configs, which single files leave out.
SD15 = ASSETS / "sd15"

_TEXT = "cond_stage_model.transformer."


@dataclass(frozen=True, slots=True)
class TextPart:
    """A text encoder of a family: its folder, its class, and how a single file's is read.

    `key` is that of its vectors in embeddings, see `Embeddings`; the others are `TextTower`'s.
    """

    folder: str
    kind: Any
    read_single: ReadText
    key: str = "clip_l"
    padding: int | None = None
    least_skip: int = 1
    normed: bool = True


def load(
    model: Model, configs: Path, target: Target, read_to: Target, find_file: FindFile
) -> Loaded:
    """All of a checkpoint but its VAE, its weights on `read_to`, to compute on `target`.

    `configs` is the folder that describes single files. `find_file` gives the file of a LoRA or
    an embedding by kind, name and hash.
    """
    text = TextPart("text_encoder", CLIPTextModel, read_single_text_encoder)
    return load_with_texts(model, configs, target, read_to, find_file, [text])


def load_with_texts(
    model: Model,
    configs: Path,
    target: Target,
    read_to: Target,
    find_file: FindFile,
    texts: Sequence[TextPart],
    *,
    zeros_for_empty_negative: bool = False,
) -> Loaded:
    """See `load`, for a family with these text encoders, and `PromptEncoder`."""
    configs = configs if model.layout == "file" else model.path
    encoders = tuple(
        load_text_encoder(model, configs, read_to, text.folder, text.kind, text.read_single)
        for text in texts
    )
    unet = load_unet(model, configs, target, read_to)
    tokens: dict[str, tuple[int, ...]] = {}
    towers = [
        TextTower(
            encoder,
            Embeddings(
                encoder, lambda use: find_file("embedding", use.name, use.hash), text.key, tokens
            ),
            text.padding,
            text.least_skip,
            text.normed,
        )
        for encoder, text in zip(encoders, texts, strict=True)
    ]
    tokenizer = load_tokenizer(model, configs)
    return Loaded(
        family=model.family,
        prompts=PromptEncoder(
            tokenizer, towers, target.device, zeros_for_empty_negative=zeros_for_empty_negative
        ),
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


def read_single_text_encoder(_: Any, file: Path, target: Target) -> Tensors:
    """The text encoder of a single file."""
    tensors = read_tensors([file], target, lambda name: name.startswith(_TEXT))
    return {name.removeprefix(_TEXT): tensor for name, tensor in tensors.items()}
