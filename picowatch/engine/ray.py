"""The Executor of a Ray cluster: as many engines there as are wanted. See docs/design.md.

ray.py          RayEngines, the Executor
ray_cluster.py  the connection of this process; the nodes, for `picowatch doctor`
ray_engine.py   RayEngine, an Engine: an actor on a node, as the daemon sees it
ray_actor.py    that actor, in a process on the node
ray_nodes.py    what a node needs: versions and models
"""

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING

from picowatch.engine.child_main import MakeRenderer, new_renderer
from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import Engine, EngineLost
from picowatch.engine.ray_cluster import LOST, RayConnection
from picowatch.engine.ray_nodes import ClusterAway, NodeUnfit
from picowatch.errors import EngineStopped, PicowatchError
from picowatch.settings import RaySettings

if TYPE_CHECKING:  # these import Ray, which only the thread does
    from picowatch.engine.ray_engine import RayEngine, Start

log = logging.getLogger("picowatch")

_TICK_SECONDS = 0.5
_SILENT_SECONDS = 30.0  # without an answer: to connect is reported, a connection is given up
_PAUSE_SECONDS = 3.0  # before it is connected to again, after an engine that was never placed
_UNFIT_SECONDS = 60.0  # until a node that was not fit is tried again
_ROOM_SECONDS = 5.0  # that the first engine is pending before it is reported
_JOIN_SECONDS = 0.3  # of the engines' threads, before Ray is shut down
_CLOSE_SECONDS = 1.6
_SILENT = "The Ray cluster does not answer. picowatch is waiting for it."


class RayEngines:
    """Engines of a cluster, which is connected to again when it was lost."""

    def __init__(
        self,
        options: EngineOptions,
        settings: RaySettings,
        make_renderer: MakeRenderer = new_renderer,
    ) -> None:
        """`make_renderer` is called in the engines' processes."""
        # Nodes look for the same folder, and have other working folders.
        self._options = replace(options, models=options.models.absolute())
        self._settings = settings
        self._make_renderer = make_renderer
        self._engines: tuple[RayEngine, ...] = ()
        self._unfit: dict[str, tuple[float, str]] = {}  # nodes: since when, and why
        self._pending_since: float | None = None  # the first engine
        self._not_before = 0.0  # the next one is requested
        self._wanted = 0
        self._trouble = self._logged = ""
        self._final = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ray", daemon=True)
        self._thread.start()

    def engines(self) -> Sequence[Engine]:
        """See `Executor.engines`."""
        return tuple(one for one in self._engines if one.is_placed and one.gone is None)

    def want(self, engines: int) -> None:
        """See `Executor.want`."""
        fixed = self._settings.engines
        self._wanted = engines if fixed == "auto" or not engines else fixed

    def trouble(self) -> str:
        """See `Executor.trouble`."""
        return self._trouble

    def is_final(self) -> bool:
        """See `Executor.is_final`."""
        return self._final

    def close(self) -> None:
        """See `Executor.close`."""
        self._closing.set()
        self._end_engines(EngineStopped("The engine was closed."))
        self._thread.join(_CLOSE_SECONDS)

    # -- the thread

    def _run(self) -> None:
        while not self._closing.is_set():
            connection = RayConnection(self._settings.address)
            try:
                self._wait_for(connection.made)
                self._report(self._keep_engines(connection))
            except ClusterAway as away:
                self._report(str(away), final=True)
            self._end_engines(EngineLost(LOST))
            connection.end()
            self._wait_for(connection.ended)
            self._closing.wait(_PAUSE_SECONDS)

    def _wait_for(self, done: "Future[None]") -> None:
        """Wait for what Ray does, which may take for ever; a silence is reported."""
        try:
            done.result(_SILENT_SECONDS)
        except TimeoutError:
            self._report(_SILENT)
            done.result()

    def _keep_engines(self, connection: RayConnection) -> str:
        """Keep as many engines as are wanted until the connection is lost; say how it was."""
        start = self._start(connection)
        answered = time.monotonic()
        while not self._closing.wait(_TICK_SECONDS):
            now = time.monotonic()
            if connection.answers():
                answered = now
            elif now - answered > _SILENT_SECONDS:
                return "The Ray cluster no longer answers."
            if lost := self._forget_gone(now):
                return str(lost)
            self._adjust(now, start)
            self._report(_SILENT if now > answered else self._too_few(now, start))
        return ""

    def _start(self, connection: RayConnection) -> "Start":
        """An engine on a GPU; on the CPU where that was set, or where there is nothing else."""
        from picowatch.engine.ray_engine import Start

        settings, options = self._settings, self._options
        gpus = 0.0 if options.device in ("cpu", "mps") else settings.gpus_per_engine
        if gpus and settings.address is None and not connection.has_gpu:
            log.info("Ray sees no GPU on this machine: engines use the CPU")
            gpus = 0.0
        cores = max(1, int(settings.cpus_per_engine))
        if gpus:  # the cluster shows an engine only the GPUs that it gave
            options = replace(options, device="cuda", threads=None)
        else:
            device = "mps" if options.device == "mps" else "cpu"
            options = replace(options, device=device, threads=cores)
        return Start(options, self._make_renderer, gpus, settings.cpus_per_engine)

    def _forget_gone(self, now: float) -> PicowatchError | None:
        """Forget engines that ended; return why the connection is lost, if one found that out."""
        gone = [engine for engine in self._engines if engine.gone is not None]
        self._engines = tuple(engine for engine in self._engines if engine not in gone)
        for engine in gone:
            if isinstance(engine.gone, ClusterAway):
                return engine.gone
            if isinstance(engine.gone, NodeUnfit) and engine.node_id:
                self._unfit[engine.node_id] = now, str(engine.gone)
            elif not isinstance(engine.gone, EngineStopped):
                log.info("%s", engine.gone)
                self._not_before = now if engine.is_placed else now + _PAUSE_SECONDS
        return None

    def _adjust(self, now: float, start: "Start") -> None:
        """Request engines that are lacking, and no more of those that are not wanted.

        A pending actor is what Ray's autoscaler sees. At most one more is pending than are placed:
        the cluster grows by doubling, and no thousand actors are pending where there is no room.
        """
        from picowatch.engine.ray_engine import RayEngine

        placed = [engine for engine in self._engines if engine.is_placed]
        pending = [engine for engine in self._engines if not engine.is_placed]
        room = min(max(0, self._wanted - len(placed)), len(placed) + 1)
        unfit = {one: why for one, why in self._unfit.items() if now - why[0] < _UNFIT_SECONDS}
        if unfit.keys() != self._unfit.keys():  # what is pending would not go to those
            self._unfit, room = unfit, 0
        for engine in pending[room:]:
            engine.close()
        if now >= self._not_before and not self._closing.is_set():
            new = range(room - len(pending))
            self._engines += tuple(RayEngine(start, list(self._unfit)) for _ in new)
        if placed or not self._wanted:
            self._pending_since = None
        else:
            self._pending_since = self._pending_since or now

    def _too_few(self, now: float, start: "Start") -> str:
        """Say why there are fewer engines than there should be; "" if all is well."""
        troubles = sorted({why for _, why in self._unfit.values()})
        if self._pending_since and now - self._pending_since > _ROOM_SECONDS:
            troubles.append(
                f"The Ray cluster has no room for an engine now ({start.gpus:g} GPU, "
                f"{start.cpus:g} CPU). picowatch has requested it and is waiting."
            )
            if start.gpus:
                troubles.append("If no GPU will come, set gpus_per_engine: 0 to use CPUs.")
        return " ".join(troubles)

    def _end_engines(self, why: PicowatchError) -> None:
        """End all engines, and wait until none of their threads waits for Ray."""
        engines, self._engines = self._engines, ()
        for engine in engines:
            engine.end(why)
        deadline = time.monotonic() + _JOIN_SECONDS
        for engine in engines:
            engine.join(max(0.0, deadline - time.monotonic()))

    def _report(self, text: str, *, final: bool = False) -> None:
        """Say why there are too few engines; the log has it once until there are enough."""
        if text and text != self._logged and not self._closing.is_set():
            log.warning("%s", text)
            self._logged = text
        if len(self.engines()) >= self._wanted:
            self._logged = text
        self._trouble, self._final = text, final
