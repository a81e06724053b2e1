"""The daemon's side of the engine process. Imports no torch.

A native crash, a poisoned CUDA context or the kernel's OOM killer ends the child, never the
daemon, and ending the child frees all its memory. Nothing in the child is worth saving, so it is
ended by SIGKILL: at once, and in every phase, even during an import or a load.
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
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from itertools import count
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import NamedTuple

from picowatch.engine import child_main
from picowatch.engine.child_main import (
    Ended,
    FromEngine,
    Interrupt,
    MakeRenderer,
    Ready,
    Render,
    Step,
    ToEngine,
    new_renderer,
)
from picowatch.engine.failures import explain_exit, flaw, last_words, no_threads
from picowatch.engine.memory.usage import process_memory
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
from picowatch.errors import EngineDied, EngineStopped, PicowatchError
from picowatch.recipe.request import ImageRequest
from picowatch.threads import start_thread

_END_SECONDS = 1.5
_CHECK_SECONDS = 0.5  # between checks whether a silent process is still there
_POLL_SECONDS = 0.005  # … whether one that was killed has ended
_KEPT_BYTES = 16_384  # of its last words
_REPORT_IT = "This is a bug in picowatch or in its libraries: please report it."

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


class _Batch(NamedTuple):
    """One batch, and where its results go."""

    work: Render
    on_step: OnStep
    on_preview: OnPreview
    future: Future[list[RenderedImage]]


class ChildEngine:
    """An Engine in a process of its own, started at the first render and after each death."""

    def __init__(self, options: EngineOptions, make_renderer: MakeRenderer = new_renderer) -> None:
        """`make_renderer` is called in the process."""
        self._options = options
        self._make_renderer = make_renderer
        self._lock = threading.Lock()
        self._numbers = count()
        self._child: _Child | None = None
        self._device = options.device
        self._precision: str = options.precision

    def render(
        self,
        batch: Sequence[ImageRequest],
        on_step: OnStep,
        on_preview: OnPreview = unseen,
        preview_seconds: float = 0,
    ) -> Future[list[RenderedImage]]:
        """See `Engine.render`."""
        future: Future[list[RenderedImage]] = Future()
        future.set_running_or_notify_cancel()  # only `interrupt` ends it
        future.add_done_callback(self._keep_description)
        with self._lock:
            work = Render(next(self._numbers), tuple(batch), preview_seconds)
            self._living().submit(_Batch(work, on_step, on_preview, future))
        return future

    def prepare(self) -> None:
        """See `Engine.prepare`."""
        with self._lock:
            self._living().start()

    def describe(self) -> dict[str, str]:
        """Return device and precision as set, or as found with a picture; and versions."""
        return {"device": self._device, "precision": self._precision} | versions()

    def memory(self) -> MemoryUse | None:
        """Return a GPU's as of the last batch, else the computer's as of now."""
        child = self._child
        if child is None or (process_id := child.process_id) is None:
            return None
        return child.gpu_memory or process_memory(process_id)

    def interrupt(self) -> None:
        """See `Engine.interrupt`."""
        child = self._child
        if child is not None:
            child.interrupt()

    def close(self) -> None:
        """See `Engine.close`."""
        with self._lock:
            child, self._child = self._child, None
        if child is not None:
            child.end()

    @property
    def process_id(self) -> int | None:
        """The child's process id while it exists."""
        child = self._child
        return child.process_id if child is not None else None

    def _living(self) -> "_Child":
        """Return the child, or a new one, not started yet."""
        if self._child is not None and not self._child.alive():
            self._child.end()
            self._child = None
        if self._child is None:
            self._child = _Child(self._options, self._make_renderer)
        return self._child

    def _keep_description(self, future: Future[list[RenderedImage]]) -> None:
        if future.exception() is None:
            self._device = future.result()[0].device
            self._precision = future.result()[0].precision


class _Child:
    """One process, and the thread that starts it, communicates with it and cleans up after it.

    The thread lives as long as the process: Linux ends a child with PR_SET_PDEATHSIG when the
    thread that forked it ends, not when the process does (man 2 prctl).
    """

    def __init__(self, options: EngineOptions, make_renderer: MakeRenderer) -> None:
        self._options = options
        self._make_renderer = make_renderer
        self._lock = threading.Lock()
        self._send_lock = threading.Lock()
        self._queue: SimpleQueue[_Batch | None] = SimpleQueue()
        self._batch: _Batch | None = None  # the last one
        self._process: _Process | None = None
        self._is_closed = False
        self._failure: Exception | None = None  # why it is gone
        self._is_ready = False
        self.gpu_memory: MemoryUse | None = None  # after its last batch
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    @property
    def process_id(self) -> int | None:
        """None until the process was started, and after its end."""
        process = self._process
        return process.id if process is not None else None

    def alive(self) -> bool:
        """Return False once the process has ended, by whatever cause."""
        process = self._process
        return self._thread.is_alive() and (process is None or process.status() is None)

    def submit(self, batch: _Batch) -> None:
        """Queue a batch; the first one starts the process."""
        with self._lock:
            if self._batch is not None and not self._batch.future.done():
                raise RuntimeError("one batch at a time")
            self._batch, failure = batch, self._failure
        if failure:
            resolve(batch.future, failure)
        else:
            self._queue.put(batch)
            self.start()

    def start(self) -> None:
        """Start the process, once."""
        if self._thread.ident is None:
            try:
                start_thread(self._thread)
            except OSError as error:
                self._fail(EngineCannotStart(f"The engine could not be started: {error}."))

    def interrupt(self) -> None:
        """Ask the process to end the batch in progress, if there is one."""
        with self._lock:
            batch, process = self._batch, self._process
        if batch is not None and process is not None and not batch.future.done():
            with suppress(OSError):  # it has just ended
                self._send(process, Interrupt(batch.work.number))

    def end(self) -> None:
        """Kill the process and wait for the thread; a batch in progress ends with EngineStopped."""
        with self._lock:
            self._is_closed = True
            if self._process is not None:
                self._process.kill()
        self._queue.put(None)
        # `close` may be called from `on_step`, which runs in that very thread.
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(_END_SECONDS)
        self._fail(EngineStopped("The engine was closed."))

    def _fail(self, failure: Exception) -> None:
        """Take no more batches; the one in progress ends with this."""
        with self._lock:
            self._failure = self._failure or failure
            batch = self._batch
        if batch is not None:
            resolve(batch.future, failure)

    # -- the thread

    def _run(self) -> None:
        """Serve until `end` is called or the process dies; then clean up."""
        failure: Exception = EngineStopped("The engine was closed.")
        try:
            self._serve(self._started())
        except (EOFError, OSError) as error:
            failure = self._why_it_ended(error)
        # Whatever else goes wrong, the worker must not wait for its future forever.
        except Exception as error:
            failure = error
        finally:
            self._clean_up()
            self._fail(failure)

    def _started(self) -> "_Process":
        with self._lock:
            if self._is_closed:
                raise EOFError
            self._process = _Process(self._options, self._make_renderer)
            return self._process

    def _serve(self, process: "_Process") -> None:
        """Pass the process one batch after the other; raises what ends it."""
        while (batch := self._queue.get()) is not None:
            self._send(process, batch.work)
            outcome = self._outcome(process, batch)
            process.forget_words()
            resolve(batch.future, outcome)

    def _outcome(self, process: "_Process", batch: _Batch) -> list[RenderedImage] | PicowatchError:
        """Pass on what the process says of a batch until it has ended."""
        while True:
            match process.message():
                case Ready():
                    self._is_ready = True
                case Step(done, total):
                    batch.on_step(done, total)
                case Preview() as preview:
                    batch.on_preview(preview)
                case Ended(number, outcome, memory):
                    if number != batch.work.number:  # no picture goes to another batch
                        raise EngineDied("The engine answered another request.", _REPORT_IT)
                    self.gpu_memory = memory or self.gpu_memory
                    if isinstance(outcome, EngineDied):
                        raise outcome
                    if not isinstance(outcome, PicowatchError) and (
                        wrong := flaw(outcome, batch.work.batch)
                    ):
                        raise EngineDied(wrong, _REPORT_IT)
                    return outcome

    def _send(self, process: "_Process", message: ToEngine) -> None:
        with self._send_lock:
            process.connection.send(message)

    def _why_it_ended(self, error: Exception) -> Exception:
        """Return why the process no longer exists."""
        if self._is_closed:
            return EngineStopped("The engine was closed.")
        if self._process is None:
            return EngineCannotStart(f"The engine could not be started: {error}.")
        status = self._process.wait(_END_SECONDS)
        if status is None:
            return self._died("The engine stopped answering and was ended.")
        words = self._process.words()
        return no_threads(last_words(words)) or self._died(*explain_exit(status, words))

    def _died(self, message: str, remedy: str = "") -> EngineDied:
        return EngineDied(message, remedy) if self._is_ready else EngineCannotStart(message, remedy)

    def _clean_up(self) -> None:
        with self._lock, self._send_lock:
            process, self._process = self._process, None
            if process is not None:
                process.close()


class _Process:
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
            with theirs, words, self._one_at_a_time, _environment():
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
                "The engine sent something that is not a message.", _REPORT_IT
            ) from error
        if not isinstance(message, FromEngine):
            raise EngineDied("The engine sent something that is not a message.", _REPORT_IT)
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
        if self.wait(_END_SECONDS) is not None:
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
