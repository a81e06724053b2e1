"""The engine process: takes batches from the daemon, answers with pictures.

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

from picowatch.engine.memory.usage import gpu_memory
from picowatch.engine.options import EngineOptions
from picowatch.engine.process.wire import (
    Broken,
    Done,
    Failed,
    FromEngine,
    Interrupt,
    Interrupted,
    Ready,
    Render,
    Reply,
    Start,
    Step,
)
from picowatch.engine.protocol import OnPreview, OnStep, Preview, RenderedImage
from picowatch.errors import EngineStopped, RenderFailed
from picowatch.recipe.request import ImageRequest
from picowatch.signals import ENDING

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Maker(Protocol):
    """What makes the pictures in this process."""

    def make(
        self,
        batch: Sequence[ImageRequest],
        on_step: OnStep,
        interrupted: Callable[[], bool],
        waiting: int,
    ) -> list[RenderedImage]:
        """The batch's pictures; raises EngineStopped, RenderFailed or whatever goes wrong."""
        ...


MakeMaker = Callable[[EngineOptions, OnPreview], Maker]


def _local_engine(options: EngineOptions, on_preview: OnPreview) -> Maker:
    # Nearly all that an import makes stays for ever: to look through it for garbage again and
    # again takes a quarter of the import, and a quarter of a second each time later on.
    gc.disable()
    try:
        # Here, so that a torch that cannot be imported is an answer, too.
        from picowatch.engine.renderer import Renderer
    finally:
        gc.freeze()
        gc.enable()
    return Renderer(options, on_preview)


def main(handle: int, make_engine: MakeMaker = _local_engine) -> None:
    """Serve the daemon at the other end of the socket until it closes it."""
    _outlive_signals_but_not_the_daemon()
    connection = Connection(handle)
    start = connection.recv()
    assert isinstance(start, Start)
    batches: SimpleQueue[Render] = SimpleQueue()
    interrupted = threading.Event()
    threading.Thread(target=_listen, args=(connection, batches, interrupted), daemon=True).start()
    voice = _Voice(connection)
    _serve(voice, lambda: make_engine(start.options, voice.preview), batches, interrupted)


def _outlive_signals_but_not_the_daemon() -> None:
    """Ctrl-C, a service manager's SIGTERM and others reach all processes; the daemon decides."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _listen(
    connection: Connection, batches: SimpleQueue[Render], interrupted: threading.Event
) -> None:
    """Pass on what the daemon says; end the process when the daemon is gone."""
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


class _Voice:
    """What the engine says to the daemon, of the batch in progress."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.number = 0

    def say(self, message: FromEngine) -> None:
        self._connection.send(Reply(self.number, message))

    def step(self, done: int, total: int) -> None:
        self.say(Step(done, total))

    def preview(self, preview: Preview) -> None:
        self.say(preview)


def _serve(
    voice: _Voice,
    make_engine: Callable[[], Maker],
    batches: SimpleQueue[Render],
    interrupted: threading.Event,
) -> None:
    """Make one batch after the other; an exception is an answer, never the end."""
    engine: Maker | None = None
    is_ready = False
    with suppress(Exception):  # the first batch tries again, and says what is wrong
        engine = make_engine()
    while True:
        work = batches.get()
        voice.number = work.number
        answer: FromEngine
        try:
            if engine is None:
                engine = make_engine()
            if not is_ready:
                is_ready = True
                voice.say(Ready())
            images = engine.make(work.batch, voice.step, interrupted.is_set, work.waiting)
            answer = Done(images, gpu_memory())
        except EngineStopped:
            answer = Interrupted()
        except RenderFailed as failed:
            answer = Failed(failed.message, failed.remedy, traceback.format_exc())
        # No single batch may take the engine down.
        except Exception as error:
            answer = _explained(error)
        voice.say(answer)
        if isinstance(answer, Broken):
            sys.exit(1)


def _explained(error: Exception) -> Failed | Broken:
    """An unforeseen exception in words."""
    from picowatch.engine.process.failures import explain

    return explain(error, traceback.format_exc())
