"""Reads tensors from files: safetensors, quantised or not, and GGUF."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers.quantizers.gguf.utils import GGUFParameter
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors import safe_open

from picowatch.catalog.dequantise import (
    BESIDE,
    FP8,
    SCALES,
    SECOND_SCALE,
    SMOOTHING,
    Packed,
    check_quantisation,
    packed_weights,
    rotated_columns,
)
from picowatch.catalog.folder_files import read_json, weight_files
from picowatch.catalog.headers import BLOCKS, Header, is_gguf, read_header, stays_quantised
from picowatch.engine.model.dequantise import PackedWeight, dequantised, stand_in
from picowatch.engine.model.part_files import Tensors, TypeOf


class Narrow(NamedTuple):
    """The types of matrices that stay as they are in memory, whatever type computes."""

    types: frozenset[str] = frozenset()
    fp8: bool = False  # those in the blocks of a denoiser are rounded to it

    def type_of(self, header: Header, name: str, dtype: torch.dtype) -> torch.dtype:
        """Return the type of a tensor in memory, where `dtype` computes."""
        if not name.endswith(".weight") or len(header.shapes[name]) < 2:
            return dtype
        kind = header.types[name]
        if self.fp8 and _IN_BLOCKS.search(name) and kind not in FP8:
            return torch.float8_e4m3fn
        own = _TYPES[kind] if kind in self.types and not _scales(header, name) else dtype
        return own if own.itemsize < dtype.itemsize else dtype


_TYPES = {
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
}
_IN_BLOCKS = re.compile(r"(?:block|layer|refiner)s?\.\d+\.")
WIDE = Narrow()
Reads = Callable[[str], bool]  # whether a tensor of this name is read; no name is empty
EVERY: Reads = bool
_MOST = torch.finfo(torch.float8_e4m3fn).max
_NOT_WEIGHTS = (*BESIDE, SMOOTHING, "scaled_fp8")


def read_tensors(
    path: Path,
    type_of: TypeOf,
    device: torch.device,
    prefix: str = "",
    *,
    copy: bool = True,  # otherwise some are not copied: the caller must do it soon
    narrow: Narrow = WIDE,
    reads: Reads = EVERY,  # selects by names without the prefix
) -> Tensors:
    """Read the tensors whose names begin with `prefix`, which is removed, to the device.

    They are copies, because files are memory-mapped: overwriting them would change the model, and
    truncating them would end the process (SIGBUS). GGUF's matrices stay quantised.
    """
    found: Tensors = {}
    headers, packed, parts = _headers(path)
    for file, header in headers.items():
        names = _selected(header, prefix, reads)
        if is_gguf(file):
            found |= _read_gguf(file, header, names, type_of, device)
        else:
            found |= _read_safetensors(file, header, names, type_of, device, copy, narrow, parts)
    for name, matrix in packed.items():
        bare = name.removeprefix(prefix)
        if name.startswith(prefix) and bare in found:
            held = {end: found.pop(part.removeprefix(prefix)) for end, part in matrix.parts.items()}
            found[bare] = stand_in(PackedWeight(matrix, held), type_of(bare), device)
    return found


def _headers(path: Path) -> tuple[dict[Path, Header], dict[str, Packed], set[str]]:
    """Return the headers of a part's files, and what SDNQ has packed: matrices, and all tensors."""
    if not path.is_dir():
        return {path: read_header(path)}, {}, set()
    headers = {file: read_header(file) for file in weight_files(path)}
    packed = packed_weights(headers.values())
    if packed:
        told: Any = read_json(path / "config.json").get("quantization_config")
        check_quantisation(told)
        rotated = rotated_columns(told)
        packed = {name: matrix._replace(rotated=rotated) for name, matrix in packed.items()}
    return headers, packed, {part for matrix in packed.values() for part in matrix.parts.values()}


def bytes_in(
    path: Path, dtype: torch.dtype, prefix: str = "", narrow: Narrow = WIDE, reads: Reads = EVERY
) -> int:
    """Return the bytes of the tensors that `read_tensors` would read in this type."""
    size = 0
    headers, packed, parts = _headers(path)
    for file, header in headers.items():
        for name in _selected(header, prefix, reads):
            shape, kind, numbers, taken = header.shapes[name], header.types[name], 1, dtype.itemsize
            if name in packed:
                taken = 1
            elif name in parts:
                taken = max(taken, 4 if kind == "F32" else 2)
            elif is_gguf(file):
                if stays_quantised(name, kind, shape):
                    numbers, taken = BLOCKS[kind]
            else:
                taken = narrow.type_of(header, name, dtype).itemsize
            size += prod(shape) // numbers * taken
    return size


def _selected(header: Header, prefix: str, reads: Reads) -> dict[str, str]:
    """Return the names of the tensors that are read, each without the prefix."""
    bare = {name: name.removeprefix(prefix) for name in header.shapes if name.startswith(prefix)}
    return {name: short for name, short in bare.items() if reads(short)}


def _read_safetensors(
    file: Path,
    header: Header,
    names: Mapping[str, str],
    type_of: TypeOf,
    device: torch.device,
    copy: bool,
    narrow: Narrow,
    parts: Collection[str],
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield tensors in their types in memory, but the `parts` of packed matrices as they are."""
    with safe_open(file, framework="pt") as opened:
        for name, bare in names.items():
            if name.endswith(_NOT_WEIGHTS):
                continue
            tensor, dtype = opened.get_tensor(name), type_of(bare)
            if name in parts:
                yield bare, tensor.to(device, copy=copy)
                continue
            if scales := [*map(opened.get_tensor, _scales(header, name))]:
                told = header.formats.get(name.removesuffix(".weight"), {})
                tensor = dequantised(tensor, *scales, told=told)
            if dtype == type_of(""):  # some layers always compute in float32
                dtype = narrow.type_of(header, name, dtype)
            yield bare, _on_device(tensor, dtype, device, copy)


def _on_device(
    tensor: torch.Tensor, dtype: torch.dtype, device: torch.device, copy: bool
) -> torch.Tensor:
    if not tensor.is_floating_point():
        return tensor.to(device, copy=copy)
    if dtype.itemsize == 1 < tensor.dtype.itemsize:  # what is larger would not be a number
        return tensor.to(device).clamp(-_MOST, _MOST).to(dtype)
    if tensor.dtype.itemsize > 1 or tensor.dtype == dtype:
        return tensor.to(device, dtype, copy=copy)
    return tensor.to(dtype).to(device)  # fp8, which not every device supports


def _scales(header: Header, name: str) -> list[str]:
    """Return the names of the scales of a layer's weights: also nvfp4's two or three."""
    layer = name.removesuffix(".weight")
    endings = (*SCALES, SECOND_SCALE, SMOOTHING) if name != layer else ()
    return [layer + ending for ending in endings if layer + ending in header.shapes]


def _read_gguf(
    file: Path, header: Header, names: Mapping[str, str], type_of: TypeOf, device: torch.device
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield matrices quantised, to be widened while they compute, and other tensors in full."""
    for tensor in (entry for entry in GGUFReader(file).tensors if entry.name in names):
        name, kind = names[tensor.name], tensor.tensor_type
        if stays_quantised(name, header.types[tensor.name], header.shapes[tensor.name]):
            data = torch.from_numpy(tensor.data.copy()).to(device)
            yield name, GGUFParameter(data, quant_type=kind)
        else:
            yield name, torch.tensor(dequantize(tensor.data, kind)).to(device, type_of(name))
