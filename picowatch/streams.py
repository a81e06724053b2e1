"""Standard input, output and error, even if they are closed, full, gone or stopped."""

import io
import os
import stat
import sys
import threading
import unicodedata
from collections import deque
from contextlib import suppress
from typing import TextIO

KEPT = 200  # texts that wait for a stopped terminal
LINES_KEPT = 10_000  # … for the reader of a pipe, which may be slower than ten thousand saves
LAST_SECONDS = 1.0  # for writing them at the end


def open_closed() -> None:
    """Open closed standard streams (`>&-`): files would get their numbers, and then messages."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    sys.stdin = sys.stdin or os.fdopen(0)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")
    if isinstance(sys.stdout, io.TextIOWrapper):  # as standard error: not each encoding has all
        sys.stdout.reconfigure(errors="backslashreplace")


def finish(stream: TextIO) -> None:
    """Write out what was printed, or discard it: Python would try again at its end and complain."""
    try:
        stream.flush()
    except OSError:
        discard(stream)


def discard(stream: TextIO) -> None:
    """Send everything to /dev/null from now on, because nobody reads the stream any more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def may_block(stream: TextIO) -> bool:
    """Whether a write to the stream may wait for a reader, as on a terminal or in a pipe."""
    try:
        return not stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except OSError:  # it has no file, as in tests
        return False


class BackgroundStream(io.TextIOBase):
    """Writes to a terminal or pipe in a thread of its own, so that its callers never wait.

    Ctrl-S, a selection in some terminals, a stalled connection or a program that reads no more may
    stop it for hours. When it continues, the newest texts are written, at most `kept`.
    """

    encoding = "utf-8"

    def __init__(self, stream: TextIO, kept: int = KEPT) -> None:
        self._stream = stream
        self.encoding = stream.encoding
        self._texts: deque[str] = deque(maxlen=kept)
        self._more = threading.Event()
        self._ends = False
        self._thread = threading.Thread(target=self._run, name="terminal", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        self._texts.append(text)
        self._more.set()
        return len(text)

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def finish(self) -> None:
        """Write the rest, unless nobody reads it."""
        self._ends = True
        self._more.set()
        self._thread.join(LAST_SECONDS)

    def _run(self) -> None:
        ends = False
        while not ends:
            self._more.wait()
            self._more.clear()
            ends = self._ends  # before the last look at the texts
            while self._texts:
                rest = self._texts.popleft().encode(self.encoding, "backslashreplace")
                # Not through the stream: its lock would be held while this waits, even at the end.
                with suppress(OSError):  # it is gone
                    while rest:
                        rest = rest[os.write(self.fileno(), rest) :]


def harmless(text: str) -> str:
    """Escape everything in a text that could move a cursor, change colours or hide.

    Control and format characters, line and paragraph separators and lone surrogates become
    escapes such as \\x1b; the joiner inside emoji stays.
    """
    return text if text.isprintable() else "".join(map(_harmless_character, text))


def print_error(text: str) -> None:
    """Print to standard error, without letting a stranger's file control the terminal."""
    print(harmless_lines(text), file=sys.stderr)


def harmless_lines(message: str) -> str:
    """Make a text harmless line by line; its line breaks stay."""
    return "\n".join(map(harmless, message.split("\n")))


def _harmless_character(character: str) -> str:
    if character.isprintable() or character == "\N{ZERO WIDTH JOINER}":
        return character
    if unicodedata.category(character) == "Zs":
        return " "
    return character.encode("unicode_escape").decode("ascii")
