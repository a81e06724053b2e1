"""An engine process that goes wrong as the prompt says; other prompts make digest pictures.

A prompt is a name of IN_THE_MIDDLE or UNSENDABLE; with " once" behind it the fault happens the
first time only, whatever becomes of the process. What goes wrong as the engine starts, before
any image is known to it, stands in the file `at-start` in the models folder, a name of AT_START.
The ids of all processes stand in the file `processes` there, of those that nobody can find
again in `strays`. "waits" goes on once there is a file `go`.
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

from picowatch.engine.protocol import EngineOptions, OnPreview, OnStep, RenderedImage
from picowatch.recipe.request import ImageRequest
from tests.digest_engine import digest_picture

Pictures = list[RenderedImage]

START_FILE = "at-start"
PROCESSES_FILE = "processes"
STRAYS_FILE = "strays"
UNSENDABLE = "cannot be sent"
GO_FILE = "go"
HANG_SECONDS = 3600
FLOOD_BYTES = 8_000_000
NOISE = b"\x1b[31m\x07 12%|####      | no line ends here \r"


class AcceleratorError(RuntimeError):
    """Named as torch's."""


class FaultyRenderer:
    """Goes wrong as it starts, or in the middle of a picture."""

    def __init__(self, options: EngineOptions, on_preview: OnPreview) -> None:
        self._models = options.models
        self._models.mkdir(exist_ok=True)
        self._note(PROCESSES_FILE, os.getpid())
        at_start = self._models / START_FILE
        if at_start.exists():
            AT_START[at_start.read_text()]()

    def render(
        self,
        batch: Sequence[ImageRequest],
        on_step: OnStep,
        interrupted: Callable[[], bool],
        preview_seconds: float,
    ) -> Pictures:
        """The pictures, or what the prompts ask for."""
        faults = [fault for request in batch if (fault := self._due(request.prompt))]
        steps = batch[0].steps
        for done in range(1, steps + 1):
            on_step(done, steps)
            if done == (steps + 1) // 2:
                for fault in IN_THE_MIDDLE.keys() & faults:
                    IN_THE_MIDDLE[fault](self, on_step)
        if UNSENDABLE in faults:
            unsendable: Any = [lambda: None for _ in batch]
            return list(unsendable)
        return [digest_picture(request, len(batch)) for request in batch]

    def start_process(self, *, new_session: bool) -> None:
        """A process that outlives this one, and holds its socket and its standard error."""
        command = [sys.executable, "-c", f"import time; time.sleep({HANG_SECONDS})"]
        child = subprocess.Popen(command, pass_fds=(_socket(),), start_new_session=new_session)
        self._note(STRAYS_FILE if new_session else PROCESSES_FILE, child.pid)

    def read_what_is_cut_off(self) -> None:
        """A file that is mapped into memory, as model files are while they are read."""
        path = self._models / "mapped"
        path.write_bytes(bytes(100_000))
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as seen:
            os.truncate(path, 0)
            bytes(seen)

    def wait_to_go(self) -> None:
        """Until the test says so."""
        while not (self._models / GO_FILE).exists():
            threading.Event().wait(0.01)

    def _due(self, prompt: str) -> str:
        """The fault that is to happen now, "" for none."""
        fault = prompt.removesuffix(" once")
        if fault not in {UNSENDABLE, *IN_THE_MIDDLE}:
            return ""
        if fault != prompt:
            try:
                (self._models / f"{fault} happened").touch(exist_ok=False)
            except FileExistsError:
                return ""
        return fault

    def _note(self, file_name: str, number: int) -> None:
        with (self._models / file_name).open("a") as file:
            file.write(f"{number}\n")


def _kill(number: int) -> None:
    os.kill(os.getpid(), number)


def _read_address_zero() -> None:
    ctypes.string_at(0)


def _fail(error: BaseException) -> None:
    raise error


def _hang() -> None:
    threading.Event().wait(HANG_SECONDS)


def _hang_with_the_interpreters_lock() -> None:
    """As native code does that forgot to give it back: no other thread runs."""
    ctypes.PyDLL(None).sleep(HANG_SECONDS)


def _flood() -> None:
    noise = NOISE * 1000
    for _ in range(FLOOD_BYTES // len(noise)):
        os.write(2, noise)


def _flood_and_exit() -> None:
    _flood()
    os._exit(5)


def _traceback_and_exit() -> None:
    os.write(2, b"Traceback (most recent call last):\n  File x\nOSError: the disk is on fire\n\n")
    os._exit(1)


def _libgomp_exits() -> None:
    """What libgomp's `gomp_fatal` does where the system allows no more threads."""
    os.write(2, b"\nlibgomp: Thread creation failed: Resource temporarily unavailable\n")
    os._exit(1)


def _socket() -> int:
    """The end of the pipe to the daemon in this process."""
    for number in range(3, 100):
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                return number
    raise AssertionError


def _send_garbage() -> None:
    Connection(_socket()).send_bytes(b"no message")
    _hang()


def _fall_silent() -> None:
    """Close the pipe and live on."""
    os.write(2, b"a library's last words\n")
    os.close(_socket())
    _hang()


def _miscount(on_step: OnStep) -> None:
    for done, total in ((0, 0), (-3, 5), (99, 5), (1, -1)):
        on_step(done, total)


def _leave_a_process(renderer: FaultyRenderer, *, new_session: bool) -> None:
    renderer.start_process(new_session=new_session)
    _kill(signal.SIGKILL)


IN_THE_MIDDLE: dict[str, Callable[[FaultyRenderer, OnStep], None]] = {
    "is killed": lambda *_: _kill(signal.SIGKILL),
    "segfaults": lambda *_: _read_address_zero(),
    "bus error": lambda renderer, _: renderer.read_what_is_cut_off(),
    "aborts": lambda *_: os.abort(),
    "exits": lambda *_: os._exit(3),
    "exits with success": lambda *_: os._exit(0),
    "quits": lambda *_: sys.exit("I have had enough"),
    "traceback and exit": lambda *_: _traceback_and_exit(),
    "floods": lambda *_: _flood(),
    "floods and exits": lambda *_: _flood_and_exit(),
    "hangs": lambda *_: _hang(),
    "hangs with the lock": lambda *_: _hang_with_the_interpreters_lock(),
    "waits": lambda renderer, _: renderer.wait_to_go(),
    "CUDA error": lambda *_: _fail(
        RuntimeError("CUDA error: an illegal memory access was encountered\nand more lines")
    ),
    "accelerator error": lambda *_: _fail(AcceleratorError("unspecified launch failure")),
    "raises": lambda *_: _fail(KeyError(3)),
    "no memory": lambda *_: _fail(MemoryError()),
    "no thread": lambda *_: _fail(RuntimeError("can't start new thread")),
    "no thread for OpenMP": lambda *_: _libgomp_exits(),
    "sends garbage": lambda *_: _send_garbage(),
    "closes its socket": lambda *_: os.close(_socket()),
    "falls silent": lambda *_: _fall_silent(),
    "miscounts": lambda _, on_step: _miscount(on_step),
    "leaves a process": lambda renderer, _: _leave_a_process(renderer, new_session=False),
    "leaves a stray": lambda renderer, _: _leave_a_process(renderer, new_session=True),
}

AT_START: dict[str, Callable[[], None]] = {
    "import error": lambda: _fail(ImportError("libcudart.so.12: cannot open shared object file")),
    "is killed": lambda: _kill(signal.SIGKILL),
    "exits": lambda: _traceback_and_exit(),
    "hangs": _hang,
}
