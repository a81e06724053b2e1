"""The process that drives Ray, in a session of its own."""

import os
import signal
import subprocess
import threading
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Pipe
from typing import IO

from picowatch.engine.torch_check import python_command
from picowatch.threads import start_thread

_KEPT_BYTES = 16_384
_CHUNK_BYTES = 65_536


class StderrTail:
    """The end of what a process writes to its standard error.

    All of it is read, so that the process never blocks on a full pipe. Reading ends when everyone
    who holds the pipe is gone. A process that the engine started may outlive it, so each wait here
    has a time limit.
    """

    def __init__(self, stderr: IO[bytes]) -> None:
        self._stderr = stderr
        self._tail = b""
        self._thread = threading.Thread(target=self._read, name="engine-stderr", daemon=True)
        start_thread(self._thread)

    def wait(self, seconds: float) -> None:
        """Until all is read, or the time is over."""
        self._thread.join(seconds)

    def lines(self) -> list[str]:
        """The last lines so far."""
        return self._tail.decode(errors="replace").splitlines()

    def _read(self) -> None:
        with self._stderr:
            while chunk := os.read(self._stderr.fileno(), _CHUNK_BYTES):
                self._tail = (self._tail + chunk)[-_KEPT_BYTES:]


class ChildProcess:
    """A process that serves this one over a socket, in a session of its own.

    So Ctrl-C on the terminal is for the daemon alone, and all that the process starts ends with it.
    """

    def __init__(
        self, program: str, environment: Mapping[str, str], folder: str | None = None
    ) -> None:
        """Start it; raises OSError. `main` of that module is called with its end's handle.

        Its working folder is `folder`, or this process' own.
        """
        self.connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                python_command(program, theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=environment,
                pass_fds=(theirs.fileno(),),
                cwd=folder,
                start_new_session=True,
            )
        self.id = self._process.pid
        assert self._process.stderr is not None
        try:
            self.stderr = StderrTail(self._process.stderr)
        except OSError:
            self.kill()
            self._process.communicate()
            raise

    def status(self) -> int | None:
        """Its exit status, as subprocess gives it (negative: signal); None while it runs."""
        return self._process.poll()

    def wait(self, seconds: float | None = None) -> int | None:
        """Its exit status once it has ended; None if it still runs after that time."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(seconds)
        return None

    def kill(self) -> None:
        """End it and whatever it started, even if it ended before them.

        macOS answers with PermissionError where only a dead process is left.
        """
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.id, signal.SIGKILL)
