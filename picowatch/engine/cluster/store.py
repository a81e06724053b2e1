"""Model files on a node, kept by their sha256 for every engine and every daemon that uses it.

A file is used only if its hash is known to be its name: `HashCache` reads it once for each path,
size and time of change. It is received by one engine of the node at a time, which holds a lock
that ends with its process, and gets its name when it is whole.
"""

import fcntl
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from picowatch.catalog import Catalog
from picowatch.catalog.hashes import HashCache
from picowatch.engine.cluster.wire import Need, Part, Unfit
from picowatch.errors import ModelRefused

Claim = Literal["there", "busy", "yours"]

_KEPT_FREE_BYTES = 2**30


@dataclass(slots=True)
class _Incoming:
    """A file that this process receives, its lock, and the hash it is to have."""

    sha256: str
    file: int
    lock: int


class NodeStore:
    """The files below `root`: files/<sha256>, and folders/<hash>/ of links to them."""

    def __init__(self, root: Path) -> None:
        self._files = root / "files"
        self._folders = root / "folders"
        self.hash_file = root / "hashes.json"
        self._hashes = HashCache(self.hash_file)
        self._incoming: _Incoming | None = None
        self._catalogs: dict[Path, Catalog] = {}
        for folder in (self._files, self._folders):
            folder.mkdir(parents=True, exist_ok=True)

    def find(self, need: Need, models: Path) -> Path | None:
        """The model's file or folder: one that was sent, or the same one in `models` here."""
        if self._has(need.hash):
            return self._files / need.hash
        folder = self._folders / need.hash
        if folder.is_dir() and self._whole(folder):
            return folder
        return self._shared(need, models)

    def claim(self, part: Part) -> Claim | Unfit:
        """Whether this file is there, or comes to another engine here, or is to be sent."""
        lock = os.open(self._files / f"{part.sha256}.lock", os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return "busy"
        if self._has(part.sha256):
            os.close(lock)
            return "there"
        free = shutil.disk_usage(self._files).free
        if free < part.bytes + _KEPT_FREE_BYTES:
            os.close(lock)
            return Unfit(
                f"no room for a model file of {part.bytes:,} bytes: {self._files} has {free:,} "
                "left. Free some space; the files there may be deleted while no engine is running"
            )
        temporary = self._files / f"{part.sha256}.part"
        file = os.open(temporary, os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o644)
        self._incoming = _Incoming(part.sha256, file, lock)
        return "yours"

    def write(self, offset: int, piece: bytes) -> None:
        """A piece of the file that was claimed."""
        assert self._incoming is not None
        rest = memoryview(piece)
        while rest:
            written = os.pwrite(self._incoming.file, rest, offset)
            rest, offset = rest[written:], offset + written

    def finish(self) -> bool:
        """All pieces are here; whether they are the file that was claimed."""
        assert self._incoming is not None
        digest = self._incoming.sha256
        os.fsync(self._incoming.file)
        (self._files / f"{digest}.part").replace(self._files / digest)
        whole = self._has(digest)
        self.give_up()
        return whole

    def give_up(self) -> None:
        """Let others receive the file that was claimed."""
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            (self._files / f"{incoming.sha256}.part").unlink(missing_ok=True)
            os.close(incoming.file)
            os.close(incoming.lock)

    def keep_folder(self, need: Need, parts: list[Part]) -> None:
        """Make a model's folder of files that are there."""
        folder = self._folders / need.hash
        temporary = self._folders / f"{need.hash}.{os.getpid()}.part"
        for part in parts:
            link = temporary / part.relative
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(self._files / part.sha256)
        if folder.exists():  # with links that lead nowhere any more
            shutil.rmtree(folder)
        with suppress(OSError):  # another engine was quicker
            temporary.rename(folder)
        shutil.rmtree(temporary, ignore_errors=True)

    def _has(self, digest: str) -> bool:
        """Whether the file is there and is what its name says; if it is not, it goes."""
        file = self._files / digest
        if not file.is_file():
            return False
        with suppress(ModelRefused):
            if self._hashes.sha256(file) == digest:
                return True
            file.unlink(missing_ok=True)
        return False

    def _whole(self, folder: Path) -> bool:
        links = [path for path in folder.rglob("*") if path.is_symlink()]
        return all(self._has(link.readlink().name) for link in links)

    def _shared(self, need: Need, models: Path) -> Path | None:
        """The model of that name in a folder that this node has, too, if it is that very one."""
        if models not in self._catalogs:
            self._catalogs[models] = Catalog(models, self.hash_file)
        catalog = self._catalogs[models]
        with suppress(ModelRefused):
            model = catalog.find(need.kind, need.name)
            if catalog.sha256(model) == need.hash:
                return model.path
        return None
