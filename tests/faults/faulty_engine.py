"""An engine process that goes wrong as the prompt says; other prompts make digest pictures.

A prompt is a name of FAULTS or UNSENDABLE; with " once" behind it the fault happens the first time
only, whatever becomes of the process. What goes wrong as the engine starts, before any image is
known to it, stands in the file `at-start` in the models folder, a name of FAULTS, too.
The ids of all processes stand in the file `processes` there. "waits" goes on once there is a file
`go`.
"""

import ctypes
import mmap
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from picowatch.engine.protocol import EngineOptions, OnPreview, OnProgress, Progress, RenderedImage
from picowatch.recipe.request import ImageRequest
from tests.digest_engine import digest_picture

START_FILE = "at-start"
PROCESSES_FILE = "processes"
GO_FILE = "go"
UNSENDABLE = "cannot be sent"
HANG_SECONDS = 3600
SLOW_SECONDS = 2.5
NOISE = b"\x1b[31m\x07 12%|####      | no line ends here \r"


class FaultyRenderer:
    """Goes wrong as it starts, or in the middle of a picture."""

    def __init__(self, options: EngineOptions, on_preview: OnPreview) -> None:
        self._models = options.models
        self._models.mkdir(exist_ok=True)
        self._note(os.getpid())
        at_start = self._models / START_FILE
        if at_start.exists():
            FAULTS[at_start.read_text()](self)

    def render(
        self,
        batch: Sequence[ImageRequest],
        on_progress: OnProgress,
        interrupted: Callable[[], bool],
    ) -> list[RenderedImage]:
        faults = [fault for request in batch if (fault := self._due(request.prompt))]
        steps = batch[0].steps
        for done in range(1, steps + 1):
            on_progress(Progress("draw", done, steps))
            if done == (steps + 1) // 2:
                for fault in FAULTS.keys() & faults:
                    FAULTS[fault](self)
        if UNSENDABLE in faults:
            unsendable: Any = [lambda: None for _ in batch]
            return list(unsendable)
        return [digest_picture(request, len(batch)) for request in batch]

    def leave_a_process(self) -> None:
        """End, but leave a process that holds the pipe and its standard error."""
        command = [sys.executable, "-c", f"import time; time.sleep({HANG_SECONDS})"]
        self._note(subprocess.Popen(command, pass_fds=(_socket(),)).pid)
        _kill()

    def read_what_is_cut_off(self) -> None:
        """Read a truncated file that is mapped into memory, like a model file."""
        path = self._models / "mapped"
        path.write_bytes(bytes(100_000))
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as seen:
            os.truncate(path, 0)
            bytes(seen)

    def wait_to_go(self) -> None:
        while not (self._models / GO_FILE).exists():
            threading.Event().wait(0.01)

    def _due(self, prompt: str) -> str:
        fault = prompt.removesuffix(" once")
        if fault not in {UNSENDABLE, *FAULTS}:
            return ""
        if fault != prompt:
            try:
                (self._models / f"{fault} happened").touch(exist_ok=False)
            except FileExistsError:
                return ""
        return fault

    def _note(self, process: int) -> None:
        with (self._models / PROCESSES_FILE).open("a") as file:
            file.write(f"{process}\n")


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _fail(error: BaseException) -> None:
    raise error


def _hang(seconds: float = HANG_SECONDS) -> None:
    threading.Event().wait(seconds)


def _hang_with_the_interpreters_lock() -> None:
    """Keep the interpreter's lock, like faulty native code: no other thread runs."""
    ctypes.PyDLL(None).sleep(HANG_SECONDS)


def _flood_and_exit() -> None:
    for _ in range(200):
        os.write(2, NOISE * 1000)
    os._exit(5)


def _traceback_and_exit() -> None:
    os.write(2, b"Traceback (most recent call last):\n  File x\nOSError: the disk is on fire\n\n")
    os._exit(1)


def _socket() -> int:
    for number in range(3, 100):
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                return number
    raise AssertionError


def _send_garbage() -> None:
    Connection(_socket()).send_bytes(b"no message")
    _hang()


def _send_half() -> None:
    """Begin a message as multiprocessing does, with its length."""
    os.write(_socket(), (1_000_000).to_bytes(4, "big") + b"half")
    _hang()


def _fall_silent() -> None:
    """Close the pipe and live on."""
    os.write(2, b"a library's last words\n")
    os.close(_socket())
    _hang()


FAULTS: dict[str, Callable[[FaultyRenderer], object]] = {
    "is killed": lambda _: _kill(),
    "segfaults": lambda _: ctypes.string_at(0),
    "bus error": FaultyRenderer.read_what_is_cut_off,
    "traceback and exit": lambda _: _traceback_and_exit(),
    "floods and exits": lambda _: _flood_and_exit(),
    "hangs": lambda _: _hang(),
    "hangs with the lock": lambda _: _hang_with_the_interpreters_lock(),
    "waits": FaultyRenderer.wait_to_go,
    "CUDA error": lambda _: _fail(
        RuntimeError("CUDA error: an illegal memory access was encountered\nand more lines")
    ),
    "raises": lambda _: _fail(KeyError(3)),
    "no memory": lambda _: _fail(MemoryError()),
    "sends garbage": lambda _: _send_garbage(),
    "sends half": lambda _: _send_half(),
    "falls silent": lambda _: _fall_silent(),
    "leaves a process": FaultyRenderer.leave_a_process,
    "import error": lambda _: _fail(ImportError("libcudart.so.12: cannot open shared object file")),
    "loads slowly": lambda _: _hang(SLOW_SECONDS),
}
