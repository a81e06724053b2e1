"""Reads the header of a safetensors file: names, types and shapes, and not one weight.

The format: 8 bytes of little-endian length, that many bytes of JSON, then the tensors' bytes
(https://github.com/huggingface/safetensors#format).
"""

import json
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from picowatch.errors import ModelRefused
from picowatch.files.inside import open_regular

# Real headers have up to some thousand tensors and a megabyte or two; safetensors itself would
# take 100 MB, which make gigabytes of Python objects.
_MAX_HEADER_BYTES = 16_000_000
_MAX_VALUES = 500_000
MAX_TENSORS = 20_000
_MAX_SIDES = 16
_MAX_NUMBER = 2**53
# Bits of the types whose names say so little; others are not checked.
_BITS = {"BOOL": 8, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8} | {
    f"{kind}{bits}": bits for kind in "FIU" for bits in (8, 16, 32, 64)
}
_GIT_LFS = b"version https://git-lfs"


@dataclass(frozen=True, slots=True)
class Header:
    """The tensors' shapes and types by name, and the file's free-form metadata."""

    shapes: dict[str, tuple[int, ...]]
    metadata: dict[str, str]
    types: Mapping[str, str] = field(default_factory=dict)

    def has(self, prefix: str) -> bool:
        """True if a tensor's name starts so."""
        return any(name.startswith(prefix) for name in self.shapes)

    def inputs(self, name: str) -> int:
        """The input channels of a weight, its second side; 0 if there is no such tensor."""
        return (*self.shapes.get(name, ()), 0, 0)[1]


def read_header(path: Path) -> Header:
    """The header of a whole safetensors file; ModelRefused says what else the file is."""
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            status = os.fstat(file.fileno())
            length = _header_length(file.read(64), status.st_size)
            file.seek(8)
            raw = file.read(length)
    except OSError as error:
        raise ModelRefused(f"cannot be read: {error.strerror or error}.") from error
    entries = _parsed(raw)
    metadata = entries.pop("__metadata__", {})
    header = Header(
        shapes={name: _shape(name, entry) for name, entry in entries.items()},
        metadata=_texts(metadata),
        types={name: str(entry["dtype"]) for name, entry in entries.items()},
    )
    _check_size(entries, status.st_size - 8 - length)
    return header


def small_json(raw: str | bytes, *, infinite: bool = False) -> Any:
    """Untrusted JSON, unless it holds too many values to parse at once.

    `infinite`: Infinity and NaN are numbers. Raises ValueError or RecursionError for anything else.
    """
    text = raw if isinstance(raw, bytes) else raw.encode("utf-8", "replace")
    if sum(map(text.count, (b",", b"[", b"{"))) > _MAX_VALUES:
        raise ValueError("too many values")
    return json.loads(raw, parse_constant=float if infinite else _refuse_constant)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def refuse_foreign(start: bytes, size: int) -> None:
    """Raise ModelRefused for what a failed download leaves under the name of a model."""
    if size == 0:
        raise ModelRefused("is empty: its download or copy has not begun or has failed.")
    if start.startswith(_GIT_LFS):
        raise ModelRefused(
            "is a Git LFS pointer, a note of where the model is, not the model: "
            "run `git lfs pull` where it was cloned, or download the file itself."
        )
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise ModelRefused("is a web page, not a model: download the file again.")


def _header_length(start: bytes, size: int) -> int:
    """The header's length as the first 8 bytes say, if the file can hold it."""
    refuse_foreign(start, size)
    # A header of 640 bytes, or of 65,536 more, begins as a pickle does: in its length.
    pickled = start.startswith(b"\x80\x02") and start[8:9] != b"{"
    if pickled or start.startswith(b"PK\x03\x04"):
        raise ModelRefused(
            "is a pickle file (.ckpt) under the name .safetensors, and a pickle can run code: "
            "rename it to .ckpt, then convert it with `picowatch convert`."
        )
    if start.startswith(b"GGUF"):
        raise ModelRefused("is a GGUF file under the name .safetensors: rename it to .gguf.")
    length = struct.unpack("<Q", start[:8])[0] if len(start) >= 8 else 0
    if length < 2 or start[8:9] != b"{":
        raise ModelRefused("is not a safetensors file: it does not begin with a header.")
    if length > _MAX_HEADER_BYTES:
        raise ModelRefused(
            f"is not a usable safetensors file: its header claims {length:,} bytes, but "
            f"the limit is {_MAX_HEADER_BYTES:,}."
        )
    if length > size - 8:
        raise ModelRefused(
            f"is cut off inside its header ({size:,} bytes): it is still being copied, "
            "or its download was interrupted."
        )
    return int(length)


def _parsed(raw: bytes) -> dict[str, Any]:
    try:
        entries = small_json(raw)
    except (ValueError, RecursionError) as error:
        raise ModelRefused("is damaged: its header is not JSON.") from error
    if not isinstance(entries, dict):
        raise ModelRefused("is damaged: its header is not a table of tensors.")
    if len(entries) > MAX_TENSORS:
        raise ModelRefused(f"has {len(entries):,} tensors; the limit is {MAX_TENSORS:,}.")
    return entries


def _texts(metadata: Any) -> dict[str, str]:
    """The metadata that are texts, as the format demands."""
    if not isinstance(metadata, dict):
        return {}
    return {name: text for name, text in metadata.items() if isinstance(text, str)}


def _shape(name: str, entry: Any) -> tuple[int, ...]:
    """The shape of one entry whose fields are as the format demands."""
    try:
        begin, end = map(_number, entry["data_offsets"])
        shape = tuple(map(_number, entry["shape"]))
        bits = _BITS.get(entry["dtype"])
        fits = bits is None or bits * math.prod(shape[:_MAX_SIDES]) == 8 * (end - begin)
        if begin <= end and len(shape) <= _MAX_SIDES and fits:
            return shape
    except (TypeError, KeyError, ValueError):
        pass
    raise ModelRefused(f"is damaged: its header's entry {name[:80]!r} is invalid.")


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_NUMBER:
        raise ValueError("no size")
    return value


def _check_size(entries: dict[str, Any], held: int) -> None:
    """The bytes after the header are exactly those the header promises."""
    promised = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    if promised > held:
        raise ModelRefused(
            f"is cut off: {held:,} of {promised:,} bytes of weights are there; "
            "it is still being copied, or its download was interrupted."
        )
    if promised < held:
        raise ModelRefused(
            f"is damaged: {held - promised:,} bytes more than its header says; download it again."
        )
    _check_order(entries)


def _check_order(entries: dict[str, Any]) -> None:
    """Check that each tensor begins where the one before it ends: none overlaps another."""
    at = 0
    for begin, end in sorted(tuple(entry["data_offsets"]) for entry in entries.values()):
        if begin != at:
            raise ModelRefused("is damaged: its header's tensors overlap or leave gaps.")
        at = end
