"""Transformers of tiny flow families as files of their own, as people share them."""

import json
from pathlib import Path

import diffusers
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import dequantize, quantize

from tests.engine.original_names import Tensors
from tests.engine.tiny_flows import tiny_flow

PREFIX = "model.diffusion_model."


def weights_of(name: str) -> Tensors:
    """The transformer of a tiny folder, in diffusers' names."""
    index = json.loads((tiny_flow(name) / "model_index.json").read_text())
    kind = getattr(diffusers, index["transformer"][1])
    return dict(kind.from_pretrained(tiny_flow(name), subfolder="transformer").state_dict())


def write_gguf(path: Path, tensors: Tensors, kind: str, architecture: str = "lumina2") -> Path:
    """A GGUF file as city96's program and llama.cpp write it.

    Matrices are quantised, the rest is in full; the first sides of length 1 are left out.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(path, architecture)
    for name, tensor in tensors.items():
        chosen = _type_of(name, tensor, kind)
        while tensor.ndim > 1 and len(tensor) == 1:
            tensor = tensor[0]
        writer.add_tensor(name, quantize(tensor.float().numpy(), chosen), raw_dtype=chosen)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def rounded(tensors: Tensors, kind: str) -> Tensors:
    """Return the values that such a file holds."""
    made = {}
    for name, tensor in tensors.items():
        chosen = _type_of(name, tensor, kind)
        held = dequantize(quantize(tensor.float().numpy(), chosen), chosen)
        made[name] = torch.from_numpy(held.copy())
    return made


def _type_of(name: str, tensor: torch.Tensor, kind: str) -> GGMLQuantizationType:
    if name.endswith("pad_token"):
        return GGMLQuantizationType.BF16
    matrix = name.endswith(".weight") and tensor.ndim == 2 and tensor.shape[1] % 32 == 0
    return GGMLQuantizationType[kind if matrix else "F32"]
