"""Reads tensors from files: safetensors, quantised or not, and GGUF."""

import re
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers.quantizers.gguf.utils import GGUFParameter
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors import safe_open

from picowatch.catalog import weight_files
from picowatch.catalog.gguf import BLOCKS, is_gguf, read_any_header, stays_quantised
from picowatch.catalog.headers import Header
from picowatch.catalog.quantised import BESIDE, FP8, SCALES, SECOND_SCALE
from picowatch.engine.model.part_files import Tensors, TypeOf
from picowatch.engine.model.quantised import dequantised


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
WIDE = Narrow()
_MOST = torch.finfo(torch.float8_e4m3fn).max
_NOT_WEIGHTS = (*BESIDE, "scaled_fp8")


def read_tensors(
    path: Path,
    type_of: TypeOf,
    device: torch.device,
    prefix: str = "",
    *,
    copy: bool = True,
    narrow: Narrow = WIDE,
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


def bytes_in(path: Path, dtype: torch.dtype, prefix: str = "", narrow: Narrow | None = WIDE) -> int:
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
