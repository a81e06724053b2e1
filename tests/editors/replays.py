"""Programs that cannot be run here: what they do to a file, system call by system call.

Run as a program itself, `replays.py NAME FILE [--by-step]`: each line of standard input, a JSON
string, is a text to save. It answers with a line `saved`, and by step also with a line `step`
at each place where a slow program or a slow share may rest, going on at the next line of input.
The daemon must see another process do it: it looks at who holds a file open.
"""

import ctypes
import json
import mmap
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

Steps = Iterator[None]  # a rest after each of them

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # <linux/fcntl.h>, <linux/fs.h>


def vs_code(path: Path, text: bytes) -> Steps:
    """VS Code on Linux and macOS: truncates, writes at once, syncs.

    microsoft/vscode, src/vs/platform/files/node/diskFileSystemProvider.ts: `open` with flag "w",
    `write`, and in `close` `fdatasync`.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    yield
    os.write(handle, text)
    yield
    os.fsync(handle)
    yield
    os.close(handle)
    yield


def vs_code_on_windows(path: Path, text: bytes) -> Steps:
    """VS Code on Windows, through a share: an empty file that nobody holds, then its text.

    The same source: `truncate(filePath, 0)`, then flag "r+".
    """
    if path.exists():
        os.truncate(path, 0)
        yield
        handle = os.open(path, os.O_RDWR)
    else:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    yield
    os.write(handle, text)
    yield
    os.fsync(handle)
    os.close(handle)
    yield


def vs_code_atomic(path: Path, text: bytes) -> Steps:
    """VS Code where it writes atomically: `x.vsctmp`, renamed.

    microsoft/vscode, src/vs/platform/files: `atomic: { postfix: '.vsctmp' }`.
    """
    yield from _by_rename(path, path.with_name(f"{path.name}.vsctmp"), text)


def vs_code_autosave(path: Path, text: bytes) -> Steps:
    """A burst of saves while somebody types: half a line, a line, all of it.

    Nothing rests within it: what is quicker than the settle time is one save.
    """
    lines = text.splitlines(keepends=True)
    for part in (lines[0][:-2], lines[0], text):
        for _ in vs_code(path, part):
            pass
    yield


def jetbrains(path: Path, text: bytes) -> Steps:
    """JetBrains' "safe write": the recipe is not there for a moment.

    Events as reported in merofeev/docker-windows-volume-watcher issue 15: `x___jb_tmp___` is
    created and modified, x moved to `x___jb_old___`, `x___jb_tmp___` to x, `x___jb_old___` deleted.
    """
    temporary = path.with_name(f"{path.name}___jb_tmp___")
    old = path.with_name(f"{path.name}___jb_old___")
    yield from _written(temporary, text)
    if path.exists():
        path.rename(old)
        yield
    temporary.rename(path)
    yield
    old.unlink(missing_ok=True)
    yield


def sublime(path: Path, text: bytes) -> Steps:
    """Sublime Text as it comes: `fopen(…, "wb")`, write, close.

    sublimehq/sublime_text issue 217 (MODIFY, OPEN, MODIFY, CLOSE_WRITE).
    """
    yield from _written(path, text)


def sublime_atomic(path: Path, text: bytes) -> Steps:
    """Sublime Text with `atomic_save`: `.subl883.tmp`, renamed.

    staticjinja/staticjinja issue 39 lists the events.
    """
    yield from _by_rename(path, path.with_name(".subl883.tmp"), text)


def sublime_atomic_by_deletion(path: Path, text: bytes) -> Steps:
    """The same where a rename cannot replace: the original is deleted first.

    sublimehq/sublime_text issue 782, second comment.
    """
    temporary = path.with_name(".subl883.tmp")
    yield from _written(temporary, text)
    path.unlink(missing_ok=True)
    yield
    temporary.rename(path)
    yield


def notepad(path: Path, text: bytes) -> Steps:
    """Notepad, CREATE_ALWAYS: truncates, writes the byte order mark and then the text.

    ReactOS, base/applications/notepad/dialog.c, `DoSaveFile`. Windows' own source is not open,
    so the other order is replayed too: `notepad_in_place`.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    yield
    for part in (b"\xef\xbb\xbf", *text.replace(b"\n", b"\r\n").splitlines(keepends=True)):
        os.write(handle, part)
        yield
    os.close(handle)
    yield


def notepad_in_place(path: Path, text: bytes) -> Steps:
    """Notepad, OPEN_ALWAYS: writes over the old text, then cuts off what is left of it.

    Win32's WriteFile and SetEndOfFile; what a share does with them is pwrite and ftruncate.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    yield
    os.pwrite(handle, text, 0)
    yield
    os.ftruncate(handle, len(text))
    yield
    os.close(handle)
    yield


def textedit(path: Path, text: bytes) -> Steps:
    """TextEdit on a share: a folder beside the recipe holds a file of the recipe's name.

    NSDocument's safe save, as eclecticlight.co traced it ("How apps save changed files", 2020):
    a temporary folder, in it a file with the document's name, which then replaces the document.
    Where the volume has no folder for temporary files it is made beside the document; many
    repositories' ignore lists name it "(A Document Being Saved By …)".
    """
    folder = path.with_name("(A Document Being Saved By TextEdit)")
    folder.mkdir()
    yield
    yield from _written(folder / path.name, text)
    old = path.with_name(f"{path.name}.sb-1f4cd3a6-yTJXt2")
    if path.exists():
        path.rename(old)
        yield
    (folder / path.name).rename(path)
    yield
    old.unlink(missing_ok=True)
    yield
    folder.rmdir()
    yield


def textedit_swap(path: Path, text: bytes) -> Steps:
    """TextEdit where the volume can swap two files (`renamex_np`, RENAME_SWAP)."""
    folder = path.with_name("(A Document Being Saved By TextEdit 2)")
    folder.mkdir()
    yield
    yield from _written(folder / path.name, text)
    if path.exists():
        _exchange(folder / path.name, path)
        yield
        (folder / path.name).unlink()
    else:
        (folder / path.name).rename(path)
    yield
    folder.rmdir()
    yield


def kate(path: Path, text: bytes) -> Steps:
    """Kate and all else that uses Qt's QSaveFile: `x.XXXXXX`, renamed.

    doc.qt.io, QSaveFile: written to a temporary file, which commit() moves to the final one.
    """
    yield from _by_rename(path, path.with_name(f"{path.name}.kXwTzq"), text)


def syncthing(path: Path, text: bytes) -> Steps:
    """Syncthing: `.syncthing.x.tmp`, which gets the other machine's time before the rename.

    syncthing/syncthing, lib/fs/tempname.go.
    """
    temporary = path.with_name(f".syncthing.{path.name}.tmp")
    yield from _written(temporary, text)
    long_ago = 981_173_106 + sum(text) % 86_400
    os.utime(temporary, (long_ago, long_ago))
    yield
    temporary.rename(path)
    yield


def winscp(path: Path, text: bytes) -> Steps:
    """WinSCP's upload: `x.filepart`, renamed; where the target exists it is deleted first.

    winscp.net, "Transfer to temporary filename".
    """
    temporary = path.with_name(f"{path.name}.filepart")
    yield from _written(temporary, text)
    path.unlink(missing_ok=True)
    yield
    temporary.rename(path)
    yield


def memory_map(path: Path, text: bytes) -> Steps:
    """A program that maps the file and writes to memory: no event tells of the writing."""
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.truncate(len(text))
        yield
        with mmap.mmap(file.fileno(), len(text)) as memory:
            memory[:] = text
            yield
            memory.flush()
    yield


def memory_map_of_a_closed_file(path: Path, text: bytes) -> Steps:
    """The same, but the file is closed before: only the time of the file tells of it.

    It must have the text's length already.
    """
    handle = os.open(path, os.O_RDWR)
    memory = mmap.mmap(handle, len(text))
    os.close(handle)
    yield
    memory[:] = text
    memory.flush()
    memory.close()
    yield


def _written(path: Path, text: bytes) -> Steps:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    yield
    os.write(handle, text)
    yield
    os.close(handle)
    yield


def _by_rename(path: Path, temporary: Path, text: bytes) -> Steps:
    yield from _written(temporary, text)
    temporary.rename(path)
    yield


def _exchange(one: Path, other: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(AT_FDCWD, bytes(one), AT_FDCWD, bytes(other), RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), "renameat2")


REPLAYS: dict[str, Callable[[Path, bytes], Steps]] = {
    replay.__name__: replay
    for replay in (
        vs_code, vs_code_on_windows, vs_code_atomic, vs_code_autosave, jetbrains, sublime,
        sublime_atomic, sublime_atomic_by_deletion, notepad, notepad_in_place, textedit,
        textedit_swap, kate, syncthing, winscp, memory_map, memory_map_of_a_closed_file,
    )
}  # fmt: skip

EDIT_ONLY = {memory_map_of_a_closed_file.__name__}  # they cannot make a recipe


def main(name: str, path: Path, by_step: bool) -> None:
    """Save what standard input brings, until it ends."""
    for line in sys.stdin:
        for _ in REPLAYS[name](path, json.loads(line).encode()):
            if by_step:
                _say("step")
                sys.stdin.readline()
        _say("saved")


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:] == ["--by-step"])
