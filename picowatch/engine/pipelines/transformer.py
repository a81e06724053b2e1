"""Reads transformers from files of their own.

Such a file has the weights in the names of the model's authors or in diffusers' names. diffusers
converts the names; the config is that of an installed folder, or the package's.
"""

import json
import math
import re
from collections.abc import Mapping, Set
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import diffusers
import torch
from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
from diffusers.quantizers.gguf.utils import GGUFParameter
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors import safe_open

from picowatch.catalog import Model
from picowatch.catalog.configs import read_json
from picowatch.catalog.gguf import GGUF, read_any_header, stays_quantised
from picowatch.catalog.headers import Header
from picowatch.catalog.models import Part
from picowatch.catalog.storage import FP8, SCALES
from picowatch.engine.models.weights import Tensors, empty
from picowatch.errors import RenderFailed

# A file with so many of diffusers' names has none of its authors': those share about half.
_NEARLY_ALL = 0.9
_GET_ANOTHER = "Get the file again, or another one."
# Of quantised layers: scales of weights and of what they multiply, and their descriptions.
_NOT_WEIGHTS = (*SCALES, ".scale_input", ".input_scale", ".comfy_quant", "scaled_fp8")


def read_transformer(model: Model, part: Part, dtype: torch.dtype, device: torch.device) -> Any:
    """The transformer of a checkpoint, on `device` in the type `dtype`."""
    assert part.weights
    header = read_any_header(part.weights)
    gguf = part.weights.suffix.lower() == GGUF
    tensors = (
        _read_gguf(part.weights, header, part.prefix, dtype)
        if gguf
        else read_widened(part.weights, header, part.prefix, dtype)
    )
    config = read_json(part.folder / "config.json")
    config = fitting_config(model.family, model.variant, config, header, part.prefix)
    kind = getattr(diffusers, part.class_name)
    tensors = _in_diffusers_names(model, tensors, kind, config)
    quantisation = None
    if gguf:
        quantisation = diffusers.GGUFQuantizationConfig(compute_dtype=dtype)
    with TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(config))
        loaded = kind.from_single_file(
            tensors,
            config=folder,
            local_files_only=True,
            torch_dtype=dtype,
            device=device,
            quantization_config=quantisation,
        )
    return loaded.requires_grad_(False).to(device)


def _in_diffusers_names(
    model: Model, tensors: Tensors, kind: Any, config: dict[str, Any]
) -> Tensors:
    """All weights of this kind of transformer, and no others.

    diffusers would drop what it has no use for without a word, and fail on what is missing.
    """
    expected = {name: one.shape for name, one in empty(kind, config).state_dict().items()}
    if len(expected.keys() & tensors.keys()) >= _NEARLY_ALL * len(expected):
        _refuse(model, tensors.keys() - expected.keys(), "do not belong to its family")
    else:
        tensors = _converted(model, tensors, kind, config)
    _refuse(model, expected.keys() - tensors.keys(), "are missing")
    return {name: _as_long(tensors[name], shape) for name, shape in expected.items()}


def _converted(model: Model, tensors: Tensors, kind: Any, config: dict[str, Any]) -> Tensors:
    """From the authors' names, by the converter that diffusers has for this class."""
    loadable: Any = SINGLE_FILE_LOADABLE_CLASSES
    try:
        found = loadable[kind.__name__]["checkpoint_mapping_fn"](checkpoint=tensors, config=config)
    except (LookupError, AttributeError) as error:  # it looks for weights by their names
        raise RenderFailed(
            f"The checkpoint {model.name!r} is incomplete: some of its weights are missing.",
            _GET_ANOTHER,
        ) from error
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def _refuse(model: Model, names: Set[str], why: str) -> None:
    if names:
        raise RenderFailed(
            f"The checkpoint {model.name!r} cannot be used: {len(names)} weights {why}, "
            f"starting with {min(names)}.",
            _GET_ANOTHER,
        )


def _as_long(tensor: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """With the sides of length 1 that it should have: llama.cpp leaves the first ones out."""
    differ = tensor.shape != shape and not isinstance(tensor, GGUFParameter)
    same = [side for side in tensor.shape if side > 1] == [side for side in shape if side > 1]
    return tensor.reshape(shape) if differ and same else tensor


def read_widened(file: Path, header: Header, prefix: str, dtype: torch.dtype) -> Tensors:
    """The weights whose names begin with `prefix`, without it; fp8 multiplied out."""
    tensors = {}
    with safe_open(file, framework="pt") as opened:
        for name in header.shapes:
            if name.startswith(prefix) and not name.endswith(_NOT_WEIGHTS):
                scale = _scale(header, name, opened)
                tensors[name.removeprefix(prefix)] = _widened(opened.get_tensor(name), scale, dtype)
    return tensors


def _read_gguf(file: Path, header: Header, prefix: str, dtype: torch.dtype) -> Tensors:
    """The transformer's weights; matrices stay quantised, and are widened when they compute."""
    tensors: Tensors = {}
    for one in GGUFReader(file).tensors:
        name = one.name.removeprefix(prefix)
        if not one.name.startswith(prefix):
            continue
        if stays_quantised(name, header.types[one.name], header.shapes[one.name]):
            data = torch.from_numpy(one.data.copy())
            tensors[name] = GGUFParameter(data, quant_type=one.tensor_type)
        else:
            # A copy: what is not quantised is the mapped file itself.
            tensors[name] = torch.tensor(dequantize(one.data, one.tensor_type)).to(dtype)
    return tensors


def _scale(header: Header, name: str, opened: Any) -> torch.Tensor | None:
    """What the fp8 weights of a layer are multiplied by."""
    if header.types[name] not in FP8:
        return None
    layer = name.removesuffix(".weight")
    found = [layer + ending for ending in SCALES if layer + ending in header.shapes]
    return opened.get_tensor(found[0]).float() if found else None


def _widened(tensor: torch.Tensor, scale: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    """A copy in the type to compute in; see `read_tensors` in weights.py for why a copy."""
    if scale is None:
        return tensor.to(dtype, copy=True) if tensor.is_floating_point() else tensor.clone()
    if scale.numel() > 1:
        scale = scale.reshape(-1, *[1] * (tensor.ndim - 1))
    return (tensor.float() * scale).to(dtype)


_DEV: dict[str, object] = {"guidance_embeds": True, "in_channels": 64, "out_channels": None}
_NUMBERS: Mapping[tuple[str, str], Mapping[str, object]] = {
    ("flux", "dev"): _DEV,
    ("flux", "Krea"): _DEV,
    ("flux", "schnell"): _DEV | {"guidance_embeds": False},
    ("flux", "Fill"): {"guidance_embeds": True, "in_channels": 384, "out_channels": 64},
}
_QUERY_NORM = re.compile(r"\.(ln_q|norm_q)\.")
Shapes = Mapping[str, tuple[int, ...]]


def fitting_config(
    family: str, variant: str, config: Mapping[str, Any], header: Header, prefix: str
) -> dict[str, Any]:
    """The config with the numbers of this variant, or those that the tensors themselves tell."""
    shapes = {
        name.removeprefix(prefix): shape
        for name, shape in header.shapes.items()
        if name.startswith(prefix)
    }
    known = _NUMBERS.get((family, variant), {})
    if family == "sd3":
        known = _sd3(config, shapes)
    elif family == "flux2":
        known = _flux2(config, shapes)
    return {**config, **known}


def _sd3(config: Mapping[str, Any], shapes: Shapes) -> dict[str, object]:
    """MMDiT of 3 and MMDiT-X of 3.5, as ComfyUI tells them apart (model_detection.py).

    3.5 normalises queries and keys, and 3.5 Medium has a second attention in its first layers.
    """
    positions, width = _shape(shapes, "pos_embed", "pos_embed.pos_embed")[-2:]
    return {
        "num_layers": _layers(shapes, "joint_blocks.", "transformer_blocks."),
        "num_attention_heads": width // config["attention_head_dim"],
        "caption_projection_dim": width,
        "pos_embed_max_size": math.isqrt(positions),
        "qk_norm": "rms_norm" if any(_QUERY_NORM.search(name) for name in shapes) else None,
        "dual_attention_layers": sorted(
            {int(name.split(".")[1]) for name in shapes if ".attn2." in name}
        ),
    }


def _flux2(config: Mapping[str, Any], shapes: Shapes) -> dict[str, object]:
    """klein has two sizes."""
    width = _shape(shapes, "img_in.weight", "x_embedder.weight")[0]
    return {
        "num_layers": _layers(shapes, "double_blocks.", "transformer_blocks."),
        "num_single_layers": _layers(shapes, "single_blocks.", "single_transformer_blocks."),
        "num_attention_heads": width // config["attention_head_dim"],
        "joint_attention_dim": _shape(shapes, "txt_in.weight", "context_embedder.weight")[1],
    }


def _shape(shapes: Shapes, *names: str) -> tuple[int, ...]:
    return next(shapes[name] for name in names if name in shapes)


def _layers(shapes: Shapes, *beginnings: str) -> int:
    """How many blocks there are, in the authors' names or in diffusers'."""
    return len({name.split(".")[1] for name in shapes if name.startswith(beginnings)})
