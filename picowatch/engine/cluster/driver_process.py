"""The driver's process, as the daemon sees it. Imports no Ray."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Pipe
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from picowatch.engine.cluster.messages import Begin, FromDriver, ToDriver
from picowatch.engine.options import EngineOptions
from picowatch.engine.process.failures import StderrTail
from picowatch.settings import RaySettings

# As a ChildEngine's: the user's folder is not searched, the package's own parent comes last.
_BOOT = (
    "import sys; sys.path.append({root!r}); "
    "from picowatch.engine.cluster.driver_main import main; main({handle})"
)
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "PYTHONWARNINGS": "ignore",
}
_FOLDER = "picowatch-ray-"
_TRIES = 3


def _new_folder() -> Path:
    """Where a cluster on this machine keeps what it needs; those that were left behind go.

    Sockets lie in it, whose paths may have 107 bytes: Ray, too, takes /tmp.
    """
    for old in Path("/tmp").glob(f"{_FOLDER}*"):
        daemon = old.name.removeprefix(_FOLDER).partition("-")[0]
        if daemon.isdecimal() and not psutil.pid_exists(int(daemon)):
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-", dir="/tmp"))


def from_anywhere(options: EngineOptions) -> EngineOptions:
    """The options with absolute paths: other processes have other working folders."""
    return replace(
        options,
        models=options.models.absolute(),
        hash_cache=options.hash_cache and options.hash_cache.absolute(),
        start_images=options.start_images and options.start_images.absolute(),
    )


def _of_own_cluster(settings: RaySettings) -> dict[str, str]:
    """For a cluster on this machine: its ports are open to the network, so it has a new secret.

    Engines get as much of busy cores as with `local`; Ray would have them step back.
    """
    if settings.address is not None:
        return {}
    secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    return secret | {"RAY_worker_niceness": "0"}


class DriverProcess:
    """The driver's process, and the socket to it."""

    def __init__(self, begin: Begin) -> None:
        self._connection, theirs = Pipe()
        self._lock = threading.Lock()
        root = str(Path(__file__).absolute().parents[3])
        self._folder = _new_folder() if begin.settings.address is None else None
        begin = replace(begin, folder=self._folder)
        boot = _BOOT.format(root=root, handle=theirs.fileno())
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", boot],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=os.environ | _ENVIRONMENT | _of_own_cluster(begin.settings),
                pass_fds=(theirs.fileno(),),
                cwd="/",  # Ray has all nodes search the folder that its driver is in
                start_new_session=True,
            )
        assert self.process.stderr is not None
        self._last_words = StderrTail(self.process.stderr)
        self.send(begin)

    def send(self, message: ToDriver | Begin) -> None:
        """Say something to the driver; nothing if it is gone, which `hear` says."""
        with self._lock, suppress(OSError):
            self._connection.send(message)

    def hear(self, patience_seconds: float | None = None) -> FromDriver:
        """The next message; EOFError once the process is gone, TimeoutError if none comes."""
        if not self._connection.poll(patience_seconds):
            raise TimeoutError
        message: FromDriver = self._connection.recv()
        return message

    def last_words(self) -> list[str]:
        """What the process wrote to its standard error last."""
        return self._last_words.lines()

    def end(self, patience_seconds: float = 0.0) -> None:
        """Let it give back what it holds, then kill it with all that it started."""
        if patience_seconds:
            self.send(None)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(patience_seconds)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for _ in range(_TRIES):  # Ray's workers may just be ending
            if self._folder is not None and self._folder.exists():
                shutil.rmtree(self._folder, ignore_errors=True)

    def close(self) -> None:
        """Nothing is heard any more."""
        self._connection.close()
