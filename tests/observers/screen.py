"""A terminal for real programs: what was written, and what is on the screen."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from tests.commands.picowatch import clean_environment, command
from tests.house import PATIENCE, wait_for

# A session leader's first terminal becomes its controlling one, which emacs insists on.
TAKE_TERMINAL = 'exec <>"$0" >&0 2>&0; exec "$@"'
TOKENS = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


class Screen:
    """A terminal's screen: text, line breaks, colours, cursor up, erasing."""

    def __init__(self, written: str, columns: int) -> None:
        self._columns = columns
        self._rows: list[str] = [""]
        self._row = self._column = 0
        for numbers, letter, control, plain in TOKENS.findall(written):
            if control == "\r":
                self._column = 0
            elif control == "\n":
                self._down()
            elif letter == "A":
                self._row = max(0, self._row - int(numbers or 1))
            elif letter == "K":
                assert numbers == "2", "erase the whole row"
                self._rows[self._row] = ""
            else:
                assert plain or letter in "mhl", (numbers, letter)
                self._put(plain)
        self.lines = [row.rstrip() for row in self._rows if row.strip()]

    def _put(self, text: str) -> None:
        for char in text:
            if self._column == self._columns:
                self._down()
                self._column = 0
            row = self._rows[self._row].ljust(self._column)
            self._rows[self._row] = row[: self._column] + char + row[self._column + 1 :]
            self._column += 1

    def _down(self) -> None:
        self._row += 1
        if self._row == len(self._rows):
            self._rows.append("")


class Terminal:
    def __init__(self, process: "subprocess.Popen[bytes]", handle: int, columns: int) -> None:
        self.process = process
        self._handle = handle
        self._columns = columns
        self._written = bytearray()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def written(self) -> str:
        """Return everything that was written, but for a letter that is cut at its end."""
        return bytes(self._written).decode(errors="ignore")

    @property
    def lines(self) -> list[str]:
        return Screen(self.written, self._columns).lines

    def wait_for(self, text: str) -> None:
        wait_for(lambda: any(text in line for line in self.lines), f"{text!r} in {self.written}")

    def wait_until_written(self, text: str) -> None:
        """Wait for a text of a program with more escape sequences than `Screen` knows."""
        wait_for(lambda: text in self.written, f"{text!r} in {self.written!r}")

    def type(self, keys: str) -> None:
        os.write(self._handle, keys.encode())

    def finish(self) -> None:
        """Read the rest. Nobody else may have the terminal open."""
        self._reader.join(PATIENCE)
        os.close(self._handle)

    def _read(self) -> None:
        # Linux answers EIO once nobody has the other end open, other systems an empty read.
        with suppress(OSError):
            while block := os.read(self._handle, 65536):
                self._written += block


def set_size(handle: int, rows: int, columns: int) -> None:
    fcntl.ioctl(handle, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


@contextmanager
def in_terminal(
    *command: str, cwd: Path, environment: Mapping[str, str], size: tuple[int, int] = (24, 80)
) -> Iterator[Terminal]:
    """Run a program in a terminal of this size; it must end well when the block ends."""
    ours, theirs = pty.openpty()
    set_size(theirs, *size)
    process = subprocess.Popen(
        ["sh", "-c", TAKE_TERMINAL, os.ttyname(theirs), *command],
        cwd=cwd,
        env=environment,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
    )
    terminal = Terminal(process, ours, size[1])
    try:
        yield terminal
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        os.close(theirs)
        terminal.finish()


def in_pty(
    folder: Path,
    *arguments: str,
    size: tuple[int, int] = (24, 80),
    program: str = "picowatch",
    **environment: str,
) -> AbstractContextManager[Terminal]:
    variables = clean_environment(**{"TERM": "xterm-256color", **environment})
    for name in {"COLUMNS", "LINES", "NO_COLOR"} - environment.keys():
        variables.pop(name, None)
    words = command(*arguments, program=program)
    return in_terminal(*words, cwd=folder, environment=variables, size=size)
