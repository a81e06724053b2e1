"""sha256 of model files and what they are, remembered by path, size and time of change."""

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import IO

from picowatch.errors import ModelRefused
from picowatch.files.atomic import write_atomically
from picowatch.files.inside import open_regular

_VERSION = 1
_DIGEST = re.compile("[0-9a-f]{64}")
_BLOCK_BYTES = 1 << 20
_OLD_OFFSET, _OLD_BYTES = 1 << 20, 1 << 16

# Called with how many bytes more were read; what it raises ends the reading.
OnBlock = Callable[[int], None]


def ignore_block(size: int) -> None:
    """An OnBlock that does nothing."""


def old_hash(path: Path) -> str:
    """How A1111 tells models apart in a few digits: by 64 KB of them (sd_models.model_hash)."""
    with os.fdopen(open_regular(path), "rb") as file:
        file.seek(_OLD_OFFSET)
        return hashlib.sha256(file.read(_OLD_BYTES)).hexdigest()[:8]


class HashCache:
    """Hashes files at most once for each path, size and mtime.

    With a file, hashes outlive the process: it is read at the start and, if `keep` is set,
    written again after each new hash, with what others wrote meanwhile. A file that cannot be read
    or written, or is deleted, costs time only: it is written with the next hash that is asked for.
    """

    def __init__(self, file: Path | None = None, *, keep: bool = True) -> None:
        self._file = file
        self._keep = keep and file is not None
        self._is_unwritten = False
        self._known: dict[str, tuple[int, int, str]] = _read(file) if file else {}

    def noted(self, path: Path, by: str, read: Callable[[], str]) -> str:
        """What `read` says of the file, or said before; `by` tells one reader from another.

        It outlives the process once `write_notes` is called. Raises OSError, and what `read` does.
        """
        path, stamp = _found(path)
        name = f"{path}#is"
        size, mtime, text = self._known.get(name, (-1, -1, ""))
        if (size, mtime) != stamp or not text.startswith(by):
            text = by + read()
            self._known[name] = (*stamp, text)
            self._is_unwritten = True
        return text.removeprefix(by)

    def write_notes(self) -> None:
        """Keep what was noted, as hashes are kept."""
        if self._keep and self._is_unwritten:
            self._write()

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
            if self._keep and (self._is_unwritten or not self._file_exists()):
                self._write()
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
        self._known[name] = (*before, digest)
        if self._keep:
            self._write()
        return digest

    def _remembered(self, name: str, stat: tuple[int, int]) -> str | None:
        """The hash of the file as it is now, if it is known. Others may hash it meanwhile."""
        for again in (False, True):
            if again and self._file is not None:
                self._known |= _read(self._file)
            size, mtime, digest = self._known.get(name, (-1, -1, ""))
            if (size, mtime) == stat and _DIGEST.fullmatch(digest):
                return digest
        return None

    def _write(self) -> None:
        assert self._file is not None
        self._known = _read(self._file) | self._known
        text = json.dumps({"version": _VERSION, "files": self._known}, indent=0)
        try:
            write_atomically(self._file, text.encode(), durable=False)
            self._is_unwritten = False
        except OSError:  # only time is lost: an engine that starts computes them again
            self._is_unwritten = True

    def _file_exists(self) -> bool:
        return self._file is not None and self._file.exists()


def _digest(file: IO[bytes], on_block: OnBlock) -> str:
    """As hashlib.file_digest, which cannot be stopped."""
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


def _read(file: Path) -> dict[str, tuple[int, int, str]]:
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
