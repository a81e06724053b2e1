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
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Protocol

from picowatch.engine.memory.usage import broken_gpu, gpu_memory
from picowatch.engine.options import EngineOptions
from picowatch.engine.process.failures import explain_error
from picowatch.engine.process.wire import Ended, FromEngine, Interrupt, Ready, Render, Reply, Step
from picowatch.engine.protocol import EngineCannotStart, OnPreview, OnStep, Preview, RenderedImage
from picowatch.errors import EngineDied, EngineStopped, PicowatchError, RenderFailed
from picowatch.recipe.request import ImageRequest
from picowatch.signals import ENDING

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class BatchRenderer(Protocol):
    """What renders the batches in this process."""

    def render(
        self,
        batch: Sequence[ImageRequest],
        on_step: OnStep,
        interrupted: Callable[[], bool],
        waiting: int,
    ) -> list[RenderedImage]:
        """The batch's pictures; raises EngineStopped, RenderFailed or whatever goes wrong."""
        ...


MakeRenderer = Callable[[EngineOptions, OnPreview], BatchRenderer]


def _renderer(options: EngineOptions, on_preview: OnPreview) -> BatchRenderer:
    # Nearly all that an import creates stays: to search it for garbage again and again takes a
    # quarter of the import, and a quarter of a second each time later on.
    gc.disable()
    try:
        # Here, so that a torch that cannot be imported is an answer, too.
        from picowatch.engine.renderer import Renderer
    finally:
        gc.freeze()
        gc.enable()
    return Renderer(options, on_preview)


def main(handle: int, make_renderer: MakeRenderer = _renderer) -> None:
    """Serve the daemon at the other end of the socket until it closes it."""
    _ignore_signals_but_end_with_the_daemon()
    connection = Connection(handle)
    options = connection.recv()
    assert isinstance(options, EngineOptions)
    batches: SimpleQueue[Render] = SimpleQueue()
    interrupted = threading.Event()
    threading.Thread(target=_receive, args=(connection, batches, interrupted), daemon=True).start()
    replies = _Replies(connection)
    _serve(replies, lambda: make_renderer(options, replies.preview), batches, interrupted.is_set)


def _ignore_signals_but_end_with_the_daemon() -> None:
    """Ctrl-C, a service manager's SIGTERM and others reach all processes; the daemon decides."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _receive(
    connection: Connection, batches: SimpleQueue[Render], interrupted: threading.Event
) -> None:
    """Pass on the daemon's messages; end the process when the daemon is gone."""
    try:
        while True:
            message = connection.recv()
            if isinstance(message, Render):
                interrupted.clear()
                batches.put(message)
            elif isinstance(message, Interrupt):
                interrupted.set()
    except (EOFError, OSError):
        os._exit(0)


class _Replies:
    """Sends the daemon messages about the batch in progress."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.number = 0

    def send(self, message: FromEngine) -> None:
        self._connection.send(Reply(self.number, message))

    def step(self, done: int, total: int) -> None:
        self.send(Step(done, total))

    def preview(self, preview: Preview) -> None:
        self.send(preview)


def _serve(
    replies: _Replies,
    make_renderer: Callable[[], BatchRenderer],
    batches: SimpleQueue[Render],
    interrupted: Callable[[], bool],
) -> None:
    """Render one batch after the other; an exception is an answer and does not end the process."""
    renderer: BatchRenderer | None = None
    with suppress(Exception):  # the first batch tries again, and says what is wrong
        renderer = make_renderer()
    is_ready = False
    while True:
        work = batches.get()
        replies.number = work.number
        outcome: list[RenderedImage] | PicowatchError
        memory = None
        try:
            renderer = renderer or make_renderer()
            if not is_ready:
                is_ready = True
                replies.send(Ready())
            outcome = renderer.render(work.batch, replies.step, interrupted, work.waiting)
            memory = gpu_memory()  # not after a failure: a GPU that gave up raises here
        except EngineStopped as stopped:
            outcome = stopped
        except RenderFailed as failed:
            outcome = RenderFailed(failed.message, failed.remedy, traceback.format_exc())
        # No single batch may take the engine down.
        except Exception as error:
            outcome = explain_error(error, traceback.format_exc(), broken_gpu())
        if not is_ready and isinstance(outcome, RenderFailed | EngineDied):
            trace = getattr(outcome, "trace", "")
            outcome = EngineCannotStart(outcome.message, outcome.remedy, trace)
        replies.send(Ended(outcome, memory))
        if isinstance(outcome, EngineDied):
            sys.exit(1)
