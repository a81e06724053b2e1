"""Engines in processes of their own, as the daemon sees them. Imports no torch.

A native crash, a broken CUDA context or the kernel's OOM killer ends the child, never the daemon,
and ending the child frees all its memory. Nothing in the child is worth saving, so it is ended by
SIGKILL: at once and in every phase, even during an import or a load.
"""

import atexit
import ctypes
import logging
import multiprocessing
import os
import signal
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue

from picowatch.engine import protocol
from picowatch.engine.failures import explain_exit
from picowatch.engine.process import child_main
from picowatch.errors import EngineDied, EngineStopped, PicowatchError, RenderFailed
from picowatch.recipe.request import ImageRequest

log = logging.getLogger("picowatch")

_END_SECONDS = 1.5
CHECK_SECONDS = 0.25  # between checks that a silent engine still runs and is still needed
MOST_COPY_ENGINES = 8  # an engine per core; each may hold a picture of hundreds of megabytes
_KEPT_BYTES = 16_384  # the end of what it wrote to its standard error


class RemoteEngine(protocol.Engine, ABC):
    """An Engine in another process: a child of the daemon, or an actor on a Ray cluster."""

    def render(
        self,
        batch: Sequence[ImageRequest],
        on_progress: protocol.OnProgress,
        on_preview: protocol.OnPreview = protocol.unseen,
        look: protocol.Look = protocol.go_on,
    ) -> list[protocol.RenderedImage]:
        images: list[protocol.RenderedImage] = []
        with closing(self.reports(tuple(batch))) as reports:
            for report in reports:
                match report:
                    case protocol.Progress():
                        on_progress(report)
                    case str():
                        log.debug("%s", report)
                    case protocol.RgbPicture():
                        on_preview(report)
                    case protocol.RenderedImage():
                        images.append(report)
                    case protocol.Finished():
                        return images
                    case PicowatchError():
                        raise report
                if look():
                    self.interrupt()
        raise EOFError  # never: the last report is an outcome

    @abstractmethod
    def interrupt(self) -> None:
        """End the batch in progress, if any, at its next step."""

    @abstractmethod
    def reports(self, batch: protocol.Batch) -> Generator[protocol.FromEngine | None, None, None]:
        """Have a batch rendered, and yield the engine's reports, its outcome last.

        None comes after each CHECK_SECONDS without a report. Without an outcome, the engine is
        closed: what is still reported must not reach the next batch.
        """


@dataclass(eq=False)
class ChildEngine(RemoteEngine):
    """An Engine in a process of its own, started at the first render and after each death."""

    options: protocol.EngineOptions
    make_renderer: protocol.MakeRenderer = child_main.new_renderer
    _process: "_Process | None" = field(default=None, init=False)

    def interrupt(self) -> None:
        if (process := self._process) is not None:
            process.interrupted.value = True

    def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.close()

    @property
    def process_id(self) -> int | None:
        process = self._process
        return process.id if process is not None else None

    def start(self) -> "_Process":
        """Start the process, unless it runs. Raises OSError."""
        if self._process is not None and self._process.child.exitcode is not None:
            self.close()
        if self._process is None:
            self._process = _Process(self.options, self.make_renderer)
        return self._process

    def reports(self, batch: protocol.Batch) -> Generator[protocol.FromEngine | None, None, None]:
        """Implement `RemoteEngine.reports`; after EngineDied, too, the process is ended."""
        report = None
        try:
            for report in self.start().reports(batch):
                yield report
        except OSError as error:
            yield protocol.EngineCannotStart(f"The engine could not be started: {error}.")
        finally:
            if not isinstance(report, protocol.Finished | RenderFailed | EngineStopped):
                self.close()


def started_engine(options: protocol.EngineOptions) -> ChildEngine:
    """Return an engine; the first of several imports its libraries while the first save settles."""
    engine = ChildEngine(options)
    if options.ordinal == 0:
        with suppress(OSError):  # the first batch says so
            engine.start()
    return engine


class _Process:
    """A multiprocessing process, its pipe, and the file of its standard error."""

    _one_at_a_time = threading.Lock()  # all threads of the daemon share the environment

    def __init__(
        self, options: protocol.EngineOptions, make_renderer: protocol.MakeRenderer
    ) -> None:
        """Start the process. Raises OSError."""
        context = multiprocessing.get_context("spawn")
        self.interrupted = context.RawValue(ctypes.c_bool)
        with ExitStack() as files:
            self._words = files.enter_context(tempfile.TemporaryFile(buffering=0))
            words = Connection(os.dup(self._words.fileno()))  # multiprocessing can pass these on
            self._connection, theirs = context.Pipe()
            files.enter_context(self._connection)
            self.child = context.Process(
                target=child_main.main,
                args=(theirs, self.interrupted, words, options, make_renderer),
                name="picowatch-engine",
                daemon=True,
            )
            with theirs, words, self._one_at_a_time, child_main.surroundings():
                self.child.start()
            self._files = files.pop_all()
        assert self.child.pid is not None
        self.id = self.child.pid
        self._is_ready = False
        self._messages = SimpleQueue[protocol.FromEngine | None]()  # None: there was an error
        self._error: Exception = EOFError()
        # They send and receive, since the process may be stopped in the middle of a message.
        self._threads = [_begun(self._receive)]
        # Before multiprocessing's own, which sends SIGTERM and waits.
        atexit.register(self.kill)

    def reports(self, batch: protocol.Batch) -> Iterator[protocol.FromEngine | None]:
        """Have a batch rendered, and yield the process' reports, or at its end the EngineDied."""
        try:
            while not self._is_ready:  # what it says until then may explain its end
                yield self._message()
            # Libraries may write for months; the process has the same open file.
            self._words.seek(0)
            self._words.truncate()
            self.interrupted.value = False
            self._threads[1:] = [_begun(self._send, batch)]
            while True:
                yield self._message()
        except (EOFError, OSError):
            self.child.join(_END_SECONDS)
            size = self._words.seek(0, os.SEEK_END)
            self._words.seek(max(0, size - _KEPT_BYTES))
            said = self._words.read().decode(errors="replace").splitlines()
            kind = EngineDied if self._is_ready else protocol.EngineCannotStart
            yield kind(*explain_exit(self.child.exitcode, said))

    def kill(self) -> None:
        """End the process and those it started, even if it has ended already."""
        try:
            os.killpg(self.id, signal.SIGKILL)
        # It has no process group yet, or (macOS) only a dead process is left in it.
        except (ProcessLookupError, PermissionError):
            self.child.kill()

    def close(self) -> None:
        self.kill()
        atexit.unregister(self.kill)
        self.child.join(_END_SECONDS)
        if self.child.exitcode is not None:
            self.child.close()
        for thread in self._threads:
            thread.join(_END_SECONDS)
        self._files.close()

    def _message(self) -> protocol.FromEngine | None:
        """Return the next message, None if none came. Raises EOFError once the process is gone."""
        # The pipe may not close then: a process that it started may still have it open.
        has_ended = self.child.exitcode is not None
        try:
            message = self._messages.get(timeout=CHECK_SECONDS)
        except Empty:
            if has_ended:
                raise EOFError from None
            return None
        if message is None:
            raise self._error
        self._is_ready |= isinstance(message, protocol.Ready)
        return message

    def _send(self, batch: protocol.Batch) -> None:
        # It has ended, as the messages will say; TypeError: after the pipe was closed.
        with suppress(OSError, TypeError):
            self._connection.send(batch)

    def _receive(self) -> None:
        try:
            while True:
                message: protocol.FromEngine = self._connection.recv()
                if isinstance(message, protocol.RenderedImage):
                    pixels, alpha, low = (self._connection.recv_bytes() for _ in range(3))
                    message = replace(message, pixels=pixels, alpha=alpha, low=low)
                self._messages.put(message)
        except Exception as error:  # of unpickling, too
            self._error = error
            self._messages.put(None)


def _begun(work: Callable[..., None], *given: object) -> threading.Thread:
    thread = threading.Thread(target=work, args=given, name="engine", daemon=True)
    thread.start()
    return thread


class LocalEngines(protocol.Executor):
    """The Executor of this machine: a fixed number of engines."""

    def __init__(self, engines: Iterable[protocol.Engine]) -> None:
        self._engines = [*engines]

    def engines(self) -> Sequence[protocol.Engine]:
        return tuple(self._engines)

    def close(self) -> None:
        """Close all engines at once, since each may take a second to end."""
        with ThreadPoolExecutor(max(1, len(self._engines))) as pool:
            list(pool.map(lambda engine: engine.close(), self._engines))


class CopyEngines(LocalEngines):
    """Processes for copies, as many as wanted, without torch; what harms one harms no other."""

    def __init__(self, options: protocol.EngineOptions) -> None:
        super().__init__(())
        self._options = options

    def engines(self) -> Sequence[protocol.Engine]:
        most = min(MOST_COPY_ENGINES, os.cpu_count() or 1)
        while len(self._engines) < min(self.wanted, most):
            self._engines.append(ChildEngine(self._options, child_main.new_copy_renderer))
        return tuple(self._engines)
