"""What a process writes to its standard error: all is read, the end kept. Imports no torch."""

import os
import threading
from typing import IO

_KEPT_BYTES = 16_384
_CHUNK_BYTES = 65_536


class LastWords:
    """Reads to the end, so that the process never blocks on a full pipe.

    The end comes when everyone who holds the pipe is gone: a process that the engine started
    may outlive it, so whoever waits here waits for a limited time.
    """

    def __init__(self, stderr: IO[bytes]) -> None:
        self._stderr = stderr
        self._tail = b""
        self._thread = threading.Thread(target=self._read, name="engine's errors", daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> None:
        """Until all is read, if that comes so soon."""
        self._thread.join(seconds)

    def lines(self) -> list[str]:
        """The last lines so far."""
        return self._tail.decode(errors="replace").splitlines()

    def _read(self) -> None:
        with self._stderr:
            while chunk := os.read(self._stderr.fileno(), _CHUNK_BYTES):
                self._tail = (self._tail + chunk)[-_KEPT_BYTES:]
