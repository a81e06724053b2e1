"""The daemon's side of the engine process. Imports no torch.

A native crash, a poisoned CUDA context or the kernel's OOM killer ends the child, never the
daemon, and ending the child frees all its memory. Nothing in the child is worth saving, so it is
ended by SIGKILL: at once, and in every phase, even during an import or a load.
"""

import atexit
import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from picowatch.engine import child_main
from picowatch.engine.child_main import (
    FromEngine,
    Interrupt,
    MakeRenderer,
    Outcome,
    Ready,
    Render,
    Step,
    new_renderer,
)
from picowatch.engine.failures import explain_exit, last_words, no_threads
from picowatch.engine.memory import process_memory
from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import (
    EngineCannotStart,
    MemoryUse,
    OnPreview,
    OnStep,
    Preview,
    RenderedImage,
    resolve,
    unseen,
)
from picowatch.engine.versions import versions
from picowatch.errors import EngineDied, EngineStopped
from picowatch.recipe.request import ImageRequest
from picowatch.threads import start_thread

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


@dataclass(slots=True)
class _Batch:
    """One batch, and where its results go."""

    work: Render
    on_step: OnStep
    on_preview: OnPreview
    future: Future[list[RenderedImage]] = field(default_factory=Future)
    is_sent: bool = False
    is_interrupted: bool = False
    thread: threading.Thread = field(init=False)


class ChildEngine:
    """An Engine in a process of its own, started at the first render and after each death."""

    def __init__(self, options: EngineOptions, make_renderer: MakeRenderer = new_renderer) -> None:
        """`make_renderer` is called in the process."""
        self._options = options
        self._make_renderer = make_renderer
        self._lock = threading.Lock()
        self._process: _Process | None = None
        self._batch: _Batch | None = None  # the last one
        self._found = {"device": options.device, "precision": str(options.precision)}

    def render(
        self,
        batch: Sequence[ImageRequest],
        on_step: OnStep,
        on_preview: OnPreview = unseen,
        preview_seconds: float = 0,
    ) -> Future[list[RenderedImage]]:
        """Implement `Engine.render`: a thread for each batch says what becomes of it."""
        begun = _Batch(Render(tuple(batch), preview_seconds), on_step, on_preview)
        begun.future.set_running_or_notify_cancel()  # only `interrupt` ends it
        begun.thread = threading.Thread(
            target=self._render, args=(begun,), name="engine", daemon=True
        )
        with self._lock:
            if self._batch is not None and not self._batch.future.done():
                raise RuntimeError("one batch at a time")
            self._batch = begun
            try:
                start_thread(begun.thread)
            except OSError as error:
                resolve(begun.future, _cannot_start(error))
        return begun.future

    def prepare(self) -> None:
        """Implement `Engine.prepare`."""
        with self._lock, suppress(OSError):
            self._living()

    def describe(self) -> dict[str, str]:
        """Return device and precision as set, or as found with a picture; and versions."""
        return self._found | versions()

    def memory(self) -> MemoryUse | None:
        """Return a GPU's as of the last batch, else the computer's as of now."""
        process = self._process
        if process is None:
            return None
        return process.gpu_memory or process_memory(process.id)

    def interrupt(self) -> None:
        """Implement `Engine.interrupt`."""
        with self._lock:
            batch, process = self._batch, self._process
            if batch is None or process is None or batch.future.done():
                return
            if batch.is_sent and not batch.is_interrupted:
                batch.is_interrupted = True
                with suppress(OSError):  # it has just ended
                    process.connection.send(Interrupt())

    def close(self) -> None:
        """Implement `Engine.close`."""
        with self._lock:
            process, self._process = self._process, None
            batch = self._batch
            if batch is not None:
                resolve(batch.future, EngineStopped("The engine was closed."))
            if process is not None:
                process.kill()
        # `close` may be called from `on_step`, which runs in that very thread.
        if batch is not None and batch.thread is not threading.current_thread():
            with suppress(RuntimeError):  # it never began
                batch.thread.join(_END_SECONDS)
        if process is not None:
            process.close()

    @property
    def process_id(self) -> int | None:
        """The child's process id while it exists."""
        process = self._process
        return process.id if process is not None else None

    def _living(self) -> "_Process":
        """Return the process, or a new one; to be called with the lock. Raises OSError."""
        if self._process is not None and self._process.exit_code() is not None:
            self._process.close()
            self._process = None
        if self._process is None:
            self._process = _Process(self._options, self._make_renderer)
        return self._process

    # -- the thread of a batch

    def _render(self, batch: _Batch) -> None:
        process: _Process | None = None
        outcome: list[RenderedImage] | Exception
        try:
            with self._lock:
                if batch.future.done():  # by `close`
                    return
                process = self._living()
            outcome = self._outcome(process, batch)
        # Whatever goes wrong, the worker must not wait for its future forever.
        except Exception as error:
            if batch.future.done():
                return
            outcome = self._explained(error, process)
        if process is not None and isinstance(outcome, EngineDied):
            self._drop(process)
        elif isinstance(outcome, list):
            first = outcome[0]
            self._found = {"device": first.device, "precision": first.precision}
        resolve(batch.future, outcome)

    def _outcome(self, process: "_Process", batch: _Batch) -> Outcome:
        """Pass on what the process says of a batch until it has ended."""
        process.connection.send(batch.work)
        batch.is_sent = True
        while True:
            match process.message():
                case Ready():
                    process.is_ready = True
                case Step(done, total):
                    batch.on_step(done, total)
                case Preview() as preview:
                    batch.on_preview(preview)
                case MemoryUse() as memory:
                    process.gpu_memory = memory
                case outcome:
                    process.forget_words()
                    return outcome

    def _explained(self, error: Exception, process: "_Process | None") -> Exception:
        """Say why a batch ended without an outcome."""
        if process is None:
            return _cannot_start(error)
        if not isinstance(error, EOFError | OSError):
            return EngineDied(
                f"The engine sent something that is not a message: {error!r}.",
                "This is a bug in picowatch or in its libraries: please report it.",
            )
        words = ("The engine stopped answering and was ended.", "")
        if (status := process.wait()) is not None:
            said = process.words()
            if refused := no_threads(last_words(said)):
                return refused
            words = explain_exit(status, said)
        return (EngineDied if process.is_ready else EngineCannotStart)(*words)

    def _drop(self, process: "_Process") -> None:
        """End the process, if `close` does not."""
        with self._lock:
            if self._process is not process:
                return
            self._process = None
        process.close()


def _cannot_start(error: Exception) -> EngineCannotStart:
    return EngineCannotStart(f"The engine could not be started: {error}.")


class _Process:
    """A process of multiprocessing's, its pipe, and what it wrote to its standard error."""

    _start_lock = threading.Lock()  # the environment is the whole process'

    def __init__(self, options: EngineOptions, make_renderer: MakeRenderer) -> None:
        """Start it; raises OSError."""
        context = multiprocessing.get_context("spawn")
        self._words = tempfile.TemporaryFile("ab+", buffering=0)  # noqa: SIM115
        words = Connection(os.dup(self._words.fileno()))  # which multiprocessing hands on
        self.connection, theirs = context.Pipe()
        self._process = context.Process(
            target=child_main.main,
            args=(theirs, words, options, make_renderer),
            name="picowatch-engine",
            daemon=True,
        )
        try:
            with theirs, words, self._start_lock, _environment():
                self._process.start()
        except OSError:
            self._close_files()
            raise
        assert self._process.pid is not None
        self.id = self._process.pid
        self.is_ready = False
        self.gpu_memory: MemoryUse | None = None  # after its last batch
        # Before multiprocessing's own, which sends SIGTERM and waits.
        atexit.register(self.kill)

    def message(self) -> FromEngine:
        """Return the next message; raises EOFError once the process is gone.

        The pipe need not say so: a process that this one started may still hold it.
        """
        while not self.connection.poll(_CHECK_SECONDS):
            if self.exit_code() is not None and not self.connection.poll(0):
                raise EOFError
        message: FromEngine = self.connection.recv()
        return message

    def exit_code(self) -> int | None:
        """Return its exit code (negative: a signal), None while it runs."""
        return self._process.exitcode

    def wait(self) -> int | None:
        """Return its exit code once it has ended; None if it still runs after a while."""
        self._process.join(_END_SECONDS)
        return self._process.exitcode

    def kill(self) -> None:
        """End it and whatever it started, even if it ended before them."""
        try:
            os.killpg(self.id, signal.SIGKILL)
        # It has no group of its own yet; or (macOS) only a dead process is left.
        except (ProcessLookupError, PermissionError):
            self._process.kill()

    def words(self) -> list[str]:
        """Return the last lines that it wrote to its standard error."""
        self._words.seek(0)
        return self._words.read()[-_KEPT_BYTES:].decode(errors="replace").splitlines()

    def forget_words(self) -> None:
        """Keep the file small: libraries may write for months."""
        self._words.truncate(0)

    def close(self) -> None:
        """End it and give everything back."""
        self.kill()
        atexit.unregister(self.kill)
        self.wait()
        self._close_files()

    def _close_files(self) -> None:
        self.connection.close()
        self._words.close()


@contextmanager
def _environment() -> Iterator[None]:
    """Have a process that starts now begin with the engine's environment.

    multiprocessing has no argument for it, and some of it is read before any of our code runs:
    malloc's thresholds, and where Python imports from. Nothing else may start processes meanwhile
    with os.environ as it is: see `Hooks`.
    """
    before = dict(os.environ)
    ours = _DEFAULTS | before | _ENVIRONMENT
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
