"""sha256 of model files and what they are, remembered by path, size and time of change."""

import hashlib
import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from picowatch.errors import ModelRefused
from picowatch.files.atomic import write_atomically
from picowatch.files.inside import open_regular

_VERSION = 1
_DIGEST = re.compile("[0-9a-f]{64}")
_BLOCK_BYTES = 1 << 20
# Writing an entry takes about 6 microseconds. A core hashes this many bytes in ten times as long.
_FEW, _BYTES_FOR_AN_ENTRY = 200, 60_000

_Entry = tuple[int, int, str]  # a file's size and mtime, and what is known of it
_Stamp = tuple[int, int, int]

# Called with how many bytes more were read; what it raises ends the reading.
OnBlock = Callable[[int], None]


def ignore_block(size: int) -> None:
    """An OnBlock that does nothing."""


class HashCache:
    """Hashes files at most once for each path, size and mtime.

    With a file, hashes outlive the process: it is read at the start, and again when others wrote
    it. If `keep` is set, it is written after a new hash, or after several where there are many. A
    file that cannot be read or written, or is deleted, costs time only: it is written with the next
    hash that is asked for.
    """

    def __init__(self, file: Path | None = None, *, keep: bool = True) -> None:
        self._file = file
        self._keep = keep and file is not None
        self._known: dict[str, _Entry] = {}  # as in the file
        self._new: dict[str, _Entry] = {}  # not in the file yet
        self._bytes_hashed = 0  # since it was written
        self._read_at: _Stamp | None = None
        self._read_again()

    def noted(self, path: Path, by: str, read: Callable[[], str]) -> str:
        """What `read` says of the file, or said before; `by` tells one reader from another.

        It outlives the process once `write` is called. Raises OSError, and what `read` does.
        """
        path, stamp = _found(path)
        name = f"{path}#is"
        size, mtime, text = self._entry(name)
        if (size, mtime) != stamp or not text.startswith(by):
            text = by + read()
            self._new[name] = (*stamp, text)
        return text.removeprefix(by)

    def write(self) -> None:
        """Write what is not in the file yet, with what others wrote meanwhile."""
        if not (self._keep and self._file) or (self._file.exists() and not self._new):
            return
        self._read_again()
        together = self._known | self._new
        text = json.dumps({"version": _VERSION, "files": together})
        # If it fails, only time is lost: an engine that starts computes them again.
        with suppress(OSError):
            write_atomically(self._file, text.encode(), durable=False)
            self._known, self._new, self._bytes_hashed = together, {}, 0
            self._read_at = _stamp_of(self._file)

    def known(self, path: Path) -> str | None:
        """The hex digest of the file's bytes, if they need not be read for it."""
        path, stamp = _stat(path)
        return self._remembered(str(path), stamp)

    def sha256(
        self, path: Path, *, weights_only: bool = False, on_block: OnBlock = ignore_block
    ) -> str:
        """The hex digest of the file's bytes; ModelRefused if it changes meanwhile.

        `weights_only`: of the bytes after a safetensors header, as A1111 hashes LoRAs.
        """
        path, before = _stat(path)
        name = f"{path}#weights" if weights_only else str(path)
        known = self._remembered(name, before)
        if known:
            self._write_if_due()
            return known
        try:
            with os.fdopen(open_regular(path), "rb") as file:
                if weights_only:
                    file.seek(8 + int.from_bytes(file.read(8), "little"))
                digest = _digest(file, on_block)
        except OSError as error:
            raise ModelRefused(f"{path.name} cannot be read: {error.strerror}.") from error
        if _stat(path) != (path, before):
            raise ModelRefused(
                f"{path.name} changed while it was read.",
                "Save the recipe again when the file is complete.",
            )
        self._new[name] = (*before, digest)
        self._bytes_hashed += before[0]
        self._write_if_due()
        return digest

    def _remembered(self, name: str, stat: tuple[int, int]) -> str | None:
        """The hash of the file as it is now, if it is known. Others may hash it meanwhile."""
        for again in (False, True):
            if again:
                self._read_again()
            size, mtime, digest = self._entry(name)
            if (size, mtime) == stat and _DIGEST.fullmatch(digest):
                return digest
        return None

    def _entry(self, name: str) -> _Entry:
        return self._new.get(name) or self._known.get(name, (-1, -1, ""))

    def _read_again(self) -> None:
        """Read the file again, unless it is as it was read or written last."""
        stamp = _stamp_of(self._file) if self._file else None
        if self._file and stamp != self._read_at:
            self._known, self._read_at = self._known | _read(self._file), stamp

    def _write_if_due(self) -> None:
        """Writing takes at most a tenth of the time that hashing took."""
        entries = len(self._known) + len(self._new)
        if entries <= _FEW or self._bytes_hashed >= entries * _BYTES_FOR_AN_ENTRY:
            self.write()


def _digest(file: IO[bytes], on_block: OnBlock) -> str:
    """Hash as hashlib.file_digest does, which cannot be stopped."""
    digest = hashlib.sha256()
    while block := file.read(_BLOCK_BYTES):
        digest.update(block)
        on_block(len(block))
    return digest.hexdigest()


def _stat(path: Path) -> tuple[Path, tuple[int, int]]:
    try:
        return _found(path)
    except OSError as error:
        raise ModelRefused(f"{path.name} cannot be read: {error.strerror}.") from error


def _found(path: Path) -> tuple[Path, tuple[int, int]]:
    """The file without links, its size and mtime; unlike `resolve`, OSError alone is raised."""
    path = Path(os.path.realpath(path))
    status = path.stat()
    return path, (status.st_size, status.st_mtime_ns)


def _stamp_of(file: Path) -> _Stamp | None:
    """Identify a version of the stored hashes: another one if they were written again."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _read(file: Path) -> dict[str, _Entry]:
    """What is stored; nothing if the file is missing, damaged or of another version."""
    try:
        stored = json.loads(file.read_bytes())
        if stored["version"] != _VERSION:
            return {}
        return {
            str(path): (int(size), int(mtime), str(text))
            for path, (size, mtime, text) in stored["files"].items()
        }
    except (OSError, ValueError, OverflowError, KeyError, TypeError, AttributeError):
        return {}
    except RecursionError:  # nested without end
        return {}
