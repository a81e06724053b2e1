"""The engine process: takes batches from the daemon, answers with pictures.

It ends when the daemon does, however that ends: the socket reports its end, and on Linux the
kernel kills it besides, which works even while native code holds Python's lock.
"""

import ctypes
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Protocol

from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import OnStep, RenderedImage
from picowatch.engine.wire import (
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
from picowatch.errors import EngineStopped, RenderFailed
from picowatch.recipe.request import ImageRequest

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Maker(Protocol):
    """What makes the pictures in this process."""

    def make(
        self, batch: Sequence[ImageRequest], on_step: OnStep, interrupted: Callable[[], bool]
    ) -> list[RenderedImage]:
        """The batch's pictures; raises EngineStopped, RenderFailed or whatever goes wrong."""
        ...


def _local_engine(options: EngineOptions) -> Maker:
    # Here, so that a torch that cannot be imported is an answer, too.
    from picowatch.engine.local import LocalEngine

    return LocalEngine(options)


def main(handle: int, make_engine: Callable[[EngineOptions], Maker] = _local_engine) -> None:
    """Serve the daemon at the other end of the socket until it closes it."""
    _outlive_signals_but_not_the_daemon()
    connection = Connection(handle)
    start = connection.recv()
    assert isinstance(start, Start)
    batches: SimpleQueue[Render] = SimpleQueue()
    interrupted = threading.Event()
    threading.Thread(target=_listen, args=(connection, batches, interrupted), daemon=True).start()
    _serve(connection, lambda: make_engine(start.options), batches, interrupted)


def _outlive_signals_but_not_the_daemon() -> None:
    """Ctrl-C and a service manager's SIGTERM reach all processes; the daemon decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
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


def _serve(
    connection: Connection,
    make_engine: Callable[[], Maker],
    batches: SimpleQueue[Render],
    interrupted: threading.Event,
) -> None:
    """Make one batch after the other; an exception is an answer, never the end."""
    engine: Maker | None = None
    while True:
        work = batches.get()
        say = partial(_say, connection, work.number)
        on_step = partial(_say_step, say)
        answer: FromEngine
        try:
            if engine is None:
                engine = make_engine()
                say(Ready())
            answer = Done(engine.make(work.batch, on_step, interrupted.is_set))
        except EngineStopped:
            answer = Interrupted()
        except RenderFailed as failed:
            answer = Failed(failed.message, failed.remedy, traceback.format_exc())
        # No single batch may take the engine down.
        except Exception as error:
            answer = _explained(error)
        say(answer)
        if isinstance(answer, Broken):
            sys.exit(1)


def _say(connection: Connection, number: int, message: FromEngine) -> None:
    connection.send(Reply(number, message))


def _say_step(say: Callable[[FromEngine], None], done: int, total: int) -> None:
    say(Step(done, total))


def _explained(error: Exception) -> Failed | Broken:
    """An unforeseen exception in words."""
    from picowatch.engine.mishaps import explain

    return explain(error, traceback.format_exc())
