"""The engine process: takes batches from the daemon, replies with pictures. Imports no torch.

It ends whenever the daemon ends, however that happens.
"""

import fcntl
import gc
import mmap
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from functools import partial
from multiprocessing.connection import Connection

from picowatch.engine.failures import explain_error
from picowatch.engine.memory import broken_gpu, gpu_memory
from picowatch.engine.protocol import (
    BatchRenderer,
    EngineCannotStart,
    EngineOptions,
    FromEngine,
    OnPreview,
    Outcome,
    Ready,
    Render,
    Step,
)
from picowatch.errors import EngineDied, EngineStopped, PicowatchError, RenderFailed
from picowatch.signals import ignore_signals

_ENVIRONMENT = {
    # Like -P: nothing is imported from the user's folder. A torch.py beside recipes is not torch.
    "PYTHONSAFEPATH": "1",
    "PYTHONWARNINGS": "ignore",
    "PYTHON_COLORS": "0",  # of tracebacks, which are read here
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "DO_NOT_TRACK": "1",
    "DIFFUSERS_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # What Apple's GPUs cannot compute, the CPU does:
    # https://docs.pytorch.org/docs/stable/mps_environment_variables.html
    "PYTORCH_ENABLE_MPS_FALLBACK": "1",
    # With this, MKL gives the rows of a matrix the same bits at any position (oneMKL Developer
    # Guide, "Specifying Code Branches"). Without it, a picture depends on its position in a batch
    # of 3. No cost could be measured.
    "MKL_CBWR": "AUTO,STRICT",
}
# Users may set these differently.
_DEFAULTS = {
    # How long threads spin before they sleep, in libgomp's rounds. With 10,000 a demo picture takes
    # 0.35 instead of 0.4 s on idle cores, but next to another program with spinning threads none
    # was finished in 20 s.
    "GOMP_SPINCOUNT": "1000",
    # glibc returns blocks above a threshold to the system at once, and requests pages again for the
    # next layer's result: a fifth of a step's time for a part of a batch of the demo model.
    # Both settings are needed (mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD).
    "MALLOC_MMAP_THRESHOLD_": str(64 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20),
}


def environment() -> dict[str, str]:
    """Return the environment for the process; malloc and Python read some of it as they start."""
    return _DEFAULTS | os.environ | _ENVIRONMENT


def new_renderer(options: EngineOptions, on_preview: OnPreview) -> BatchRenderer:
    """Import torch and the libraries around it, and create the renderer."""
    from picowatch.engine.renderer import Renderer

    gc.freeze()  # imported objects stay: searching them for garbage takes a quarter second
    return Renderer(options, on_preview)


def main(pipe: int, shared: int, alive: int) -> None:
    """Serve the daemon at the other end of the pipe, given these open files.

    `shared` is memory shared with the daemon: if it is set, the batch ends at its next step.
    `alive` is closed when the daemon ends.
    """
    ignore_signals()  # a service manager's SIGTERM reaches all processes; the daemon decides
    _end_with_daemon(alive)
    connection, interrupted = Connection(pipe), mmap.mmap(shared, 1)
    options, make_renderer = connection.recv()
    serve(connection, lambda: bool(interrupted[0]), partial(make_renderer, options))


def _end_with_daemon(alive: int) -> None:
    """End when the daemon ends, even by `kill -9`.

    Only the daemon has the other end of `alive`. When it closes, Linux sends SIGKILL, which works
    even while native code holds Python's lock. (PR_SET_PDEATHSIG would send it as soon as the
    thread that started this process ends.)
    """
    if sys.platform == "linux":
        with suppress(OSError):  # on imitations of Linux
            fcntl.fcntl(alive, fcntl.F_SETOWN, os.getpid())
            fcntl.fcntl(alive, fcntl.F_SETSIG, signal.SIGKILL)
            fcntl.fcntl(alive, fcntl.F_SETFL, os.O_ASYNC)

    def end() -> None:
        os.read(alive, 1)
        os._exit(0)

    threading.Thread(target=end, daemon=True).start()


def serve(
    connection: Connection,
    interrupted: Callable[[], bool],
    make_renderer: Callable[[OnPreview], BatchRenderer],
) -> None:
    """Render one batch after the other; exceptions are sent to the daemon.

    Returns after EngineDied, or if the renderer cannot be made.
    """
    sending = threading.Lock()

    def send(message: FromEngine) -> None:
        with sending:  # a part of a batch may be rendered in a thread of its own
            connection.send(message)

    try:
        renderer = make_renderer(send)
    except Exception as error:
        failed = _explained(error)
        connection.recv()  # the daemon may be about to send its first batch
        send(EngineCannotStart(failed.message, failed.remedy, failed.trace))
        return
    send(Ready())
    outcome: Outcome | None = None
    while not isinstance(outcome, EngineDied):
        work: Render = connection.recv()
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
    """Return the error to send for an exception: no single batch may take the engine down."""
    if isinstance(error, EngineStopped):
        return error
    if isinstance(error, RenderFailed):
        failed = copy(error)  # without its traceback, which keeps objects alive
        failed.trace = traceback.format_exc()
        return failed
    return explain_error(error, traceback.format_exc(), broken_gpu())
