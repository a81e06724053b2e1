"""Stable Diffusion 2.x: OpenCLIP ViT-H, read at its last layer but one, with the final norm.

diffusers' folders leave the last layer out, so that this is the last one of 23.
"""

from pathlib import Path
from typing import Any

from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint
from transformers import CLIPTextModel

from picowatch.catalog import Model
from picowatch.engine.devices import Target
from picowatch.engine.models.loaded import Loaded
from picowatch.engine.models.parts import ASSETS, FindFile
from picowatch.engine.models.sd1 import TextPart, load_with_texts
from picowatch.engine.models.weights import Tensors, read_tensors

# Configs, which single files leave out.
SD2 = ASSETS / "sd2"

_PREFIXES = ("cond_stage_model.model.", "conditioner.embedders.0.model.")
_LAST_LAYER = "transformer.resblocks.23."
_LATENTS = 4
# In the original's names: output_blocks.11.1.transformer_blocks.0.norm1.bias.
_TELLING = "up_blocks.3.attentions.2.transformer_blocks.0.norm1.bias"
_SPREAD_OF_V = 0.09
# OpenCLIP pads with the token 0, "!".
_PADDING = 0


def load(
    model: Model, configs: Path, target: Target, read_to: Target, find_file: FindFile
) -> Loaded:
    """All of a checkpoint but its VAE; see `sd1.load`."""
    text = TextPart("text_encoder", CLIPTextModel, _read, padding=_PADDING)
    loaded = load_with_texts(model, configs, target, read_to, find_file, [text])
    if model.layout == "file" and not model.prediction:
        loaded.schedule["prediction_type"] = _prediction(model, loaded.unet)
    return loaded


def _prediction(model: Model, unet: Any) -> str:
    """What a single file predicts; no header says it, and the wrong one gives noise.

    By the spread of one bias, as ComfyUI does (comfy/supported_models.py, class SD20). Inpainting
    checkpoints predict noise.
    """
    if model.in_channels != _LATENTS:
        return "epsilon"
    spread = unet.state_dict()[_TELLING].float().std(correction=0)
    return "v_prediction" if float(spread) > _SPREAD_OF_V else "epsilon"


def _read(encoder: Any, file: Path, target: Target) -> Tensors:
    """The text encoder of a single file, without its last layer, in transformers' names."""

    def wanted(name: str) -> bool:
        rest = name.removeprefix(_PREFIXES[0]).removeprefix(_PREFIXES[1])
        return rest != name and not rest.startswith(_LAST_LAYER)

    tensors = read_tensors([file], target, wanted)
    prefix = next(one for one in _PREFIXES if any(name.startswith(one) for name in tensors))
    converted: Tensors = convert_open_clip_checkpoint(encoder, tensors, prefix)
    return {name: tensor for name, tensor in converted.items() if name != "text_projection.weight"}
