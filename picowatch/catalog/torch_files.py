"""The tensors of a file by torch.save, found without running what is in it.

Since torch 1.6 it is a zip of uncompressed entries: `NAME/data.pkl`, and `NAME/data/KEY` for each
storage. Before, it was a row of pickles with the storages after them: torch/serialization.py,
`_save` and `_legacy_save`.
"""

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np

from picowatch.catalog.headers import refuse_foreign
from picowatch.catalog.torch_pickles import (
    ITEM_BYTES,
    MAX_PICKLE_BYTES,
    Limited,
    Storage,
    Tensor,
    read_pickle,
)
from picowatch.errors import ModelRefused
from picowatch.files.inside import open_regular

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_ZIP = b"PK\x03\x04"
_BLOCK_BYTES = 1 << 22
_MAX_ENTRIES = 100_000
_DAMAGED = "is damaged: get the file again."


@dataclass(frozen=True, slots=True)
class _Extent:
    """Where a storage's bytes are in the file, and their checksum where there is one."""

    offset: int
    size: int
    checksum: int | None = None


class TorchFile:
    """An open file: what it holds, and the bytes of its tensors."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self._checked: set[int] = set()
        start = file.read(64)
        refuse_foreign(start, self._size)
        if start[8:9] == b"{":  # behind the length of a header
            raise ModelRefused("is a safetensors file already: rename it to .safetensors.")
        file.seek(0)
        zipped = start.startswith(_ZIP)
        self.content, self._extents = self._of_zip() if zipped else self._of_row()

    @property
    def size(self) -> int:
        """Return its size in bytes."""
        return self._size

    def blocks(self, tensor: Tensor) -> Iterator[bytes]:
        """A tensor's bytes in order; ModelRefused if they are not there, or damaged."""
        extent = self._extent(tensor.storage)
        each = ITEM_BYTES[tensor.type]
        if not tensor.count:
            return
        begin = extent.offset + tensor.offset * each
        if tensor.is_contiguous:
            yield from self._read(begin, tensor.size)
            return
        reach = sum((s - 1) * step for s, step in zip(tensor.shape, tensor.strides, strict=True))
        held = b"".join(self._read(begin, (reach + 1) * each))
        numbers = np.frombuffer(held, f"<u{each}")
        # Within bounds: `reach` is the last of its numbers.
        strides = [step * each for step in tensor.strides]
        view = np.lib.stride_tricks.as_strided(numbers, tensor.shape, strides, writeable=False)
        yield np.ascontiguousarray(view).tobytes()

    def _extent(self, storage: Storage) -> _Extent:
        """Where a storage is, if all of it is there and as it was written."""
        extent = self._extents.get(storage.key)
        needed = storage.numbers * ITEM_BYTES[storage.type]
        if extent is None or extent.size < needed or extent.offset + extent.size > self._size:
            raise ModelRefused(
                "is cut off: some of its numbers are missing.", "Get the file again."
            )
        if extent.checksum is not None and extent.offset not in self._checked:
            checksum = 0
            for block in self._read(extent.offset, extent.size):
                checksum = zlib.crc32(block, checksum)
            if checksum != extent.checksum:
                raise ModelRefused("is damaged: its numbers are not as written.", "Get it again.")
            self._checked.add(extent.offset)
        return extent

    def _read(self, offset: int, size: int) -> Iterator[bytes]:
        self._file.seek(offset)
        while size:
            block = self._file.read(min(size, _BLOCK_BYTES))
            if not block:
                raise ModelRefused("is cut off: some of its numbers are missing.")
            size -= len(block)
            yield block

    def _of_zip(self) -> tuple[Any, dict[str, _Extent]]:
        entries = self._entries()
        lists = [name for name in entries if name.rpartition("/")[2] == "data.pkl"]
        if len(lists) != 1:
            raise ModelRefused("is a zip, but not one that torch.save writes.")
        folder = lists[0].removesuffix("data.pkl")
        if f"{folder}constants.pkl" in entries:
            raise ModelRefused(
                "is a program (TorchScript), not a file of weights.", "Get the weights."
            )
        if f"{folder}byteorder" in entries:
            order = b"".join(self._read_entry(entries[f"{folder}byteorder"], 16))
            if order != b"little":
                raise ModelRefused("was written on a computer with another byte order.")
        pickled = b"".join(self._read_entry(entries[lists[0]], MAX_PICKLE_BYTES))
        within = f"{folder}data/"
        extents = {
            name.removeprefix(within): self._extent_of(info)
            for name, info in entries.items()
            if name.startswith(within)
        }
        return read_pickle(Limited(BytesIO(pickled))), extents

    def _entries(self) -> dict[str, zipfile.ZipInfo]:
        """The entries of the zip by name; each once, none packed or encrypted."""
        try:
            with zipfile.ZipFile(self._file) as archive:
                found = archive.infolist()
        # zipfile raises what it stumbles over, too.
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
            raise ModelRefused("is cut off or damaged: its end is missing.") from error
        entries = {info.filename: info for info in found}
        if len(found) > _MAX_ENTRIES or len(entries) < len(found):
            raise ModelRefused(_DAMAGED)
        for info in found:
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
                raise ModelRefused("is a packed zip, which torch.save does not write.")
        return entries

    def _read_entry(self, info: zipfile.ZipInfo, most: int) -> Iterator[bytes]:
        if info.file_size > most:
            raise ModelRefused("is not a model: its list of tensors is too long.")
        extent = self._extent_of(info)
        return self._read(extent.offset, extent.size)

    def _extent_of(self, info: zipfile.ZipInfo) -> _Extent:
        """Where an entry's bytes begin: after its own header (APPNOTE.TXT, 4.3.7)."""
        self._file.seek(info.header_offset)
        header = self._file.read(30)
        if len(header) < 30 or not header.startswith(_ZIP):
            raise ModelRefused(_DAMAGED)
        name, extra = struct.unpack_from("<HH", header, 26)
        begin = info.header_offset + 30 + name + extra
        if begin + info.file_size > self._size:
            raise ModelRefused("is cut off: some of its numbers are missing.")
        return _Extent(begin, info.file_size, info.CRC)

    def _of_row(self) -> tuple[Any, dict[str, _Extent]]:
        """A number that marks it, a version, the system, the content, the keys, the storages."""
        limited = Limited(self._file)
        first = self._file.read(1)
        self._file.seek(0)
        if first != b"\x80" or read_pickle(limited) != _MAGIC:
            raise ModelRefused("is not a file of torch's, or one older than torch 0.2.")
        if read_pickle(limited) != _VERSION:
            raise ModelRefused("is a file of a version of torch that is not known.")
        system = read_pickle(limited)
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise ModelRefused("was written on a computer with another byte order.")
        storages: dict[str, Storage] = {}
        content = read_pickle(limited, storages)
        keys = read_pickle(limited)
        return content, self._following(keys, storages)

    def _following(self, keys: Any, storages: dict[str, Storage]) -> dict[str, _Extent]:
        """The storages in the order of the keys, each with its length before it."""
        if not isinstance(keys, list) or len(keys) > _MAX_ENTRIES:
            raise ModelRefused(_DAMAGED)
        extents: dict[str, _Extent] = {}
        position = self._file.tell()
        for key in keys:
            self._file.seek(position)
            length = self._file.read(8)
            storage = storages.get(key) if isinstance(key, str) else None
            if len(length) < 8 or storage is None:
                raise ModelRefused("is cut off or damaged: some of its numbers are missing.")
            (numbers,) = struct.unpack("<q", length)
            size = numbers * ITEM_BYTES[storage.type]
            if numbers < 0 or position + 8 + size > self._size:
                raise ModelRefused("is cut off: some of its numbers are missing.")
            extents[key] = _Extent(position + 8, size)
            position += 8 + size
        return extents


@contextmanager
def torch_file(path: Path) -> Iterator[TorchFile]:
    """A file of torch's; ModelRefused says what else it is."""
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            yield TorchFile(file)
    except OSError as error:
        raise ModelRefused(f"cannot be read: {error.strerror or error}.") from error
