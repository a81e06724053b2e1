"""Tensors of weight files: safetensors, fp8 with scales, and GGUF."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import torch
from diffusers.quantizers.gguf.utils import GGUFParameter
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors import safe_open

from picowatch.catalog import weight_files
from picowatch.catalog.gguf import BLOCKS, FP8, SCALES, is_gguf, read_any_header, stays_quantised
from picowatch.catalog.headers import Header

Tensors = dict[str, torch.Tensor]
# Gives the type for a tensor of this name.
TypeOf = Callable[[str], torch.dtype]

# What stands beside quantised layers: scales of weights and of inputs, and descriptions.
_NOT_WEIGHTS = (*SCALES, ".scale_input", ".input_scale", ".comfy_quant", "scaled_fp8")


def read_tensors(
    path: Path, type_of: TypeOf, device: torch.device, prefix: str = "", *, copy: bool = True
) -> Tensors:
    """The tensors of a file or folder whose names begin with `prefix`, without it, on the device.

    They are copies, because files are mapped into memory: one that is overwritten in place would
    change the model, and one that is cut short would end the process (SIGBUS). Without `copy` some
    are not: they must soon go elsewhere. GGUF's matrices stay quantised.
    """
    found: Tensors = {}
    for file in _files(path):
        header = read_any_header(file)
        if is_gguf(file):
            found |= _read_gguf(file, header, prefix, type_of, device)
        else:
            found |= _read_safetensors(file, header, prefix, type_of, device, copy=copy)
    return found


def _files(path: Path) -> list[Path]:
    return weight_files(path) if path.is_dir() else [path]


def bytes_in(path: Path, dtype: torch.dtype, prefix: str = "") -> int:
    """The bytes of the tensors that `read_tensors` would read in this type."""
    size = 0
    for file in _files(path):
        header = read_any_header(file)
        for name, shape in header.shapes.items():
            if name.startswith(prefix):
                kind = header.types[name]
                quantised = is_gguf(file) and stays_quantised(name, kind, shape)
                numbers, taken = BLOCKS[kind] if quantised else (1, dtype.itemsize)
                size += prod(shape) // numbers * taken
    return size


def _read_safetensors(
    file: Path,
    header: Header,
    prefix: str,
    type_of: TypeOf,
    device: torch.device,
    *,
    copy: bool,
) -> Iterator[tuple[str, torch.Tensor]]:
    names = [
        name
        for name in header.shapes
        if name.startswith(prefix) and not name.endswith(_NOT_WEIGHTS)
    ]
    with safe_open(file, framework="pt") as opened, ThreadPoolExecutor() as pool:
        found = [(opened.get_tensor(name), _scale(header, name, opened)) for name in names]
        bare = [name.removeprefix(prefix) for name in names]
        types = [type_of(name) for name in bare]
        # Copying and converting takes longer than reading from the disk's cache: use all cores.
        yield from zip(bare, pool.map(partial(_copied, device, copy), found, types), strict=True)


def _copied(
    device: torch.device,
    copy: bool,
    found: tuple[torch.Tensor, torch.Tensor | None],
    dtype: torch.dtype,
) -> torch.Tensor:
    """A tensor in this type, multiplied by its scale if it has one."""
    tensor, scale = found
    if not tensor.is_floating_point():
        return tensor.to(device, copy=copy)
    if tensor.dtype.itemsize > 1:
        return tensor.to(device, dtype, copy=copy)
    # fp8, which not every device knows.
    if scale is None:
        return tensor.to(dtype).to(device)
    if scale.numel() > 1:  # one for each row
        scale = scale.reshape(-1, *[1] * (tensor.ndim - 1))
    return (tensor.float() * scale).to(device, dtype)


def _scale(header: Header, name: str, opened: Any) -> torch.Tensor | None:
    """What the fp8 weights of a layer are multiplied by."""
    if header.types[name] not in FP8:
        return None
    layer = name.removesuffix(".weight")
    ending = next((one for one in SCALES if layer + one in header.shapes), "")
    scale: torch.Tensor | None = opened.get_tensor(layer + ending).float() if ending else None
    return scale


def _read_gguf(
    file: Path, header: Header, prefix: str, type_of: TypeOf, device: torch.device
) -> Iterator[tuple[str, torch.Tensor]]:
    """Matrices as they are, to be widened layer by layer while they compute; the rest in full."""
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
