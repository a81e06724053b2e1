"""The driver's process: between the daemon's socket and Ray."""

import os
import signal
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from picowatch.engine.cluster.driver import Answer, Call, ClusterAway

_END_SECONDS = 10.0


def main(handle: int) -> None:
    """Serve the daemon at the other end of the socket until it closes it."""
    _leave_signals_to_the_daemon()
    connection = Connection(handle)
    sending = threading.Lock()
    calls: SimpleQueue[Call | None] = SimpleQueue()
    threading.Thread(target=_receive, args=(connection, calls), daemon=True).start()

    def answer(number: int, result: Any) -> None:
        with sending, suppress(OSError):  # the daemon is gone: the receiver ends this process
            connection.send(Answer(number, result))

    try:
        from picowatch.engine.cluster.ray_calls import RayCalls
    except ImportError as error:
        answer(0, ClusterAway(_cannot_import(error)))
        os._exit(1)
    ray = RayCalls(answer)
    try:
        while (call := calls.get()) is not None:
            ray.carry_out(call)
            _leave_signals_to_the_daemon()  # Ray takes them when it connects
        ray.disconnect()
    finally:
        os._exit(0)  # threads of Ray's may wait for what never comes


def _leave_signals_to_the_daemon() -> None:
    """Ctrl-C and a service manager's SIGTERM reach all processes; the daemon decides.

    Not by SIG_IGN, which Ray's own processes would inherit.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)


def _cannot_import(error: ImportError) -> str:
    if error.name != "ray":
        return f"Ray cannot be used: {error}."
    return (
        "executor: ray needs Ray, which is not installed. Install it in picowatch's "
        "checkout: pip install '.[ray]'"
    )


def _receive(connection: Connection, calls: SimpleQueue[Any]) -> None:
    """Pass on the daemon's calls; see to it that this process ends when the daemon is gone."""
    try:
        while True:
            calls.put(connection.recv())
    except (EOFError, OSError):
        calls.put(None)
        threading.Event().wait(_END_SECONDS)
        os._exit(1)
