"""Reads the header of a safetensors file: names, types and shapes, and not one weight.

The format: 8 bytes of little-endian length, that many bytes of JSON, then the tensors' bytes
(https://github.com/huggingface/safetensors#format).
"""

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from picowatch.errors import ModelRefused

# safetensors' own limit; nothing real comes near it.
_MAX_HEADER_BYTES = 100_000_000
_GIT_LFS = b"version https://git-lfs"


@dataclass(frozen=True, slots=True)
class Header:
    """The tensors' shapes by name, and the file's free-form metadata."""

    shapes: dict[str, tuple[int, ...]]
    metadata: dict[str, str]

    def has(self, prefix: str) -> bool:
        """True if a tensor's name starts so."""
        return any(name.startswith(prefix) for name in self.shapes)

    def inputs(self, name: str) -> int:
        """The input channels of a weight, its second side; 0 if there is no such tensor."""
        return (*self.shapes.get(name, ()), 0, 0)[1]


def read_header(path: Path) -> Header:
    """The header of a whole safetensors file; ModelRefused says what else the file is."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
            size = file.seek(0, 2)
            length = _header_length(start, size)
            file.seek(8)
            raw = file.read(length)
    except OSError as error:
        raise ModelRefused(f"cannot be read: {error.strerror or error}.") from error
    entries = _parsed(raw)
    metadata = entries.pop("__metadata__", {})
    header = Header(
        shapes={name: _shape(name, entry) for name, entry in entries.items()},
        metadata=metadata if isinstance(metadata, dict) else {},
    )
    _check_size(entries, size - 8 - length)
    return header


def _header_length(start: bytes, size: int) -> int:
    """The header's length as the first 8 bytes say, if the file can hold it."""
    if size == 0:
        raise ModelRefused("is empty: its download or copy has not begun or has failed.")
    if start.startswith(_GIT_LFS):
        raise ModelRefused(
            "is a Git LFS pointer, a note of where the model is, not the model: "
            "run `git lfs pull` where it was cloned, or download the file itself."
        )
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise ModelRefused("is a web page, not a model: the download went wrong, do it again.")
    if start.startswith((b"PK\x03\x04", b"\x80\x02")):
        raise ModelRefused(
            "is a pickle file (.ckpt) under the name .safetensors, and a pickle can run code: "
            "convert it with a tool you trust."
        )
    if start.startswith(b"GGUF"):
        raise ModelRefused("is a GGUF file under the name .safetensors: not supported.")
    length = struct.unpack("<Q", start[:8])[0] if len(start) >= 8 else 0
    if not 2 <= length <= _MAX_HEADER_BYTES or start[8:9] != b"{":
        raise ModelRefused("is no safetensors file: it does not begin with a header.")
    if length > size - 8:
        raise ModelRefused(
            f"is cut off inside its header ({size:,} bytes): it is still being copied, "
            "or its download broke off."
        )
    return int(length)


def _parsed(raw: bytes) -> dict[str, Any]:
    try:
        entries = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ModelRefused("is damaged: its header is no JSON.") from error
    if not isinstance(entries, dict):
        raise ModelRefused("is damaged: its header is not a table of tensors.")
    return entries


def _shape(name: str, entry: Any) -> tuple[int, ...]:
    """The shape of one entry whose fields are as the format demands."""
    try:
        begin, end = entry["data_offsets"]
        shape = tuple(entry["shape"])
        if 0 <= begin <= end and all(isinstance(side, int) for side in shape):
            return shape
    except (TypeError, KeyError, ValueError):
        pass
    raise ModelRefused(f"is damaged: its header's entry {name[:80]!r} makes no sense.")


def _check_size(entries: dict[str, Any], held: int) -> None:
    """The bytes behind the header are exactly those the header promises."""
    promised = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    if promised > held:
        raise ModelRefused(
            f"is cut off: {held:,} of {promised:,} bytes of weights are there; "
            "it is still being copied, or its download broke off."
        )
    if promised < held:
        raise ModelRefused(
            f"is damaged: {held - promised:,} bytes more than its header says; download it again."
        )
