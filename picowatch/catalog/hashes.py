"""A cache of the sha256 and the recognised headers of model files, by path, size and mtime."""

import hashlib
import os
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import IO

from picowatch.errors import ModelChanged, ModelRefused
from picowatch.files.atomic import check_in_place
from picowatch.files.safe_paths import open_regular

_COLUMNS = "name BLOB PRIMARY KEY, size INTEGER, mtime INTEGER, text TEXT"
_INSERT = "INSERT OR REPLACE INTO known (name, size, mtime, text) VALUES (?, ?, ?, ?)"
_WAIT_SECONDS = 1.0  # for another process that writes
_BLOCK_BYTES = 1 << 20

_Key = tuple[bytes, int, int]  # a file's path with a mark, its size and its mtime
# Called with the size of each block that was read; an exception from it ends the reading.
OnBlock = Callable[[int], None]


class HashCache:
    """Hashes files at most once for each path, size and mtime.

    With a SQLite file, hashes outlive the process: it is read when a hash is missing and another
    process may have written it. If it cannot be read or written, or is deleted, only time is lost.
    """

    def __init__(self, file: Path | None = None, *, keep: bool = True) -> None:
        self._file, self._keep = file, keep  # it is written after each new hash
        self._known: dict[_Key, str] = {}
        self._unwritten: dict[_Key, str] = {}  # those of them that are not in the file yet
        self._read_at: tuple[int, ...] = ()

    def noted(self, path: Path, by: str, read: Callable[[], str]) -> str:
        """Return the text that `read` gives for the file, or gave before.

        `by` is the version of the reader. The text outlives the process once `write` is called.
        Raises OSError, and whatever `read` raises.
        """
        key = _key(path, b"#is")
        found = self._text(key)
        if not found.startswith(by):
            found = by + read()
            self._note(key, found)
        return found.removeprefix(by)

    def known(self, path: Path) -> str:
        """Return the hex digest of the file's bytes, "" if they have to be read for it."""
        return self._text(_key_of_readable(path))

    def has_below(self, folder: Path) -> bool:
        """Whether files of this folder are known, which may be gone."""
        self._text((b"", 0, 0))  # reads what others wrote
        start = os.fsencode(os.path.realpath(folder)) + b"/"
        return any(name.startswith(start) for name, *_ in [*self._known])

    def sha256(
        self, path: Path, *, weights_only: bool = False, on_block: OnBlock = lambda _: None
    ) -> str:
        """Return the hex digest of the file's bytes. Raises ModelRefused if it changes meanwhile.

        `weights_only`: hash the bytes after a safetensors header, as A1111 does for LoRAs.
        """
        mark = b"#weights" if weights_only else b""
        key = _key_of_readable(path, mark)
        digest = self._text(key)
        if not digest:
            try:
                with open_regular(path) as file:
                    if weights_only:
                        file.seek(8 + int.from_bytes(file.read(8), "little"))
                    digest = _digest(file, on_block)
            except OSError as error:
                raise unreadable(path, error) from error
            if _key_of_readable(path, mark) != key:
                raise ModelChanged(
                    f"{path.name} changed while it was read.",
                    "Save the recipe again when the file is complete.",
                )
            self._note(key, digest)
        self.write()
        return digest

    def write(self) -> None:
        """Write new entries to the file; its folder is not made, as the outbox may be away."""
        if not (self._keep and self._file):
            return
        is_there = bool(_signature(self._file))
        if is_there and not self._unwritten:
            return
        new, self._unwritten = self._unwritten, {}
        try:
            check_in_place(self._file)
            try:
                _write(self._file, new if is_there else self._known)
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise
                self._file.unlink()  # damaged, or not made by SQLite
                _write(self._file, self._known)
            self._read_at = _signature(self._file)
        except (sqlite3.Error, OSError):  # only time is lost: other processes hash again
            self._unwritten = new | self._unwritten

    def _note(self, key: _Key, text: str) -> None:
        self._known[key] = self._unwritten[key] = text

    def _text(self, key: _Key) -> str:
        """Return the stored text of a file as it is now, "" if neither memory nor file has it."""
        if key not in self._known and self._file:
            signature = _signature(self._file)
            if signature and signature != self._read_at:
                self._known |= _read(self._file) | self._unwritten
                self._read_at = signature
        return self._known.get(key, "")


def _write(file: Path, entries: Mapping[_Key, str]) -> None:
    file.touch()  # with the mode of the umask; SQLite would set a stricter mode
    rows = [(*key, text) for key, text in [*entries.items()]]
    with closing(sqlite3.connect(file, timeout=_WAIT_SECONDS)) as database, database:
        database.execute(f"CREATE TABLE IF NOT EXISTS known ({_COLUMNS})")
        database.executemany(_INSERT, rows)


def _read(file: Path) -> dict[_Key, str]:
    """Return the stored entries; none if the file is missing, damaged or something else."""
    try:
        uri = f"{file.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=_WAIT_SECONDS)) as database:
            rows = database.execute("SELECT name, size, mtime, text FROM known").fetchall()
    except (sqlite3.Error, ValueError):
        return {}
    return {(name, size, mtime): text for name, size, mtime, text in rows}


def _digest(file: IO[bytes], on_block: OnBlock) -> str:
    """Hash a file block by block; hashlib.file_digest could not be stopped."""
    digest = hashlib.sha256()
    while block := file.read(_BLOCK_BYTES):
        digest.update(block)
        on_block(len(block))
    return digest.hexdigest()


def _key_of_readable(path: Path, mark: bytes = b"") -> _Key:
    try:
        return _key(path, mark)
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> ModelRefused:
    refusal = ModelChanged if isinstance(error, FileNotFoundError) else ModelRefused
    return refusal(f"{path.name} cannot be read: {error.strerror}.")


def _key(path: Path, mark: bytes = b"") -> _Key:
    """Return the key of a file, without links. Unlike `resolve`, it raises only OSError."""
    real = os.path.realpath(path)
    status = Path(real).stat()
    # Shares may have files of 1601, which is before SQLite's first nanosecond.
    return os.fsencode(real) + mark, status.st_size, status.st_mtime_ns % 2**63


def _signature(file: Path) -> tuple[int, ...]:
    """Return a value that changes with each write of the file; () if it does not exist."""
    with suppress(OSError):
        status = file.stat()
        return status.st_ino, status.st_size, status.st_mtime_ns
    return ()
