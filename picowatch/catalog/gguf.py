"""Reads the header of a GGUF file: names, types and shapes, but no weights.

The format: a magic number, a version, metadata, a description of each tensor, then their bytes
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). Everything has a limit, and lengths
are compared with the file before anything is read.
"""

import os
import struct
from math import prod
from pathlib import Path
from typing import BinaryIO

from picowatch.catalog.headers import Header, check_size, read_header, refuse_foreign
from picowatch.errors import ModelRefused
from picowatch.files.safe_paths import open_regular

GGUF = ".gguf"
MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MAX_TENSORS = 20_000
_MAX_ENTRIES = 10_000  # of the metadata
_MAX_VALUES = 2_000_000  # in all its lists: vocabularies have some hundred thousand words
_MAX_NAME = 1000
_MAX_TEXT = 1_000_000
_MAX_SIDES = 8
_MAX_NUMBER = 2**53
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


def is_gguf(path: Path) -> bool:
    return path.suffix.lower() == GGUF


def read_any_header(path: Path) -> Header:
    """Return the header of a GGUF file, by its ending, or of a safetensors file."""
    return read_gguf(path) if is_gguf(path) else read_header(path)


def stays_quantised(name: str, kind: str, shape: tuple[int, ...]) -> bool:
    """Return whether a tensor stays quantised in memory: the weight of a linear layer."""
    return name.endswith(".weight") and len(shape) == 2 and kind not in ("F32", "F16", "BF16")


def read_gguf(path: Path) -> Header:
    """Return the header of a complete GGUF file. ModelRefused says what is wrong with it."""
    try:
        with open_regular(path) as file:
            return _Reader(file, os.fstat(file.fileno()).st_size).header()
    except OSError as error:
        raise ModelRefused(f"cannot be read: {error.strerror or error}.") from error


class _Reader:
    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self._values = 0

    def header(self) -> Header:
        refuse_foreign(self._file.read(64), self._size)
        self._file.seek(0)
        if self._file.read(4) != MAGIC:
            raise ModelRefused("is not a GGUF file: it does not begin with 'GGUF'.")
        version = self._number("I")
        if version not in _VERSIONS:
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
        if kind == _LIST:
            return self._list()
        if kind in _NUMBERS:
            return str(self._number(_NUMBERS[kind]))
        raise ModelRefused("is damaged: its metadata has a value of an unknown type.")

    def _list(self) -> str:
        kind = self._kind()
        length = self._count(_MAX_VALUES, "values in a list")
        self._values += length
        if self._values > _MAX_VALUES:
            raise ModelRefused("cannot be used: its metadata has too many values.")
        if kind == _TEXT:
            for _ in range(length):
                self._text(_MAX_TEXT)
        elif kind in _NUMBERS:
            self._bytes(length * struct.calcsize(f"<{_NUMBERS[kind]}"))
        else:
            raise ModelRefused("is damaged: its metadata has a list of an unknown type.")
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
            raise ModelRefused(
                f"is cut off inside its header ({self._size:,} bytes): it is still being copied, "
                "or its download was interrupted."
            )
        return found
