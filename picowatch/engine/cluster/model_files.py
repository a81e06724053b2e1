"""Model files on a node, kept by their sha256 for every engine and every daemon that uses it.

A file is used only if its hash is known to be its name: `HashCache` reads it once for each path,
size and time of change. While it arrives it has another name, which is the receiver's own.
"""

import os
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path

from picowatch.catalog import Catalog
from picowatch.catalog.hashes import HashCache
from picowatch.engine.cluster.messages import Need, Part, Unfit
from picowatch.errors import ModelRefused

_KEPT_FREE_BYTES = 2**30
_ABANDONED_SECONDS = 24 * 3600.0  # without a new piece


class NodeModels:
    """The files below `root`: files/<sha256>, and folders/<hash>/ of links to them."""

    def __init__(self, root: Path) -> None:
        self._files = root / "files"
        self._folders = root / "folders"
        self._arriving = f"{secrets.token_hex(4)}.part"
        self.hash_file = root / "hashes.json"
        self._hashes = HashCache(self.hash_file)
        self._catalogs: dict[Path, Catalog] = {}
        for folder in (self._files, self._folders):
            folder.mkdir(parents=True, exist_ok=True)
        for part in self._files.glob("*.part"):
            with suppress(OSError):
                if time.time() - part.stat().st_mtime > _ABANDONED_SECONDS:
                    part.unlink()

    def find(self, need: Need, models: Path) -> Path | None:
        """The model's file or folder: one that was sent, or the same one in `models` here."""
        if self._has(need.hash):
            return self._files / need.hash
        folder = self._folders / need.hash
        if folder.is_dir() and self._whole(folder):
            return folder
        return self._shared(need, models)

    def lacks(self, part: Part) -> bool | Unfit:
        """Whether this file is to be sent."""
        if self._has(part.sha256):
            return False
        self._incoming(part).unlink(missing_ok=True)
        free = shutil.disk_usage(self._files).free
        if free < part.bytes + _KEPT_FREE_BYTES:
            return Unfit(
                f"no room for a model file of {part.bytes:,} bytes: {self._files} has {free:,} "
                "left. Free some space; the files there may be deleted while no engine is running"
            )
        return True

    def write(self, part: Part, offset: int, piece: bytes) -> None:
        """A piece of the file; pieces arrive in any order."""
        file = os.open(self._incoming(part), os.O_CREAT | os.O_WRONLY, 0o644)
        try:
            rest = memoryview(piece)
            while rest:
                written = os.pwrite(file, rest, offset)
                rest, offset = rest[written:], offset + written
        finally:
            os.close(file)

    def finish(self, part: Part) -> bool:
        """All pieces are here; whether they are the file that was announced."""
        incoming = self._incoming(part)
        with incoming.open("ab") as file:
            os.fsync(file)
        incoming.replace(self._files / part.sha256)
        return self._has(part.sha256)

    def keep_folder(self, need: Need, parts: list[Part]) -> None:
        """Make a model's folder of files that are there."""
        folder = self._folders / need.hash
        temporary = self._folders / f"{need.hash}.{self._arriving}"
        for part in parts:
            link = temporary / part.relative
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(self._files / part.sha256)
        if folder.exists():  # with links that lead nowhere any more
            shutil.rmtree(folder)
        with suppress(OSError):  # another engine was quicker
            temporary.rename(folder)
        shutil.rmtree(temporary, ignore_errors=True)

    def _incoming(self, part: Part) -> Path:
        return self._files / f"{part.sha256}.{self._arriving}"

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
