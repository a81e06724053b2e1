"""Records what a process does to the files below a folder: its system calls, by strace.

With simultaneous system calls of several threads, a call counts from its end. But a sync makes
durable only what ended before it began, and a descriptor counts as closed when closing begins,
because the system may give its number to another thread before that ends.
"""

import posixpath
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.power.operations import (
    ROOT,
    Arrived,
    Names,
    Operation,
    Recording,
    Resize,
    Sync,
    Write,
)
from tests.power.scenario import SAVES

# With a question mark: not every processor has it.
CALLS = (
    "?open,openat,?openat2,?creat,?rename,?renameat,renameat2,?unlink,unlinkat,?mkdir,mkdirat,"
    "?rmdir,?link,linkat,?symlink,symlinkat,write,pwrite64,writev,pwritev,pwritev2,read,readv,"
    "lseek,close,dup,?dup2,dup3,fsync,fdatasync,sync,syncfs,sync_file_range,ftruncate,truncate,"
    "fallocate,copy_file_range,sendfile,splice,mmap"
)
WHOLE_STRINGS = 1 << 24


class CannotRecord(Exception):
    """Why system calls cannot be recorded here."""


def record(command: list[str], folder: Path, trace: Path) -> Recording:
    """Run a command and record what it does to the outbox in `folder`.

    Raises CannotRecord if there is no strace, or if it may not trace.
    """
    if shutil.which("strace") is None:
        raise CannotRecord("there is no strace here (`apt install strace`)")
    strace = ["strace", "-f", "-xx", "-s", str(WHOLE_STRINGS), "-e", "signal=none"]
    calls = ["-e", f"trace={CALLS}", "-o", str(trace)]
    may_trace = subprocess.run([*strace, "-o", str(trace), "true"], capture_output=True, text=True)
    if may_trace.returncode:
        raise CannotRecord(f"strace may not trace here: {may_trace.stderr.strip()}")
    reader = _Reader(folder)
    subprocess.run([*strace, *calls, *command], check=True, timeout=240)
    return reader.read(trace)


# -- reading strace's lines

WHOLE = re.compile(r"^(\d+) +(\w+)\((.*)\) += (-?\d+|0x[0-9a-f]+|\?)")
BEGUN = re.compile(r"^(\d+) +(\w+)\((.*) <unfinished \.\.\.>$")
ENDED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>(.*)\) += (-?\d+|0x[0-9a-f]+|\?)")
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
    def strings(self) -> list[bytes]:
        found = []
        for text, cut in STRING.findall(self.arguments):
            assert not cut, "strace cut a string"
            found.append(bytes.fromhex(text.replace("\\x", "")))
        return found

    @property
    def content(self) -> bytes:
        """Return the bytes of a write."""
        content = b"".join(self.strings)[: self.result]
        assert len(content) == self.result
        return content

    @property
    def descriptor(self) -> int:
        found = DESCRIPTOR.match(self.arguments)
        return int(found[0]) if found else -1

    @property
    def last(self) -> int:
        """Return the last argument, a number."""
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
            if path.is_dir():
                self._add_folder(folder, name)
            else:
                self._put(self._add_file(folder, name), 0, path.read_bytes())
        now = len(self._recording.operations)
        for inode in self._recording.names:
            self._add(Sync(inode, now))
        self._recording.settled = len(self._recording.operations)

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
                    yield _Call(name, arguments, _number(result), now)
                elif found := BEGUN.match(line):
                    thread, name, arguments = found.groups()
                    begun[thread] = arguments, now
                    if name == "close":
                        yield _Call(name, arguments, 0, now)
                elif found := ENDED.match(line):
                    thread, name, rest, result = found.groups()
                    arguments, began = begun.pop(thread)
                    if name != "close":
                        yield _Call(name, arguments + rest, _number(result), began)

    def _take(self, call: _Call) -> None:
        if call.name in TAKERS:
            TAKERS[call.name](self, call)
        elif call.descriptor in self._open or any(map(self._is_below, self._paths_of(call))):
            raise AssertionError(f"a call that nothing here understands: {call.name}")

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
        folder = str(self._recording.folder)
        return path.startswith((f"{folder}/outbox/", f"{folder}/inbox/")) or path in (
            f"{folder}/outbox",
            folder,
        )

    def _find(self, path: str) -> tuple[int, str, int | None]:
        """Return the folder of a path below the outbox, its name there, and its file."""
        *parents, name = Path(path).relative_to(self._recording.folder).parts or ("",)
        folder = ROOT
        for parent in parents:
            folder = self._entries[folder][parent]
        return folder, name, ROOT if not name else self._entries[folder].get(name)

    def _is_outbox(self, path: str) -> bool:
        return self._is_below(path) and not path.startswith(f"{self._recording.folder}/inbox/")

    def _is_known(self, path: str) -> bool:
        """Whether a path is in the outbox, or is the inbox or a save in it."""
        if self._is_outbox(path):
            return True
        inbox = f"{self._recording.folder}/inbox"
        try:
            return f"{path}/".startswith(f"{inbox}/") and self._find(path)[2] is not None
        except KeyError:
            return False

    def _name(self, *changes: tuple[int, str, int | None]) -> None:
        for folder, name, inode in changes:
            if inode is None:
                self._entries[folder].pop(name, None)
            else:
                self._entries[folder][name] = inode
                self._recording.names.setdefault(inode, set()).add(name)
        self._add(Names(changes))

    def _new(self) -> int:
        return len(self._recording.names)

    def _make_folder(self, call: _Call) -> None:
        (path,) = self._paths_of(call)
        if self._is_outbox(path):
            folder, name, _ = self._find(path)
            self._add_folder(folder, name)

    def _add_folder(self, folder: int, name: str) -> None:
        inode = self._new()
        self._recording.folders.add(inode)
        self._entries[inode] = {}
        self._name((folder, name, inode))

    def _add_file(self, folder: int, name: str) -> int:
        inode = self._new()
        self._sizes[inode] = 0
        self._name((folder, name, inode))
        return inode

    def _move(self, call: _Call) -> None:
        old, new = self._paths_of(call)
        if Path(old).is_relative_to(self._recording.folder / "staged"):
            self._arrive(old, new)
            return
        if not (self._is_outbox(new) or self._is_known(old)):
            return
        old_folder, old_name, inode = self._find(old)
        new_folder, new_name, _ = self._find(new)
        assert inode is not None
        self._name((old_folder, old_name, None), (new_folder, new_name, inode))

    def _arrive(self, old: str, new: str) -> None:
        staged = Path(old).relative_to(self._recording.folder / "staged")
        number, _, name = staged.as_posix().partition("/")
        assert Path(new) == self._recording.folder / "inbox" / name
        folder = ROOT
        for parent in ("inbox", *Path(name).parent.parts):
            if parent not in self._entries[folder]:
                self._add_folder(folder, parent)
            folder = self._entries[folder][parent]
        file = self._add_file(folder, Path(name).name)
        self._put(file, 0, SAVES[int(number)][name])
        now = len(self._recording.operations)
        for inode in {file, folder, ROOT, self._entries[ROOT]["inbox"]}:
            self._add(Sync(inode, now))
        self._add(Arrived(name, int(number)))

    def _remove(self, call: _Call) -> None:
        (path,) = self._paths_of(call)
        if self._is_known(path):
            folder, name, _ = self._find(path)
            self._name((folder, name, None))

    # -- descriptors

    def _open_file(self, call: _Call) -> None:
        (path,) = self._paths_of(call)
        self._open.pop(call.result, None)
        self._paths[str(call.result)] = path
        if not self._is_known(path):
            return
        folder, name, inode = self._find(path)
        if inode is None:
            inode = self._add_file(folder, name)
        elif "O_TRUNC" in call.arguments and self._sizes[inode]:
            self._resize(inode, 0)
        self._open[call.result] = _Open(inode, "O_APPEND" in call.arguments)

    def _close_file(self, call: _Call) -> None:
        self._open.pop(call.descriptor, None)

    def _seek(self, call: _Call) -> None:
        if file := self._open.get(call.descriptor):
            file.offset = call.result

    def _advance(self, call: _Call) -> None:
        if file := self._open.get(call.descriptor):
            file.offset += call.result

    # -- contents

    def _write(self, call: _Call) -> None:
        if file := self._open.get(call.descriptor):
            offset = self._sizes[file.inode] if file.appends else file.offset
            file.offset = offset + call.result
            self._put(file.inode, offset, call.content)

    def _write_at(self, call: _Call) -> None:
        if file := self._open.get(call.descriptor):
            self._put(file.inode, call.last, call.content)

    def _put(self, inode: int, offset: int, content: bytes) -> None:
        self._sizes[inode] = max(self._sizes[inode], offset + len(content))
        self._add(Write(inode, offset, content))

    def _cut(self, call: _Call) -> None:
        file = self._open.get(call.descriptor)
        if file and self._sizes[file.inode] != call.last:
            self._resize(file.inode, call.last)

    def _resize(self, inode: int, size: int) -> None:
        self._sizes[inode] = size
        self._add(Resize(inode, size))

    def _map(self, call: _Call) -> None:
        descriptor = int(call.arguments.split(", ")[4])
        shared = "MAP_SHARED" in call.arguments and "PROT_WRITE" in call.arguments
        assert not (shared and descriptor in self._open), "written through memory: not recorded"

    def _sync(self, call: _Call) -> None:
        if file := self._open.get(call.descriptor):
            self._add(Sync(file.inode, call.began))


TAKERS: dict[str, Callable[[_Reader, _Call], None]] = {
    **dict.fromkeys(("mkdir", "mkdirat"), _Reader._make_folder),
    **dict.fromkeys(("rename", "renameat", "renameat2"), _Reader._move),
    **dict.fromkeys(("unlink", "unlinkat"), _Reader._remove),
    **dict.fromkeys(("open", "openat"), _Reader._open_file),
    **dict.fromkeys(("read", "readv"), _Reader._advance),
    **dict.fromkeys(("write", "writev"), _Reader._write),
    # fdatasync leaves out times only: what is needed to read the data back is written, too.
    **dict.fromkeys(("fsync", "fdatasync"), _Reader._sync),
    "close": _Reader._close_file,
    "lseek": _Reader._seek,
    "pwrite64": _Reader._write_at,
    "ftruncate": _Reader._cut,
    "mmap": _Reader._map,
}


def _number(result: str) -> int:
    return -1 if result == "?" else int(result, 0)
