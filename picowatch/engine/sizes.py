"""How large a checkpoint is in memory, from the headers of its files."""

from math import prod
from pathlib import Path

import torch

from picowatch.catalog import Model, weight_files
from picowatch.catalog.gguf import BLOCKS, read_any_header, stays_quantised
from picowatch.engine.devices import Target
from picowatch.engine.gguf_fp8 import is_gguf
from picowatch.engine.load import dtype_of, parts_of


def bytes_of_parts(model: Model, target: Target) -> dict[str, int]:
    """The bytes of a checkpoint's "encoders", "denoiser" and "vae", as they compute."""
    found = {"encoders": 0, "denoiser": 0, "vae": 0}
    for part in parts_of(model):
        if part.name.startswith(("tokenizer", "scheduler")):
            continue
        kind = {"unet": "denoiser", "transformer": "denoiser", "vae": "vae"}.get(part.name)
        dtype = dtype_of(model, part, target)
        for file in [part.weights] if part.weights else weight_files(part.folder):
            found[kind or "encoders"] += _bytes_in(file, dtype, part.prefix)
    return found


def controlnet_bytes(model: Model, dtype: torch.dtype) -> int:
    """The bytes of a ControlNet."""
    files = weight_files(model.path) if model.layout == "folder" else [model.path]
    return sum(_bytes_in(file, dtype) for file in files)


def _bytes_in(file: Path, dtype: torch.dtype, prefix: str = "") -> int:
    """The bytes of the tensors whose names begin with `prefix`; GGUF's matrices stay quantised."""
    header, size = read_any_header(file), 0
    for name, shape in header.shapes.items():
        if name.startswith(prefix):
            kind = header.types[name]
            quantised = is_gguf(file) and stays_quantised(name, kind, shape)
            numbers, taken = BLOCKS[kind] if quantised else (1, dtype.itemsize)
            size += prod(shape) // numbers * taken
    return size
