"""Reads checkpoints from files and folders: the parts of a pipeline, ready to compute.

The catalog has recognised the file or folder by its headers and configs. Its allowlist has the
classes that are loaded here; other classes that a folder names are never imported. Weights are
safetensors, fp8 with scales, and GGUF.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import torch
import transformers
from diffusers.quantizers.gguf.utils import GGUFParameter
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors import safe_open

from picowatch.catalog import Model, weight_files
from picowatch.catalog.encoders import TINY_CLASS, is_tiny, tiny_channels
from picowatch.catalog.folder_files import read_json, read_schedule
from picowatch.catalog.gguf import BLOCKS, is_gguf, read_any_header, stays_quantised
from picowatch.catalog.headers import Header
from picowatch.catalog.models import Part
from picowatch.catalog.parts import VAE_PREFIX, is_unet, parts_of, prefix_in
from picowatch.catalog.quantised import BESIDE, FP8, SCALES, SECOND_SCALE
from picowatch.engine.devices import Target
from picowatch.engine.latents import LATENT_CHANNELS, begin_again_in_tiles
from picowatch.engine.memory import Weights
from picowatch.engine.part_files import (
    Config,
    Tensors,
    TypeOf,
    diffusers_model,
    text_encoder,
    type_of,
)
from picowatch.engine.processors import number_pictures, read_image_processor, read_processor
from picowatch.engine.quantised import dequantised
from picowatch.engine.samplers import scheduler_of
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
    """Return the type for the weights of a part."""
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


class Narrow(NamedTuple):
    """The types of matrices that stay as they are in memory, whatever type computes.

    `fp8`: those in the blocks of a denoiser are rounded to it.
    """

    types: frozenset[str] = frozenset()
    fp8: bool = False

    def type_of(self, header: Header, name: str, dtype: torch.dtype) -> torch.dtype:
        """Return the type of a tensor in memory, where `dtype` computes."""
        if not name.endswith(".weight") or len(header.shapes[name]) < 2:
            return dtype
        kind = header.types[name]
        if self.fp8 and _IN_BLOCKS.search(name) and kind not in FP8:
            return torch.float8_e4m3fn
        kept = kind in self.types and not _scales(header, name)
        own = _TYPES[kind] if kept else dtype
        return own if own.itemsize < dtype.itemsize else dtype


_TYPES = {
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
}
_IN_BLOCKS = re.compile(r"(?:block|layer|refiner)s?\.\d+\.")
_WIDE = Narrow()


def _narrow(model: Model, part: Part, target: Target, quantize: str) -> Narrow:
    """Return what a part keeps narrow in memory: fp8, which Apple's GPUs do not know.

    Where a flow family computes in float32, because a device only emulates bfloat16, it keeps the
    16 bits of its files.
    """
    if quantize and target.device.type == "mps":
        raise RenderFailed("Apple's GPUs do not know fp8.", "Remove quantize from the recipe.")
    if part.name == "vae" or target.device.type == "mps":
        return _WIDE
    halves = not is_unet(model) and target.flow_dtype == torch.float32
    types = frozenset((*FP8, "BF16", "F16") if halves else FP8)
    return Narrow(types, quantize == "fp8" and part.name in ("unet", "transformer"))


def _read(
    part: Part,
    config: Config,
    what: str,
    dtype: torch.dtype,
    device: torch.device,
    narrow: Narrow = _WIDE,
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


_MOST = torch.finfo(torch.float8_e4m3fn).max
_NOT_WEIGHTS = (*BESIDE, "scaled_fp8")


def read_tensors(
    path: Path,
    type_of: TypeOf,
    device: torch.device,
    prefix: str = "",
    *,
    copy: bool = True,
    narrow: Narrow = _WIDE,
) -> Tensors:
    """Read the tensors whose names begin with `prefix`, which is removed, to the device.

    They are copies, because files are memory-mapped: overwriting one in place would change the
    model, and truncating it would end the process (SIGBUS). Without `copy`, some are not copied:
    the caller must copy them soon. GGUF's matrices stay quantised, and some others `narrow`.
    """
    found: Tensors = {}
    for file in _files(path):
        header = read_any_header(file)
        if is_gguf(file):
            found |= _read_gguf(file, header, prefix, type_of, device)
        else:
            found |= _read_safetensors(file, header, prefix, type_of, device, copy, narrow)
    return found


def _files(path: Path) -> list[Path]:
    return weight_files(path) if path.is_dir() else [path]


def bytes_in(
    path: Path, dtype: torch.dtype, prefix: str = "", narrow: Narrow | None = _WIDE
) -> int:
    """Return the bytes of the tensors that `read_tensors` would read in this type.

    None for `narrow`: as if it kept nothing narrow, not even what is quantised.
    """
    size = 0
    for file in _files(path):
        header = read_any_header(file)
        for name, shape in header.shapes.items():
            if name.startswith(prefix):
                kind, numbers, taken = header.types[name], 1, dtype.itemsize
                if narrow and is_gguf(file):
                    if stays_quantised(name, kind, shape):
                        numbers, taken = BLOCKS[kind]
                elif narrow:
                    taken = narrow.type_of(header, name, dtype).itemsize
                size += prod(shape) // numbers * taken
    return size


def _read_safetensors(
    file: Path,
    header: Header,
    prefix: str,
    type_of: TypeOf,
    device: torch.device,
    copy: bool,
    narrow: Narrow,
) -> Iterator[tuple[str, torch.Tensor]]:
    with safe_open(file, framework="pt") as opened:
        for name in header.shapes:
            if name.startswith(prefix) and not name.endswith(_NOT_WEIGHTS):
                bare = name.removeprefix(prefix)
                tensor, dtype = opened.get_tensor(name), type_of(bare)
                if scales := [*map(opened.get_tensor, _scales(header, name))]:
                    told = header.formats.get(name.removesuffix(".weight"), {})
                    tensor = dequantised(tensor, *scales, told=told)
                if dtype == type_of(""):  # some layers always compute in float32
                    dtype = narrow.type_of(header, name, dtype)
                yield bare, _on_device(tensor, dtype, device, copy)


def _on_device(
    tensor: torch.Tensor, dtype: torch.dtype, device: torch.device, copy: bool
) -> torch.Tensor:
    """Return a tensor in this type."""
    if not tensor.is_floating_point():
        return tensor.to(device, copy=copy)
    if dtype.itemsize == 1 < tensor.dtype.itemsize:  # what is larger would not be a number
        return tensor.to(device).clamp(-_MOST, _MOST).to(dtype)
    if tensor.dtype.itemsize > 1 or tensor.dtype == dtype:
        return tensor.to(device, dtype, copy=copy)
    return tensor.to(dtype).to(device)  # fp8, which not every device supports


def _scales(header: Header, name: str) -> list[str]:
    """Return the names of the scales of a layer's weights: one, nvfp4's two, or none."""
    layer = name.removesuffix(".weight")
    endings = (*SCALES, SECOND_SCALE) if name != layer else ()
    return [layer + one for one in endings if layer + one in header.shapes]


def _read_gguf(
    file: Path, header: Header, prefix: str, type_of: TypeOf, device: torch.device
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield matrices quantised, to be widened while they compute, and other tensors in full."""
    for one in GGUFReader(file).tensors:
        name = one.name.removeprefix(prefix)
        if not one.name.startswith(prefix):
            continue
        if stays_quantised(name, header.types[one.name], header.shapes[one.name]):
            data = torch.from_numpy(one.data.copy()).to(device)
            yield name, GGUFParameter(data, quant_type=one.tensor_type)
        else:
            yield (
                name,
                torch.tensor(dequantize(one.data, one.tensor_type)).to(device, type_of(name)),
            )
