"""Programs that cannot be run here: what they do to a file, system call by system call.

Run as a program itself, `replays.py NAME FILE`: a line of standard input, a JSON string, is the
text to save. It answers with a line `step` at each place where a slow program or a slow share may
rest, going on at the next line of input, and with a line `saved` at the end.
The daemon must see another process do it: it looks at who holds a file open.
"""

import json
import mmap
import os
import sys
from collections.abc import Callable
from pathlib import Path

IN_FOLDER = "(A Document Being Saved By TextEdit)"
WRITTEN = "create {}; write; close"

# `X` is the recipe, `F` TextEdit's folder. A step with a question mark is done if its first file is
# there. A program may rest after each step, but not between those joined by `&`.
REPLAYS = {
    # VS Code on Linux and macOS, src/vs/platform/files/node/diskFileSystemProvider.ts: `open` with
    # flag "w", `write`, and in `close` `fdatasync`. Sublime Text does not sync.
    "vs_code": "create X; write; sync; close",
    # On Windows, through a share: `truncate(filePath, 0)`, then flag "r+".
    "vs_code_on_windows": "empty? X; open X; write; sync & close",
    # `atomic: { postfix: '.vsctmp' }`; so do Kate, and Sublime Text with `atomic_save`.
    "vs_code_atomic": f"{WRITTEN.format('X.vsctmp')}; move X.vsctmp X",
    # A burst of saves while somebody types: what is quicker than the settle time is one save.
    "vs_code_autosave": (
        "create X & half & close & create X & line & close & create X & write & close"
    ),
    # "Safe write", as reported in merofeev/docker-windows-volume-watcher issue 15.
    "jetbrains": (
        f"{WRITTEN.format('X___jb_tmp___')}; move? X X___jb_old___; move X___jb_tmp___ X;"
        "remove? X___jb_old___"
    ),
    # CREATE_ALWAYS: byte order mark, then the text (ReactOS, base/applications/notepad/dialog.c;
    # Windows' own source is not open, so the other order is replayed, too).
    "notepad": "create X; mark; line; rest; close",
    # OPEN_ALWAYS, WriteFile, SetEndOfFile; on a share these are pwrite and ftruncate.
    "notepad_in_place": "open X; write; cut; close",
    # NSDocument's safe save on a share (eclecticlight.co, "How apps save changed files", 2020).
    "textedit": (
        f"folder F; {WRITTEN.format('F/X')}; move? X X.sb-1f4cd3a6-yTJXt2;"
        "move F/X X; remove? X.sb-1f4cd3a6-yTJXt2; unfold F"
    ),
    # It gets the other machine's time before the rename: syncthing/syncthing, lib/fs/tempname.go.
    "syncthing": (
        f"{WRITTEN.format('.syncthing.X.tmp')}; age .syncthing.X.tmp; move .syncthing.X.tmp X"
    ),
    # winscp.net, "Transfer to temporary filename": an existing target is deleted first.
    # So does Sublime Text where a rename cannot replace (sublimehq/sublime_text issue 782).
    "winscp": f"{WRITTEN.format('X.filepart')}; remove? X; move X.filepart X",
    # Memory is written after the file is closed: no event tells of it, only the file's time. It
    # must have the text's length already.
    "memory_map_of_a_closed_file": "open X & map & close",
}


class Saving:
    """One save of a text, step by step."""

    def __init__(self, path: Path, text: bytes) -> None:
        self._path, self.text = path, text
        self.handle = -1

    def do(self, step: str) -> None:
        name, *files = step.split()
        paths = [self._named(file) for file in files]
        if not (name.endswith("?") and not paths[0].exists()):
            STEPS[name.rstrip("?")](self, *paths)

    def _named(self, file: str) -> Path:
        name = file.replace("F/", f"{IN_FOLDER}/").replace("X", self._path.name)
        return self._path.with_name(IN_FOLDER) if file == "F" else self._path.parent / name

    def open(self, path: Path, flags: int) -> None:
        self.handle = os.open(path, flags | os.O_CREAT, 0o644)

    def mark(self) -> None:
        self.text = self.text.replace(b"\n", b"\r\n")
        os.write(self.handle, b"\xef\xbb\xbf")

    def map(self) -> None:
        with mmap.mmap(self.handle, len(self.text)) as memory:
            memory[:] = self.text
            memory.flush()

    def age(self, path: Path) -> None:
        long_ago = 981_173_106 + sum(self.text) % 86_400
        os.utime(path, (long_ago, long_ago))


STEPS: dict[str, Callable[..., object]] = {
    "create": lambda its, path: its.open(path, os.O_WRONLY | os.O_TRUNC),
    "open": lambda its, path: its.open(path, os.O_RDWR),
    "mark": Saving.mark,
    "half": lambda its: os.write(its.handle, its.text.partition(b"\n")[0][:-1]),
    "line": lambda its: os.write(its.handle, its.text.splitlines(keepends=True)[0]),
    "rest": lambda its: os.write(its.handle, its.text.partition(b"\n")[2]),
    "write": lambda its: os.pwrite(its.handle, its.text, 0),
    "map": Saving.map,
    "cut": lambda its: os.ftruncate(its.handle, len(its.text)),
    "sync": lambda its: os.fsync(its.handle),
    "close": lambda its: os.close(its.handle),
    "age": Saving.age,
    "empty": lambda its, path: os.truncate(path, 0),
    "move": lambda its, old, new: old.rename(new),
    "remove": lambda its, path: path.unlink(),
    "folder": lambda its, path: path.mkdir(),
    "unfold": lambda its, path: path.rmdir(),
}


def main(name: str, path: Path) -> None:
    saving = Saving(path, json.loads(sys.stdin.readline()).encode())
    for steps in REPLAYS[name].split(";"):
        for step in steps.split("&"):
            saving.do(step)
        _say("step")
        sys.stdin.readline()
    _say("saved")


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
