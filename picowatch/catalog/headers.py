"""Reads the header of a safetensors or GGUF file: names, types and shapes, but no weights.

safetensors: 8 bytes of little-endian length, that many bytes of JSON, then the tensors' bytes
(https://github.com/huggingface/safetensors#format). The safetensors library maps the file and needs
numpy for this, so a light command would take twice as long; it checks the rest in the engine.

GGUF: a magic number, a version, metadata, a description of each tensor, then their bytes
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). Everything has a limit, and lengths
are compared with the file before anything is read.
"""

import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from picowatch.errors import ModelRefused
from picowatch.files.safe_paths import open_regular

# Real headers have up to some thousand tensors and a megabyte or two; larger headers make
# gigabytes of Python objects.
_MAX_HEADER_BYTES = 16_000_000
_MAX_VALUES = 500_000
_MAX_SIDES = 16
_MAX_NAME = 1000  # real names have up to some hundred characters
_MAX_NUMBER = 2**53
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
        first = list(self.shapes.items())[:3]
        return ", ".join(f"{name[:80]!r} {list(shape)}" for name, shape in first)


def is_gguf(path: Path) -> bool:
    return path.suffix.lower() == GGUF


def read_header(path: Path) -> Header:
    """Return the header of a complete safetensors file, or of a GGUF file by its ending.

    ModelRefused says what else it is.
    """
    try:
        with open_regular(path) as file:
            start, size = file.read(64), os.fstat(file.fileno()).st_size
            refuse_foreign(start, size)
            file.seek(0)
            return _Gguf(file, size).header() if is_gguf(path) else _header(file, start, size)
    except OSError as error:
        raise ModelRefused(f"cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError, AttributeError, LookupError, TypeError) as error:
        raise ModelRefused("is damaged: its header cannot be read.") from error


def _header(file: BinaryIO, start: bytes, size: int) -> Header:
    """Return the parsed header of a safetensors file of so many bytes, which begins with these."""
    raw = file.read(8 + _header_length(start, size))[8:]
    held = size - 8 - len(raw)  # bytes of weights
    entries = small_json(raw)
    metadata = entries.pop("__metadata__", {})
    shapes = {name: tuple(map(_number, entry["shape"])) for name, entry in entries.items()}
    types = {name: str(entry["dtype"]) for name, entry in entries.items()}
    places = {name: tuple(map(_number, tensor["data_offsets"])) for name, tensor in entries.items()}
    texts = {key: text for key, text in metadata.items() if isinstance(text, str)}
    if max(map(len, entries), default=0) > _MAX_NAME:
        raise ValueError("a tensor's name is too long")
    if max(map(len, shapes.values()), default=0) > _MAX_SIDES:
        raise ValueError("too many sides")
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


def small_json(raw: str | bytes) -> Any:
    """Parse untrusted JSON, which may have NaN, unless it has too many values.

    Raises ValueError or RecursionError.
    """
    text = raw if isinstance(raw, bytes) else raw.encode("utf-8", "replace")
    if sum(map(text.count, (b",", b"[", b"{"))) > _MAX_VALUES:
        raise ValueError("too many values")
    return json.loads(raw)


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
    # The length of a header of 640 bytes, or of 65,536 more, begins as a pickle does.
    pickled = start.startswith(b"\x80\x02") and start[8:9] != b"{"
    if pickled or start.startswith(b"PK\x03\x04"):
        raise ModelRefused(
            "is a pickle file (.ckpt) under the name .safetensors, and a pickle can run code: "
            "rename it to .ckpt, then convert it with `picowatch convert`."
        )
    if start.startswith(MAGIC):
        raise ModelRefused("is a GGUF file under the name .safetensors: rename it to .gguf.")
    length = int(struct.unpack("<Q", start[:8])[0]) if len(start) >= 8 else 0
    if start[8:9] != b"{" or not 2 <= length <= _MAX_HEADER_BYTES:
        raise ModelRefused("is not a safetensors file: it does not begin with a header.")
    if length > size - 8:
        raise _cut_off(size)
    return length


def _cut_off(size: int) -> ModelRefused:
    return ModelRefused(
        f"is cut off inside its header ({size:,} bytes): it is still being copied, "
        "or its download was interrupted."
    )


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_NUMBER:
        raise ValueError("no size")
    return value


GGUF = ".gguf"
MAGIC = b"GGUF"
_MAX_TENSORS = 20_000
_MAX_ENTRIES = 10_000  # of the metadata
_MAX_LISTED = 2_000_000  # in all its lists: vocabularies have some hundred thousand words
_MAX_TEXT = 1_000_000
# The types of metadata: formats of struct, text and lists.
_NUMBERS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
_TEXT, _LIST = 8, 9
# The supported types of tensors by their numbers: name, values in a block, and bytes of a block.
TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 30: ("BF16", 1, 2),
    2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 20: ("IQ4_NL", 32, 18),
    23: ("IQ4_XS", 256, 136),
}  # fmt: skip
BLOCKS = {name: (values, size) for name, values, size in TYPES.values()}
# llama.cpp's names for mixtures of types (LLAMA_FTYPE), by the entry general.file_type.
MIXTURES = {
    "11": "Q3_K_S", "12": "Q3_K_M", "13": "Q3_K_L", "14": "Q4_K_S", "15": "Q4_K_M",
    "16": "Q5_K_S", "17": "Q5_K_M",
}  # fmt: skip


def stays_quantised(name: str, kind: str, shape: tuple[int, ...]) -> bool:
    """Return whether a tensor stays quantised in memory: the weight of a linear layer."""
    return name.endswith(".weight") and len(shape) == 2 and kind not in ("F32", "F16", "BF16")


@dataclass(eq=False)
class _Gguf:
    """Reads a GGUF file."""

    _file: BinaryIO
    _size: int
    _values: int = 0

    def header(self) -> Header:
        if self._file.read(4) != MAGIC:
            raise ModelRefused("is not a GGUF file: it does not begin with 'GGUF'.")
        version = self._number("I")
        if version not in (2, 3):
            raise ModelRefused(f"is a GGUF file of version {version}: picowatch reads 2 and 3.")
        tensors = self._count(_MAX_TENSORS, "tensors")
        entries = self._count(_MAX_ENTRIES, "entries of metadata")
        metadata = {}
        for _ in range(entries):
            key = self._text(_MAX_NAME)
            metadata[key] = self._value(self._kind())
        shapes, types, ends = {}, {}, []
        for _ in range(tensors):
            name, shape, kind, end = self._tensor()
            if name in shapes:
                raise ModelRefused(f"is damaged: it has two tensors {name[:80]!r}.")
            shapes[name], types[name] = shape, kind
            ends.append(end)
        # The bytes of the tensors begin at a multiple of the alignment.
        alignment = metadata.get("general.alignment", "32")
        step = int(alignment) if alignment.isdecimal() else 0
        if not 1 <= step <= 2**16:
            raise ModelRefused("is damaged: its alignment is invalid.")
        begin = -(-self._file.tell() // step) * step
        check_size(max(ends, default=0), max(self._size - begin, 0))
        return Header(shapes, metadata, types)

    def _tensor(self) -> tuple[str, tuple[int, ...], str, int]:
        """Return a tensor's name, shape, type, and the end of its bytes after the header."""
        name = self._text(_MAX_NAME)
        sides = self._count(_MAX_SIDES, "sides of a tensor", "I")
        shape = tuple(self._count(_MAX_NUMBER, "values") for _ in range(sides))[::-1]
        number = self._kind()
        if number not in TYPES:
            raise ModelRefused(
                f"is quantised as type {number}, which picowatch does not know: get it as Q4_K_S "
                "or Q8_0, or in bfloat16."
            )
        kind, block, size = TYPES[number]
        values = prod(shape)
        if not shape or shape[-1] % block or values > _MAX_NUMBER:
            raise ModelRefused(f"is damaged: its tensor {name[:80]!r} has no valid shape.")
        return name, shape, kind, self._count(_MAX_NUMBER, "bytes") + values // block * size

    def _value(self, kind: int) -> str:
        """Return a value as text; for a list its length."""
        if kind == _TEXT:
            return self._text(_MAX_TEXT)
        if kind in _NUMBERS:
            return str(self._number(_NUMBERS[kind]))
        if kind != _LIST:
            raise ModelRefused("is damaged: its metadata has a value of an unknown type.")
        kind = self._kind()
        length = self._count(_MAX_LISTED, "values in a list")
        self._values += length
        if self._values > _MAX_LISTED:
            raise ModelRefused("cannot be used: its metadata has too many values.")
        if kind in _NUMBERS:
            self._bytes(length * struct.calcsize(f"<{_NUMBERS[kind]}"))
        else:
            for _ in range(length):
                self._value(kind)
        return f"{length} values"

    def _count(self, most: int, what: str, code: str = "Q") -> int:
        count = int(self._number(code))
        if count > most:
            raise ModelRefused(f"is damaged: it claims {count:,} {what}; the limit is {most:,}.")
        return count

    def _kind(self) -> int:
        return int(self._number("I"))

    def _number(self, code: str) -> int | float:
        number: int | float = struct.unpack(f"<{code}", self._bytes(struct.calcsize(f"<{code}")))[0]
        return number

    def _text(self, most: int) -> str:
        return self._bytes(self._count(most, "bytes of text")).decode("utf-8", "replace")

    def _bytes(self, count: int) -> bytes:
        found = self._file.read(count)
        if len(found) < count:
            raise _cut_off(self._size)
        return found
