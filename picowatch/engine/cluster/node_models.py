"""Model files on a node, kept by their sha256 for every engine and every daemon that uses it.

They are a models folder, in which a model's name is its hash. A model is used only if its hash is
known to be its name: `HashCache` reads it once for each path, size and time of change.
A transformer in a file of its own is in completed/, in a models folder with what completes it.
"""

import errno
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from picowatch.catalog import Catalog, Kind
from picowatch.catalog.models import FOLDERS
from picowatch.errors import ModelRefused

_KEPT_FREE_BYTES = 2**30
_COMPLETED = "completed"


@dataclass(frozen=True, slots=True)
class Need:
    """A model that a batch is rendered with, by name and hash."""

    kind: Kind
    name: str
    hash: str


class NodeModels:
    """The models below `root`, and those in `shared`, the daemon's folder, if it is here, too."""

    def __init__(self, root: Path, shared: Path, arriving: Path) -> None:
        """`arriving` is a folder of this engine's own, on the same disk as `root`."""
        self.hash_file = root / "hashes.json"
        self._root = root
        self._arriving = arriving
        self._own = Catalog(root, self.hash_file)
        self._shared = Catalog(shared, self.hash_file)
        arriving.mkdir()
        for folder in (*FOLDERS.values(), _COMPLETED):
            (root / folder).mkdir(exist_ok=True)

    def find(self, need: Need) -> dict[str, Path] | None:
        """The model by its path below a models folder: one that was sent, or that of `shared`.

        A transformer in a file of its own, and the files that complete it, likewise.
        """
        completed = Catalog(self._root / _COMPLETED / need.hash, self.hash_file)
        places = ((self._own, need.hash), (completed, need.name), (self._shared, need.name))
        for catalog, name in places:
            with suppress(ModelRefused):
                model = catalog.find(need.kind, name)
                if catalog.sha256(model) != need.hash:
                    continue
                if model.parts:
                    return catalog.files_below(model)
                ending = "" if model.layout == "folder" else ".safetensors"
                return {f"{FOLDERS[need.kind]}/{need.name}{ending}": model.path}
        return None

    def lacks(self, need: Need, size: int) -> bool:
        """Whether this model is to be sent; raises OSError if it has no room."""
        if self.find(need):
            return False
        free = shutil.disk_usage(self._root).free
        if free < size + _KEPT_FREE_BYTES:
            raise OSError(
                errno.ENOSPC,
                f"no room for a model of {size:,} bytes: {self._root} has {free:,} left. Free "
                "some space; the files there may be deleted while no engine is running",
            )
        shutil.rmtree(self._arriving)
        self._arriving.mkdir()
        return True

    def append(self, need: Need, relative: str, piece: bytes) -> None:
        """The next piece of a model's file, or of that file in a model's folder.

        Of a transformer and what completes it, of the file at that path below a models folder.
        """
        path = self._arriving / need.hash / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(piece)

    def finish(self, need: Need) -> bool:
        """All pieces are here; whether they are the model that was announced."""
        if self.find(need):  # another daemon was quicker
            return True
        arrived = self._arriving / need.hash
        for path in (arrived, *arrived.rglob("*")):
            if path.is_file():
                with path.open("ab") as file:
                    os.fsync(file)
        folder = _COMPLETED if (arrived / FOLDERS["checkpoint"]).is_dir() else FOLDERS[need.kind]
        kept = self._root / folder / need.hash
        if arrived.is_dir():
            shutil.rmtree(kept, ignore_errors=True)  # it is damaged
            arrived.rename(kept)
        else:
            arrived.replace(f"{kept}.safetensors")
        return self.find(need) is not None
