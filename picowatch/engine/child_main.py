"""The engine process: takes batches from the daemon, replies with pictures. Imports no torch.

It ends when the daemon does, however that ends.
"""

import ctypes
import fcntl
import gc
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

from picowatch.engine.failures import explain_error
from picowatch.engine.memory import broken_gpu, gpu_memory
from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import (
    EngineCannotStart,
    MemoryUse,
    OnPreview,
    OnStep,
    Preview,
    RenderedImage,
)
from picowatch.errors import EngineDied, EngineStopped, PicowatchError, RenderFailed
from picowatch.recipe.request import ImageRequest
from picowatch.signals import ignore_signals


@dataclass(frozen=True, slots=True)
class Render:
    """A message to the engine: render these, with a Preview each so many seconds.

    It replies with Steps and Previews, what it holds of a GPU, and an Outcome at the end.
    """

    batch: tuple[ImageRequest, ...]
    preview_seconds: float = 0


@dataclass(frozen=True, slots=True)
class Ready:
    """A message from the engine: it has started, and looked at no image yet."""


@dataclass(frozen=True, slots=True)
class Step:
    """A message from the engine: another denoising step is done."""

    done: int
    total: int


# A batch's pictures, or why there are none. After EngineDied the process ends.
Outcome = list[RenderedImage] | PicowatchError
FromEngine = Ready | Step | Preview | MemoryUse | Outcome


class BatchRenderer(Protocol):
    """What renders the batches in this process; see `picowatch.engine.renderer.Renderer`."""

    def render(
        self,
        batch: Sequence[ImageRequest],
        on_step: OnStep,
        interrupted: Callable[[], bool],
        preview_seconds: float,
    ) -> list[RenderedImage]:
        """Return the pictures; raises EngineStopped, RenderFailed or whatever goes wrong."""
        ...


# Pickled for the engine process by its name, so a function or class of a module.
MakeRenderer = Callable[[EngineOptions, OnPreview], BatchRenderer]


def new_renderer(options: EngineOptions, on_preview: OnPreview) -> BatchRenderer:
    """Import torch and all that belongs to it, and make the renderer."""
    # Nearly all that an import creates stays: to search it for garbage again and again takes a
    # quarter of the import, and a quarter of a second each time later on.
    gc.disable()
    try:
        from picowatch.engine.renderer import Renderer
    finally:
        gc.freeze()
        gc.enable()
    return Renderer(options, on_preview)


def main(
    connection: Connection,
    interrupted: ctypes.c_bool,
    stderr: Connection,
    options: EngineOptions,
    make_renderer: MakeRenderer,
) -> None:
    """Serve the daemon at the other end of the pipe; `stderr` holds a file for last words.

    `interrupted` is memory that the daemon shares: a batch ends at its next step.
    """
    _stand_alone(stderr)
    _end_with_daemon()
    sending = threading.Lock()

    def send(message: FromEngine) -> None:
        with sending:  # a part of a batch may be rendered in a thread of its own
            connection.send(message)

    serve(send, lambda: make_renderer(options, send), connection.recv, lambda: interrupted.value)


def _stand_alone(stderr: Connection) -> None:
    """Leave the daemon's terminal, signals and standard streams.

    In a session of its own: Ctrl-C is for the daemon alone, and what this process starts can be
    ended with it.
    """
    ignore_signals()  # a service manager's SIGTERM reaches all processes; the daemon decides
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for source, target in ((nothing, 0), (nothing, 1), (stderr.fileno(), 2)):
        os.dup2(source, target)
    os.close(nothing)
    stderr.close()
    _forget_users_folder()


def _end_with_daemon() -> None:
    """End when the daemon ends, even by `kill -9`.

    Only the daemon holds the other end of a pipe of multiprocessing's. When that is closed, Linux
    sends SIGKILL, which works even while native code holds Python's lock. (After PR_SET_PDEATHSIG
    it would do so already when the daemon's thread ends that started this process.)
    """
    daemon = multiprocessing.parent_process()
    assert daemon is not None
    if sys.platform == "linux":
        with suppress(OSError):  # where Linux is imitated
            fcntl.fcntl(daemon.sentinel, fcntl.F_SETOWN, os.getpid())
            fcntl.fcntl(daemon.sentinel, fcntl.F_SETSIG, signal.SIGKILL)
            fcntl.fcntl(daemon.sentinel, fcntl.F_SETFL, os.O_ASYNC)

    def end() -> None:
        daemon.join()
        os._exit(0)

    threading.Thread(target=end, daemon=True).start()


def _forget_users_folder() -> None:
    """Import nothing from the working folder: a torch.py beside the recipes is not torch.

    `python -m picowatch` has that folder on its path, and multiprocessing hands the path on.
    picowatch itself may stand there, so its parent comes last.
    """
    here = os.path.realpath(os.curdir)
    kept = [entry for entry in sys.path if os.path.realpath(entry) != here]
    sys.path[:] = [*kept, str(Path(__file__).parents[2])]


def serve(
    send: Callable[[FromEngine], None],
    make_renderer: Callable[[], BatchRenderer],
    next_batch: Callable[[], Render],
    interrupted: Callable[[], bool],
) -> None:
    """Render one batch after the other; an exception is an answer, and ends no process.

    Returns after EngineDied. The renderer is made before the first batch comes. What prevents that
    is said as the outcome of the first batch.
    """
    try:
        renderer = make_renderer()
    except Exception as error:
        failed = _explained(error)
        next_batch()
        send(EngineCannotStart(failed.message, failed.remedy, failed.trace))
        return
    send(Ready())
    outcome: Outcome | None = None
    while not isinstance(outcome, EngineDied):
        work = next_batch()
        try:
            outcome = renderer.render(
                work.batch,
                lambda done, total: send(Step(done, total)),
                interrupted,
                work.preview_seconds,
            )
            if (memory := gpu_memory()) is not None:  # after a failure it may raise
                send(memory)
        except Exception as error:
            outcome = _explained(error)
        send(outcome)


def _explained(error: Exception) -> PicowatchError:
    """Return what a batch ends with: no single one may take the engine down."""
    if isinstance(error, EngineStopped):
        return error
    if isinstance(error, RenderFailed):
        failed = copy(error)  # without its frames, and what those hold
        failed.trace = traceback.format_exc()
        return failed
    return explain_error(error, traceback.format_exc(), broken_gpu())
