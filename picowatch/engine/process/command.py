"""How picowatch starts other processes of its own, and how it ends them."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Pipe
from pathlib import Path

from picowatch.engine.process.failures import StderrTail


def python_command(program: str, *arguments: str | int) -> list[str]:
    """A command that calls `main` of a module with these arguments.

    -P keeps the user's folder off the path: a torch.py in it would be imported instead of torch.
    The package's own parent comes last, because an installed package is found without it.
    """
    root = str(Path(__file__).absolute().parents[3])
    code = f"import sys; sys.path.append({root!r}); from {program} import main; main(*{arguments})"
    return [sys.executable, "-P", "-c", code]


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
        self.stderr = StderrTail(self._process.stderr)

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
