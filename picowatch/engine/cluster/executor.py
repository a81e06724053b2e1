"""The Executor of a Ray cluster: keeps the connection to it. Imports no Ray."""

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import TypeVar

from picowatch.engine.child_main import MakeRenderer, new_renderer
from picowatch.engine.cluster.driver import ClusterAway, Driver, start_driver
from picowatch.engine.cluster.model_transfer import ModelTransfer
from picowatch.engine.cluster.placement import Placement
from picowatch.engine.cluster.remote_engine import Start
from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import Engine, EngineLost
from picowatch.errors import EngineStopped, PicowatchError
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
        make_renderer: MakeRenderer = new_renderer,
    ) -> None:
        """`make_renderer` is called in the engines' processes, as of a ChildEngine."""
        # Nodes look for the same folder, and have other working folders.
        self._options = replace(options, models=options.models.absolute())
        self._settings = settings
        self._make_renderer = make_renderer
        self._placement = Placement(ModelTransfer(options))
        self._wanted = 0
        self._trouble = ""
        self._final = False
        self._driver: Driver | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cluster", daemon=True)
        self._thread.start()

    def engines(self) -> Sequence[Engine]:
        """See `Executor.engines`."""
        engines = self._placement.engines
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
        self._placement.end(EngineStopped("The engine was closed."))
        if (driver := self._driver) is not None:
            driver.end(_CLOSE_SECONDS)
        self._thread.join(_CLOSE_SECONDS)

    # -- the thread

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._driver = start_driver(self._settings.address)
                if not self._closing.is_set():  # else `close` did not see the driver
                    self._result(self._driver.connect(), None)
            except ClusterAway as away:
                self._report(str(away), final=True)
            except EngineLost as lost:
                self._report(str(lost))
            else:
                self._report(self._keep_engines(self._driver))
            self._end_driver()
            self._closing.wait(_PAUSE_SECONDS)

    def _keep_engines(self, driver: Driver) -> str:
        """Keep as many engines as are wanted until the connection is lost; says how it was."""
        start: Start | None = None
        try:
            while not self._closing.is_set():
                resources = self._result(driver.call("resources"), _AWAY_SECONDS)
                start = start or self._start(resources)
                self._placement.adjust(self._wanted, driver, start)
                self._report(self._placement.trouble(start, resources))
                self._closing.wait(_TICK_SECONDS)
        except PicowatchError as error:
            return str(error)
        except TimeoutError:
            return "The Ray cluster no longer answers."
        return ""

    def _start(self, resources: dict[str, float]) -> Start:
        """An engine on a GPU; on the CPU where that was set, or where there is nothing else."""
        settings, options = self._settings, self._options
        gpus = 0.0 if options.device in ("cpu", "mps") else settings.gpus_per_engine
        if gpus and settings.address is None and not resources.get("GPU"):
            log.info("Ray sees no GPU on this machine: engines use the CPU")
            gpus = 0.0
        cores = max(1, int(settings.cpus_per_engine))
        if gpus:  # the cluster shows an engine only the GPUs that it gave
            options = replace(options, device="cuda", threads=None)
        else:
            device = "mps" if options.device == "mps" else "cpu"
            options = replace(options, device=device, threads=cores)
        return Start(options, self._make_renderer, gpus, settings.cpus_per_engine)

    def _end_driver(self) -> None:
        """End the driver, if there is one. Its engines end as their calls fail."""
        driver, self._driver = self._driver, None
        if driver is not None:
            driver.end(_CLOSE_SECONDS if self._closing.is_set() else 0.0)
            log.debug("Ray's driver ended: %s", driver.stderr())

    def _result(self, future: Future[T], limit: float | None) -> T:
        """What the cluster answers. A silence is reported, and is a TimeoutError at the limit.

        Ray itself waits a minute for a head that is gone, and ends the driver then.
        """
        try:
            return future.result(_SILENT_SECONDS)
        except TimeoutError:
            if not self._trouble:
                self._report("The Ray cluster does not answer. picowatch is waiting for it.")
        return future.result(limit and limit - _SILENT_SECONDS)

    def _report(self, text: str, *, final: bool = False) -> None:
        """Say why there are no engines, or fewer than there should be."""
        if text and text != self._trouble and not self._closing.is_set():
            log.warning("%s", text)
        self._trouble, self._final = text, final
