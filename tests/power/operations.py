"""What a process did to files, independent of their paths: names, writes, syncs."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Names:
    """Entries of folders that change at once: (folder, name, its file now, or None)."""

    changes: tuple[tuple[int, str, int | None], ...]


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes written into a file."""

    file: int
    offset: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Resize:
    """A file cut, or grown with zeros."""

    file: int
    size: int


@dataclass(frozen=True, slots=True)
class Sync:
    """A sync of a file's content or a folder's entries, as of the operation `began`."""

    inode: int
    began: int


Operation = Names | Write | Resize | Sync

ROOT = 0  # the inode of the recorded folder


@dataclass
class Recording:
    """All operations below a folder, in order, on files and folders named by numbers."""

    folder: Path
    operations: list[Operation] = field(default_factory=list)
    folders: set[int] = field(default_factory=lambda: {ROOT})
    names: dict[int, set[str]] = field(default_factory=lambda: {ROOT: {"/"}})
    settled: int = 0  # the operations that only tell what was there, durably, at the beginning

    def without(self, removed: Callable[[Sync], bool]) -> "Recording":
        """Return the same run without some of its syncs."""
        operations = self.operations[: self.settled] + [
            Names(()) if isinstance(each, Sync) and removed(each) else each
            for each in self.operations[self.settled :]
        ]
        return Recording(self.folder, operations, self.folders, self.names, self.settled)

    def is_named(self, inode: int, *endings: str) -> bool:
        """Whether the file ever had a name with one of these suffixes."""
        return any(name.endswith(endings) for name in self.names[inode])
