"""The user's own programs, called for pictures, failures and an empty queue.

A hook never blocks rendering and never makes it fail: each has its own thread that runs one
program at a time, a bounded queue, and a time limit after which the program is killed with all that
it started. Each failure is one line in the log.
"""

import errno
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from math import inf
from queue import Queue
from typing import IO, Any, NamedTuple

from picowatch.outbox.status import Status
from picowatch.settings import Settings

log = logging.getLogger("picowatch")

MAX_QUEUED = 100
POLL_SECONDS = 0.1  # between checks whether a program or picowatch has ended
_KEPT_BYTES = 1000  # of what a program writes to its standard error


class _Call(NamedTuple):
    """What a program gets: arguments after its own, and JSON on its standard input."""

    arguments: tuple[str, ...]
    values: Mapping[str, Any]


# A process that kills the hooks' groups once picowatch is gone, however it ended: its standard
# input ends then. A line with a group's number says that it began, the next one that it ended.
_KILLER = """
import os, signal, sys
running = set()
for line in sys.stdin:
    running ^= {int(line)}
for group in running:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
"""


# Runs a program once a line can be read, which comes when the killer knows of its group; so no
# moment is left in which picowatch could be killed and the hook would run on. Its own output goes
# nowhere, so the pipe stands there.
_ONCE_NOTED = 'read -r line <&1 && exec "$0" "$@" >/dev/null'


class _GroupKiller:
    """Makes sure that no hook outlives picowatch."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the process before the first hook; raises OSError."""
        with self._lock:
            self._process = self._process or subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _KILLER],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                start_new_session=True,
            )

    def note(self, group: int) -> None:
        """A group of processes begins, or has ended."""
        assert self._process is not None and self._process.stdin is not None
        with suppress(OSError):  # somebody killed it
            self._process.stdin.write(f"{group}\n".encode())

    def close(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()


class Hooks:
    """The setting `hooks`: what runs for a picture, for a failure, and when the queue is empty.

    A call that waits runs the program that the setting names when its turn comes, if any.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._inbox = settings.inbox.resolve()
        self._outbox = settings.outbox.resolve()
        self._killer = _GroupKiller()
        self._environment = dict(os.environ)
        self._hooks: dict[str, _Hook] = {}  # that were called
        self._lock = threading.Lock()  # publishers and the daemon's thread count
        self._has_worked = False
        self._pictures = 0  # since the queue was last empty
        self._failed = inf  # images, at the last look

    def picture(self, line: Mapping[str, Any]) -> None:
        """A picture was published; `line` is its line of images.jsonl."""
        with self._lock:
            self._has_worked = True
            self._pictures += 1
        path = str(self._outbox / line["file"])
        self._call("picture", path, values={**line, "path": path})

    def failed(self, recipe: str, error_file: str) -> None:
        """A save was refused, or an image of this recipe failed; the error file says why."""
        path, error = str(self._inbox / recipe), self._outbox / error_file
        try:
            text = error.read_text(encoding="utf-8", errors="replace")
        except OSError:  # fixed, meanwhile
            text = ""
        self._call("failed", path, str(error), values={"recipe": recipe, "error": text})

    def status(self, status: Status) -> None:
        """The current status, a few times a second: `idle` is called when the queue gets empty."""
        with self._lock:
            failed = status.images.get("failed", 0)  # an image may fail between two looks
            self._has_worked |= status.images["running"] > 0 or failed > self._failed
            self._failed = failed
            if status.images["queued"] or status.images["running"]:
                return
            has_worked, pictures = self._has_worked, self._pictures
            self._has_worked, self._pictures = False, 0
        if has_worked:
            self._call("idle", values={"pictures": pictures})

    def close(self, hurry: Callable[[], bool]) -> None:
        """Let running hooks end by themselves until `hurry`; kill the others, drop queued calls."""
        pause = threading.Event()
        hooks = [*self._hooks.values()]
        while any(hook.is_busy() for hook in hooks) and not hurry():
            pause.wait(POLL_SECONDS)
        for hook in hooks:
            hook.close()
        self._killer.close()

    def _call(self, name: str, *arguments: str, values: Mapping[str, Any]) -> None:
        if name not in self._settings.hooks:
            return
        with self._lock:
            if name not in self._hooks:
                try:
                    self._hooks[name] = _Hook(name, self._settings, self._killer, self._environment)
                except RuntimeError as error:  # the system allows no more threads
                    log.warning("hook %s could not be run: %s", name, error)
                    return
        self._hooks[name].call(_Call(arguments, {"event": name, **values}))


class _Hook:
    """One event's program, and its queued calls."""

    def __init__(
        self, name: str, settings: Settings, killer: _GroupKiller, environment: dict[str, str]
    ) -> None:
        self._killer = killer
        self._name = name
        # As it is when no engine starts: for a moment it is the engine's then.
        self._environment = environment
        self._settings = settings
        self._calls: Queue[_Call | None] = Queue()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._serve, name=f"hook {name}", daemon=True)
        self._thread.start()

    def call(self, call: _Call) -> None:
        """Run the program soon; if too many calls are queued, this one is dropped."""
        if self._calls.qsize() < MAX_QUEUED:
            self._calls.put(call)
        else:
            words = f"is too slow: {MAX_QUEUED} calls are queued, and another one was dropped"
            self._warn(self._program(), words)

    def is_busy(self) -> bool:
        """Whether calls are queued or running."""
        return self._calls.unfinished_tasks > 0

    def close(self) -> None:
        self._closed.set()
        if lost := self._calls.unfinished_tasks:
            self._warn(self._program(), f"was ended with picowatch; calls that were lost: {lost}")
        self._calls.put(None)
        self._thread.join()

    def _serve(self) -> None:
        while (call := self._calls.get()) and not self._closed.is_set():
            program = self._program()
            try:
                if program:
                    self._run(program, call)
            except Exception as error:  # a hook may fail in any way; rendering continues
                reason = error.strerror if isinstance(error, OSError) else str(error)
                self._warn(program, f"could not be run: {reason or type(error).__name__}")
            finally:
                self._calls.task_done()

    def _program(self) -> list[str]:
        """The program as set now, with its own arguments; [] if it was taken out of the setting."""
        return self._settings.hooks.get(self._name, [])

    def _run(self, program: list[str], call: _Call) -> None:
        with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stderr:
            stdin.write(json.dumps(call.values).encode())
            stdin.seek(0)
            command = [os.path.expanduser(program[0]), *program[1:], *call.arguments]  # noqa: PTH111
            process = self._start(command, stdin, stderr)
            try:
                in_time = self._wait(process)
            finally:
                _kill(process)
                self._killer.note(process.pid)
            if process.returncode == 0 or self._closed.is_set():
                return
            outcome = f"failed with exit code {process.returncode}"
            if not in_time:
                outcome = f"was stopped after {self._settings.hook_seconds:g} s (hook_seconds)"
            stderr.seek(0)
            lines = stderr.read(_KEPT_BYTES).decode(errors="replace").splitlines()
            words = next((f": {line}" for line in lines if line.strip()), "")
            self._warn(program, outcome + words)

    def _start(
        self, command: list[str], stdin: IO[bytes], stderr: IO[bytes]
    ) -> "subprocess.Popen[bytes]":
        """Start the program in a group of its own, of which the killer knows first."""
        _check_program(command[0])
        self._killer.start()
        noted, tell = os.pipe()
        try:
            process = subprocess.Popen(
                ["/bin/sh", "-c", _ONCE_NOTED, *command],
                stdin=stdin,
                stdout=noted,
                stderr=stderr,
                env=self._environment,
                start_new_session=True,
            )
            self._killer.note(process.pid)
            os.write(tell, b"\n")
        finally:
            os.close(noted)
            os.close(tell)
        return process

    def _wait(self, process: "subprocess.Popen[bytes]") -> bool:
        """Until it ends, its time is up, or picowatch ends; returns whether it has ended."""
        began = time.monotonic()
        while not self._closed.is_set():
            left = began + self._settings.hook_seconds - time.monotonic()
            if left <= 0:
                break
            with suppress(subprocess.TimeoutExpired):
                process.wait(min(POLL_SECONDS, left))
                return True
        return False

    def _warn(self, program: list[str], words: str) -> None:
        log.warning("hook %s (%s) %s", self._name, program[0] if program else "none", words)


def _check_program(program: str) -> None:
    """Raise OSError if there is no such program, as starting it would."""
    if shutil.which(program) is None:
        number = errno.EACCES if shutil.which(program, os.F_OK) else errno.ENOENT
        raise OSError(number, os.strerror(number))


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill the program if it is still running, with all that it started."""
    if process.poll() is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
