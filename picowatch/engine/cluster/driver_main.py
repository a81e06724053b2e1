"""The driver's process: carries out the daemon's calls. Alone imports Ray, when it connects."""

import os
import signal
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from picowatch.engine.cluster import bootstrap
from picowatch.engine.cluster.driver import Call, ClusterAway, away, unfit_by
from picowatch.engine.protocol import EngineLost
from picowatch.errors import EngineDied, PicowatchError
from picowatch.extras import install_command

_END_SECONDS = 10.0
_OBJECT_STORE_BYTES = 256 * 2**20  # of a cluster on this machine: pieces and pictures are small


def main(handle: int) -> None:
    """Carry out the daemon's calls, in their order, until it closes the socket or sends None."""
    _leave_signals_to_the_daemon()
    connection = Connection(handle)
    ray = RayCalls(connection)
    calls = ThreadPoolExecutor(1)
    try:
        with suppress(EOFError, OSError):
            while (call := connection.recv()) is not None:
                _leave_signals_to_the_daemon()  # Ray took them when it connected
                outcome = calls.submit(getattr(ray, call.method), *call.arguments)
                outcome.add_done_callback(partial(ray.answer, call))
        if not ray.has_own_cluster:
            wait([calls.submit(ray.disconnect)], _END_SECONDS)
    finally:
        # This process, whose threads may wait for what never comes, and all of its own cluster.
        os.killpg(0, signal.SIGKILL)


def _leave_signals_to_the_daemon() -> None:
    """Ctrl-C and a service manager's SIGTERM reach all processes; the daemon decides.

    Not by SIG_IGN, which Ray's own processes would inherit.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)


class RayCalls:
    """What the daemon can have done by Ray; what may take long gives a Future."""

    def __init__(self, connection: Connection) -> None:
        """To the daemon."""
        self._connection = connection
        self._sending = threading.Lock()
        self._actors: dict[int, Any] = {}
        self.has_own_cluster = False
        self._pool = ThreadPoolExecutor()
        self._ray: Any = None

    def answer(self, call: Call, outcome: Future[Any]) -> None:
        """Send the daemon what the call gave, now or once its Future is done."""
        error = outcome.exception()
        result = outcome.result() if error is None else _in_words(error, call.node)
        if isinstance(result, Future):
            result.add_done_callback(partial(self.answer, call))
            return
        with self._sending, suppress(OSError):  # the daemon is gone: this process ends
            self._connection.send((call.number, result))

    def connect(self, address: str | None, folder: Path | None) -> None:
        """Connect to the cluster at this address, or to a new one in that folder."""
        try:
            import ray
        except ImportError as error:
            raise ClusterAway(_cannot_import(error)) from error
        self._ray = ray
        ray.cloudpickle.register_pickle_by_value(bootstrap)
        options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
        self.has_own_cluster = address is None
        if address is None:
            options |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
            options |= {"_temp_dir": str(folder)}
        try:
            ray.init(address or "local", **options)
        # Nearly anything; RuntimeError for versions that differ.
        except Exception as error:
            raise away(address, _in_one_line(error)) from error

    def disconnect(self) -> None:
        """Give all back: Ray ends the actors of a driver that leaves."""
        self._ray.shutdown()

    def resources(self) -> Future[dict[str, float]]:
        """How much of what the cluster has. Ray waits a minute for a head that is gone."""
        return self._pool.submit(self._ray.cluster_resources)

    def nodes(self) -> list[dict[str, Any]]:
        """Every node that is alive, as Ray describes it."""
        return [node for node in self._ray.nodes() if node["Alive"]]

    def place(self, number: int, options: dict[str, Any]) -> None:
        """Request an actor with these options."""
        actor_class = self._ray.remote(bootstrap.AgentActor)
        self._actors[number] = actor_class.options(**options).remote()

    def ask(self, number: int, method: str, *arguments: Any) -> Future[Any]:
        """Call a method of an actor or of its agent."""
        answer: Future[Any] = self._actors[number].ask.remote(method, *arguments).future()
        return answer

    def kill(self, number: int) -> None:
        """End an actor, placed or not."""
        actor = self._actors.pop(number, None)
        with suppress(Exception):  # Ray is going down, or the actor is gone already
            self._ray.kill(actor)


def _in_words(error: BaseException, node: str) -> PicowatchError:
    """In one sentence for people, which Ray's texts are not."""
    cause = getattr(error, "cause", error)  # what an actor raised
    if isinstance(cause, PicowatchError):
        return cause
    if not node:
        return ClusterAway(f"The Ray cluster cannot be used: {_in_one_line(error)}.")
    from ray.exceptions import NodeDiedError, OutOfMemoryError, RayTaskError

    if isinstance(error, OutOfMemoryError):  # the batch may be at fault
        return EngineDied(
            f"Ray ended the engine on {node}, because memory ran low there.",
            "Try a smaller size or batch_size: 1, or fewer engines on that node.",
        )
    if isinstance(error, NodeDiedError) or "its node has died" in str(error):
        return EngineLost(f"The cluster lost {node}.")
    if isinstance(error, RayTaskError):
        if isinstance(cause, OSError):
            return unfit_by(cause, node)
        return EngineLost(f"The engine on {node} answered with an error: {_in_one_line(cause)}.")
    return EngineLost(f"The engine on {node} ended, or the connection to it was lost.")


def _cannot_import(error: ImportError) -> str:
    if error.name != "ray":
        return f"Ray cannot be used: {error}."
    return f"executor: ray needs Ray, which is not installed. Install it: {install_command('ray')}"


def _in_one_line(error: BaseException) -> str:
    """The text without a traceback, of which only the last line is kept."""
    before, traceback, after = str(error).partition("Traceback")
    last = after.strip().splitlines()[-1:] if traceback else []
    return " ".join(" ".join([before, *last]).split())[:300].rstrip(".: ")
