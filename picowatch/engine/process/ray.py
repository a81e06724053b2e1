"""The Executor of a Ray cluster, with as many engines as are wanted. See docs/design.md."""

import atexit
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from picowatch.engine.failures import as_clause
from picowatch.engine.process.child_main import new_renderer
from picowatch.engine.protocol import Engine, EngineLost, EngineOptions, Executor, MakeRenderer
from picowatch.errors import EngineStopped
from picowatch.settings.values import RaySettings

if TYPE_CHECKING:  # it imports Ray, which only the thread does
    from picowatch.engine.process.ray_engine import RayEngine

log = logging.getLogger("picowatch")

_ENVIRONMENT = {
    # Ray would end this process when the head has been away for a minute, …
    "RAY_gcs_rpc_server_reconnect_timeout_s": "1000000",
    # … and when its node's raylet has ended and the parent of this process is process 1, as in a
    # service: without this variable Ray takes the parent for the raylet (IsRayletFailed in Ray's
    # src/ray/raylet_ipc_client/raylet_ipc_client.cc). Set to this process, which is always alive.
    "RAY_RAYLET_PID": str(os.getpid()),
    # Otherwise a thread that still waits for a result would connect this process again, hold Ray's
    # lock and wait for a head that is gone.
    "RAY_ENABLE_AUTO_CONNECT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # otherwise Ray prints messages about dead actors
}
_TICK_SECONDS = 0.5
_RECONNECT_SECONDS = 3.0
_PAUSE_SECONDS = 10.0  # after an engine was lost, before another is requested
_ROOM_SECONDS = 10.0  # how long the first engine is pending before that is reported
_MOST_PENDING = 8  # engines for which there is no room: Ray's autoscaler sees them
_REACH_SECONDS = 5.0
_REST_SECONDS = 0.5  # for batches to notice that their engine is gone, before Ray is shut down
_CLOSE_SECONDS = 1.6
_CONNECTED = threading.Lock()  # a process has one connection; an earlier may still be ending
_LOST = "The connection to the Ray cluster was lost."
_CLOSED = "The engine was closed."
_START = (
    "`ray start --head` starts a cluster here, `ray start --address=HOST:6379` joins another "
    "machine's. For engines on this machine alone, set executor: local:N."
)
Address = tuple[str, int]  # a host and its port


class RayEngines(Executor):
    """Engines of a cluster; a lost connection to it is restored."""

    def __init__(
        self,
        options: EngineOptions,
        settings: RaySettings,
        make_renderer: MakeRenderer = new_renderer,
    ) -> None:
        # Nodes use the same path, and have other working directories.
        self._options = replace(options, models=options.models.absolute())
        self._settings = settings
        self._make_renderer = make_renderer
        self._engines: tuple[RayEngine, ...] = ()
        self._lost = ""  # why the last engine was
        self._not_before = 0.0  # the next engine is requested
        self.trouble = "picowatch is connecting to the Ray cluster."
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ray", daemon=True)
        self._thread.start()

    def engines(self) -> Sequence[Engine]:
        return tuple(engine for engine in self._engines if engine.is_placed and engine.gone is None)

    def close(self) -> None:
        self._closing.set()
        self._thread.join(_CLOSE_SECONDS)
        for engine in self._engines:  # Ray keeps the thread waiting; it ends their actors later
            engine.gone = engine.gone or EngineStopped(_CLOSED)

    @property
    def _most(self) -> int:
        """The number of engines that there should be now."""
        most = self._settings.engines
        return self.wanted if most == "auto" else min(self.wanted, most)

    # -- the thread

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                with _CONNECTED, connected(self._settings.address) as node:
                    self._keep_engines(node)
            except EngineLost as away:
                self._report(str(away), final=True)
            except Exception:  # the node is gone, or Ray says that it is another cluster by now
                log.debug("Ray failed", exc_info=True)
                self._report(_LOST)
            self._closing.wait(_RECONNECT_SECONDS)

    def _keep_engines(self, node: Address) -> None:
        """Keep as many engines as are wanted. Raises when the connection is lost."""
        from picowatch.engine.process.ray_engine import RayEngine

        cpus, own = self._settings.cpus_per_engine, self._options.device
        gpus = 0.0 if own in ("cpu", "mps") else self._settings.gpus_per_engine
        # The cluster shows an engine only the GPUs that it gave.
        device = "cuda" if gpus else "mps" if own == "mps" else "cpu"
        options = replace(self._options, device=device, threads=max(1, int(cpus)))
        new_engine = partial(RayEngine, options, self._make_renderer, gpus, cpus)
        try:
            while not self._closing.wait(_TICK_SECONDS):
                _reach(node)
                self._request(new_engine)
                self._report(self._too_few(f"{gpus:g} GPU, {cpus:g} CPU"))
        finally:
            # In this thread, which then leaves the cluster: where another thread ends actors
            # meanwhile, Ray may hang for good.
            is_closed = self._closing.is_set()
            why = EngineStopped(_CLOSED) if is_closed else EngineLost(_LOST)
            engines, self._engines = self._engines, ()
            for engine in engines:
                engine.end(why)
            deadline = time.monotonic() + _REST_SECONDS
            for engine in engines:  # until their batches no longer wait for Ray
                engine.wait(max(0.0, deadline - time.monotonic()))

    def _request(self, new_engine: Callable[[], "RayEngine"]) -> None:
        """Forget engines that are gone, request missing ones, cancel requests for unwanted ones."""
        living = []
        for engine in self._engines:
            engine.update()
            if engine.gone is None:
                living.append(engine)
            elif isinstance(engine.gone, EngineLost):
                self._lost = str(engine.gone)
                self._not_before = time.monotonic() + _PAUSE_SECONDS
        self._engines = tuple(living)
        pending = [engine for engine in living if not engine.is_placed]
        placed = len(living) - len(pending)
        lacking = min(max(0, self._most - placed), _MOST_PENDING)
        for engine in pending[lacking:]:
            engine.close()
        if time.monotonic() >= self._not_before and not self._closing.is_set():
            self._engines += tuple(new_engine() for _ in range(lacking - len(pending)))

    def _too_few(self, size: str) -> str:
        """Return why there are fewer engines than there should be; "" if there are enough."""
        placed, now = self.engines(), time.monotonic()
        if len(placed) >= self._most:
            self._lost = ""
        first = min((engine.requested_at for engine in self._engines), default=now)
        if not placed and now - first > _ROOM_SECONDS:
            return (
                f"The Ray cluster has no room for an engine ({size}). picowatch has requested it "
                "and is waiting. With gpus_per_engine: 0 engines use CPUs."
            )
        return self._lost

    def _report(self, text: str, *, final: bool = False) -> None:
        if text and text != self.trouble and not self._closing.is_set():
            log.warning("%s", text)
        self.trouble, self.is_final = text, final


@contextmanager
def connected(address: str) -> Iterator[Address]:
    """Connect this process to Ray, and yield the address of this node. Raises EngineLost."""
    os.environ.update(_ENVIRONMENT)
    import ray

    logging.getLogger("ray").setLevel(logging.CRITICAL)  # it writes to our terminal
    atexit.unregister(ray.shutdown)  # it would wait for a head that is gone
    try:
        try:
            # Private: `ray.init("auto")` would wait for a head that is gone.
            from ray._private.services import canonicalize_bootstrap_address

            found = canonicalize_bootstrap_address(address) or address
            host, _, port = found.rpartition(":")
            if port.isdecimal():  # where nobody listens, Ray would wait forever
                _reach((host.strip("[]"), int(port)))
            ray.init(found, log_to_driver=False, configure_logging=False)
            here = ray.get_runtime_context().get_node_id()
            [node] = [node for node in ray.nodes() if node["NodeID"] == here]
        except Exception as error:  # of many classes, gRPC's included
            reason = as_clause(str(error).partition("Traceback")[0])
            words = f"Cannot connect to the Ray cluster ({address}): {reason}."
            raise EngineLost(words, _START) from error
        # The node ends when its head does. This is not checked through Ray, whose calls wait for a
        # lost head, and abort this process if another has taken its place (`ray.nodes()`:
        # GlobalStateAccessor, "WrongClusterID").
        yield node["NodeManagerAddress"], node["NodeManagerPort"]
    finally:
        with suppress(Exception):
            ray.shutdown()


def _reach(address: Address) -> None:
    socket.create_connection(address, _REACH_SECONDS).close()


def cluster_parts(settings: RaySettings) -> str:
    """Return a description of the cluster that this machine is a node of. Raises EngineLost."""
    with connected(settings.address):
        import ray

        nodes = sum(node["Alive"] for node in ray.nodes())
        gpus, cpus = (ray.cluster_resources().get(name, 0) for name in ("GPU", "CPU"))
        return f"nodes: {nodes}, with {gpus:g} GPU and {cpus:g} CPU"
