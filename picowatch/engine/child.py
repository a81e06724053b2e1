"""The daemon's side of the engine process. Imports no torch.

A native crash, a poisoned CUDA context or the kernel's OOM killer ends the child, never the
daemon, and ending the child frees all its memory. Nothing in the child is worth saving, so it is
ended by SIGKILL: at once, and in every phase, even during an import or a load.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from itertools import count
from queue import SimpleQueue
from typing import NamedTuple

from picowatch.engine.child_main import (
    Ended,
    Interrupt,
    MakeRenderer,
    Ready,
    Render,
    Step,
    ToEngine,
    new_renderer,
)
from picowatch.engine.child_process import END_SECONDS, REPORT_IT, EngineProcess
from picowatch.engine.failures import explain_exit, flaw, last_words, no_threads
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
from picowatch.errors import EngineDied, EngineStopped, PicowatchError
from picowatch.recipe.request import ImageRequest
from picowatch.threads import start_thread


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
        """Implement `Engine.render`."""
        future: Future[list[RenderedImage]] = Future()
        future.set_running_or_notify_cancel()  # only `interrupt` ends it
        future.add_done_callback(self._keep_description)
        with self._lock:
            work = Render(next(self._numbers), tuple(batch), preview_seconds)
            self._living().submit(_Batch(work, on_step, on_preview, future))
        return future

    def prepare(self) -> None:
        """Implement `Engine.prepare`."""
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
        """Implement `Engine.interrupt`."""
        child = self._child
        if child is not None:
            child.interrupt()

    def close(self) -> None:
        """Implement `Engine.close`."""
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
        self._process: EngineProcess | None = None
        self._is_closed = False
        self._failure: Exception | None = None  # why it is gone
        self._is_ready = False
        self.gpu_memory: MemoryUse | None = None  # after its last batch
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    @property
    def process_id(self) -> int | None:
        """The process id; None until the process was started, and after its end."""
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
            self._thread.join(END_SECONDS)
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

    def _started(self) -> EngineProcess:
        with self._lock:
            if self._is_closed:
                raise EOFError
            self._process = EngineProcess(self._options, self._make_renderer)
            return self._process

    def _serve(self, process: EngineProcess) -> None:
        """Pass the process one batch after the other; raises what ends it."""
        while (batch := self._queue.get()) is not None:
            self._send(process, batch.work)
            outcome = self._outcome(process, batch)
            process.forget_words()
            resolve(batch.future, outcome)

    def _outcome(
        self, process: EngineProcess, batch: _Batch
    ) -> list[RenderedImage] | PicowatchError:
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
                        raise EngineDied("The engine answered another request.", REPORT_IT)
                    self.gpu_memory = memory or self.gpu_memory
                    if isinstance(outcome, EngineDied):
                        raise outcome
                    if not isinstance(outcome, PicowatchError) and (
                        wrong := flaw(outcome, batch.work.batch)
                    ):
                        raise EngineDied(wrong, REPORT_IT)
                    return outcome

    def _send(self, process: EngineProcess, message: ToEngine) -> None:
        with self._send_lock:
            process.connection.send(message)

    def _why_it_ended(self, error: Exception) -> Exception:
        """Return why the process no longer exists."""
        if self._is_closed:
            return EngineStopped("The engine was closed.")
        if self._process is None:
            return EngineCannotStart(f"The engine could not be started: {error}.")
        status = self._process.wait(END_SECONDS)
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
