"""The driver's process: between the daemon's socket and Ray."""

import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from picowatch.engine.cluster.messages import Begin, FromDriver, Trouble

_END_SECONDS = 10.0
_SLOW_SECONDS = 15.0
_SLOW = "picowatch is connecting to the Ray cluster, which has not answered yet."
_NO_RAY = (
    "executor: ray needs Ray, which is not installed. Install it in picowatch's "
    "checkout: pip install '.[ray]'"
)


def main(handle: int) -> None:
    """Serve the daemon at the other end of the socket until it closes it."""
    _leave_signals_to_the_daemon()
    connection = Connection(handle)
    voice = _Voice(connection)
    begin = connection.recv()
    assert isinstance(begin, Begin)
    try:
        from picowatch.engine.cluster.connection import ClusterAway, connected
        from picowatch.engine.cluster.driver import Driver, Order
    except ImportError as error:
        text = _NO_RAY if error.name == "ray" else f"Ray cannot be used: {error}."
        voice.say(Trouble(text, final=True))
        sys.exit(1)
    orders: SimpleQueue[Order] = SimpleQueue()
    threading.Thread(target=_listen, args=(connection, orders), daemon=True).start()
    slow = threading.Timer(_SLOW_SECONDS, voice.say, [Trouble(_SLOW)])
    slow.daemon = True
    slow.start()
    reached = False
    try:
        with connected(begin.settings.address, begin.folder):
            slow.cancel()
            reached = True
            _leave_signals_to_the_daemon()  # Ray took them
            Driver(begin, voice.say, orders).run()
    except ClusterAway as away:
        slow.cancel()
        voice.say(Trouble(str(away), final=not reached))
    finally:
        os._exit(0)  # threads of Ray's and of engines may wait for what never comes


def _leave_signals_to_the_daemon() -> None:
    """Ctrl-C and a service manager's SIGTERM reach all processes; the daemon decides.

    Not by SIG_IGN, which Ray's own processes would inherit.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)


def _listen(connection: Connection, orders: SimpleQueue[Any]) -> None:
    """Pass on what the daemon says; see to it that this process ends when the daemon is gone."""
    try:
        while True:
            orders.put(connection.recv())
    except (EOFError, OSError):
        orders.put(None)
        threading.Event().wait(_END_SECONDS)
        os._exit(1)


class _Voice:
    """Says something to the daemon; from several threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def say(self, message: FromDriver) -> None:
        with self._lock:
            try:
                self._connection.send(message)
            except OSError:  # the daemon is gone; the listener hears of it
                return
