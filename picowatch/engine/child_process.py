"""The engine's process as the daemon holds it: its start, its pipe, its last words, its end.

Imports no torch.
"""

import atexit
import fcntl
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from picowatch.engine import child_main
from picowatch.engine.child_main import FromEngine, MakeRenderer
from picowatch.engine.options import EngineOptions
from picowatch.errors import EngineDied

END_SECONDS = 1.5
REPORT_IT = "This is a bug in picowatch or in its libraries: please report it."
_CHECK_SECONDS = 0.5  # between checks whether a silent process is still there
_POLL_SECONDS = 0.005  # … whether one that was killed has ended
_KEPT_BYTES = 16_384  # of its last words

_ENVIRONMENT = {
    # Like -P: nothing is imported from the user's folder while the process starts.
    "PYTHONSAFEPATH": "1",
    "PYTHONWARNINGS": "ignore",
    "PYTHON_COLORS": "0",  # of tracebacks, which are read here
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "DO_NOT_TRACK": "1",
    "DIFFUSERS_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # Deterministic cuBLAS, for `exact`; it is read when CUDA starts.
    # https://docs.nvidia.com/cuda/cublas/#results-reproducibility
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    # What Apple's GPUs cannot compute, the CPU does:
    # https://docs.pytorch.org/docs/stable/mps_environment_variables.html
    "PYTORCH_ENABLE_MPS_FALLBACK": "1",
    # MKL then gives the rows of a matrix the same bits wherever they stand (oneMKL Developer
    # Guide, "Specifying Code Branches"). Without, a picture depends on its position in a batch
    # of 3. No cost could be measured.
    "MKL_CBWR": "AUTO,STRICT",
}
# Users may set these differently, the first also by OMP_WAIT_POLICY. How long threads spin before
# they sleep, in libgomp's rounds: a compromise. By two threads a demo picture takes 0.4 s on idle
# cores and 1.2 s beside another program whose threads spin. With 10,000 rounds it takes 0.35 s on
# idle ones, and beside that program none was done in 20 s (benchmarks/RESULTS.md).
_DEFAULTS = {
    "GOMP_SPINCOUNT": "1000",
    # glibc gives what is larger than a threshold back to the system at once, and takes pages again
    # for the next layer's result: 7,000 page faults a step and a fifth of its time for a part of a
    # batch of the demo model. What is larger than 64 MB, as few weights are, still goes back. It
    # takes both (mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD).
    "MALLOC_MMAP_THRESHOLD_": str(64 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20),
}


class EngineProcess:
    """A process of multiprocessing's, its pipe, and what it wrote to its standard error."""

    # multiprocessing waits for all its processes whenever one starts, and a process can be waited
    # for only once.
    _one_at_a_time = threading.Lock()

    def __init__(self, options: EngineOptions, make_renderer: MakeRenderer) -> None:
        """Start it; raises OSError."""
        context = multiprocessing.get_context("spawn")
        self._words = _file_for_last_words()
        words = Connection(os.dup(self._words))  # which multiprocessing hands on
        self.connection, theirs = context.Pipe()
        self._process = context.Process(
            target=child_main.main,
            args=(theirs, words, options, make_renderer),
            name="picowatch-engine",
            daemon=True,
        )
        try:
            with theirs, words, self._one_at_a_time, _environment(), _unflushed_streams():
                self._process.start()
        except OSError:
            self._close_files()
            raise
        assert self._process.pid is not None
        self.id = self._process.pid
        self._exit_code: int | None = None
        # Before multiprocessing's own, which sends SIGTERM and waits.
        atexit.register(self.kill)

    def message(self) -> FromEngine:
        """Return the next message; raises EOFError once the process is gone.

        The pipe need not say so: a process that this one started may still hold it.
        """
        while not self.connection.poll(_CHECK_SECONDS):
            if self.status() is not None and not self.connection.poll(0):
                raise EOFError
        try:
            message = self.connection.recv()
        except (EOFError, OSError):
            raise
        # Unpickling what is no message raises anything.
        except Exception as error:
            raise EngineDied(
                "The engine sent something that is not a message.", REPORT_IT
            ) from error
        if not isinstance(message, FromEngine):
            raise EngineDied("The engine sent something that is not a message.", REPORT_IT)
        return message

    def status(self) -> int | None:
        """Return its exit code (negative: a signal), None while it runs."""
        with self._one_at_a_time:
            if self._exit_code is None:
                self._exit_code = self._process.exitcode
            return self._exit_code

    def wait(self, seconds: float) -> int | None:
        """Return its exit code once it has ended; None if it still runs after that time.

        Not by its sentinel, a pipe: a process that this one started may still hold it.
        """
        deadline = time.monotonic() + seconds
        while (status := self.status()) is None and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return status

    def kill(self) -> None:
        """End it and whatever it started, even if it ended before them."""
        try:
            os.killpg(self.id, signal.SIGKILL)
        # It has no group of its own yet; or (macOS) only a dead process is left.
        except (ProcessLookupError, PermissionError):
            with self._one_at_a_time:
                self._process.kill()

    def words(self) -> list[str]:
        """Return the last lines that it wrote to its standard error."""
        size = os.fstat(self._words).st_size
        found = os.pread(self._words, _KEPT_BYTES, max(0, size - _KEPT_BYTES))
        return found.decode(errors="replace").splitlines()

    def forget_words(self) -> None:
        """Keep the file small: libraries may write for months."""
        if os.fstat(self._words).st_size > _KEPT_BYTES:
            os.ftruncate(self._words, 0)

    def close(self) -> None:
        """End it and give everything back."""
        self.kill()
        atexit.unregister(self.kill)
        if self.wait(END_SECONDS) is not None:
            self._process.close()
        self._close_files()

    def _close_files(self) -> None:
        self.connection.close()
        os.close(self._words)


def _file_for_last_words() -> int:
    """Return a file without a name; in memory, where the system has that: /tmp may be full."""
    if sys.platform == "linux":
        file = os.memfd_create("last words")
    else:
        with tempfile.TemporaryFile() as named:
            file = os.dup(named.fileno())
    fcntl.fcntl(file, fcntl.F_SETFL, os.O_APPEND)  # also once it was cut off
    return file


def engine_environment() -> dict[str, str]:
    """Return the variables that an engine's process has besides those of os.environ."""
    wanted = {name: value for name, value in _DEFAULTS.items() if name not in os.environ}
    if "OMP_WAIT_POLICY" in os.environ:
        wanted.pop("GOMP_SPINCOUNT", None)  # libgomp would not read the other
    return wanted | _ENVIRONMENT


@contextmanager
def _environment() -> Iterator[None]:
    """Have a process that starts now begin with the engine's environment.

    multiprocessing has no argument for it, and some of it is read before any of our code runs:
    malloc's thresholds, and where Python imports from. Nothing else may start processes meanwhile
    with os.environ as it is: see `Hooks`.
    """
    wanted = engine_environment()
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class _Unflushed:
    """A stream that is not flushed."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def flush(self) -> None:
        """Do nothing."""


@contextmanager
def _unflushed_streams() -> Iterator[None]:
    """Keep multiprocessing from flushing standard output and error before it starts a process.

    A flush fails where the console is a file on a full disk, and waits where a terminal is stopped.
    """
    before = sys.stdout, sys.stderr
    unflushed: Any = map(_Unflushed, before)
    sys.stdout, sys.stderr = unflushed
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
