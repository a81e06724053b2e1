"""Checkpoints with a UNet: a row for each family, which says how its prompts are read.

2.x reads OpenCLIP ViT-H at its last layer but one, with the final norm. diffusers' folders leave
the last layer out, so that this is the last one of 23. XL ("SDXL: Improving Latent Diffusion
Models", https://arxiv.org/abs/2307.01952) joins two encoders, both read at their last layer but one
without its norm. OpenCLIP pads with the token 0, "!".
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from picowatch.catalog import Model
from picowatch.catalog.transformer_files import ASSETS
from picowatch.engine.devices import Target
from picowatch.engine.models.loaded import Loaded
from picowatch.engine.models.model_files import FindFile
from picowatch.engine.models.parts import (
    SD15,
    load_text_encoder,
    load_tokenizer,
    load_unet,
    schedule_of,
)
from picowatch.engine.models.weights import Tensors, read_tensors
from picowatch.engine.unet.embeddings import Embeddings
from picowatch.engine.unet.loras import Loras
from picowatch.engine.unet.prompts import PromptEncoder, TextTower

_PROJECTION = "text_projection.weight"
_LATENTS = 4
# In the original's names: output_blocks.11.1.transformer_blocks.0.norm1.bias.
_TELLING = "up_blocks.3.attentions.2.transformer_blocks.0.norm1.bias"
_SPREAD_OF_V = 0.09


@dataclass(frozen=True, slots=True)
class TextPart:
    """A text encoder of a family: its folder, its class, and where a single file has it.

    One of `prefixes` stands before its tensors' names there, and `convert` gives those of
    transformers. `key` is that of its vectors in embeddings, see `Embeddings`; the others are
    `TextTower`'s.
    """

    folder: str
    kind: Any
    prefixes: tuple[str, ...]
    convert: Callable[[Any, Tensors, str], Tensors]
    key: str = "clip_l"
    padding: int | None = None
    least_skip: int = 1
    normed: bool = True

    def read_single(self, encoder: Any, file: Path, target: Target) -> Tensors:
        """The weights of a single file, for an empty model of them."""
        tensors = read_tensors([file], target, lambda name: name.startswith(self.prefixes))
        prefix = next(one for one in self.prefixes if any(name.startswith(one) for name in tensors))
        return self.convert(encoder, tensors, prefix)


def _same_names(_: Any, tensors: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def _open_clip(encoder: Any, tensors: Tensors, prefix: str) -> Tensors:
    converted: Tensors = convert_open_clip_checkpoint(encoder, tensors, prefix)
    # diffusers' script for single files left its name and order as transformers has them, once.
    own = tensors.get(f"{prefix}{_PROJECTION}")
    return converted if own is None else converted | {_PROJECTION: own}


@dataclass(frozen=True, slots=True)
class Family:
    """`configs` describe single files, which have none; see `PromptEncoder`."""

    configs: Path
    texts: tuple[TextPart, ...]
    zeros_for_empty_negative: bool = False


_SD1 = Family(
    SD15,
    (TextPart("text_encoder", CLIPTextModel, ("cond_stage_model.transformer.",), _same_names),),
)
_FAMILIES = {
    "demo": _SD1,
    "sd1": _SD1,
    "sd2": Family(
        ASSETS / "sd2",
        (
            TextPart(
                "text_encoder",
                CLIPTextModel,
                ("cond_stage_model.model.", "conditioner.embedders.0.model."),
                _open_clip,
                padding=0,
            ),
        ),
    ),
    # Empty negative prompts are zeros, as in A1111 and in diffusers without one.
    "sdxl": Family(
        ASSETS / "sdxl",
        (
            TextPart(
                "text_encoder",
                CLIPTextModel,
                ("conditioner.embedders.0.transformer.",),
                _same_names,
                least_skip=2,
                normed=False,
            ),
            TextPart(
                "text_encoder_2",
                CLIPTextModelWithProjection,
                ("conditioner.embedders.1.model.",),
                _open_clip,
                key="clip_g",
                padding=0,
                least_skip=2,
                normed=False,
            ),
        ),
        zeros_for_empty_negative=True,
    ),
}
CONFIGS = {name: family.configs for name, family in _FAMILIES.items()}


def load(
    model: Model, configs: Path, target: Target, read_to: Target, find_file: FindFile
) -> Loaded:
    """All of a checkpoint but its VAE, its weights on `read_to`, to compute on `target`.

    `configs` is the folder that describes single files. `find_file` gives the file of a LoRA or
    an embedding.
    """
    family = _FAMILIES[model.family]
    configs = configs if model.layout == "file" else model.path
    encoders = tuple(
        load_text_encoder(model, configs, read_to, text.folder, text.kind, text.read_single)
        for text in family.texts
    )
    unet = load_unet(model, configs, target, read_to)
    tokens: dict[str, tuple[int, ...]] = {}
    towers = [
        TextTower(
            encoder,
            Embeddings(encoder, find_file, text.key, tokens),
            text.padding,
            text.least_skip,
            text.normed,
        )
        for encoder, text in zip(encoders, family.texts, strict=True)
    ]
    schedule = schedule_of(model, configs)
    if (model.family, model.layout, model.prediction) == ("sd2", "file", ""):
        schedule["prediction_type"] = _prediction(model, unet)
    return Loaded(
        family=model.family,
        prompts=PromptEncoder(
            load_tokenizer(model, configs),
            towers,
            target.device,
            zeros_for_empty_negative=family.zeros_for_empty_negative,
        ),
        text_encoders=encoders,
        unet=unet,
        vae=None,
        schedule=schedule,
        loras=Loras(model.family, unet, encoders, find_file, target.device),
        native_size=model.native_size,
    )


def _prediction(model: Model, unet: Any) -> str:
    """What a single file predicts; no header says it, and the wrong one gives noise.

    By the spread of one bias, as ComfyUI does (comfy/supported_models.py, class SD20). Inpainting
    checkpoints predict noise.
    """
    if model.in_channels != _LATENTS:
        return "epsilon"
    spread = unet.state_dict()[_TELLING].float().std(correction=0)
    return "v_prediction" if float(spread) > _SPREAD_OF_V else "epsilon"
