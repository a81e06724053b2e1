"""Engines in processes of their own, as the daemon sees them. Imports no torch.

A native crash, a broken CUDA context or the kernel's OOM killer ends the child, never the daemon,
and ending the child frees all its memory. Nothing in the child is worth saving, so it is ended by
SIGKILL: at once and in every phase, even during an import or a load.
"""

import atexit
import ctypes
import multiprocessing
import os
import signal
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection

from picowatch.engine import child_main
from picowatch.engine.failures import explain_exit
from picowatch.engine.memory import process_memory
from picowatch.engine.protocol import (
    Engine,
    EngineCannotStart,
    EngineOptions,
    Executor,
    FromEngine,
    MakeRenderer,
    MemoryUse,
    OnPreview,
    OnStep,
    Outcome,
    Ready,
    Render,
    RenderedImage,
    RgbPicture,
    Step,
    resolve,
    unseen,
)
from picowatch.errors import EngineDied, EngineStopped, RenderFailed
from picowatch.recipe.request import ImageRequest

_END_SECONDS = 1.5
_CHECK_SECONDS = 0.5  # between checks that a silent process still runs
_KEPT_BYTES = 16_384  # the end of what it wrote to its standard error


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch, with its callbacks and the future of its results."""

    work: Render
    on_step: OnStep
    on_preview: OnPreview
    future: Future[list[RenderedImage]] = field(default_factory=Future)


class RemoteEngine(ABC):
    """An Engine with a thread for each batch, which forwards the reports of another process.

    That process is a child of the daemon or an actor on a Ray cluster.
    """

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._batch: Batch | None = None  # the last one
        self._thread: threading.Thread | None = None  # … its thread
        self._reported: MemoryUse | None = None  # after it
        self._known = {"device": options.device, "precision": str(options.precision)}

    def render(
        self,
        batch: Sequence[ImageRequest],
        on_step: OnStep,
        on_preview: OnPreview = unseen,
        preview_seconds: float = 0,
    ) -> Future[list[RenderedImage]]:
        """Implement `Engine.render`."""
        begun = Batch(Render(tuple(batch), preview_seconds), on_step, on_preview)
        begun.future.set_running_or_notify_cancel()  # only `interrupt` ends it
        thread = threading.Thread(target=self._run, args=(begun,), name="engine", daemon=True)
        with self._lock:
            self._batch = begun
            thread.start()
            self._thread = thread
        return begun.future

    def describe(self) -> dict[str, str]:
        """Return device and precision as set, or as found with a picture."""
        return self._known

    def memory(self) -> MemoryUse | None:
        """Return the memory that was held after the last batch."""
        return self._reported

    @abstractmethod
    def _outcome(self, batch: Batch) -> Outcome:
        """Render a batch in its thread; an exception also ends the batch."""

    def _run(self, batch: Batch) -> None:
        try:
            resolve(batch.future, self._outcome(batch))
        except Exception as error:  # the worker must not wait for its future forever
            resolve(batch.future, error)

    def _pass_on(self, reports: Iterable[FromEngine], batch: Batch) -> Outcome:
        """Forward the reports of a batch, and return its outcome."""
        for report in reports:
            match report:
                case Ready():
                    pass
                case Step(done, total):
                    batch.on_step(done, total)
                case RgbPicture():
                    batch.on_preview(report)
                case MemoryUse():
                    self._reported = report
                case [first, *_]:
                    found = {"device": first.device, "precision": first.precision}
                    self._known = self._known | found  # another thread may read the old one
                    return report
                case _:
                    return report
        raise EOFError

    def _end_batch(self, why: Exception) -> None:
        """End the batch in progress, if there is one. The caller holds the lock."""
        if self._batch is not None:
            resolve(self._batch.future, why)

    def join(self, seconds: float) -> None:
        """Wait for the last batch's thread, unless called in it: `on_step` may call `close`."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(seconds)


class ChildEngine(RemoteEngine):
    """An Engine in a process of its own, started at the first render and after each death."""

    def __init__(
        self, options: EngineOptions, make_renderer: MakeRenderer = child_main.new_renderer
    ) -> None:
        """`make_renderer` is called in the process."""
        super().__init__(options)
        self._make_renderer = make_renderer
        self._process: _Process | None = None

    def memory(self) -> MemoryUse | None:
        """Return the GPU memory held after the last batch, or the main memory held now."""
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

    def _outcome(self, batch: Batch) -> Outcome:
        with self._lock:
            if batch.future.done():  # by `close`
                return EngineStopped("The engine was closed.")
            process = self._living()
        try:
            outcome = self._pass_on(process.reports(batch.work), batch)
        except Exception:  # its remaining reports must not reach the next batch
            self._drop(process)
            raise
        if isinstance(outcome, list | RenderFailed | EngineStopped):
            process.forget_words()
        else:
            self._drop(process)
        return outcome

    def start(self) -> None:
        """Start the process now; if that fails, the next render says so."""
        with self._lock, suppress(EngineCannotStart):
            self._living()

    def _living(self) -> "_Process":
        """Return the running process, or start a new one. The caller holds the lock."""
        if self._process is not None and self._process.exit_code() is not None:
            self._process.close()
            self._process = None
        if self._process is None:
            self._reported = None
            try:
                self._process = _Process(self._options, self._make_renderer)
            except OSError as error:
                raise EngineCannotStart(f"The engine could not be started: {error}.") from error
        return self._process

    def _drop(self, process: "_Process") -> None:
        """End the process, unless `close` does."""
        with self._lock:
            if self._process is not process:
                return
            self._process = None
        process.close()


def started_engine(options: EngineOptions) -> ChildEngine:
    """Return an engine; the first of several imports its libraries while the first save settles."""
    engine = ChildEngine(options)
    if options.ordinal == 0:
        engine.start()
    return engine


class _Process:
    """A multiprocessing process, its pipe, and the file of its standard error."""

    _one_at_a_time = threading.Lock()  # all threads of the daemon share the environment

    def __init__(self, options: EngineOptions, make_renderer: MakeRenderer) -> None:
        """Start the process. Raises OSError."""
        context = multiprocessing.get_context("spawn")
        self.interrupted = context.RawValue(ctypes.c_bool)
        with ExitStack() as files:
            self._words = files.enter_context(tempfile.TemporaryFile(buffering=0))
            words = Connection(os.dup(self._words.fileno()))  # multiprocessing can pass these on
            self._connection, theirs = context.Pipe()
            files.enter_context(self._connection)
            self._process = context.Process(
                target=child_main.main,
                args=(theirs, self.interrupted, words, options, make_renderer),
                name="picowatch-engine",
                daemon=True,
            )
            with theirs, words, self._one_at_a_time, child_main.surroundings():
                self._process.start()
            self._files = files.pop_all()
        assert self._process.pid is not None
        self.id = self._process.pid
        self._is_ready = False
        # Before multiprocessing's own, which sends SIGTERM and waits.
        atexit.register(self.kill)

    def reports(self, work: Render) -> Iterator[FromEngine]:
        """Have a batch rendered, and yield the process' reports. Raises EngineDied."""
        self.interrupted.value = False
        try:
            self._connection.send(work)
            while True:
                yield self._message()
        except (EOFError, OSError) as error:
            raise self._death() from error

    def exit_code(self) -> int | None:
        """Return the exit code (negative: a signal), None while the process runs."""
        return self._process.exitcode

    def kill(self) -> None:
        """End the process and those it started, even if it has ended already."""
        try:
            os.killpg(self.id, signal.SIGKILL)
        # It has no process group yet, or (macOS) only a dead process is left in it.
        except (ProcessLookupError, PermissionError):
            self._process.kill()

    def forget_words(self) -> None:
        """Empty the file of its standard error: libraries may write for months."""
        self._words.seek(0)  # for the process, too: both have the same open file
        self._words.truncate()

    def close(self) -> None:
        """End the process, and release its files."""
        self.kill()
        atexit.unregister(self.kill)
        self._process.join(_END_SECONDS)
        if self.exit_code() is not None:
            self._process.close()
        self._files.close()

    def _message(self) -> FromEngine:
        """Return the next message. Raises EOFError once the process is gone.

        The pipe may not close then, since a process that it started may still have it open.
        """
        while not self._connection.poll(_CHECK_SECONDS):
            if self.exit_code() is not None and not self._connection.poll(0):
                raise EOFError
        message: FromEngine = self._connection.recv()
        self._is_ready |= isinstance(message, Ready)
        return message

    def _death(self) -> EngineDied:
        """Return the error that says how the process ended."""
        self._process.join(_END_SECONDS)
        size = self._words.seek(0, os.SEEK_END)
        self._words.seek(max(0, size - _KEPT_BYTES))
        said = self._words.read().decode(errors="replace").splitlines()
        kind = EngineDied if self._is_ready else EngineCannotStart
        return kind(*explain_exit(self.exit_code(), said))


class LocalEngines(Executor):
    """The Executor of this machine: a fixed number of engines."""

    def __init__(
        self,
        options: EngineOptions,
        engines: int = 1,
        make_engine: Callable[[EngineOptions], Engine] = ChildEngine,
    ) -> None:
        self._engines = tuple(
            make_engine(replace(options, ordinal=ordinal, engines=engines))
            for ordinal in range(engines)
        )

    def engines(self) -> Sequence[Engine]:
        """Implement `Executor.engines`."""
        return self._engines

    def close(self) -> None:
        """Close all engines at once, since each may take a second to end."""
        with ThreadPoolExecutor(len(self._engines)) as pool:
            list(pool.map(lambda engine: engine.close(), self._engines))
