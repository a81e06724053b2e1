"""The connection of this process to a Ray cluster. Imports Ray only when it connects."""

import atexit
import logging
import os
import secrets
import shutil
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

from picowatch.engine.ray_nodes import ClusterAway, delete_left_folders, differences, new_folder
from picowatch.engine.torch_check import Check
from picowatch.errors import PicowatchError
from picowatch.settings import RaySettings

NODE_ID = "ray.io/node-id"  # a label that Ray gives each node
LOST = "The connection to the Ray cluster was lost."
_ENVIRONMENT = {
    # Ray would end this process when the head has been away for a minute, …
    "RAY_gcs_rpc_server_reconnect_timeout_s": "1000000",
    # … and when its node's raylet has ended and the parent of this process is process 1, as in a
    # service: without this variable it takes the parent for the raylet (IsRayletFailed in Ray's
    # src/ray/raylet_ipc_client/raylet_ipc_client.cc). This process runs as long as it runs.
    "RAY_RAYLET_PID": str(os.getpid()),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # else it prints what it says of actors that died
}
# Of a cluster of our own: engines get as much of busy cores as with `local`.
_OWN_ENVIRONMENT = {"RAY_AUTH_MODE": "token", "RAY_worker_niceness": "0"}
_OBJECT_STORE_BYTES = 256 * 2**20  # of a cluster on this machine: pictures are small
_REACH_SECONDS = 5.0
_CONNECT_SECONDS = 60.0
_ANSWER_SECONDS = 20.0  # a node starts a process to answer
_SAME = "Install the same versions there as here. Until then, nothing is rendered on it."
_JOIN = (
    "On this machine, run `ray start --num-cpus=0 --address=HOST:6379` with the head's address and "
    "the token of the cluster (RAY_AUTH_TOKEN)"
)


_one_at_a_time = threading.Lock()  # Ray's state is the process'


class RayConnection:
    """Ray in this process. It has a thread, which connects, waits until the end, and disconnects.

    A cluster of our own ends with this thread, however that ends: Ray has the kernel end the
    processes that it starts with the thread that started them (PR_SET_PDEATHSIG, man 2 prctl). And
    outside of the main thread, Ray leaves our signal handlers alone.
    """

    def __init__(self, address: str | None) -> None:
        """Connect to the cluster of this machine; without an address, to a new one."""
        self.made: Future[None] = Future()  # raises ClusterAway
        self.ended: Future[None] = Future()
        self._address = address
        self._over = threading.Event()
        self._places: list[tuple[str, int]] = []
        self.has_gpu = False
        threading.Thread(target=self._run, name="ray-connection", daemon=True).start()

    def answers(self) -> bool:
        """Whether the head and this machine's node take connections.

        Not by Ray, whose calls wait for a head that is gone, and end this process if another one
        comes in its place (GlobalStateAccessor, "WrongClusterID").
        """
        try:
            for place in self._places:
                _reach(place)
        except OSError:
            return False
        return True

    def end(self) -> None:
        """Disconnect; `ended` is done then."""
        self._over.set()

    def _run(self) -> None:
        with _one_at_a_time:
            self._hold()
        self.ended.set_result(None)

    def _hold(self) -> None:
        """Connect, wait until `end` is called, and disconnect."""
        folder: Path | None = None
        try:
            folder = new_folder() if self._address is None else None
            self._connect(folder)
        except Exception as error:  # nearly anything, from gRPC's errors to no room on the disk
            self.made.set_exception(_away(self._address, error))
        else:
            self.made.set_result(None)
            self._over.wait()
        with suppress(Exception):
            import ray

            ray.shutdown()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
            delete_left_folders()  # those of engines

    def _connect(self, folder: Path | None) -> None:
        os.environ.update(_ENVIRONMENT)
        options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
        if folder:
            # Its ports are open to the network. Ray reads the token once in the life of a process.
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
            os.environ.update(_OWN_ENVIRONMENT)
            options |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
            options |= {"_temp_dir": str(folder)}  # documented; /tmp/ray is not ours to delete
        import ray

        logging.getLogger("ray").setLevel(logging.CRITICAL)  # it writes to our terminal
        atexit.unregister(ray.shutdown)  # it would wait for a head that is gone
        address = _reachable(self._address) if self._address else "local"
        ray.init(address, **options)
        here = ray.get_runtime_context().get_node_id()
        [node] = [node for node in ray.nodes() if node["NodeID"] == here]
        host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
        raylet = node["NodeManagerAddress"], node["NodeManagerPort"]
        self._places = [(host.strip("[]"), int(port)), raylet]
        self.has_gpu = bool(ray.cluster_resources().get("GPU"))


def _reachable(address: str) -> str:
    """The head's address; raises OSError if nobody listens there: Ray would wait for ever."""
    # Private. In its place `ray.init("auto")` would wait for a head that is gone.
    from ray._private.services import canonicalize_bootstrap_address

    found = canonicalize_bootstrap_address(address) or address
    host, _, port = found.rpartition(":")
    if port.isdecimal():
        _reach((host.strip("[]"), int(port)))
    return found


def _reach(place: tuple[str, int]) -> None:
    socket.create_connection(place, _REACH_SECONDS).close()


def _away(address: str | None, error: Exception) -> ClusterAway:
    """Why there is no connection to the cluster at this address, or to a new one."""
    reason = one_line(error)
    if address is None:
        return ClusterAway(f"Ray cannot be started on this machine: {reason}.")
    if "ersion mismatch" in reason:
        words = f"The Ray cluster has another version of Ray or Python than this machine: {reason}."
        return ClusterAway(words, "Install the same ones here and there.")
    if "match this node" in reason or "not find any running Ray" in reason:
        return ClusterAway(f"This machine is no node of a Ray cluster ({address}).", f"{_JOIN}.")
    words = f"Cannot connect to the Ray cluster at {address}: {reason}."
    return ClusterAway(words, f"Start its head. {_JOIN}.")


def one_line(error: BaseException) -> str:
    """The text without a traceback, of which only the last line is kept."""
    before, traceback, after = str(error).partition("Traceback")
    last = after.strip().splitlines()[-1:] if traceback else []
    return " ".join(" ".join([before, *last]).split())[:300].rstrip(".: ")


def check_cluster(settings: RaySettings) -> list[Check]:
    """A line for each node: what it has, and in which versions it differs from this machine."""
    connection = RayConnection(settings.address)
    try:
        connection.made.result(_CONNECT_SECONDS)
        return sorted(_check_nodes(), key=lambda check: check.text)
    except PicowatchError as error:
        return [Check("cluster", error.message, error.remedy or error.usual_remedy)]
    except TimeoutError:
        return [Check("cluster", "Ray does not answer", f"Start its head. {_JOIN}.")]
    finally:
        connection.end()
        with suppress(TimeoutError):
            connection.ended.result(_REACH_SECONDS)


def _check_nodes() -> Iterator[Check]:
    import ray

    from picowatch.engine import ray_actor

    ray.cloudpickle.register_pickle_by_value(ray_actor)
    introduce = ray.remote(num_cpus=0)(ray_actor.introduce)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    answers = [introduce.options(label_selector={NODE_ID: one["NodeID"]}).remote() for one in nodes]
    ray.wait(answers, num_returns=len(answers), timeout=_ANSWER_SECONDS)
    for node, answer in zip(nodes, answers, strict=True):
        has = node["Resources"]
        try:
            there = ray.get(answer, timeout=0)
            name, unfit = there["node"], differences(there)
        except Exception:  # it died meanwhile, or cannot start a process: Ray has many classes
            name, unfit = node["NodeName"], "it does not answer"
        size = f"{has.get('GPU', 0):g} GPU, {has.get('CPU', 0):g} CPU"
        text = f"{name}: {size}; {unfit or 'same versions as here'}"
        yield Check("node", text, _SAME if unfit else "")
