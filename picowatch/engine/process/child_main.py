"""The engine process: takes batches from the daemon, replies with pictures.

It ends when the daemon does, however that ends: the socket reports its end, and on Linux the
kernel kills it besides, which works even while native code holds Python's lock.
"""

import ctypes
import gc
import os
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from typing import Protocol, runtime_checkable

from picowatch.engine.memory.usage import broken_gpu, gpu_memory
from picowatch.engine.options import EngineOptions
from picowatch.engine.process.failures import explain_error, out_of_memory
from picowatch.engine.process.wire import (
    Ended,
    FromEngine,
    Interrupt,
    Ready,
    Render,
    Reply,
    Step,
    StepsDone,
)
from picowatch.engine.protocol import (
    EngineCannotStart,
    MemoryUse,
    OnPreview,
    OnStep,
    RenderedImage,
)
from picowatch.errors import EngineDied, EngineStopped, PicowatchError, RenderFailed
from picowatch.signals import ignore_signals

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_POLL_SECONDS = 0.002  # between looks at pictures that are on their way


class BatchRenderer(Protocol):
    """What renders the batches in this process."""

    def begin(
        self, work: Render, on_step: OnStep, interrupted: Callable[[], bool]
    ) -> "list[RenderedImage] | Unfinished":
        """The batch's pictures; raises EngineStopped, RenderFailed or whatever goes wrong."""
        ...


@runtime_checkable
class Unfinished(Protocol):
    """A batch whose pictures are on their way from a GPU, while another one is rendered."""

    def has_come(self) -> bool:
        """Whether `images` would not wait."""
        ...

    def images(self) -> list[RenderedImage]:
        """They; raises what `begin` may raise."""
        ...


MakeRenderer = Callable[[EngineOptions, OnPreview], BatchRenderer]


def _renderer(options: EngineOptions, on_preview: OnPreview) -> BatchRenderer:
    # Here, so that a torch that cannot be imported is an answer, too.
    return import_renderer()(options, on_preview)


def import_renderer() -> MakeRenderer:
    """What makes the renderer, imported with no more than it needs."""
    # Nearly all that an import creates stays: to search it for garbage again and again takes a
    # quarter of the import, and a quarter of a second each time later on.
    gc.disable()
    try:
        from picowatch.engine.imports import postponed_packages

        with postponed_packages():
            from picowatch.engine.renderer import Renderer
    finally:
        gc.freeze()
        gc.enable()
    return Renderer


def main(handle: int, make_renderer: MakeRenderer = _renderer) -> None:
    """Serve the daemon at the other end of the socket until it closes it."""
    _ignore_signals_but_end_with_the_daemon()
    connection = Connection(handle)
    if make_renderer is _renderer and not connection.poll(0):  # it was started early
        with suppress(Exception):  # the first batch tries again, and says what is wrong
            import_renderer()
    options = connection.recv()
    assert isinstance(options, EngineOptions)
    batches: SimpleQueue[Render] = SimpleQueue()
    interrupted: set[int] = set()
    threading.Thread(target=_receive, args=(connection, batches, interrupted), daemon=True).start()
    replies = _Replies(connection)
    _Server(
        replies,
        lambda: make_renderer(options, replies.send),
        batches,
        interrupted.__contains__,
    ).serve()


def _ignore_signals_but_end_with_the_daemon() -> None:
    """Ctrl-C, a service manager's SIGTERM and others reach all processes; the daemon decides."""
    ignore_signals()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _receive(connection: Connection, batches: SimpleQueue[Render], interrupted: set[int]) -> None:
    """Pass on the daemon's messages; end the process when the daemon is gone."""
    try:
        while True:
            message = connection.recv()
            if isinstance(message, Render):
                batches.put(message)
            elif isinstance(message, Interrupt):
                interrupted.add(message.number)
    except (EOFError, OSError):
        os._exit(0)


class _Replies:
    """Sends the daemon messages about the batch in progress."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.number = 0

    def send(self, message: FromEngine, number: int | None = None) -> None:
        """About the batch of that number; without one, the one that is rendered."""
        self._connection.send(Reply(self.number if number is None else number, message))


class _Server:
    """Renders batches, and sends the pictures of one that was drawn beside the next one's steps."""

    def __init__(
        self,
        replies: _Replies,
        make_renderer: Callable[[], BatchRenderer],
        batches: SimpleQueue[Render],
        interrupted: Callable[[int], bool],
    ) -> None:
        """`interrupted` says whether the batch of a number is to end."""
        self._replies = replies
        self._make_renderer = make_renderer
        self._batches = batches
        self._interrupted = interrupted
        self._renderer: BatchRenderer | None = None
        with suppress(Exception):  # the first batch tries again, and says what is wrong
            self._renderer = make_renderer()
        self._is_ready = False
        self._drawn: tuple[Render, Unfinished] | None = None
        self._alone: deque[Render] = deque()  # could not be finished beside another batch

    def serve(self) -> None:
        """Render one batch after the other; an exception is an answer, and ends no process."""
        while True:
            self.render_next()

    def render_next(self) -> None:
        """Render the next batch, once it comes."""
        work = self._next()
        self._replies.number = work.number
        memory = None
        outcome: list[RenderedImage] | PicowatchError
        try:
            result = self._result(work)
        except Exception as error:
            outcome = _explained(error)
        else:
            self._send_drawn(wait=True)  # before this one takes its place
            if isinstance(result, Unfinished):
                self._drawn = work, result
                self._replies.send(StepsDone())
                return
            outcome = result
            memory = gpu_memory()  # not after a failure: a GPU that gave up raises here
        if not self._is_ready and isinstance(outcome, RenderFailed | EngineDied):
            trace = getattr(outcome, "trace", "")
            outcome = EngineCannotStart(outcome.message, outcome.remedy, trace)
        if not isinstance(outcome, EngineDied):
            self._send_drawn(wait=True)
        self._end(work, outcome, memory)

    def _next(self) -> Render:
        """The next batch; meanwhile pictures that come are sent.

        What could not be finished comes first: others may come for hours.
        """
        while self._drawn and not self._alone:
            with suppress(Empty):
                return self._batches.get(timeout=_POLL_SECONDS)
            self._send_drawn()
        return self._alone.popleft() if self._alone else self._batches.get()

    def _result(self, work: Render) -> list[RenderedImage] | Unfinished:
        self._renderer = self._renderer or self._make_renderer()
        if not self._is_ready:
            self._is_ready = True
            self._replies.send(Ready())
        return self._renderer.begin(work, self._step, lambda: self._interrupted(work.number))

    def _step(self, done: int, total: int) -> None:
        self._replies.send(Step(done, total))
        self._send_drawn()

    def _send_drawn(self, *, wait: bool = False) -> None:
        """Send the pictures of the batch that was drawn, if there is one and they have come."""
        if self._drawn is None or not (wait or self._has_come(self._drawn[1])):
            return
        (work, unfinished), self._drawn = self._drawn, None
        memory = None
        outcome: list[RenderedImage] | PicowatchError
        try:
            outcome = unfinished.images()
            memory = gpu_memory()
        except Exception as error:
            if out_of_memory(error) and not broken_gpu():
                self._alone.append(replace(work, waiting=0))
                return
            outcome = _explained(error)
        self._end(work, outcome, memory)

    def _has_come(self, unfinished: Unfinished) -> bool:
        """Whether its pictures have come, or what went wrong has."""
        try:
            return unfinished.has_come()
        # A GPU that broke says so here; `images` says it for the batch that it belongs to.
        except Exception:
            return True

    def _end(
        self,
        work: Render,
        outcome: list[RenderedImage] | PicowatchError,
        memory: MemoryUse | None,
    ) -> None:
        self._replies.send(Ended(outcome, memory), work.number)
        if isinstance(outcome, EngineDied):
            sys.exit(1)


def _explained(error: Exception) -> PicowatchError:
    """What a batch ends with: no single one may take the engine down."""
    if isinstance(error, EngineStopped):
        return error
    if isinstance(error, RenderFailed):
        return RenderFailed(error.message, error.remedy, traceback.format_exc())
    return explain_error(error, traceback.format_exc(), broken_gpu())
