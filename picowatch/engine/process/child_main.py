"""The engine process: takes batches from the daemon, replies with pictures. Imports no torch.

It ends whenever the daemon ends, however that happens.
"""

import ctypes
import fcntl
import gc
import logging
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from copy import copy
from dataclasses import replace
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path

from picowatch.engine import protocol
from picowatch.engine.failures import explain_error
from picowatch.errors import EngineDied, EngineStopped, PicowatchError, RenderFailed
from picowatch.signals import ENDING, ignore_signals

log = logging.getLogger("picowatch.engine")

_ENVIRONMENT = {
    # Like -P: nothing is imported from the user's folder while the process starts.
    "PYTHONSAFEPATH": "1",
    "PYTHONWARNINGS": "ignore",
    "PYTHON_COLORS": "0",  # of tracebacks, which are read here
    "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "DO_NOT_TRACK": "1",
    "DIFFUSERS_VERBOSITY": "error", "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1", "TOKENIZERS_PARALLELISM": "false",
    # What Apple's GPUs cannot compute, the CPU does:
    # https://docs.pytorch.org/docs/stable/mps_environment_variables.html
    "PYTORCH_ENABLE_MPS_FALLBACK": "1",
    # With this, MKL gives the rows of a matrix the same bits at any position (oneMKL Developer
    # Guide, "Specifying Code Branches"). Without it, a picture depends on its position in a batch
    # of 3. No cost could be measured.
    "MKL_CBWR": "AUTO,STRICT",
}  # fmt: skip
_DEFAULTS = {  # users may set these differently
    # How long threads spin before they sleep, in libgomp's rounds. With 10,000 a demo picture takes
    # 0.35 instead of 0.4 s on idle cores, but beside another program that spins none ended in 20 s.
    "GOMP_SPINCOUNT": "1000",
    # glibc returns blocks above a threshold to the system at once, and requests pages again for the
    # next layer's result: a fifth of a step's time for a part of a batch of the demo model.
    # Both settings are needed (mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD).
    "MALLOC_MMAP_THRESHOLD_": str(64 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20),
}


@contextmanager
def surroundings() -> Iterator[None]:
    """Set the engine's environment for a process that is started inside.

    multiprocessing has no argument for it, and some of it is read before any of our code runs:
    malloc's thresholds, and the import path. Meanwhile other processes must not be started with
    os.environ as it is: see `Hooks`. The console is hidden, too, because multiprocessing flushes
    it, which fails if it is a file on a full disk or a pipe without a reader. Signals wait until
    the process ignores them: Ctrl-C during its imports would print a traceback.
    """
    before = dict(os.environ)
    ours = _DEFAULTS | before | _ENVIRONMENT
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    os.environ.update(ours)
    try:
        with redirect_stdout(None), redirect_stderr(None):
            resource_tracker.ensure_running()  # whose start lets signals through again
            signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for name in ours.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def new_renderer(
    options: protocol.EngineOptions, on_preview: protocol.OnPreview
) -> protocol.BatchRenderer:
    """Import torch and the libraries around it, and create the renderer."""
    gc.disable()  # hundreds of searches for garbage take a second of four
    from picowatch.engine.drawing.renderer import Renderer

    gc.freeze()  # imported objects stay: searching them for garbage takes a quarter second
    gc.enable()
    return Renderer(options, on_preview)


def new_copy_renderer(
    options: protocol.EngineOptions, on_preview: protocol.OnPreview
) -> protocol.BatchRenderer:
    """Import numpy, which the daemon does without, and create the renderer of copies."""
    from picowatch.engine.drawing.copies import CopyRenderer

    return CopyRenderer(options, on_preview)


def main(
    connection: Connection,
    interrupted: ctypes.c_bool,  # memory shared with the daemon: the batch ends at its next step
    stderr: Connection,  # the file of the standard error
    options: protocol.EngineOptions,
    make_renderer: protocol.MakeRenderer,
) -> None:
    """Serve the daemon at the other end of the pipe, without its terminal, signals and streams."""
    ignore_signals()  # a service manager's SIGTERM reaches all processes; the daemon decides
    os.setsid()  # keeps Ctrl-C for the daemon, and lets what this starts be ended with it
    nothing = os.open(os.devnull, os.O_RDWR)
    for source, target in ((nothing, 0), (nothing, 1), (stderr.fileno(), 2)):
        os.dup2(source, target)
    os.close(nothing)
    stderr.close()
    # A torch.py beside the recipes is not torch. `python -m picowatch` puts the working directory
    # on the path, and multiprocessing passes the path on. picowatch itself may be there, too.
    here = os.path.realpath(os.curdir)
    kept = [entry for entry in sys.path if os.path.realpath(entry) != here]
    sys.path[:] = [*kept, str(Path(__file__).parents[2])]
    _end_with_daemon()
    if options.debug:
        log.setLevel(logging.DEBUG)
    serve(connection, lambda: interrupted.value, partial(make_renderer, options))


def _end_with_daemon() -> None:
    """End when the daemon ends, even by `kill -9`.

    Only the daemon has the other end of a pipe that multiprocessing creates. When it closes, Linux
    sends SIGKILL, which works even while native code holds Python's lock. (PR_SET_PDEATHSIG would
    send it as soon as the thread that started this process ends.)
    """
    daemon = multiprocessing.parent_process()
    assert daemon is not None
    if sys.platform == "linux":
        with suppress(OSError):  # on imitations of Linux
            fcntl.fcntl(daemon.sentinel, fcntl.F_SETOWN, os.getpid())
            fcntl.fcntl(daemon.sentinel, fcntl.F_SETSIG, signal.SIGKILL)
            fcntl.fcntl(daemon.sentinel, fcntl.F_SETFL, os.O_ASYNC)

    def end() -> None:
        daemon.join()
        os._exit(0)

    threading.Thread(target=end, daemon=True).start()


def serve(
    connection: Connection,
    interrupted: Callable[[], bool],
    make_renderer: Callable[[protocol.OnPreview], protocol.BatchRenderer],
) -> None:
    """Render batch after batch until EngineDied; exceptions are sent to the daemon."""
    sending = threading.Lock()

    def send(message: protocol.FromEngine) -> None:
        with sending:  # a part of a batch may be rendered in a thread of its own
            if isinstance(message, protocol.RenderedImage):  # pickling would copy its pixels
                connection.send(replace(message, pixels=b"", alpha=b"", low=b""))
                for channels in (message.pixels, message.alpha, message.low):
                    connection.send_bytes(channels)
            else:
                connection.send(message)

    def rendered(batch: protocol.Batch) -> Iterator[protocol.RenderedImage | protocol.Outcome]:
        """Yield the pictures of a batch, then how it ended."""
        try:
            yield from renderer.render(batch, send, interrupted)
            yield protocol.Finished()
        except Exception as error:
            yield _explained(error)

    if log.isEnabledFor(logging.DEBUG):
        log.addHandler(_Notes(send))
    try:
        renderer = make_renderer(send)
    except Exception as error:
        failed = _explained(error)
        send(protocol.EngineCannotStart(failed.message, failed.remedy, failed.trace))
        return
    send(protocol.Ready())
    outcome: protocol.RenderedImage | protocol.Outcome | None = None
    while not isinstance(outcome, EngineDied):
        for outcome in rendered(connection.recv()):
            send(outcome)  # an error here ends the process: nobody would hear of it


class _Notes(logging.Handler):
    """Sends what the engine logs to the daemon."""

    def __init__(self, send: Callable[[protocol.FromEngine], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        self._send(record.getMessage())


def _explained(error: Exception) -> PicowatchError:
    """Return the error to send for an exception: no single batch may take the engine down."""
    if isinstance(error, EngineStopped):
        return error
    if isinstance(error, RenderFailed):
        failed = copy(error)  # without its traceback, which keeps objects alive
        failed.trace = traceback.format_exc()
        return failed
    return explain_error(error, traceback.format_exc(), broken_gpu())


def broken_gpu() -> str:
    """Return the error of a GPU that this process can no longer use, "" if it works."""
    torch = sys.modules.get("torch")  # what computes on a GPU has imported it
    if torch is None or not torch.cuda.is_initialized():
        return ""
    try:
        torch.cuda.synchronize()  # errors of queued kernels appear at some later call
    except Exception as error:  # its class differs by version of torch
        return str(error) or type(error).__name__
    return ""
