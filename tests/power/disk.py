"""The contents that a disk may have after a power cut, given a program's operations.

The model is the most permissive one of "All File Systems Are Not Created Equal: On the
Complexity of Crafting Crash-Consistent Applications" (Pillai et al., OSDI 2014): an operation is
certain to be on the disk only if a sync of its own file, or for names of its own folder, began
after it had ended and has ended itself. All others may be there or not, in any combination.

- A file's sync does not keep its name, a folder's sync does not keep its files' content.
- A write may be torn at sectors of 512 bytes; a single sector is whole or old.
- A file may have got its length without its content: zeros stand where that is missing.
- A rename within one file system is atomic.

Not covered: a disk that loses what it said to have written, or that tears a sector; old content
of other files instead of zeros; all combinations of more than a few operations; a user's own
save that the power cut takes back.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.power.scenario import write

SECTOR = 512
# Files whose content nothing depends on: they are there or not as all together.
PASSING = (
    "picowatch.log", "lock", "status.json", "now.txt", "latest.png", "hashes.sqlite",
    "hashes.sqlite-journal",
)  # fmt: skip
LOG = "picowatch.log"
CERTAIN = "nothing that was not synced"
LAST_ONES = 8  # operations looked at one by one, of those that are not certain
SOME_OTHERS = 4


@dataclass(frozen=True, slots=True)
class Names:
    """Entries of folders that change at once: (folder, name, its file now, or None)."""

    changes: tuple[tuple[int, str, int | None], ...]


@dataclass(frozen=True, slots=True)
class Write:
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

    def without_syncs_of(self, *endings: str) -> "Recording":
        """Return the same run without the syncs of what has a name with one of these suffixes."""
        operations = self.operations[: self.settled] + [
            Names(()) if isinstance(each, Sync) and self.is_named(each.inode, *endings) else each
            for each in self.operations[self.settled :]
        ]
        return Recording(self.folder, operations, self.folders, self.names, self.settled)

    def is_named(self, inode: int, *endings: str) -> bool:
        return any(name.endswith(endings) for name in self.names[inode])


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk after a power cut: files and folders by path, and how it came about."""

    moment: int  # operations that had ended
    what: str
    files: dict[str, bytes]
    folders: tuple[str, ...]

    def lay_out(self, root: Path) -> None:
        """Make exactly these files and folders in the inbox and the outbox below `root`."""
        for folder in ("inbox", "outbox"):
            shutil.rmtree(root / folder, ignore_errors=True)
        for folder in self.folders:
            (root / folder).mkdir()
        for path, content in self.files.items():
            write(root / path, content)

    def key(self) -> object:
        return self.folders, frozenset({**self.files, f"outbox/{LOG}": b""}.items())


class PowerCuts:
    """The disks that power cuts at each moment of a recorded run may leave."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self._operations = recording.operations
        self._passing = {
            index for index, each in enumerate(self._operations) if self._is_passing(each)
        }
        self._contents: dict[tuple[int, tuple[Operation, ...]], bytes] = {}

    def whole(self) -> Disk:
        return self._disk(len(self._operations), "all", list(self._operations))

    def disks(self, every: int = 1, moments: Sequence[int] = ()) -> Iterator[Disk]:
        """Yield the disks of the model, or every n-th of them, for some moments or all."""
        tried = 0
        for moment in moments or range(self.recording.settled, len(self._operations) + 1):
            certain, uncertain = self._split(moment)
            for what, left in self._leftovers(uncertain):
                tried += 1
                if tried % every:
                    continue
                kept = dict(left) | {index: self._operations[index] for index in certain}
                yield self._disk(moment, what, [kept[index] for index in sorted(kept)])

    def _split(self, moment: int) -> tuple[list[int], list[int]]:
        """Return the operations before `moment` that are certain, and those that are not."""
        synced: dict[int, int] = {}
        for operation in self._operations[:moment]:
            if isinstance(operation, Sync):
                synced[operation.inode] = max(synced.get(operation.inode, 0), operation.began)
        certain: list[int] = []
        uncertain: list[int] = []
        for index, operation in enumerate(self._operations[:moment]):
            if isinstance(operation, Names):
                sure = all(index < synced.get(folder, 0) for folder, _, _ in operation.changes)
            elif isinstance(operation, Write | Resize):
                sure = index < synced.get(operation.file, 0)
            else:
                continue
            (certain if sure else uncertain).append(index)
        return certain, uncertain

    # -- which of the uncertain operations are on the disk

    def _leftovers(self, uncertain: list[int]) -> Iterator[tuple[str, list[tuple[int, Operation]]]]:
        every = [(index, self._operations[index]) for index in uncertain]
        names = [pair for pair in every if isinstance(pair[1], Names)]
        yield CERTAIN, []
        yield "everything", every
        yield "names without content", names
        yield "names and lengths", [(index, _length_only(each)) for index, each in every]
        yield "content without names", [pair for pair in every if not isinstance(pair[1], Names)]
        telling = [pair for pair in every if pair[0] not in self._passing]
        passing = [pair for pair in every if pair[0] in self._passing]
        for place in _some(len(telling)):
            index, operation = telling[place]
            before, after = telling[:place], telling[place + 1 :]
            yield f"all but {index}", passing + before + after
            yield f"only {index}", [telling[place]]
            yield f"what is before {index}", before
            yield f"what is from {index} on", telling[place:]
            for part, torn in _torn(operation):
                yield f"{part} of {index} and all before", [*before, (index, torn)]
                yield f"{part} of {index} and all else", [*passing, *before, (index, torn), *after]

    def _is_passing(self, operation: Operation) -> bool:
        inodes = [operation.file] if isinstance(operation, Write | Resize) else []
        if isinstance(operation, Names):
            inodes = [inode for _, _, inode in operation.changes if inode is not None]
        return bool(inodes) and all(self.recording.is_named(inode, *PASSING) for inode in inodes)

    # -- from operations to files

    def _disk(self, moment: int, what: str, operations: list[Operation]) -> Disk:
        entries: dict[int, dict[str, int | None]] = {}
        written: dict[int, list[Operation]] = {}
        for operation in operations:
            if isinstance(operation, Names):
                for folder, name, inode in operation.changes:
                    entries.setdefault(folder, {})[name] = inode
            elif isinstance(operation, Write | Resize):
                written.setdefault(operation.file, []).append(operation)
        files: dict[str, bytes] = {}
        folders: list[str] = []
        for path, inode in self._walk(entries, ROOT, ""):
            if inode in self.recording.folders:
                folders.append(path)
            else:
                files[path] = self._content(inode, tuple(written.get(inode, ())))
        return Disk(moment, what, files, tuple(folders))

    def _walk(
        self, entries: dict[int, dict[str, int | None]], folder: int, above: str
    ) -> Iterator[tuple[str, int]]:
        for name, inode in sorted(entries.get(folder, {}).items()):
            if inode is not None:
                yield above + name, inode
                yield from self._walk(entries, inode, f"{above}{name}/")

    def _content(self, inode: int, operations: tuple[Operation, ...]) -> bytes:
        key = inode, operations
        if key not in self._contents:
            content = bytearray()
            for operation in operations:
                _write(content, operation)
            self._contents[key] = bytes(content)
        return self._contents[key]


def _write(content: bytearray, operation: Operation) -> None:
    if isinstance(operation, Resize):
        del content[operation.size :]
        content.extend(bytes(operation.size - len(content)))
    elif isinstance(operation, Write):
        content.extend(bytes(max(0, operation.offset - len(content))))
        end = operation.offset + len(operation.content)
        content[operation.offset : end] = operation.content


def _length_only(operation: Operation) -> Operation:
    """Return a write of which only the new length reached the disk."""
    if isinstance(operation, Write):
        return Write(operation.file, operation.offset + len(operation.content), b"")
    return operation


def _torn(operation: Operation) -> Iterator[tuple[str, Operation]]:
    """Return only the first or the last sectors of a write."""
    if not isinstance(operation, Write):
        return
    start, end = operation.offset, operation.offset + len(operation.content)
    borders = range(start - start % SECTOR + SECTOR, end, SECTOR)
    if borders:
        cut = borders[len(borders) // 2] - start
        yield "the head", Write(operation.file, start, operation.content[:cut])
        yield "the tail", Write(operation.file, start + cut, operation.content[cut:])


def _some(count: int) -> list[int]:
    """Return the last places of a list, and some of the others."""
    others = max(0, count - LAST_ONES)
    step = max(1, -(-others // SOME_OTHERS))
    return [*range(0, others, step), *range(others, count)]
