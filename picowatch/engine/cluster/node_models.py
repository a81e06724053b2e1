"""Model files on a node, kept by their sha256 for every engine and every daemon that uses it.

Each is in a models folder of its own, whose name is its hash; a transformer in a file of its own
with what completes it. It is used only if it has that hash: `HashCache` reads it once for each
path, size and time of change.
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
        self._shared = Catalog(shared, self.hash_file)
        arriving.mkdir()

    def find(self, need: Need) -> dict[str, Path] | None:
        """The model's files by their paths below a models folder: as sent, or those of `shared`."""
        for catalog in (Catalog(self._root / need.hash, self.hash_file), self._shared):
            with suppress(ModelRefused):
                model = catalog.find(need.kind, need.name)
                if catalog.sha256(model) == need.hash:
                    return catalog.files_below(model)
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
        """The next piece of the file at that path below a models folder."""
        path = self._arriving / need.hash / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(piece)

    def finish(self, need: Need) -> bool:
        """All pieces are here; whether they are the model that was announced."""
        if self.find(need):  # another daemon was quicker
            return True
        arrived, kept = self._arriving / need.hash, self._root / need.hash
        shutil.rmtree(kept / FOLDERS[need.kind] / need.name, ignore_errors=True)  # it is damaged
        for path in [path for path in arrived.rglob("*") if path.is_file()]:
            with path.open("ab") as file:
                os.fsync(file)
            target = kept / path.relative_to(arrived)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
        return self.find(need) is not None
