"""The daemon's side of the engine process. Imports no torch.

A native crash, a poisoned CUDA context or the kernel's OOM killer ends the child, never the
daemon, and ending the child frees all its memory. Nothing in the child is worth saving, so it is
ended by SIGKILL: at once, and in every phase, even during an import or a load.
"""

import atexit
import ctypes
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from multiprocessing.connection import Connection
from typing import BinaryIO

from picowatch.engine import child_main
from picowatch.engine.child_main import (
    FromEngine,
    MakeRenderer,
    Outcome,
    Ready,
    Render,
    new_renderer,
)
from picowatch.engine.failures import explain_exit, last_words, no_threads
from picowatch.engine.memory import process_memory
from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import EngineCannotStart, MemoryUse
from picowatch.engine.remote import Batch, RemoteEngine, cannot_start
from picowatch.errors import EngineDied, EngineStopped, RenderFailed

_END_SECONDS = 1.5
_CHECK_SECONDS = 0.5  # between checks whether a silent process is still there
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
# Users may set these differently. How long threads spin before they sleep, in libgomp's rounds: a
# compromise. By two threads a demo picture takes 0.4 s on idle
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


class ChildEngine(RemoteEngine):
    """An Engine in a process of its own, started at the first render and after each death."""

    def __init__(self, options: EngineOptions, make_renderer: MakeRenderer = new_renderer) -> None:
        """`make_renderer` is called in the process."""
        super().__init__(options)
        self._make_renderer = make_renderer
        self._process: _Process | None = None

    def prepare(self) -> None:
        """Implement `Engine.prepare`."""
        with self._lock, suppress(EngineCannotStart):
            self._living()

    def memory(self) -> MemoryUse | None:
        """Return a GPU's as of the last batch, else the computer's as of now."""
        process = self._process
        if process is None:
            return None
        return super().memory() or process_memory(process.id)

    def interrupt(self) -> None:
        """Implement `Engine.interrupt`."""
        if (process := self._process) is not None:
            process.interrupted.value = True

    def close(self) -> None:
        """Implement `Engine.close`."""
        with self._lock:
            process, self._process = self._process, None
            self._end_batch(EngineStopped("The engine was closed."))
            if process is not None:
                process.kill()
        self.join(_END_SECONDS)
        if process is not None:
            process.close()

    @property
    def process_id(self) -> int | None:
        """The child's process id while it exists."""
        process = self._process
        return process.id if process is not None else None

    def _living(self) -> "_Process":
        """Return the process, or a new one; to be called with the lock."""
        if self._process is not None and self._process.exit_code() is not None:
            self._process.close()
            self._process = None
        if self._process is None:
            self._reported = None
            try:
                self._process = _Process(self._options, self._make_renderer)
            except OSError as error:
                raise cannot_start(error) from error
        return self._process

    def _outcome(self, batch: Batch) -> Outcome | Exception:
        with self._lock:
            if batch.future.done():  # by `close`
                return EngineStopped("The engine was closed.")
            process = self._living()
        outcome: Outcome | Exception
        try:
            outcome = self._pass_on(process.reports(batch.work), batch)
        except Exception as error:  # whatever it still reports is not for the next batch
            outcome = error
        if isinstance(outcome, list | RenderFailed | EngineStopped):
            process.forget_words()
        else:
            self._drop(process)
        return outcome

    def _drop(self, process: "_Process") -> None:
        """End the process, if `close` does not."""
        with self._lock:
            if self._process is not process:
                return
            self._process = None
        process.close()


class _Process:
    """A process of multiprocessing's, its pipe, and what it wrote to its standard error."""

    # Environment and streams are the whole daemon's. And to start a process, multiprocessing first
    # takes the exit codes of all that ended: nobody else may ask for one meanwhile.
    _one_at_a_time = threading.Lock()

    def __init__(self, options: EngineOptions, make_renderer: MakeRenderer) -> None:
        """Start it; raises OSError."""
        context = multiprocessing.get_context("spawn")
        self.interrupted = context.RawValue(ctypes.c_bool)
        with ExitStack() as files:
            self._words = files.enter_context(_file_for_last_words())
            words = Connection(os.dup(self._words.fileno()))  # which multiprocessing hands on
            self._connection, theirs = context.Pipe()
            files.enter_context(self._connection)
            self._process = context.Process(
                target=child_main.main,
                args=(theirs, self.interrupted, words, options, make_renderer),
                name="picowatch-engine",
                daemon=True,
            )
            with theirs, words, self._one_at_a_time, _surroundings():
                self._process.start()
            self._files = files.pop_all()
        assert self._process.pid is not None
        self.id = self._process.pid
        self._is_ready = False
        # Before multiprocessing's own, which sends SIGTERM and waits.
        atexit.register(self.kill)

    def reports(self, work: Render) -> Iterator[FromEngine]:
        """Have a batch rendered; yield what the process reports. Raises EngineDied."""
        self.interrupted.value = False
        try:
            self._connection.send(work)
            while True:
                yield self._message()
        except (EOFError, OSError) as error:
            raise self._death() from error

    def exit_code(self) -> int | None:
        """Return its exit code (negative: a signal), None while it runs."""
        with self._one_at_a_time:
            return self._process.exitcode

    def kill(self) -> None:
        """End it and whatever it started, even if it ended before them."""
        try:
            os.killpg(self.id, signal.SIGKILL)
        # It has no group of its own yet; or (macOS) only a dead process is left.
        except (ProcessLookupError, PermissionError):
            self._process.kill()

    def forget_words(self) -> None:
        """Keep the file small: libraries may write for months."""
        self._words.seek(0)  # for the process, too: both have the same open file
        self._words.truncate()

    def close(self) -> None:
        """End it and give everything back."""
        self.kill()
        atexit.unregister(self.kill)
        if self._wait() is not None:
            self._process.close()
        self._files.close()

    def _message(self) -> FromEngine:
        """Return the next message; raises EOFError once the process is gone.

        The pipe need not say so: a process that this one started may still hold it.
        """
        while not self._connection.poll(_CHECK_SECONDS):
            if self.exit_code() is not None and not self._connection.poll(0):
                raise EOFError
        try:
            message: FromEngine = self._connection.recv()
        except (EOFError, OSError):
            raise
        except Exception as error:  # unpickling raises anything
            raise EngineDied(
                f"The engine sent something that is not a message: {error!r}.",
                "If picowatch was updated meanwhile, start it again.",
            ) from error
        self._is_ready |= isinstance(message, Ready)
        return message

    def _death(self) -> EngineDied:
        """Return how it ended; what closed its pipe and lives on is ended."""
        status = self._wait()
        if status is None:
            self.kill()
            self._wait()
        size = self._words.seek(0, os.SEEK_END)
        self._words.seek(max(0, size - _KEPT_BYTES))
        said = self._words.read().decode(errors="replace").splitlines()
        if refused := no_threads(last_words(said)):
            return refused
        return (EngineDied if self._is_ready else EngineCannotStart)(*explain_exit(status, said))

    def _wait(self) -> int | None:
        """Return its exit code once it has ended; None if it still runs after a while."""
        self._process.join(_END_SECONDS)
        return self.exit_code()


def _file_for_last_words() -> BinaryIO:
    """Return a file without a name; in memory, where the system has that: /tmp may be full."""
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("last words"), "wb+", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


@contextmanager
def _surroundings() -> Iterator[None]:
    """Have a process that starts now begin with the engine's environment.

    multiprocessing has no argument for it, and some of it is read before any of our code runs:
    malloc's thresholds, and where Python imports from. Nothing else may start processes meanwhile
    with os.environ as it is: see `Hooks`. And multiprocessing flushes the console, unless there is
    none: that fails where it is a file on a full disk.
    """
    before = dict(os.environ)
    ours = _DEFAULTS | before | _ENVIRONMENT
    os.environ.update(ours)
    try:
        with redirect_stdout(None), redirect_stderr(None):
            yield
    finally:
        for name in ours.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
