"""Reads the header of a safetensors file: names, types and shapes, but no weights.

The format: 8 bytes of little-endian length, that many bytes of JSON, then the tensors' bytes
(https://github.com/huggingface/safetensors#format). The safetensors library maps the file and needs
numpy for this, so a light command would take twice as long; it checks the rest in the engine.
"""

import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from picowatch.errors import ModelRefused
from picowatch.files.safe_paths import open_regular

# Real headers have up to some thousand tensors and a megabyte or two; larger headers make
# gigabytes of Python objects.
_MAX_HEADER_BYTES = 16_000_000
_MAX_VALUES = 500_000
_MAX_SIDES = 16
_MAX_NAME = 1000  # real names have up to some hundred characters
_MAX_NUMBER = 2**53
_SHOWN_TENSORS = 3
# The ending of a tensor of JSON that says how ComfyUI has quantised a layer.
_DESCRIPTION, _MAX_DESCRIPTION = ".comfy_quant", 4096


@dataclass(frozen=True, slots=True)
class Header:
    """Tensors' shapes and types, a file's metadata, and `formats` of ComfyUI's quantised layers."""

    shapes: dict[str, tuple[int, ...]]
    metadata: dict[str, str]
    types: Mapping[str, str] = field(default_factory=dict)
    formats: Mapping[str, dict[str, Any]] = field(default_factory=dict)

    def has(self, prefix: str | tuple[str, ...]) -> bool:
        """Return whether a tensor's name starts with a prefix."""
        return any(name.startswith(prefix) for name in self.shapes)

    def inputs(self, name: str) -> int:
        """Return the input channels of a weight, its second side; 0 if there is no such tensor."""
        return (*self.shapes.get(name, ()), 0, 0)[1]

    def shows(self, signs: str, prefix: str = "") -> bool:
        """Return whether the tensors show all signs of an alternative around "|".

        "a." means that a name begins with it, "!a." that none does, "a:9" that a tensor has 9
        inputs, and "a@9" that a table has 9 positions. All names follow `prefix`.
        """
        ways = (way.split() for way in signs.split("|"))
        return any(all(self._shows(sign, prefix) for sign in way) for way in ways)

    def _shows(self, sign: str, prefix: str) -> bool:
        if sign.startswith("!"):
            return not self.has(prefix + sign[1:])
        if "@" in sign:  # GGUF files may leave out the first side, which is 1
            name, _, rows = sign.partition("@")
            return (0, 0, *self.shapes.get(prefix + name, ()))[-2] == int(rows)
        name, _, inputs = sign.partition(":")
        return self.inputs(prefix + name) == int(inputs) if inputs else self.has(prefix + name)

    def beginning(self) -> str:
        """Return the first tensors in words, for a message about an unknown file."""
        first = list(self.shapes.items())[:_SHOWN_TENSORS]
        return ", ".join(f"{name[:80]!r} {list(shape)}" for name, shape in first)


def read_header(path: Path) -> Header:
    """Return the header of a complete safetensors file. ModelRefused says what else it is."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            length = _header_length(file.read(64), size)
            file.seek(8)
            return _header(file, file.read(length), size - 8 - length)
    except OSError as error:
        raise ModelRefused(f"cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError, AttributeError, LookupError, TypeError) as error:
        raise ModelRefused("is damaged: its header cannot be read.") from error


def _header(file: BinaryIO, raw: bytes, held: int) -> Header:
    """Return the parsed header of a file with so many bytes of weights."""
    entries = small_json(raw)
    metadata = entries.pop("__metadata__", {})
    shapes = {name: _shape(entry) for name, entry in entries.items()}
    types = {name: str(entry["dtype"]) for name, entry in entries.items()}
    places = {name: tuple(map(_number, tensor["data_offsets"])) for name, tensor in entries.items()}
    texts = {key: text for key, text in metadata.items() if isinstance(text, str)}
    if max(map(len, entries), default=0) > _MAX_NAME:
        raise ValueError("a tensor's name is too long")
    promised = max((end for _, end in places.values()), default=0)
    check_size(promised, held)
    if promised < held:
        raise ModelRefused(
            f"is damaged: {held - promised:,} bytes more than its header says; download it again."
        )
    for name, shape in shapes.items():  # nvfp4 packs two numbers in a byte
        if types[name] == "U8" and f"{name}_scale_2" in shapes and shape:
            shapes[name] = (*shape[:-1], shape[-1] * 2)
    formats = small_json(texts.get("_quantization_metadata", "{}")).get("layers", {})
    for name, (begin, end) in places.items():
        if name.endswith(_DESCRIPTION) and end - begin <= _MAX_DESCRIPTION:
            file.seek(8 + len(raw) + begin)
            formats[name.removesuffix(_DESCRIPTION)] = small_json(file.read(end - begin))
    return Header(shapes, texts, types, {name: dict(layer) for name, layer in formats.items()})


def check_size(promised: int, held: int) -> None:
    """Raise ModelRefused unless the bytes that a header promises are there."""
    if promised > held:
        raise ModelRefused(
            f"is cut off: {held:,} of {promised:,} bytes of weights are there; "
            "it is still being copied, or its download was interrupted."
        )


def small_json(raw: str | bytes, *, infinite: bool = False) -> Any:
    """Parse untrusted JSON, unless it has too many values.

    `infinite`: Infinity and NaN are allowed. Raises ValueError or RecursionError.
    """
    text = raw if isinstance(raw, bytes) else raw.encode("utf-8", "replace")
    if sum(map(text.count, (b",", b"[", b"{"))) > _MAX_VALUES:
        raise ValueError("too many values")
    return json.loads(raw, parse_constant=float if infinite else _refuse_constant)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def refuse_foreign(start: bytes, size: int) -> None:
    """Raise ModelRefused for files that failed downloads leave under the name of a model."""
    if size == 0:
        raise ModelRefused("is empty: its download or copy has not begun or has failed.")
    if start.startswith(b"version https://git-lfs"):
        raise ModelRefused(
            "is a Git LFS pointer, which only says where the model is: "
            "run `git lfs pull` where it was cloned, or download the file itself."
        )
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise ModelRefused("is a web page, not a model: download the file again.")


def _header_length(start: bytes, size: int) -> int:
    """Return the header's length from the first 8 bytes. ModelRefused if the file is shorter."""
    refuse_foreign(start, size)
    # The length of a header of 640 bytes, or of 65,536 more, begins as a pickle does.
    pickled = start.startswith(b"\x80\x02") and start[8:9] != b"{"
    if pickled or start.startswith(b"PK\x03\x04"):
        raise ModelRefused(
            "is a pickle file (.ckpt) under the name .safetensors, and a pickle can run code: "
            "rename it to .ckpt, then convert it with `picowatch convert`."
        )
    if start.startswith(b"GGUF"):
        raise ModelRefused("is a GGUF file under the name .safetensors: rename it to .gguf.")
    length = int(struct.unpack("<Q", start[:8])[0]) if len(start) >= 8 else 0
    if start[8:9] != b"{" or not 2 <= length <= _MAX_HEADER_BYTES:
        raise ModelRefused("is not a safetensors file: it does not begin with a header.")
    if length > size - 8:
        raise ModelRefused(
            f"is cut off inside its header ({size:,} bytes): it is still being copied, "
            "or its download was interrupted."
        )
    return length


def _shape(entry: Any) -> tuple[int, ...]:
    shape = tuple(map(_number, entry["shape"]))
    if len(shape) > _MAX_SIDES:
        raise ValueError("too many sides")
    return shape


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_NUMBER:
        raise ValueError("no size")
    return value
