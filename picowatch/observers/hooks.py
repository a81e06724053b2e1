"""The user's own programs, called for pictures, failures and an empty queue.

A hook never blocks rendering and never makes it fail: one thread runs one program at a time, from a
bounded queue. Each program has a process group of its own, which is killed when its time is up.
Each failure is one line in the log.
"""

import json
import logging
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from math import inf
from queue import Empty, Full, Queue
from typing import Any, NamedTuple

from picowatch.outbox.status import Status
from picowatch.settings import Hook, Settings

log = logging.getLogger("picowatch")

MAX_QUEUED = 100
POLL_SECONDS = 0.1  # between checks whether a program or picowatch has ended
_KEPT_BYTES = 1000  # of what a program writes to its standard error


class _Call(NamedTuple):
    """A program, with its arguments, and what it gets as JSON on its standard input."""

    event: Hook
    command: Sequence[str]
    values: Mapping[str, Any]
    seconds: float  # that it may take


class Hooks:
    """Runs the programs of the setting `hooks`: for pictures, failures and an empty queue.

    New `settings` apply to new calls; what is queued stays.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        # Copied now, because os.environ is an engine's for the moment in which that starts.
        self._environment = dict(os.environ)
        self._lock = threading.Lock()  # publishers and the daemon's thread count
        self._has_worked = False
        self._pictures = 0  # since the queue was last empty
        self._failed = inf  # images, at the last call of `status`
        self._calls: Queue[_Call] = Queue(MAX_QUEUED)
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def picture(self, line: Mapping[str, Any]) -> None:
        """Call the hook for a published picture; `line` is its line of images.jsonl."""
        with self._lock:
            self._has_worked = True
            self._pictures += 1
        path = str(self.settings.outbox.resolve() / line["file"])
        self._call("picture", path, values={**line, "path": path})

    def failed(self, recipe: str, error_file: str) -> None:
        """Call the hook for a refused save or a failed image; the error file says why."""
        path = str(self.settings.inbox.resolve() / recipe)
        error = self.settings.outbox.resolve() / error_file
        try:
            text = error.read_text(encoding="utf-8", errors="replace")
        except OSError:  # fixed, meanwhile
            text = ""
        self._call("failed", path, str(error), values={"recipe": recipe, "error": text})

    def status(self, status: Status) -> None:
        """Take the current status, a few times a second; call `idle` when the queue gets empty."""
        with self._lock:
            failed = status.images.get("failed", 0)  # an image may fail between two calls
            self._has_worked |= status.images["running"] > 0 or failed > self._failed
            self._failed = failed
            if status.images["queued"] or status.images["running"]:
                return
            has_worked, pictures = self._has_worked, self._pictures
            self._has_worked, self._pictures = False, 0
        if has_worked:
            self._call("idle", values={"pictures": pictures})

    def close(self, hurry: Callable[[], bool]) -> None:
        """Wait for hooks to end until `hurry` returns true; then kill them and drop the rest."""
        if self._closed.is_set():
            return
        pause = threading.Event()
        while self._calls.unfinished_tasks and not hurry():
            pause.wait(POLL_SECONDS)
        self._closed.set()
        if self._thread:
            self._thread.join()
        if lost := self._calls.unfinished_tasks:
            log.warning("hooks: ended with picowatch; calls that were lost: %d", lost)

    def _call(self, event: Hook, *arguments: str, values: Mapping[str, Any]) -> None:
        if event not in (programs := self.settings.hooks):
            return
        command, given = [*programs[event], *arguments], {"event": event, **values}
        try:
            self._calls.put_nowait(_Call(event, command, given, self.settings.hook_seconds))
        except Full:
            words = f"is too slow: {MAX_QUEUED} calls are queued, and another one was dropped"
            _warn(event, command, words)
        with self._lock:
            if not self._thread:
                self._thread = threading.Thread(target=self._serve, name="hooks", daemon=True)
                self._thread.start()

    def _serve(self) -> None:
        while not self._closed.is_set():
            try:
                call = self._calls.get(timeout=POLL_SECONDS)
            except Empty:
                continue
            try:
                problem = self._run(call)
            except Exception as error:  # a hook may fail in any way; rendering continues
                reason = error.strerror if isinstance(error, OSError) else str(error)
                problem = f"could not be run: {reason or type(error).__name__}"
            if self._closed.is_set():
                return  # this call is one of those that were lost
            self._calls.task_done()
            if problem:
                _warn(call.event, call.command, problem)

    def _run(self, call: _Call) -> str:
        """Run the program; return what was wrong with it, or ""."""
        program, *arguments = call.command
        with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stderr:
            stdin.write(json.dumps(call.values).encode())
            stdin.seek(0)
            process = subprocess.Popen(
                [os.path.expanduser(program), *arguments],  # noqa: PTH111
                stdin=stdin,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env=self._environment,
                start_new_session=True,
            )
            outcome = f"was stopped after {call.seconds:g} s (hook_seconds)"
            if self._wait(process, call.seconds):
                code = process.returncode
                outcome = f"failed with exit code {code}" if code else ""
            stderr.seek(0)
            lines = stderr.read(_KEPT_BYTES).decode(errors="replace").splitlines()
        words = next((f": {line}" for line in lines if line.strip()), "")
        return outcome and outcome + words

    def _wait(self, process: "subprocess.Popen[bytes]", seconds: float) -> bool:
        """Wait for the program to end; if it takes too long, kill its group and return False."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._closed.is_set():
            with suppress(subprocess.TimeoutExpired):
                process.wait(min(POLL_SECONDS, left))
                return True
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return False


def _warn(event: Hook, command: Sequence[str], words: str) -> None:
    log.warning("hook %s (%s) %s", event, command[0], words)
