"""Standard output and error, where they are closed, full, or gone meanwhile."""

import os
import sys
from typing import TextIO


def open_closed() -> None:
    """Open those with which picowatch was started closed (`>&-`): Python has no stream there.

    Otherwise what is opened later gets their numbers, and messages would be written into it.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
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
