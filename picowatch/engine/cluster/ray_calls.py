"""What the daemon can have done by Ray. In the driver, the only module that imports Ray."""

import os
import signal
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayTaskError

from picowatch.engine.cluster import bootstrap
from picowatch.engine.cluster.driver import Call, ClusterAway, away
from picowatch.engine.protocol import EngineLost
from picowatch.errors import EngineDied, PicowatchError

_OBJECT_STORE_BYTES = 256 * 2**20  # of a cluster on this machine: pieces and pictures are small


class RayCalls:
    """One method for each call; those that may take long give a Future."""

    def __init__(self, answer: Callable[[int, object], None]) -> None:
        """`answer` sends what the call with a number returned or raised, in any thread."""
        self._answer = answer
        self._actors: dict[int, Any] = {}
        self._is_own = False
        self._pool = ThreadPoolExecutor()
        ray.cloudpickle.register_pickle_by_value(bootstrap)

    def carry_out(self, call: Call) -> None:
        """Call that method; whatever it raises is answered as a PicowatchError."""

        def send_outcome(future: Future[Any]) -> None:
            error = future.exception()
            result = future.result() if error is None else _in_words(error, call.node)
            self._answer(call.number, result)

        try:
            result = getattr(self, call.method)(*call.arguments)
        # Ray raises nearly anything.
        except Exception as error:
            result = _in_words(error, call.node)
        if isinstance(result, Future):
            result.add_done_callback(send_outcome)
        else:
            self._answer(call.number, result)

    def connect(self, address: str | None, folder: Path | None) -> None:
        """Connect to the cluster at this address, or to a new one in that folder."""
        options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
        self._is_own = address is None
        if address is None:
            options |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
            options |= {"_temp_dir": str(folder)}
        try:
            ray.init(address or "local", **options)
        # Nearly anything; RuntimeError for versions that differ.
        except Exception as error:
            raise away(address, _in_one_line(error)) from error

    def disconnect(self) -> None:
        """Give all back. With a new cluster this process is killed, too, which is quick."""
        if self._is_own:
            os.killpg(0, signal.SIGKILL)
        for number in list(self._actors):
            self.kill(number)
        ray.shutdown()

    def resources(self) -> Future[dict[str, float]]:
        """How much of what the cluster has. Ray waits a minute for a head that is gone."""
        return self._pool.submit(ray.cluster_resources)

    def nodes(self) -> list[dict[str, Any]]:
        """Every node that is alive, as Ray describes it."""
        return [node for node in ray.nodes() if node["Alive"]]

    def place(self, number: int, options: dict[str, Any]) -> None:
        """Request an actor with these options."""
        self._actors[number] = ray.remote(bootstrap.AgentActor).options(**options).remote()

    def ask(self, number: int, method: str, *arguments: Any) -> Future[Any]:
        """Call an actor's method."""
        actor = self._actors.get(number)
        answer: Future[Any] = getattr(actor, method).remote(*arguments).future()
        return answer

    def kill(self, number: int) -> None:
        """End an actor, placed or not."""
        actor = self._actors.pop(number, None)
        with suppress(Exception):  # Ray is going down, or the actor is gone already
            ray.kill(actor)


def _in_words(error: BaseException, node: str) -> PicowatchError:
    """In one sentence for people, which Ray's texts are not."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    if isinstance(cause, PicowatchError):
        return cause
    if not node:
        return ClusterAway(f"The Ray cluster cannot be used: {_in_one_line(error)}.")
    if isinstance(error, OutOfMemoryError):  # the batch may be at fault
        return EngineDied(
            f"Ray ended the engine on {node}, because memory ran low there.",
            "Try a smaller size or batch_size: 1, or fewer engines on that node.",
        )
    if isinstance(error, NodeDiedError) or "its node has died" in str(error):
        return EngineLost(f"The node {node} of the cluster is gone.")
    if isinstance(error, RayTaskError):
        return EngineLost(f"The engine on {node} answered with an error: {_in_one_line(cause)}.")
    return EngineLost(f"The engine on {node} ended, or the connection to it was lost.")


def _in_one_line(error: BaseException) -> str:
    """The text without a traceback, of which only the last line is kept."""
    before, traceback, after = str(error).partition("Traceback")
    last = after.strip().splitlines()[-1:] if traceback else []
    return " ".join(" ".join([before, *last]).split())[:300].rstrip(".: ")
