"""Reads checkpoints from files and folders: the parts of a pipeline, ready to compute.

The catalog has recognised the file or folder by its headers and configs. Its allowlist has the
classes that are loaded here; other classes that a folder names are never imported. Weights are
safetensors, fp8 with scales, and GGUF.

transformers' processors of Qwen2-VL and Qwen3-VL have a part for videos that needs torchvision when
it is created. Here they have only an image processor, by Pillow, and a tokenizer. The results are
those of the whole processor (docs/design.md).
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors import safe_open

from picowatch.catalog import Model
from picowatch.catalog.dequantise import FP8
from picowatch.catalog.encoders import TINY, TINY_CLASS, TINY_FLUX2, VAE_PREFIX
from picowatch.catalog.folder_files import read_json, read_schedule
from picowatch.catalog.headers import read_header
from picowatch.catalog.models import Part, holds
from picowatch.catalog.parts import is_unet, parts_of
from picowatch.engine.model import part_files
from picowatch.engine.model.devices import Target
from picowatch.engine.model.memory import Sizes
from picowatch.engine.model.samplers import scheduler_of
from picowatch.engine.model.tensors import EVERY, WIDE, Narrow, Reads, bytes_in, read_tensors
from picowatch.engine.model.vae import LATENT_CHANNELS, TinyFlux2, begin_again_in_tiles
from picowatch.engine.private import pad_without_torchvision
from picowatch.errors import RenderFailed
from picowatch.families import FAMILIES
from picowatch.families.row import DECODING, DENOISERS, KL, UNCONDITIONAL

_CPU = torch.device("cpu")
# The spread of a bias tells, as in ComfyUI (comfy/supported_models.py, class SD20).
_TELLING = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"
_SPREAD_OF_V = 0.09


def load_part(
    model: Model, target: Target, device: torch.device, name: str, quantize: str = ""
) -> Any:
    """Load a checkpoint's part by diffusers' name, in the types of `target` and of the recipe."""
    part = next(part for part in parts_of(model) if part.name == name)
    match holds(part.class_name):
        case "pixels":
            return read_image_processor(part.folder)
        case "words":
            return _words(part)
        case "settings":
            return _scheduler(model, part)
    what = f"{_NAMES.get(name, 'text encoder')} of {model.name!r}"
    config = _config(model, part)
    if part.class_name == "CosmosTransformer3DModel":
        pad_without_torchvision()
    narrow = _narrow(model, part, target, quantize)
    dtype, layers = _dtype(model, part, config, target), FAMILIES[model.family].encoder_layers
    read = _read(part, config, what, dtype, device, narrow, layers)
    if part.class_name == "Qwen2_5_VLForConditionalGeneration":
        number_pictures(read)
    return begin_again_in_tiles(read) if name == "vae" else read


def _words(part: Part) -> Any:
    """Return a tokenizer, or a processor with its tokenizer."""
    class_name = part.class_name
    if class_name == "PixtralProcessor":  # pictures need torchvision; only texts are read
        class_name = "PreTrainedTokenizerFast"
    elif class_name.endswith("Processor"):
        return read_processor(part.folder, class_name)
    # OpenCLIP's G pads with "!", unlike CLIP's L; the package has the same vocabulary for both.
    second = part.name == "tokenizer_2" and class_name.startswith("CLIP")
    padding = {"pad_token": "!"} if second else {}
    kind = part_files.own_class(class_name, transformers.PreTrainedTokenizerBase)
    return kind.from_pretrained(part.folder, local_files_only=True, **padding)


def load_vae(checkpoint: Model, vae: Model, target: Target, device: torch.device) -> Any:
    """Load another VAE for a checkpoint, from a file or a folder.

    A file does not tell the scale of its latents: the config of the checkpoint's own VAE does. Nor
    does it tell whether it overflows in float16, as Stable Diffusion XL's does: a name with "fp16"
    and "fix" means that it does not.
    """
    part = next(part for part in parts_of(checkpoint) if part.name == "vae")
    if vae.variant == TINY_FLUX2:
        return _tiny_flux2(checkpoint, part, vae, target, device)
    if vae.variant in TINY:
        part = replace(part, class_name=TINY_CLASS)
    if vae.layout == "folder":
        part = replace(part, folder=vae.path, weights=None, prefix="")
        config = _config(checkpoint, part)
    else:
        config = _config(checkpoint, part)
        prefix = VAE_PREFIX if read_header(vae.path).has(VAE_PREFIX) else ""
        part = replace(part, weights=vae.path, prefix=prefix)
        if _FIXED.search(vae.name):
            config["force_upcast"] = False
        if vae.variant in TINY:
            config = {"latent_channels": TINY[vae.variant][0]}
    dtype = _dtype(checkpoint, part, config, target)
    return begin_again_in_tiles(_read(part, config, f"VAE {vae.name!r}", dtype, device))


def _tiny_flux2(checkpoint: Model, full: Part, vae: Model, target: Target, device: Any) -> Any:
    """Load TAEF2 with the statistics of the latents that the checkpoint's full VAE has."""
    what, config = f"VAE {vae.name!r}", _config(checkpoint, full)
    types = part_files.type_of(TINY_CLASS, _dtype(checkpoint, full, config, target))
    statistics = read_tensors(
        full.weights or full.folder,
        *(types, device, full.prefix),
        reads=lambda name: name.startswith("bn."),
    )
    with torch.device("meta"):
        made = TinyFlux2(**{key: config[key] for key in ("batch_norm_eps",) if key in config})
    return part_files.filled(made, statistics | read_tensors(vae.path, types, device), what)


_FIXED = re.compile("fp16.?fix", re.IGNORECASE)
_NAMES = {
    "unet": "UNet", "vae": "VAE", "transformer": "transformer", UNCONDITIONAL: "second transformer",
}  # fmt: skip


def _dtype(model: Model, part: Part, config: part_files.Config, target: Target) -> torch.dtype:
    if not is_unet(model):
        return target.flow_dtype
    if part.name == "unet":
        return target.for_unet(model.native_size).dtype
    overflows = part.name == "vae" and config.get("force_upcast")
    return torch.float32 if overflows and target.dtype == torch.float16 else target.dtype


def _scheduler(model: Model, part: Part) -> Any:
    """Return the scheduler of a folder's config, or what else has only settings: a guider."""
    kind = part_files.own_class(part.class_name, diffusers.ConfigMixin)
    if not is_unet(model):
        return scheduler_of(kind, read_json(part.folder / kind.config_name))
    config = read_schedule(part.folder)  # all that the samplers of recipes use
    if model.prediction:  # from the checkpoint's own header
        config["prediction_type"] = model.prediction
    elif (model.family, model.layout) == ("sd2", "file"):
        # The header does not tell, and a wrong guess fails.
        config["prediction_type"] = "epsilon"
        if model.in_channels == LATENT_CHANNELS:  # others are for inpainting
            with safe_open(model.path, framework="pt") as file:
                spread = file.get_tensor(_TELLING).float().std(correction=0)
            if float(spread) > _SPREAD_OF_V:
                config["prediction_type"] = "v_prediction"
    if model.zero_snr:
        config |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return kind.from_config(config)


def _config(model: Model, part: Part) -> dict[str, Any]:
    """Return the config of a part, corrected by the checkpoint's own tensors."""
    config = read_json(part.folder / "config.json")
    if part.name == "unet":
        config["in_channels"] = model.in_channels
        if part.weights:  # a distilled UNet (LCM) takes the guidance as an input
            shapes = read_header(part.weights).shapes
            inputs = (shapes[name][1] for name in shapes if name.endswith(".cond_proj.weight"))
            config["time_cond_proj_dim"] = next(inputs, None)
    return config


def _narrow(model: Model, part: Part, target: Target, quantize: str) -> Narrow:
    """Return what a part keeps narrow in memory: fp8, which Apple's GPUs do not know."""
    if quantize and target.device.type == "mps":
        raise RenderFailed("Apple's GPUs do not know fp8.", "Remove quantize from the recipe.")
    if part.name == "vae" or target.device.type == "mps":
        return WIDE
    # A flow family that computes in float32, as bfloat16 is only emulated, keeps 16 bits.
    halves = not is_unet(model) and target.flow_dtype == torch.float32
    types = frozenset((*FP8, "BF16", "F16") if halves else FP8)
    return Narrow(types, quantize == "fp8" and part.name in DENOISERS)


def _read(
    part: Part,
    config: part_files.Config,
    what: str,
    dtype: torch.dtype,
    device: torch.device,
    narrow: Narrow = WIDE,
    layers: int = 0,
) -> Any:
    """Read a part with weights from its file or folder; of a text encoder only so many layers."""
    encoder = not hasattr(diffusers, part.class_name)
    # transformers builds models in main memory; for a GPU, mapped files need not be copied first.
    place, copy = (_CPU, device.type == "cpu") if encoder else (device, True)
    types, path = part_files.type_of(part.class_name, dtype), part.weights or part.folder
    reads = reads_of(part.name, layers)
    tensors = read_tensors(path, types, place, part.prefix, copy=copy, narrow=narrow, reads=reads)
    if encoder:
        return part_files.text_encoder(part, config, tensors, what, dtype, layers).to(device)
    return part_files.diffusers_model(part.class_name, config, tensors, what, dtype)


def reads_of(part: str, layers: int) -> Reads:
    """Return which tensors of a part are read: of a text encoder no head, and so many layers."""
    if part == "transformer":  # Anima's shares its file with the part that maps its texts
        return lambda name: not name.startswith("llm_adapter.")
    if not part.startswith("text_encoder"):
        return EVERY

    def reads(name: str) -> bool:
        layer = re.search(r"(?:^|model\.)layers\.(\d+)\.", name)
        is_beyond = layer is not None and layers and int(layer[1]) >= layers
        return not (is_beyond or re.search(r"(?:^|\.)lm_head\.", name))

    return reads


def bytes_of_parts(model: Model, target: Target, quantize: str = "") -> Sizes:
    """Return what a checkpoint's parts take in memory; `quantize` is the recipe's."""
    row, encoders, denoisers = FAMILIES[model.family], [], 0
    references, multiple = row.variant(model.variant).references, row.size_multiple
    found = Sizes(takes_turns=row.kind == "flow", references=references, multiple=multiple)
    for part in parts_of(model):
        if holds(part.class_name) != "weights":
            continue
        config = read_json(part.folder / "config.json")
        dtype, narrow = _dtype(model, part, config, target), _narrow(model, part, target, quantize)
        path = part.weights or part.folder
        size = bytes_in(path, dtype, part.prefix, narrow, reads_of(part.name, row.encoder_layers))
        match part.name:
            case name if name in (*DENOISERS, "text_conditioner"):  # which computes beside them
                denoisers += size
                found = replace(found, drawing=row.drawing * dtype.itemsize)
            case "vae":
                decoding = DECODING.get(part.class_name, DECODING[KL]) * dtype.itemsize
                found = replace(found, vae=size, decoding=decoding)
            case _:
                encoders.append(size)
    return replace(found, denoiser=denoisers, encoders=tuple(encoders))


_T: Any = transformers
_MARKS = {
    "image": "<|image_pad|>", "video": "<|video_pad|>", "vision_start": "<|vision_start|>",
    "vision_end": "<|vision_end|>",
}  # fmt: skip


def read_processor(folder: Path, class_name: str) -> Any:
    """Return the processor of a diffusers folder, without videos if it is Qwen's."""
    kind = part_files.own_class(class_name, _T.ProcessorMixin)
    if not class_name.startswith("Qwen"):
        return kind.from_pretrained(folder, local_files_only=True)
    pixels = read_image_processor(folder)
    words = _T.Qwen2TokenizerFast.from_pretrained(folder, local_files_only=True)
    template = words.chat_template or read_json(folder / "chat_template.json").get("chat_template")
    return without_videos(kind)(pixels, words, chat_template=template)


def read_image_processor(folder: Path) -> Any:
    """Return the image processor of a diffusers folder, by Pillow."""
    return _T.AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True)


def without_videos(kind: Any) -> Any:
    """Return a subclass without videos: the names of its constructor's arguments are its parts."""

    class Processor(kind):  # type: ignore[misc]
        def __init__(self, image_processor: Any, tokenizer: Any, chat_template: Any = None) -> None:
            for name, mark in _MARKS.items():
                setattr(self, f"{name}_token", mark)
                setattr(self, f"{name}_token_id", tokenizer.convert_tokens_to_ids(mark))
            parts = image_processor, tokenizer
            _T.ProcessorMixin.__init__(self, *parts, chat_template=chat_template)

    return Processor


def number_pictures(text_encoder: Any) -> None:
    """Tell Qwen2.5-VL which of its tokens belong to pictures.

    transformers 5 numbers the positions of pictures by `mm_token_type_ids`, which diffusers 0.42
    does not pass (https://github.com/huggingface/diffusers/issues/14194): without them, each
    picture is read as if it were text. Does nothing if they are passed.
    """
    image = text_encoder.config.image_token_id

    def add(_: Any, given: Any, named: dict[str, Any]) -> Any:
        if named.get("image_grid_thw") is not None and named.get("mm_token_type_ids") is None:
            named["mm_token_type_ids"] = (named["input_ids"] == image).int()
        return given, named

    text_encoder.register_forward_pre_hook(add, with_kwargs=True)
