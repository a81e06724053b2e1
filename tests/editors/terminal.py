"""A terminal for programs that want one: keys in, screen out."""

import fcntl
import os
import pty
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.house import PATIENCE, wait_for

ROWS, COLUMNS = 24, 80
# A session leader's first terminal becomes its controlling one, which emacs insists on.
TAKE_TERMINAL = 'exec <>"$0" >&0 2>&0; exec "$@"'


class Terminal:
    """A program's terminal; its screen is collected as it comes."""

    def __init__(self, master: int) -> None:
        self._master = master
        self._screen = bytearray()
        self._reader = threading.Thread(target=self._collect)
        self._reader.start()

    def keys(self, text: str) -> None:
        """Type."""
        os.write(self._master, text.encode())

    def wait_for(self, text: str) -> None:
        """Wait until this was written to the screen."""
        wait_for(lambda: text.encode() in self._screen, f"{text!r} in {bytes(self._screen)!r}")

    def close(self) -> None:
        """All of the program's ends must be closed before."""
        self._reader.join(PATIENCE)
        os.close(self._master)

    def _collect(self) -> None:
        # Linux answers EIO once nobody has the other end open, other systems an empty read.
        with suppress(OSError):
            while block := os.read(self._master, 4096):
                self._screen += block


@contextmanager
def in_terminal(*command: str | Path, cwd: Path) -> Iterator[Terminal]:
    """Run a program in a terminal; it must have been told to quit when the block ends."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    process = subprocess.Popen(
        ["sh", "-c", TAKE_TERMINAL, os.ttyname(slave), *map(str, command)],
        cwd=cwd,
        env={**os.environ, "TERM": "vt100"},
        start_new_session=True,
        stdin=subprocess.DEVNULL,
    )
    terminal = Terminal(master)
    try:
        yield terminal
        process.wait(PATIENCE)
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()
        os.close(slave)
        terminal.close()
