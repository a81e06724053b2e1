"""Builds models of diffusers and transformers from tensors, which may have their authors' names.

diffusers converts the names. This module also checks that each weight is there in its shape.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import diffusers
import torch
import transformers
from accelerate import init_empty_weights  # type: ignore[import-untyped]
from diffusers.loaders import single_file_utils as single_file
from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
from diffusers.quantizers.gguf.utils import GGUFParameter

from picowatch.catalog.cutouts import COUNTED
from picowatch.catalog.models import Part
from picowatch.catalog.recognise import UNET
from picowatch.engine.model.dequantise import FP8, narrowed, packed, stands_for, widening
from picowatch.engine.private import kept_in_float32, rename_old_keys
from picowatch.errors import RenderFailed

Config = Mapping[str, Any]
Tensors = dict[str, torch.Tensor]
TypeOf = Callable[[str], torch.dtype]  # returns the type for a tensor of this name
# From this share of diffusers' names on, a file needs no conversion: authors' share about half.
_NEARLY_ALL = 0.9
_FILLED = 16  # the sides of nvfp4's matrices are filled with zeros to multiples of it
_GET_ANOTHER = "Get the file again, or another one."


def type_of(class_name: str, dtype: torch.dtype) -> TypeOf:
    """Return the type for each tensor of a class: some layers of some classes stay float32."""
    kept = {*kept_in_float32(own_class(class_name, torch.nn.Module))}
    return lambda name: torch.float32 if kept & {*name.split(".")} else dtype


def own_class(class_name: str, parent: type) -> Any:
    """Return a class of diffusers or transformers. RenderFailed unless it is of this kind."""
    kind = getattr(diffusers, class_name, None) or getattr(transformers, class_name, None)
    if not (isinstance(kind, type) and issubclass(kind, parent)):
        raise RenderFailed(
            f"Neither diffusers nor transformers has a {parent.__name__} called {class_name!r}.",
            "Upgrade them, or use another checkpoint.",
        )
    return kind


def diffusers_model(
    class_name: str, config: Config, tensors: Tensors, what: str, dtype: torch.dtype
) -> Any:
    """Return a diffusers model with these weights. RenderFailed names the first wrong weight."""
    kind = getattr(diffusers, class_name)
    config = {key: value for key, value in config.items() if key != "quantization_config"}
    with init_empty_weights(include_buffers=False):
        model = kind.from_config(config)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    rename_old_keys(model, tensors)
    if len(shapes.keys() & tensors.keys()) < _NEARLY_ALL * len(shapes):
        loadable: Any = SINGLE_FILE_LOADABLE_CLASSES
        convert = _CONVERTERS.get(class_name) or loadable[class_name]["checkpoint_mapping_fn"]
        tensors = convert(checkpoint=tensors, config=config)
        tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    types = type_of(class_name, dtype)  # by names that the file may not have had
    for name, tensor in tensors.items():
        if types(name) != dtype and tensor.dtype == dtype:
            tensors[name] = tensor.to(types(name))
    there = ((name, shape) for name, shape in shapes.items() if name in tensors)
    tensors = {name: _in_shape(tensors[name], shape) for name, shape in there}
    if any(isinstance(tensor, GGUFParameter) for tensor in tensors.values()):
        _check(what, missing=shapes.keys() - tensors.keys())
        return _quantised(kind, config, tensors, dtype)
    model = filled(model, tensors, what)
    weights = [*model.parameters()]
    # For narrow types this layout is the fastest on a CPU; on an H200 steps of batches took 3 to
    # 10 % longer in it. Convolutions over frames, which have five sides, support no other layout.
    narrow = weights[0].dtype != torch.float32 and weights[0].device.type == "cpu"
    if narrow and not any(weight.ndim == 5 for weight in weights):
        model.to(memory_format=torch.channels_last)
    return widening(model, dtype)


def filled(model: Any, tensors: Tensors, what: str) -> Any:
    """Load weights into a model. RenderFailed names the first missing or wrong weight."""
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    # Counts of batches have no effect, and are not in all files.
    counts = (name for name in shapes.keys() - tensors.keys() if name.endswith(COUNTED))
    tensors = tensors | dict.fromkeys(counts, torch.tensor(0))
    _check(what, missing=shapes.keys() - tensors.keys())
    pairs = ((name, tensors[name].shape, shape) for name, shape in shapes.items())
    _check(what, others=[pair for pair in pairs if pair[1] != pair[2]])
    weights = {name: held for name in shapes if (held := stands_for(tensors[name]))}
    model.load_state_dict({name: tensors[name] for name in shapes}, assign=True)
    model.to(next(iter(tensors.values())).device)  # buffers that are in no file
    return packed(model, weights).eval().requires_grad_(False)


def text_encoder(
    part: Part, config: Config, tensors: Tensors, what: str, dtype: torch.dtype, layers: int = 0
) -> Any:
    """Return a transformers model with these weights, checked as in `diffusers_model`.

    It has at most so many `layers`, if any number is given, and a head that computes nothing.
    transformers itself converts the names that its models had in earlier versions.
    """
    kind = getattr(transformers, part.class_name)
    given = about_weights(config)
    if part.class_name == "Qwen2_5_VLTextModel":  # of a folder that sees pictures, too
        whole: Any = transformers.Qwen2_5_VLConfig
        made = whole.from_dict(given).text_config
    else:
        made = kind.config_class.from_dict(given)
    if layers:
        text = made.get_text_config()
        text.num_hidden_layers = min(layers, text.num_hidden_layers)
        if kinds := getattr(text, "layer_types", None):
            text.layer_types = kinds[:layers]
    # The head would predict the next word.
    if is_headed := part.class_name.endswith(("ForCausalLM", "ForConditionalGeneration")):
        made.tie_word_embeddings = True  # then the head has no weights of its own
    if part.weights:
        tensors = _text_encoder_names(part, made, tensors)
    types = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    # Built in the file's 16 bits, so that its memory is enough.
    stored = next(iter(types)) if len(types) == 1 and not types & {*FP8} else dtype
    stored = min(dtype, stored, key=lambda precision: precision.itemsize)
    model = transformers_model(kind, made, tensors, what, stored)
    if is_headed:
        model.lm_head = torch.nn.Identity()
    return widening(narrowed(model) if types & {*FP8} else model, dtype)


def transformers_model(
    kind: Any, config: Any, tensors: Tensors, what: str, dtype: torch.dtype
) -> Any:
    """Return a model of this class. RenderFailed names the first weight that does not fit."""
    model, info = kind.from_pretrained(
        None,
        config=config,
        state_dict=tensors,
        dtype=dtype,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        local_files_only=True,
    )
    _check(what, missing=info["missing_keys"], others=info["mismatched_keys"])
    # transformers renames weights, but keeps their memory.
    left = {tensor.data_ptr(): held for tensor in tensors.values() if (held := stands_for(tensor))}
    places = {weight.data_ptr(): name for name, weight in model.named_parameters()}
    weights = {places[at]: left.pop(at) for at in [*left] if at in places}
    if left:
        words = f"The {what} has {len(left)} packed weights that no layer reads."
        raise RenderFailed(words, "Get it in bfloat16.")
    return packed(model, weights).eval().requires_grad_(False)


def about_weights(config: Config) -> dict[str, Any]:
    """Remove keys that are not about weights, at any depth: they would select or download code."""
    others = ("attn_implementation", "quantization_config", "auto_map", "kernel_config")
    return {
        key: about_weights(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if not key.startswith("_") and key not in others
    }


def _check(
    what: str, *, missing: Collection[str] = (), others: Iterable[tuple[str, Any, Any]] = ()
) -> None:
    """Raise RenderFailed for missing weights, or for others: names, shapes, expected shapes."""
    if missing:
        raise RenderFailed(
            f"The {what} is incomplete: {len(missing)} weights are missing, starting with "
            f"{min(missing)}.",
            _GET_ANOTHER,
        )
    for name, shape, expected in sorted(others):
        raise RenderFailed(
            f"The {what} does not fit its kind of model: {name} is {list(shape)}, not "
            f"{list(expected)}.",
            _GET_ANOTHER,
        )


def _quantised(kind: Any, config: Config, tensors: Tensors, dtype: torch.dtype) -> Any:
    """Return a transformer whose matrices are widened layer by layer while they compute."""
    with TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(config))
        model = kind.from_single_file(
            tensors,
            config=folder,
            local_files_only=True,
            dtype=dtype,
            device=next(iter(tensors.values())).device,
            quantization_config=diffusers.GGUFQuantizationConfig(compute_dtype=dtype),
        )
    return model.requires_grad_(False)


def _in_shape(tensor: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Return a tensor with the sides that it should have, where its format changes them."""
    if tensor.shape == shape or isinstance(tensor, GGUFParameter) or stands_for(tensor):
        return tensor
    # llama.cpp omits the first sides of length 1, and 1x1 convolutions are matrices.
    if [side for side in tensor.shape if side > 1] == [side for side in shape if side > 1]:
        return tensor.reshape(shape)
    if len(shape) != 2 or tensor.shape != tuple(side + -side % _FILLED for side in shape):
        return tensor
    rows, columns = shape
    others = tensor[rows:], tensor[:, columns:]
    return tensor if any(part.float().any() for part in others) else tensor[:rows, :columns].clone()


def _unet(checkpoint: Tensors, config: Config) -> Tensors:
    named = {f"{UNET}{name}": tensor for name, tensor in checkpoint.items()}
    converted: Tensors = single_file.convert_ldm_unet_checkpoint(named, config)
    # Of distilled checkpoints (LCM); diffusers leaves it out.
    if (guidance := checkpoint.get("time_embed.cond_proj.weight")) is not None:
        converted["time_embedding.cond_proj.weight"] = guidance
    return converted


def _flux2_vae(checkpoint: Tensors, config: Config) -> Tensors:
    """Convert FLUX.2's VAE, whose weights include the statistics of its latents."""
    # Its authors count these layers among the encoder's and decoder's.
    for outer, coder in (("quant_conv.", "encoder."), ("post_quant_conv.", "decoder.")):
        inner = coder + outer
        checkpoint = {name.replace(inner, outer): tensor for name, tensor in checkpoint.items()}
    normalising = {name: tensor for name, tensor in checkpoint.items() if name.startswith("bn.")}
    converted: Tensors = single_file.convert_ldm_vae_checkpoint(checkpoint, config)
    return normalising | converted


_FUSED = re.compile(r"qkv(?:_proj)?\.weight$")


def _flux3(checkpoint: Tensors, config: Config) -> Tensors:
    """Convert FLUX.3, of which quantised files have queries, keys and values in a single matrix."""
    split: Tensors = {}
    for name, tensor in checkpoint.items():
        if _FUSED.search(name):
            for letter, rows in zip("qkv", tensor.chunk(3), strict=True):
                split[_FUSED.sub(f"{letter}_proj.weight", name)] = rows
        else:
            split[name] = tensor
    converted: Tensors = single_file.convert_flux3_transformer_checkpoint_to_diffusers(split)
    return converted


# Classes whose single files diffusers does not convert, or not completely.
_CONVERTERS: dict[str, Callable[..., Tensors]] = {
    "UNet2DConditionModel": _unet,
    "AutoencoderKLFlux2": _flux2_vae,
    "AutoencoderKLQwenImage": single_file.convert_wan_vae_to_diffusers,
    "Flux3Transformer2DModel": _flux3,
    "AutoencoderTiny": lambda checkpoint, config: checkpoint,
}

_PROJECTION = "text_projection.weight"
_TOKENS = "text_model.embeddings.token_embedding.weight"


def _text_encoder_names(part: Part, config: Any, tensors: Tensors) -> Tensors:
    """Return the weights of a text encoder's file with names that transformers knows."""
    own = tensors.get(_PROJECTION)
    if "positional_embedding" in tensors:
        model = SimpleNamespace(config=config)  # all of it that the converter uses
        tensors = single_file.convert_open_clip_checkpoint(model, tensors, "")
    if not part.class_name.endswith("WithProjection"):
        return tensors
    if _TOKENS in tensors and part.name == "text_encoder":
        # Stable Diffusion 3 uses the pooled output of CLIP L as it is, and that of G projected. So
        # its folders have an identity matrix for L, whatever a file has (sd3_infer.py of
        # https://github.com/Stability-AI/sd3-ref: return_projected_pooled=False).
        width = tensors[_TOKENS].shape[1]
        return tensors | {_PROJECTION: torch.eye(width, dtype=tensors[_TOKENS].dtype)}
    if own is not None:  # in transformers' form, as diffusers' script for single files writes it
        return tensors | {_PROJECTION: own}
    if "text_projection" in tensors:  # OpenCLIP's is transposed
        return tensors | {_PROJECTION: tensors["text_projection"].T.contiguous()}
    return tensors
