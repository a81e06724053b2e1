"""Reads checkpoints from files and folders: the parts of a pipeline, ready to compute.

The catalog has recognised the file or folder by its headers and configs. Its allowlist has the
classes that are loaded here; other classes that a folder names are never imported. Weights are
safetensors, fp8 with scales, and GGUF.
"""

import re
from dataclasses import replace
from typing import Any

import diffusers
import torch
import transformers
from safetensors import safe_open

from picowatch.catalog import Model
from picowatch.catalog.encoders import TINY_CLASS, is_tiny, tiny_channels
from picowatch.catalog.folder_files import read_json, read_schedule
from picowatch.catalog.gguf import read_any_header
from picowatch.catalog.models import Part
from picowatch.catalog.parts import VAE_PREFIX, is_unet, parts_of, prefix_in
from picowatch.catalog.quantised import FP8
from picowatch.engine.model.devices import Target
from picowatch.engine.model.memory import Weights
from picowatch.engine.model.part_files import (
    Config,
    diffusers_model,
    text_encoder,
    type_of,
)
from picowatch.engine.model.processors import number_pictures, read_image_processor, read_processor
from picowatch.engine.model.samplers import scheduler_of
from picowatch.engine.model.tensors import WIDE, Narrow, bytes_in, read_tensors
from picowatch.engine.model.vae import LATENT_CHANNELS, begin_again_in_tiles
from picowatch.errors import RenderFailed

_CPU = torch.device("cpu")
# This image processor needs torchvision; only its tokenizer is used.
_TOKENIZERS = {"PixtralProcessor": "PreTrainedTokenizerFast"}


def load_part(
    model: Model, target: Target, device: torch.device, name: str, quantize: str = ""
) -> Any:
    """Load one part of a checkpoint by diffusers' name, with weights in the types of `target`.

    `quantize` is the recipe's.
    """
    part = next(part for part in parts_of(model) if part.name == name)
    if name.startswith("tokenizer"):
        kind = getattr(transformers, _TOKENIZERS.get(part.class_name, part.class_name))
        # OpenCLIP's G pads with "!", unlike CLIP's L; the package has one vocabulary for both.
        second = name == "tokenizer_2" and part.class_name.startswith("CLIP")
        padding = {"pad_token": "!"} if second else {}
        return kind.from_pretrained(part.folder, local_files_only=True, **padding)
    if name == "processor":
        return read_processor(part.folder, part.class_name)
    if name == "siglip_processor":
        return read_image_processor(part.folder)
    if name == "scheduler":
        return _scheduler(model, part)
    what = f"{_NAMES.get(name, 'text encoder')} of {model.name!r}"
    config = _config(model, part)
    narrow = _narrow(model, part, target, quantize)
    read = _read(part, config, what, _dtype(model, part, config, target), device, narrow)
    if part.class_name == "Qwen2_5_VLForConditionalGeneration":
        number_pictures(read)
    return _ready(model, read) if name == "vae" else read


def load_vae(checkpoint: Model, vae: Model, target: Target, device: torch.device) -> Any:
    """Load another VAE for a checkpoint, from a file or a folder.

    A file does not tell the scale of its latents: the config of the checkpoint's own VAE does. Nor
    does it tell whether it overflows in float16, as Stable Diffusion XL's does: a name with "fp16"
    and "fix" means that it does not.
    """
    part = next(part for part in parts_of(checkpoint) if part.name == "vae")
    if is_tiny(vae.variant):
        part = replace(part, class_name=TINY_CLASS)
    if vae.layout == "folder":
        part = replace(part, folder=vae.path, weights=None, prefix="")
        config = _config(checkpoint, part)
    else:
        config = _config(checkpoint, part)
        part = replace(part, weights=vae.path, prefix=prefix_in(vae.path, VAE_PREFIX))
        if _FIXED.search(vae.name):
            config["force_upcast"] = False
        if is_tiny(vae.variant):
            config = {"latent_channels": tiny_channels(vae.variant)}
    dtype = _dtype(checkpoint, part, config, target)
    return _ready(checkpoint, _read(part, config, f"VAE {vae.name!r}", dtype, device))


def _ready(model: Model, vae: Any) -> Any:
    """Let Z-Image Omni's VAE accept the type that its pipeline passes (diffusers 0.42)."""
    if model.family == "z_image_omni":
        encode = vae.encode
        vae.encode = lambda pixels: encode(pixels.to(vae.dtype))
    return begin_again_in_tiles(vae)


_FIXED = re.compile("fp16.?fix", re.IGNORECASE)
_NAMES = {"unet": "UNet", "vae": "VAE", "transformer": "transformer"}


def _dtype(model: Model, part: Part, config: Config, target: Target) -> torch.dtype:
    if not is_unet(model):
        return target.flow_dtype
    if part.name == "unet":
        return target.for_unet(model.native_size).dtype
    overflows = part.name == "vae" and config.get("force_upcast")
    return torch.float32 if overflows and target.dtype == torch.float16 else target.dtype


def _scheduler(model: Model, part: Part) -> Any:
    """Return the scheduler of a folder's config.

    For UNets its class does not matter: the samplers of recipes use only its config.
    """
    kind = getattr(diffusers, part.class_name)
    if not is_unet(model):
        return scheduler_of(kind, read_json(part.folder / "scheduler_config.json"))
    config = read_schedule(part.folder)
    if model.prediction:  # from the checkpoint's own header
        config["prediction_type"] = model.prediction
    elif (model.family, model.layout) == ("sd2", "file"):
        config["prediction_type"] = _prediction(model)
    if model.zero_snr:
        config |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return kind.from_config(config)


# diffusers calls it up_blocks.3.attentions.2.transformer_blocks.0.norm1.bias.
_TELLING = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"
_SPREAD_OF_V = 0.09


def _prediction(model: Model) -> str:
    """Return what a single file of 2.x predicts: its header does not tell, and a wrong guess fails.

    The spread of one bias tells, as in ComfyUI (comfy/supported_models.py, class SD20). Inpainting
    checkpoints predict noise.
    """
    if model.in_channels != LATENT_CHANNELS:
        return "epsilon"
    with safe_open(model.path, framework="pt") as file:
        spread = file.get_tensor(_TELLING).float().std(correction=0)
    return "v_prediction" if float(spread) > _SPREAD_OF_V else "epsilon"


_GUIDANCE = ".cond_proj.weight"


def _config(model: Model, part: Part) -> dict[str, Any]:
    """Return the config of a part, corrected by the checkpoint's own tensors."""
    config = read_json(part.folder / "config.json")
    if part.name == "unet":
        config["in_channels"] = model.in_channels
        if part.weights:  # a distilled UNet (LCM) takes the guidance as an input
            shapes = read_any_header(part.weights).shapes
            told = (shape[1] for name, shape in shapes.items() if name.endswith(_GUIDANCE))
            config["time_cond_proj_dim"] = next(told, None)
    return config


def _narrow(model: Model, part: Part, target: Target, quantize: str) -> Narrow:
    """Return what a part keeps narrow in memory: fp8, which Apple's GPUs do not know.

    Where a flow family computes in float32, because a device only emulates bfloat16, it keeps the
    16 bits of its files.
    """
    if quantize and target.device.type == "mps":
        raise RenderFailed("Apple's GPUs do not know fp8.", "Remove quantize from the recipe.")
    if part.name == "vae" or target.device.type == "mps":
        return WIDE
    halves = not is_unet(model) and target.flow_dtype == torch.float32
    types = frozenset((*FP8, "BF16", "F16") if halves else FP8)
    return Narrow(types, quantize == "fp8" and part.name in ("unet", "transformer"))


def _read(
    part: Part,
    config: Config,
    what: str,
    dtype: torch.dtype,
    device: torch.device,
    narrow: Narrow = WIDE,
) -> Any:
    """Read a part with weights from its file or folder."""
    encoder = part.name.startswith(("text_encoder", "siglip"))
    # transformers builds models in main memory; for a GPU, mapped files need not be copied first.
    place, copy = (_CPU, device.type == "cpu") if encoder else (device, True)
    types, path = type_of(part.class_name, dtype), part.weights or part.folder
    tensors = read_tensors(path, types, place, part.prefix, copy=copy, narrow=narrow)
    if encoder:
        return text_encoder(part, config, tensors, what, dtype).to(device)
    return diffusers_model(part.class_name, config, tensors, what, dtype)


# The numbers that a denoiser has in memory at once for each pixel, at most, and a VAE that decodes:
# counted on torch's meta device.
DRAWING, DECODING = 300, 770
DECODING_OF = {"AutoencoderKLQwenImage": 1730, "AutoencoderKLQwenImage21": 3220}


def bytes_of_parts(model: Model, target: Target, quantize: str = "") -> Weights:
    """Return what a checkpoint's parts take in memory; `quantize` is the recipe's."""
    encoders, found = [], Weights()
    for part in parts_of(model):
        if part.name.startswith(("tokenizer", "scheduler")) or part.name.endswith("processor"):
            continue
        config = read_json(part.folder / "config.json")
        dtype, narrow = _dtype(model, part, config, target), _narrow(model, part, target, quantize)
        size = bytes_in(part.weights or part.folder, dtype, part.prefix, narrow)
        match part.name:
            case "unet" | "transformer":
                numbers = bytes_in(part.weights or part.folder, torch.int8, part.prefix, None)
                drawing = DRAWING * dtype.itemsize
                found = replace(found, denoiser=size, numbers=numbers, drawing=drawing)
            case "vae":
                decoding = DECODING_OF.get(part.class_name, DECODING) * dtype.itemsize
                found = replace(found, vae=size, decoding=decoding)
            case _:
                encoders.append(size)
    return replace(found, encoders=tuple(encoders))
