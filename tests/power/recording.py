"""Records what a process does to the files below a folder: its system calls, by strace.

With simultaneous system calls of several threads, a call counts from its end. But a sync makes
durable only what ended before it began, and a descriptor counts as closed when closing begins,
because the system may give its number to another thread before that ends.
"""

import posixpath
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.power.disk import ROOT, Names, Operation, Recording, Resize, Sync, Write
from tests.power.scenario import SAVES

# With a question mark: not every processor has it.
CALLS = (
    "?open,openat,?openat2,?creat,?rename,?renameat,renameat2,?unlink,unlinkat,?mkdir,mkdirat,"
    "?rmdir,?link,linkat,?symlink,symlinkat,write,pwrite64,writev,pwritev,pwritev2,read,readv,"
    "lseek,close,dup,?dup2,dup3,fsync,fdatasync,sync,syncfs,sync_file_range,ftruncate,truncate,"
    "fallocate,copy_file_range,sendfile,splice,mmap"
)
WHOLE_STRINGS = 1 << 24
OF_OPEN_FILES = (
    "close", "lseek", "read", "readv", "write", "writev", "pwrite64", "ftruncate", "fsync",
    "fdatasync",
)  # fmt: skip


class CannotRecord(Exception):
    """Why system calls cannot be recorded here."""


def record(command: list[str], folder: Path, trace: Path) -> Recording:
    """Run a command and record what it does to the inbox and the outbox in `folder`.

    Raises CannotRecord if there is no strace, or if it may not trace.
    """
    strace = ["strace", "-f", "-xx", "-s", str(WHOLE_STRINGS), "-e", "signal=none"]
    strace += ["-e", f"trace={CALLS}", "-o", str(trace)]
    try:
        subprocess.run([*strace, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as why:
        raise CannotRecord(f"strace (`apt install strace`) does not work here: {why}") from why
    reader = _Reader(folder)
    subprocess.run([*strace, *command], check=True, timeout=240)
    return reader.read(trace)


# -- reading strace's lines

WHOLE = re.compile(r"^(\d+) +(\w+)\((.*)\) += (-?\d+|0x[0-9a-f]+)")
BEGUN = re.compile(r"^(\d+) +(\w+)\((.*) <unfinished \.\.\.>$")
ENDED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>(.*)\) += (-?\d+|0x[0-9a-f]+)")
STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
PATH = re.compile(r'(?:(AT_FDCWD|\d+), )?"((?:\\x[0-9a-f]{2})*)"')
DESCRIPTOR = re.compile(r"^\d+")


@dataclass(frozen=True, slots=True)
class _Call:
    name: str
    arguments: str
    result: int
    began: int  # how many operations there were when it began

    @property
    def content(self) -> bytes:
        found = STRING.findall(self.arguments)
        assert not any(cut for _, cut in found), "strace cut a string"
        content = bytes.fromhex("".join(text for text, _ in found).replace("\\x", ""))
        assert len(content) >= self.result
        return content[: self.result]

    @property
    def descriptor(self) -> int:
        found = DESCRIPTOR.match(self.arguments)
        return int(found[0]) if found else -1

    @property
    def last(self) -> int:
        return int(self.arguments.rpartition(", ")[2], 0)


@dataclass
class _Open:
    inode: int
    appends: bool
    offset: int = 0


class _Reader:
    """Follows names and descriptors, so that each call is about a file, not a path."""

    def __init__(self, folder: Path) -> None:
        self._recording = Recording(folder)
        self._entries: dict[int, dict[str, int]] = {ROOT: {}}
        self._sizes: dict[int, int] = {}
        self._open: dict[int, _Open] = {}
        self._paths: dict[str, str] = {}  # of everything that is open, by descriptor
        self._take_what_is_there()

    def _take_what_is_there(self) -> None:
        for path in sorted(self._recording.folder.rglob("*")):
            folder, name, _ = self._find(str(path))
            self._name((folder, name, inode := self._new(is_folder=path.is_dir())))
            if path.is_file():
                self._put(inode, 0, path.read_bytes())
        self._make_durable(*self._recording.names)
        self._recording.settled = len(self._recording.operations)

    def _make_durable(self, *inodes: int) -> None:
        now = len(self._recording.operations)
        for inode in inodes:
            self._add(Sync(inode, now))

    def read(self, trace: Path) -> Recording:
        for call in self._calls(trace):
            if call.result >= 0:
                self._take(call)
        return self._recording

    def _calls(self, trace: Path) -> Iterator[_Call]:
        begun: dict[str, tuple[str, int]] = {}
        with trace.open() as lines:
            for line in lines:
                now = len(self._recording.operations)
                if found := WHOLE.match(line):
                    _, name, arguments, result = found.groups()
                    yield _Call(name, arguments, int(result, 0), now)
                elif found := BEGUN.match(line):
                    thread, name, arguments = found.groups()
                    begun[thread] = arguments, now
                    if name == "close":
                        yield _Call(name, arguments, 0, now)
                elif found := ENDED.match(line):
                    thread, name, rest, result = found.groups()
                    arguments, began = begun.pop(thread)
                    if name != "close":
                        yield _Call(name, arguments + rest, int(result, 0), began)

    def _take(self, call: _Call) -> None:
        file = self._open.get(call.descriptor)
        if call.name in OF_OPEN_FILES:
            if file is not None:
                self._use(file, call)
            return
        paths = self._paths_of(call)
        match call.name:
            case "mkdir" | "mkdirat":
                self._make_folder(*paths)
            case "rename" | "renameat" | "renameat2":
                self._move(*paths)
            case "link" | "linkat":
                self._link(*paths)
            case "unlink" | "unlinkat":
                self._remove(*paths)
            case "open" | "openat":
                self._open_file(call, *paths)
            case "mmap":
                mapped = int(call.arguments.split(", ")[4]) in self._open
                is_written = "MAP_SHARED" in call.arguments and "PROT_WRITE" in call.arguments
                assert not (mapped and is_written), "written through memory: not recorded"
            case _:
                is_recorded = file is not None or any(map(self._is_below, paths))
                assert not is_recorded, f"a call that nothing here understands: {call.name}"

    def _use(self, file: _Open, call: _Call) -> None:
        match call.name:
            case "close":
                del self._open[call.descriptor]
            case "lseek":
                file.offset = call.result
            case "read" | "readv":
                file.offset += call.result
            case "write" | "writev":
                offset = self._sizes[file.inode] if file.appends else file.offset
                file.offset = offset + call.result
                self._put(file.inode, offset, call.content)
            case "pwrite64":
                self._put(file.inode, call.last, call.content)
            case "ftruncate":
                self._resize(file.inode, call.last)
            # fdatasync leaves out times only: what is needed to read the data back is written, too.
            case "fsync" | "fdatasync":
                self._add(Sync(file.inode, call.began))

    def _add(self, operation: Operation) -> None:
        self._recording.operations.append(operation)

    # -- names

    def _paths_of(self, call: _Call) -> list[str]:
        """Return a call's paths, made absolute if they are relative to an open folder."""
        found = []
        for folder, text in PATH.findall(call.arguments):
            path = bytes.fromhex(text.replace("\\x", "")).decode("utf-8", "surrogateescape")
            found.append(posixpath.join(self._paths.get(folder, ""), path))
        return found

    def _is_below(self, path: str) -> bool:
        """Whether a path is the recorded folder, its inbox or outbox, or below these."""
        folder = str(self._recording.folder)
        return path == folder or f"{path}/".startswith((f"{folder}/inbox/", f"{folder}/outbox/"))

    def _find(self, path: str) -> tuple[int, str, int | None]:
        *parents, name = Path(path).relative_to(self._recording.folder).parts or ("",)
        folder = ROOT
        for parent in parents:
            folder = self._entries[folder][parent]
        return folder, name, ROOT if not name else self._entries[folder].get(name)

    def _name(self, *changes: tuple[int, str, int | None]) -> None:
        for folder, name, inode in changes:
            if inode is None:
                self._entries[folder].pop(name, None)
            else:
                self._entries[folder][name] = inode
                self._recording.names[inode].add(name)
        self._add(Names(changes))

    def _new(self, *, is_folder: bool = False) -> int:
        inode = len(self._recording.names)
        self._recording.names[inode] = set()
        self._sizes[inode] = 0
        if is_folder:
            self._recording.folders.add(inode)
            self._entries[inode] = {}
        return inode

    def _make_folder(self, path: str) -> None:
        if self._is_below(path):
            folder, name, _ = self._find(path)
            self._name((folder, name, self._new(is_folder=True)))

    def _move(self, old: str, new: str) -> None:
        if not self._is_below(new):
            assert not self._is_below(old)
            return
        folder, name, _ = self._find(new)
        if self._is_below(old):
            old_folder, old_name, inode = self._find(old)
            self._name((old_folder, old_name, None), (folder, name, inode))
        else:  # a user's save, which is durable at once, as the user's editor syncs it
            staged = Path(old).relative_to(self._recording.folder / "staged")
            number, _, path = staged.as_posix().partition("/")
            self._put(inode := self._new(), 0, SAVES[int(number)][path][0])
            self._make_durable(inode)
            self._name((folder, name, inode))
            self._make_durable(folder)

    def _link(self, old: str, new: str) -> None:
        if self._is_below(new):
            (folder, name, _), (_, _, inode) = self._find(new), self._find(old)
            self._name((folder, name, inode))

    def _remove(self, path: str) -> None:
        if self._is_below(path):
            folder, name, _ = self._find(path)
            self._name((folder, name, None))

    def _open_file(self, call: _Call, path: str) -> None:
        self._open.pop(call.result, None)
        self._paths[str(call.result)] = path
        if not self._is_below(path):
            return
        folder, name, inode = self._find(path)
        if inode is None:
            self._name((folder, name, inode := self._new()))
        elif "O_TRUNC" in call.arguments:
            self._resize(inode, 0)
        self._open[call.result] = _Open(inode, "O_APPEND" in call.arguments)

    # -- contents

    def _put(self, inode: int, offset: int, content: bytes) -> None:
        self._sizes[inode] = max(self._sizes[inode], offset + len(content))
        self._add(Write(inode, offset, content))

    def _resize(self, inode: int, size: int) -> None:
        if self._sizes[inode] != size:
            self._sizes[inode] = size
            self._add(Resize(inode, size))
