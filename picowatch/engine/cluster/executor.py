"""The Executor of a Ray cluster: keeps the connection to it. Imports no Ray."""

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import TypeVar

from picowatch.engine.cluster.driver import LOST, ClusterAway, Driver, start_driver
from picowatch.engine.cluster.model_transfer import ModelTransfer
from picowatch.engine.cluster.placement import Placement
from picowatch.engine.cluster.remote_engine import Start
from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import Engine, EngineLost
from picowatch.errors import EngineStopped
from picowatch.settings import RaySettings

log = logging.getLogger("picowatch")

_TICK_SECONDS = 0.5
_SILENT_SECONDS = 10.0  # of the cluster, before it is reported
_AWAY_SECONDS = 30.0  # … before it is given up
_CLOSE_SECONDS = 1.5
_PAUSE_SECONDS = 3.0  # before the next driver

T = TypeVar("T")


class RayEngines:
    """Engines of a cluster, through a driver process that is started again when it ends."""

    def __init__(
        self,
        options: EngineOptions,
        settings: RaySettings,
        program: str = "picowatch.engine.process.child_main",
    ) -> None:
        """`program` serves in the engines' processes, as of a ChildEngine."""
        # Nodes look for the same folder, and have other working folders.
        self._options = replace(options, models=options.models.absolute())
        self._settings = settings
        self._program = program
        self._transfer = ModelTransfer(options)
        self._wanted = 0
        self._trouble = ""
        self._final = False
        self._driver: Driver | None = None
        self._placement: Placement | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cluster", daemon=True)
        self._thread.start()

    def engines(self) -> Sequence[Engine]:
        """See `Executor.engines`."""
        placement = self._placement
        engines = placement.engines if placement is not None else ()
        return tuple(engine for engine in engines if engine.is_placed and engine.gone is None)

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
        driver, placement = self._driver, self._placement
        if placement is not None:
            placement.end(EngineStopped("The engine was closed."))
        if driver is not None:
            driver.end(_CLOSE_SECONDS)
        self._thread.join(_CLOSE_SECONDS)

    # -- the thread

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._serve()
            except ClusterAway as away:
                self._report(str(away), final=self._placement is None)
            except EngineLost as lost:
                self._report(str(lost))
            except TimeoutError:
                self._report("The Ray cluster no longer answers.")
            self._end()
            self._closing.wait(_PAUSE_SECONDS)

    def _serve(self) -> None:
        """Start a driver, and keep engines until it ends."""
        self._driver = driver = start_driver(self._settings.address)
        if self._closing.is_set():  # `close` did not see the driver
            return
        self._result(driver.connect(), None)
        while not self._closing.is_set():
            resources = self._result(driver.call("resources"), _AWAY_SECONDS)
            if self._placement is None:
                gpus, cpus = self._gpus(resources), self._settings.cpus_per_engine
                start = Start(self._options, self._program, gpus, cpus)
                self._placement = Placement(driver, start, self._transfer)
            self._placement.adjust(self._wanted)
            self._report(self._placement.trouble(resources))
            self._closing.wait(_TICK_SECONDS)

    def _gpus(self, resources: dict[str, float]) -> float:
        """GPUs for an engine: 0 where engines are to use the CPU, or can use nothing else."""
        if self._options.device in ("cpu", "mps"):
            return 0
        if self._settings.address is None and not resources.get("GPU"):
            if self._settings.gpus_per_engine:
                log.info("Ray sees no GPU on this machine: engines use the CPU")
            return 0
        return self._settings.gpus_per_engine

    def _end(self) -> None:
        """End the driver, if there is one, and what is left of its engines."""
        driver, placement, self._driver, self._placement = self._driver, self._placement, None, None
        if driver is not None:
            driver.end(_CLOSE_SECONDS if self._closing.is_set() else 0.0)
            log.debug("Ray's driver ended: %s", driver.stderr())
        if placement is not None:
            placement.end(EngineLost(LOST))

    def _result(self, future: Future[T], limit: float | None) -> T:
        """What the cluster answers. A silence is reported, and is a TimeoutError at the limit.

        Ray itself waits a minute for a head that is gone, and ends the driver then.
        """
        try:
            return future.result(_SILENT_SECONDS)
        except TimeoutError:
            self._report("The Ray cluster does not answer. picowatch is waiting for it.")
        return future.result(limit and limit - _SILENT_SECONDS)

    def _report(self, text: str, *, final: bool = False) -> None:
        """Say why there are no engines, or fewer than there should be."""
        if text and text != self._trouble and not self._closing.is_set():
            log.warning("%s", text)
        self._trouble, self._final = text, final
