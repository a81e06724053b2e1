"""The way to a cluster: one that is there, or a new one on this machine. In the driver."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from picowatch.errors import PicowatchError

_OBJECT_STORE_BYTES = 256 * 2**20  # of a cluster on this machine: pieces and pictures are small
_PROBE_SECONDS = 5.0
_KNOCK_SECONDS = 5.0


class ClusterAway(PicowatchError):
    """There is no way to the cluster, or no more."""

    usual_remedy = "Start the cluster, or set executor: local."


@contextmanager
def connected(address: str | None, folder: Path | None) -> Iterator[None]:
    """A way to the cluster at this address, or to a new one in that folder; raises ClusterAway.

    At the end of a new one this process is killed with it, which is quick.
    """
    quietly: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    try:
        if address is None:
            _find_port()
            quietly |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
            ray.init("local", _temp_dir=str(folder), **quietly)
        else:
            _knock(address)
            ray.init(address, **quietly)
    # Ray raises nearly anything; RuntimeError for versions that differ.
    except Exception as error:
        raise ClusterAway(_why(address, error)) from error
    try:
        yield
    finally:
        if address is None:
            os.killpg(0, signal.SIGKILL)
        ray.shutdown()


def _find_port() -> None:
    """Raises OSError where no port is free or allowed: Ray looks for one for half a minute."""
    socket.create_server(("127.0.0.1", 0)).close()


def _knock(address: str) -> None:
    """Raises OSError where nobody listens: Ray takes a minute to say so."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK_SECONDS).close()


def _why(address: str | None, error: Exception) -> str:
    said = _in_one_line(str(error))
    if address is None:
        return f"Ray cannot be started on this machine: {said}."
    if "ersion mismatch" in said:
        return (
            f"The Ray cluster at {address} has other versions of Ray or Python than this machine: "
            f"{said}."
        )
    return (
        f"Cannot connect to the Ray cluster at {address}: {said}. Is it running, is its port "
        "reachable from here, and is Ray's token the same on both sides (RAY_AUTH_TOKEN)?"
    )


def _in_one_line(words: str) -> str:
    """The text without a traceback, of which only the last line says something."""
    before, traceback, after = words.partition("Traceback")
    last = after.strip().splitlines()[-1:] if traceback else []
    return " ".join(" ".join([before, *last]).split())[:300].rstrip(".: ")


class Probe:
    """Asks the head what the cluster has, again and again: whether it answers, that says.

    In a thread of its own, because Ray waits a minute for a head that is gone.
    """

    def __init__(self) -> None:
        self.resources: dict[str, float] = ray.cluster_resources()
        self._answered = time.monotonic()
        threading.Thread(target=self._run, name="probe", daemon=True).start()

    @property
    def silent_seconds(self) -> float:
        """How long the head has not answered, beyond what lies between two questions."""
        return max(0.0, time.monotonic() - self._answered - _PROBE_SECONDS)

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            pause.wait(_PROBE_SECONDS)
            try:
                self.resources = ray.cluster_resources()
            except Exception:  # silence says it
                continue
            self._answered = time.monotonic()
