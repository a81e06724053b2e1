"""The driver's process, as the daemon sees it: calls and their answers. Imports no Ray."""

import os
import secrets
import shutil
import socket
import tempfile
import threading
from concurrent.futures import Future
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import psutil  # type: ignore[import-untyped]

from picowatch.engine.cluster.driver_process import ChildProcess
from picowatch.engine.protocol import EngineLost
from picowatch.errors import PicowatchError

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "PYTHONWARNINGS": "ignore",
}
_CONNECT_SECONDS = 5.0
_FOLDER = "picowatch-ray-"
_TRIES = 3
LOST = "The connection to the Ray cluster was lost."


class ClusterAway(PicowatchError):
    """The Ray cluster cannot be reached."""

    usual_remedy = "Start the cluster, or set executor: local."


class NodeUnfit(EngineLost):
    """A node that cannot be used as it is."""


def unfit_by(error: OSError, node: str) -> NodeUnfit:
    """A node whose disk is full or cannot be written is not to be used."""
    where = f" ({error.filename})" if error.filename else ""
    return NodeUnfit(f"{node} is not used: {error.strerror or error}{where}.")


class Call(NamedTuple):
    """To the driver: call this method of `RayCalls`. `node` is for messages: where its actor is.

    The answer has the same number, and what the method returned or the PicowatchError it raised.
    """

    number: int
    node: str
    method: str
    arguments: tuple[Any, ...]


def start_driver(address: str | None) -> "Driver":
    """A driver for the cluster at this address, or for a new one; raises ClusterAway."""
    try:
        if address is None:
            _check_for_free_port()
        else:
            _check_for_listener(address)
        return Driver(address)
    # Nobody listens; no room or no permission for the driver's folder; no more processes. A name
    # that cannot be one, as `node..local`, is a UnicodeError.
    except (OSError, UnicodeError) as error:
        raise away(address, str(error)) from error


class Driver:
    """The driver's process, and the socket to it."""

    def __init__(self, address: str | None) -> None:
        """Start the process; raises OSError. Without an address it is for a new cluster."""
        self._address = address
        self._lock = threading.Lock()
        self._numbers = count()
        self._calls: dict[int, Future[Any]] = {}
        self._ended = False
        self._folder = _new_folder() if address is None else None
        self._process = ChildProcess(
            "picowatch.engine.cluster.driver_main",
            os.environ | _ENVIRONMENT | ({} if address else _own_cluster()),
            folder="/",  # Ray has all nodes search the folder that its driver is in
        )
        threading.Thread(target=self._receive, name="driver", daemon=True).start()

    def connect(self) -> Future[None]:
        """Connect Ray, before anything else; the future raises ClusterAway."""
        return self.call("connect", self._address, self._folder)

    def call(self, method: str, *arguments: Any, node: str = "") -> Future[Any]:
        """Call a method of `RayCalls`; the future raises EngineLost when the process ends."""
        future: Future[Any] = Future()
        with self._lock:
            number = next(self._numbers)
            if not self._ended:
                self._calls[number] = future
                with suppress(OSError):  # it ended: `_receive` fails the call
                    self._process.connection.send(Call(number, node, method, arguments))
                return future
        future.set_exception(EngineLost(LOST))
        return future

    def stderr(self) -> str:
        """What the process wrote to its standard error last."""
        return "\n".join(self._process.stderr.lines())

    def end(self, patience_seconds: float = 0.0) -> None:
        """Let it give back what it holds, then kill it with all that it started."""
        if patience_seconds:
            with self._lock, suppress(OSError):
                self._process.connection.send(None)
            self._process.wait(patience_seconds)
        self._process.kill()
        self._process.wait()
        for _ in range(_TRIES):  # Ray's workers may just be ending
            if self._folder is not None and self._folder.exists():
                shutil.rmtree(self._folder, ignore_errors=True)

    def _receive(self) -> None:
        """The thread: pass on the answers until the process ends."""
        try:
            while True:
                number, result = self._process.connection.recv()
                with self._lock:
                    future = self._calls.pop(number)
                if isinstance(result, PicowatchError):
                    future.set_exception(result)
                else:
                    future.set_result(result)
        except (EOFError, OSError):
            pass
        finally:
            with self._lock:
                self._ended = True
                self._process.connection.close()
            for future in self._calls.values():
                future.set_exception(EngineLost(LOST))


def _new_folder() -> Path:
    """Where a cluster on this machine keeps what it needs; those that were left behind go.

    Sockets lie in it, whose paths may have 107 bytes: Ray, too, takes /tmp.
    """
    for old in Path("/tmp").glob(f"{_FOLDER}*"):
        daemon = old.name.removeprefix(_FOLDER).partition("-")[0]
        is_mine = daemon == str(os.getpid())  # in a container, that of the one before, too
        if is_mine or (daemon.isdecimal() and not psutil.pid_exists(int(daemon))):
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-", dir="/tmp"))


def _own_cluster() -> dict[str, str]:
    """For a cluster on this machine: its ports are open to the network, so it has a new secret.

    Engines get as much of busy cores as with `local`; Ray would have them step back.
    """
    secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    return secret | {"RAY_worker_niceness": "0"}


def _check_for_free_port() -> None:
    """Raises OSError where no port is free or allowed: Ray looks for one for half a minute."""
    socket.create_server(("127.0.0.1", 0)).close()


def _check_for_listener(address: str) -> None:
    """Raises OSError where nobody listens: Ray notices it after a minute."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()


def away(address: str | None, reason: str) -> ClusterAway:
    """Why there is no connection to the cluster at this address, or to a new one."""
    if address is None:
        return ClusterAway(f"Ray cannot be started on this machine: {reason}.")
    if "ersion mismatch" in reason:
        return ClusterAway(
            f"The Ray cluster at {address} has other versions of Ray or Python than this machine: "
            f"{reason}."
        )
    return ClusterAway(
        f"Cannot connect to the Ray cluster at {address}: {reason}. Is it running, is its port "
        "reachable from here, and is Ray's token the same on both sides (RAY_AUTH_TOKEN)?"
    )
