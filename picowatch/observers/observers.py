"""Everything that only watches the work: hooks, metrics, the preview.

Hooks are the user's own programs, called for pictures, failures and an empty queue. A hook never
blocks rendering and never makes it fail: one thread runs one program at a time, from a bounded
queue. Each program has a process group of its own, which is killed when its time is up. Each
failure is one line in the log.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from picowatch.engine.protocol import RgbPicture
from picowatch.errors import SettingsInvalid, install_command
from picowatch.files.atomic import write_atomically
from picowatch.files.decoding import Original
from picowatch.files.essential import Writing
from picowatch.outbox.encoding import encode_png
from picowatch.outbox.outbox import Outbox
from picowatch.outbox.status import Status
from picowatch.settings.values import Hook

if TYPE_CHECKING:
    from picowatch.observers.metrics import Metrics

log = logging.getLogger("picowatch")

SCALE = 8  # a preview has one pixel per latent pixel, which covers 8x8 pixels of the picture
MAX_QUEUED = 100
PROGRESS = ("share", "seconds_left", "all_seconds_left")  # fields of the status
POLL_SECONDS = 0.1  # between checks whether a program or picowatch has ended
KILL_SECONDS = 1.0  # that a killed program may take to end
UNKILLABLE = "perhaps because it runs as another user; picowatch no longer waits for it"
_KEPT_BYTES = 1000  # of what a program writes to its standard error

Programs = Mapping[Hook, Sequence[str]]  # with their arguments


class Observers:
    """Gets each picture, failure, preview and status; never makes the work fail.

    Hooks and metrics go on when another daemon starts over, with its settings: see `use`.
    """

    def __init__(self) -> None:
        self._hooks = Hooks()
        self._metrics: Metrics | None = None
        self._ignored: Mapping[str, str] = {}  # which was logged, also for a daemon before

    def serve_metrics(self, address: str | None) -> None:
        """Serve metrics there, or none. Raises SettingsInvalid; then none are served."""
        if address == (self._metrics and self._metrics.address):
            return
        if self._metrics:
            self._metrics.close()  # it may be in the way: 127.0.0.1:9464 is part of :9464
            self._metrics = None
        if address:
            try:
                from picowatch.observers.metrics import Metrics
            except ImportError as error:
                words = "metrics need prometheus-client, which is not installed."
                remedy = f"Install it: {install_command('metrics')}"
                raise SettingsInvalid(f"metrics_address {address}: {words}", remedy) from error
            self._metrics = Metrics(address)

    def use(
        self, inbox: Path, outbox: Outbox, writing: Writing, hooks: Programs, hook_seconds: float
    ) -> None:
        """Observe a daemon with these settings from now on."""
        self._hooks.use(inbox, outbox.root, hooks, hook_seconds)
        self._outbox, self._writing = outbox, writing
        self._preview = outbox.root / "preview.png"
        self._newest_preview: RgbPicture | None = None
        self._shown_preview: RgbPicture | None = None
        self.remove_preview()  # from before a crash

    def published(self, line: dict[str, Any]) -> None:
        """Report a published picture; `line` is its line of images.jsonl."""
        self._hooks.picture(line)
        if self._metrics:
            self._metrics.image_seconds.observe(line["seconds"])

    def failed(self, recipe: str) -> None:
        """Report that an error file was written for the recipe."""
        self._hooks.failed(recipe, self._outbox.names.error_file(recipe))

    def finished(self, values: Mapping[str, Any]) -> None:
        """Report the account of a finished folder, or of all that was rendered."""
        self._hooks.call("on_finished", values=values)

    def preview(self, preview: RgbPicture) -> None:
        """Take roughly how a picture in progress will look; the next round shows the newest.

        An engine's thread must not wait for the disk: meanwhile nobody would read from its pipe,
        which is full after four previews of 1024x1024, and the engine would wait, too.
        """
        self._newest_preview = preview

    def status(self, status: Status) -> None:
        """Report the current status, a few times a second, and show the newest preview."""
        self._hooks.status(status)
        if self._metrics:
            self._metrics.status = status
        preview = self._newest_preview
        if preview and preview is not self._shown_preview:
            with self._writing.optional(self._preview.name):
                self._write_preview(preview)
                self._shown_preview = preview

    def _write_preview(self, preview: RgbPicture) -> None:
        try:
            image = Image.frombytes("RGB", (preview.width, preview.height), preview.pixels)
            size = (preview.width * SCALE, preview.height * SCALE)
            large = image.resize(size, Image.Resampling.BICUBIC)
            content = encode_png(Original(large), {}, self._outbox.mark)
        # A preview is not worth an error. Pillow 12 raises SystemError if it has no pixels.
        except (OSError, ValueError, SystemError) as error:
            log.debug("no preview: %s", error)
        else:  # it stays until the next preview: viewers lose a file that vanishes
            write_atomically(self._preview, content, durable=False)

    def ignored(self, files: Mapping[str, str]) -> None:
        """Log why files are not taken, once for each as long as it is there."""
        for path in files.keys() - self._ignored.keys():
            extra = {"event": "ignored", "recipe": path, "code": "never_run"}
            log.warning("%s is not run: %s", path, files[path], extra=extra)
        self._ignored = files

    def engine_died(self) -> None:
        if self._metrics:
            self._metrics.engine_restarts.inc()

    def close(self, hurry: Callable[[], bool]) -> None:
        """Let running hooks end by themselves until `hurry`; then kill them all."""
        self._hooks.close(hurry)
        if self._metrics:
            self._metrics.close()
            self._metrics = None

    def remove_preview(self) -> None:
        """Delete the preview, which nobody updates any more."""
        with suppress(OSError):
            self._preview.unlink(missing_ok=True)


class Hooks:
    """Runs the programs of the setting `hooks`, once it is in `use`."""

    def __init__(self) -> None:
        # Copied now, because os.environ is an engine's for the moment in which that starts.
        self._environment = dict(os.environ)
        self._lock = threading.Lock()  # publishers and the daemon's thread count
        self._inbox = self._outbox = Path()
        self._has_worked = False
        self._pictures = 0  # since the queue was last empty
        self._failed = inf  # images, at the last call of `status`
        self._waiting = 0  # calls that have not ended
        self._progress: dict[str, float | None] = dict.fromkeys(PROGRESS)
        self._closed = threading.Event()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="hooks")

    def use(self, inbox: Path, outbox: Path, programs: Programs, hook_seconds: float) -> None:
        """Apply these settings to new calls; what is queued stays."""
        if outbox != self._outbox:  # its queue is empty before the inbox was looked at
            self._has_worked, self._pictures, self._failed = False, 0, inf
        self._inbox, self._outbox = inbox, outbox
        self._programs, self._seconds = programs, hook_seconds

    def picture(self, line: Mapping[str, Any]) -> None:
        """Call the hook for a published picture; `line` is its line of images.jsonl."""
        with self._lock:
            self._has_worked = True
            self._pictures += 1
        path = str(self._outbox.resolve() / line["file"])
        self.call("picture", path, values={**line, "path": path, **self._progress})

    def failed(self, recipe: str, error_file: str) -> None:
        """Call the hook for a refused save or a failed image; the error file says why."""
        path = str(self._inbox.resolve() / recipe)
        error = self._outbox.resolve() / error_file
        try:
            text = error.read_text(encoding="utf-8", errors="replace")
        except OSError:  # fixed, meanwhile
            text = ""
        self.call("failed", path, str(error), values={"recipe": recipe, "error": text})

    def status(self, status: Status) -> None:
        """Take the current status, a few times a second; call `idle` when the queue gets empty."""
        self._progress = {name: getattr(status, name) for name in PROGRESS}
        with self._lock:
            failed = status.images.get("failed", 0)  # an image may fail between two calls
            self._has_worked |= status.images["running"] > 0 or failed > self._failed
            self._failed = failed
            if status.images["queued"] or status.images["running"]:
                return
            has_worked, pictures = self._has_worked, self._pictures
            self._has_worked, self._pictures = False, 0
        if has_worked:
            self.call("idle", values={"pictures": pictures})

    def close(self, hurry: Callable[[], bool]) -> None:
        """Wait for hooks to end until `hurry` returns true; then kill them and drop the rest."""
        if self._closed.is_set():
            return
        pause = threading.Event()
        while self._waiting and not hurry():
            pause.wait(POLL_SECONDS)
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._closed.set()
        self._executor.shutdown()
        if self._waiting:
            log.warning("hooks: ended with picowatch; calls that were lost: %d", self._waiting)

    def call(self, event: Hook, *arguments: str, values: Mapping[str, Any]) -> None:
        """Run the program of an event, if one is set, after those that are queued."""
        if event not in self._programs:
            return
        command, given = [*self._programs[event], *arguments], {"event": event, **values}
        with self._lock:
            is_full = self._waiting > MAX_QUEUED  # besides the call that runs
            self._waiting += not is_full
        if is_full:
            words = f"is too slow: {MAX_QUEUED} calls are queued, and another one was dropped"
            _warn(event, command, words)
        else:
            self._executor.submit(partial(self._run, event, command, given, self._seconds))

    def _run(
        self, event: Hook, command: Sequence[str], values: Mapping[str, Any], seconds: float
    ) -> None:
        """Run a program with `values` on its standard input; log what was wrong, if anything."""
        try:
            with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stderr:
                stdin.write(json.dumps(values).encode())
                stdin.seek(0)
                process = subprocess.Popen(
                    [os.path.expanduser(command[0]), *command[1:]],  # noqa: PTH111
                    stdin=stdin,
                    stdout=subprocess.DEVNULL,
                    stderr=stderr,
                    env=self._environment,
                    start_new_session=True,
                )
                problem = self._outcome(process, seconds, stderr.fileno())
                lines = os.pread(stderr.fileno(), _KEPT_BYTES, 0).decode(errors="replace")
            told = (f": {line}" for line in lines.splitlines() if line.strip())
            problem = problem and problem + next(told, "")
        except Exception as error:  # a hook may fail in any way; rendering continues
            reason = error.strerror if isinstance(error, OSError) else str(error)
            problem = f"could not be run: {reason or type(error).__name__}"
        if self._closed.is_set():
            return  # this call is one of those that were lost
        with self._lock:
            self._waiting -= 1
        if problem:
            _warn(event, command, problem)

    def _outcome(self, process: subprocess.Popen[bytes], seconds: float, stderr: int) -> str:
        """Wait for the program, and kill its group if it takes too long; return what was wrong."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._closed.is_set():
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(min(POLL_SECONDS, left))
                return f"failed with exit code {code}" if code else ""
            # The end of a pipe instead would kill what the program leaves in the background.
            if os.fstat(stderr).st_size > _KEPT_BYTES:
                os.ftruncate(stderr, _KEPT_BYTES)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        late = f"after {seconds:g} s (hook_seconds)"
        with suppress(subprocess.TimeoutExpired):
            process.wait(KILL_SECONDS)
            return f"was stopped {late}"
        return f"could not be ended {late}, {UNKILLABLE}"


def _warn(event: Hook, command: Sequence[str], words: str) -> None:
    log.warning("hook %s (%s) %s", event, command[0], words)
