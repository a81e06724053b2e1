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
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from picowatch.engine.wire import (
    Broken,
    Done,
    Failed,
    FromEngine,
    Interrupt,
    Interrupted,
    Render,
    Start,
    Step,
)
from picowatch.errors import EngineStopped, RenderFailed

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(handle: int) -> None:
    """Serve the daemon at the other end of the socket until it closes it."""
    _outlive_signals_but_not_the_daemon()
    connection = Connection(handle)
    start = connection.recv()
    assert isinstance(start, Start)
    batches: SimpleQueue[Render] = SimpleQueue()
    interrupted = threading.Event()
    threading.Thread(target=_listen, args=(connection, batches, interrupted), daemon=True).start()
    _serve(connection, start, batches, interrupted)


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
    connection: Connection, start: Start, batches: SimpleQueue[Render], interrupted: threading.Event
) -> None:
    """Make one batch after the other; an exception is an answer, never the end."""
    engine: Any = None
    while True:
        batch = batches.get().batch
        answer: FromEngine
        try:
            if engine is None:
                # Here, so that a torch that cannot be imported is an answer too.
                from picowatch.engine.local import LocalEngine

                engine = LocalEngine(start.options)
            images = engine.make(
                batch, lambda done, total: connection.send(Step(done, total)), interrupted.is_set
            )
            answer = Done(images)
        except EngineStopped:
            answer = Interrupted()
        except RenderFailed as failed:
            answer = Failed(failed.message, failed.remedy, traceback.format_exc())
        # No single batch may take the engine down.
        except Exception as error:
            answer = _explained(error)
        connection.send(answer)
        if isinstance(answer, Broken):
            sys.exit(1)


def _explained(error: Exception) -> Failed | Broken:
    """An unforeseen exception in words."""
    from picowatch.engine.mishaps import explain

    return explain(error, traceback.format_exc())
