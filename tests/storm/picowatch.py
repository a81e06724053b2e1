"""The storm's daemon: a process that is killed, signalled, and started again."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


class Picowatch:
    """The daemon's process, started again whenever it was killed."""

    def __init__(self, folder: Path, engines: int = 1) -> None:
        self._folder = folder
        self._engines = engines
        self.problems: list[str] = []
        self._output = (folder / "console.txt").open("ab")
        self.process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "tests.storm.daemon", str(self._folder)]
        return subprocess.Popen(
            [
                *command,
                "max_attempts=1000",
                f"executor=local:{self._engines}",
                # The user may be kept from going on between a picture's prompt and the picture.
                "settle_seconds=0.4",
            ],
            stdout=self._output,
            stderr=self._output,
        )

    def restart(self, meanwhile: Callable[[], None]) -> None:
        """Kill it, and do something before it starts again."""
        self.process.kill()
        self.process.wait()
        meanwhile()
        self.process = self._start()

    def is_up(self) -> bool:
        """Whether it is past its start."""
        status = self._folder / "outbox/.picowatch/status.json"
        with suppress(OSError, ValueError):
            return bool(json.loads(status.read_text())["pid"] == self.process.pid)
        return False

    def end_by(self, number: int) -> None:
        """A signal that ends it in time, and with it all that it started."""
        started = children(self.process.pid)
        self.process.send_signal(number)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.problems.append(f"lives on 30 s after {signal.Signals(number).name}")
            self.process.kill()
            self.process.wait()
        wait_until(lambda: not any(map(is_alive, started)), 5.0)
        left = [child for child in started if is_alive(child)]
        self.problems += [f"child {child} lives on after signal {number}" for child in left]
        self.process = self._start()

    def kill_engine(self) -> bool:
        """All of them; false if there is none right now."""
        engines = engines_of(self.process.pid)
        for engine in engines:
            with suppress(ProcessLookupError):
                os.kill(engine, signal.SIGKILL)
        return bool(engines)

    def __enter__(self) -> None:
        """What raises within ends it."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self.process.kill()
            self.process.wait()

    def end(self) -> int:
        """As a service manager does; gives the exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        finally:
            self._output.close()


def children(process: int) -> list[int]:
    """The processes that a process started."""
    found = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return found


def engines_of(daemon: int) -> list[int]:
    """The engines' processes of a daemon, without multiprocessing's own."""
    found = []
    for child in children(daemon):
        with suppress(OSError):
            if b"--multiprocessing-fork" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition came to hold in time."""
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            return False
        pause.wait(0.02)
    return True


def is_alive(process: int) -> bool:
    return Path(f"/proc/{process}").exists()
