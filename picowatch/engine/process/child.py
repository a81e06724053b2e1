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
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import NamedTuple

from picowatch.engine.memory.usage import process_memory
from picowatch.engine.options import EngineOptions
from picowatch.engine.process.command import ChildProcess, engine_process
from picowatch.engine.process.failures import explain_exit, last_words, no_threads
from picowatch.engine.process.wire import (
    Ended,
    Interrupt,
    Ready,
    Render,
    Reply,
    Step,
    StepsDone,
    ToEngine,
    flaw,
)
from picowatch.engine.protocol import (
    EngineCannotStart,
    MemoryUse,
    OnPreview,
    OnStep,
    PicturesToCome,
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
_REPORT_IT = "This is a bug in picowatch or in its libraries: please report it."


class Batch(NamedTuple):
    """One batch, and where its results go."""

    images: tuple[ImageRequest, ...]
    on_step: OnStep
    on_preview: OnPreview
    preview_seconds: float
    waiting: int
    future: PicturesToCome


class ChildEngine:
    """An Engine in a process of its own, started at the first render and after each death."""

    def __init__(
        self, options: EngineOptions, program: str = "", early: ChildProcess | None = None
    ) -> None:
        """`program` is the module whose `main` serves in the process, if not the engine's own.

        `early` is a process that waits for its first options; others are started when needed.
        """
        self._options = options
        self._program = program
        self._early = early
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._device = options.device
        self._precision: str = options.precision

    def render(
        self,
        batch: Sequence[ImageRequest],
        on_step: OnStep,
        waiting: int = 0,
        on_preview: OnPreview = unseen,
        preview_seconds: float = 0,
    ) -> PicturesToCome:
        """See `Engine.render`."""
        work = Batch(tuple(batch), on_step, on_preview, preview_seconds, waiting, PicturesToCome())
        with self._lock:
            future = self._living().submit(work)
        future.add_done_callback(self._keep_description)
        return future

    def prepare(self) -> None:
        """See `Engine.prepare`."""
        with self._lock:
            self._living().start()

    def describe(self) -> dict[str, str]:
        """Device and precision as set, or as found once a picture was rendered; versions."""
        return {"device": self._device, "precision": self._precision} | versions()

    def memory(self) -> MemoryUse | None:
        """A GPU's as of the last batch, else the computer's as of now."""
        child = self._child
        if child is None or child.process_id is None:
            return None
        return child.gpu_memory or process_memory(child.process_id)

    def interrupt(self) -> None:
        """See `Engine.interrupt`."""
        child = self._child
        if child is not None:
            child.interrupt()

    def close(self) -> None:
        """See `Engine.close`."""
        with self._lock:
            child, self._child = self._child, None
            early, self._early = self._early, None
        if child is not None:
            child.end()
        if early is not None:
            early.kill()
            early.wait()

    @property
    def process_id(self) -> int | None:
        """The child's process id while it exists."""
        child = self._child
        return child.process_id if child is not None else None

    def _living(self) -> "_Child":
        """The child, or a new one, not started yet."""
        if self._child is not None and not self._child.alive():
            self._child.end()
            self._child = None
        if self._child is None:
            self._child = _Child(self._options, self._program, self._early)
            self._early = None
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

    def __init__(self, options: EngineOptions, program: str, early: ChildProcess | None) -> None:
        self._options = options
        self._program = program
        self._early = early
        self._lock = threading.Lock()
        self._send_lock = threading.Lock()
        self._work: SimpleQueue[Batch | None] = SimpleQueue()
        self._current: PicturesToCome | None = None
        self._numbers = count()
        self._in_progress: dict[int, Batch] = {}  # by their numbers: two, while one is drawn
        self._process: ChildProcess | None = None
        self._ended = False
        self._failure: Exception | None = None  # why it is gone
        self._ready = False
        self.gpu_memory: MemoryUse | None = None  # after its last batch
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    @property
    def process_id(self) -> int | None:
        """None until the process was started."""
        return self._process.id if self._process is not None else None

    def alive(self) -> bool:
        """False once the process has ended, by whatever cause."""
        process = self._process
        return self._thread.is_alive() and (process is None or process.status() is None)

    def submit(self, work: Batch) -> PicturesToCome:
        """Queue a batch; the first one starts the process."""
        if self._current and not self._current.drawn.is_set():
            raise RuntimeError("one batch at a time")
        self._current = work.future
        with self._lock:
            if self._failure:
                resolve(work.future, self._failure)
                return work.future
            # The thread takes no batch from the queue before the one in progress has ended.
            number = self._begun(work) if self._in_progress else None
        if number is None:
            self._work.put(work)
            self.start()
        else:
            assert self._process is not None
            with suppress(OSError):  # the thread notices that the process is gone
                self._post(self._process.connection, number, work)
        return work.future

    def start(self) -> None:
        """Start the process, once."""
        if self._thread.ident is None:
            try:
                start_thread(self._thread)
            except OSError as error:
                self._fail_all(EngineCannotStart(f"The engine could not be started: {error}."))

    def interrupt(self) -> None:
        """Send the process a request to end the batch whose steps are made, if there is one."""
        with self._lock:
            going = [n for n, work in self._in_progress.items() if not work.future.drawn.is_set()]
        for number in going:
            assert self._process is not None
            with suppress(OSError):
                self._send(self._process.connection, Interrupt(number))

    def end(self) -> None:
        """Kill the process and wait for the thread; a batch in progress ends with EngineStopped."""
        with self._lock:
            self._ended = True
            if self._thread.is_alive():  # else its number may be another process' by now
                self._kill()
        self._work.put(None)
        # `close` may be called from `on_step`, which runs in that very thread.
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(_END_SECONDS)
        self._fail_all(EngineStopped("The engine was closed."))

    def _run(self) -> None:
        """The thread: serve until `end` is called or the process dies; then clean up."""
        failure: Exception = EngineStopped("The engine was closed.")
        try:
            self._serve()
        except (EOFError, OSError) as error:
            failure = self._why_it_ended(error)
        # Whatever else goes wrong, the worker must not wait for its future forever.
        except Exception as error:
            failure = error
        finally:
            self._clean_up()
            self._fail_all(failure)

    def _fail_all(self, failure: Exception) -> None:
        """Resolve what is not resolved yet."""
        with self._lock:
            self._failure = failure
            futures = [work.future for work in self._in_progress.values()]
        for future in filter(None, [*futures, self._current]):
            resolve(future, failure)

    def _serve(self) -> None:
        """Start the process and pass it one batch after the other."""
        connection = self._started().connection
        self._send(connection, self._options)
        while True:
            work = self._work.get()
            if work is None:
                return
            with self._lock:
                number = self._begun(work)
            self._post(connection, number, work)
            while self._in_progress:
                self._receive(connection)

    def _begun(self, work: Batch) -> int:
        """The number of a batch, which is in progress from now on."""
        number = next(self._numbers)
        self._in_progress[number] = work
        return number

    def _post(self, connection: Connection, number: int, work: Batch) -> None:
        self._send(connection, Render(number, work.images, work.waiting, work.preview_seconds))

    def _receive(self, connection: Connection) -> None:
        """Do what the process' next message means; raises what ends the process."""
        reply = self._message(connection)
        work = self._in_progress[reply.number]
        match reply.message:
            case Ready():
                self._ready = True
            case Step(done, total):
                work.on_step(done, total)
            case Preview() as preview:
                work.on_preview(preview)
            case StepsDone():
                work.future.drawn.set()
            case Ended(outcome, memory):
                self.gpu_memory = memory or self.gpu_memory
                if isinstance(outcome, EngineDied):
                    raise outcome
                if not isinstance(outcome, PicowatchError) and (
                    wrong := flaw(outcome, work.images)
                ):
                    raise EngineDied(wrong, _REPORT_IT)
                with self._lock:
                    del self._in_progress[reply.number]
                resolve(work.future, outcome)

    def _message(self, connection: Connection) -> Reply:
        """The next message about a batch in progress; EOFError once the process is gone.

        The socket need not say so: a process that the engine started may still hold it.
        """
        assert self._process is not None
        while not connection.poll(_CHECK_SECONDS):
            if self._process.status() is not None and not connection.poll(0):
                raise EOFError
        try:
            reply = connection.recv()
        except (EOFError, OSError):
            raise
        # Unpickling what is no message raises anything.
        except Exception as error:
            raise EngineDied(
                "The engine sent something that is not a message.", _REPORT_IT
            ) from error
        if not isinstance(reply, Reply) or reply.number not in self._in_progress:
            raise EngineDied("The engine answered a request that was not sent.", _REPORT_IT)
        return reply

    def _started(self) -> ChildProcess:
        """Start the process."""
        with self._lock:
            if self._ended:
                raise EOFError
            self._process = self._early or engine_process(self._program)
        return self._process

    def _send(self, connection: Connection, message: ToEngine) -> None:
        with self._send_lock:
            connection.send(message)

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def _why_it_ended(self, error: Exception) -> Exception:
        """Why the process no longer exists."""
        if self._ended:
            return EngineStopped("The engine was closed.")
        if self._process is None:
            return EngineCannotStart(f"The engine could not be started: {error}.")
        status = self._process.wait(_END_SECONDS)
        if status is None:
            return self._died("The engine stopped answering and was ended.")
        self._kill()
        self._process.stderr.wait(_END_SECONDS)
        stderr = self._process.stderr.lines()
        return no_threads(last_words(stderr)) or self._died(*explain_exit(status, stderr))

    def _died(self, message: str, remedy: str = "") -> EngineDied:
        return EngineDied(message, remedy) if self._ready else EngineCannotStart(message, remedy)

    def _clean_up(self) -> None:
        """Clean up the process, pipes and thread."""
        with self._lock:
            process = self._process
        if process is not None:
            process.kill()
            process.wait()
            process.stderr.wait(_END_SECONDS)
            with self._send_lock:
                process.connection.close()
