"""Standard input, output and error, where they are closed, full, gone, or stopped meanwhile."""

import io
import os
import sys
import threading
import unicodedata
from collections import deque
from contextlib import suppress
from typing import TextIO

KEPT = 200  # texts that wait for a terminal that is stopped
LAST_SECONDS = 1.0  # that it has for them at the end


def open_closed() -> None:
    """Open those with which picowatch was started closed (`>&-`): Python has no stream there.

    Otherwise what is opened later gets their numbers, and messages would be written into it.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    sys.stdin = sys.stdin or os.fdopen(0)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")


def finish(stream: TextIO) -> None:
    """Write out what was printed; what cannot be written is discarded.

    Otherwise Python tries it again at the end, and complains.
    """
    try:
        stream.flush()
    except OSError:
        discard(stream)


def discard(stream: TextIO) -> None:
    """Nobody reads it any more: write to nowhere from now on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class BackgroundStream(io.TextIOBase):
    """Writes to a terminal in a thread of its own: who writes here never waits.

    Ctrl-S, a selection in some terminals and a connection that stalls stop it, for hours perhaps.
    The newest texts are written when it continues.
    """

    encoding = "utf-8"

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding = stream.encoding
        self._texts: deque[str] = deque(maxlen=KEPT)
        self._more = threading.Event()
        self._ends = False
        self._thread = threading.Thread(target=self._run, name="terminal", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        """Written soon."""
        self._texts.append(text)
        self._more.set()
        return len(text)

    def isatty(self) -> bool:
        """Implement `TextIO.isatty`."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Implement `TextIO.fileno`."""
        return self._stream.fileno()

    def finish(self) -> None:
        """Let it write the rest, if it is not stopped."""
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
                # Not by the stream: its lock would be held while this waits, also at the end.
                with suppress(OSError):  # it is gone
                    while rest:
                        rest = rest[os.write(self.fileno(), rest) :]


def harmless(text: str) -> str:
    """The text with everything escaped that could move a cursor, change colours or hide.

    Control and format characters, line and paragraph separators and lone surrogates become
    \\x1b-like escapes; the joiner inside of emoji stays.
    """
    return text if text.isprintable() else "".join(map(_harmless_character, text))


def print_error(text: str) -> None:
    """Print to standard error; nothing from a stranger's file may control the terminal."""
    print(harmless_lines(text), file=sys.stderr)


def harmless_lines(message: str) -> str:
    """The text made harmless line by line; its own line breaks stay."""
    return "\n".join(map(harmless, message.split("\n")))


def _harmless_character(character: str) -> str:
    if character.isprintable() or character == "\N{ZERO WIDTH JOINER}":
        return character
    if unicodedata.category(character) == "Zs":
        return " "
    return character.encode("unicode_escape").decode("ascii")
