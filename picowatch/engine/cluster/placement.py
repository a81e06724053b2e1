"""Requests as many engines from Ray as are wanted. Imports no Ray."""

import logging
import time
from itertools import count
from typing import Any

from picowatch.engine.cluster.check import NODE_ID
from picowatch.engine.cluster.driver import LOST, Driver, NodeUnfit
from picowatch.engine.cluster.model_transfer import ModelTransfer
from picowatch.engine.cluster.remote_engine import RemoteEngine, Start
from picowatch.errors import EngineStopped, PicowatchError

log = logging.getLogger("picowatch")

_UNFIT_SECONDS = 60.0  # until a node that was not fit is tried again; reported for twice as long
_PAUSE_SECONDS = 5.0  # after an engine that was never placed
_ROOM_SECONDS = 5.0  # that the first engine is pending before it is reported
_THREADS = 8  # of an actor: one listens, the others answer at once


class Placement:
    """The engines on a cluster. All but `engines` and `end` is for one thread."""

    def __init__(self, transfer: ModelTransfer) -> None:
        self.engines: tuple[RemoteEngine, ...] = ()
        self._transfer = transfer
        self._numbers = count()
        self._unfit: dict[str, tuple[float, str]] = {}  # nodes: since when, and why
        self._avoided: set[str] = set()  # those that are not tried again yet
        self._not_before = 0.0
        self._pending_since: float | None = None  # the first engine
        self._failure = ""  # why the one before it ended

    def adjust(self, wanted: int, driver: Driver, start: Start) -> None:
        """Request engines that are lacking, and no more of those that are not wanted.

        A pending actor is what Ray's autoscaler sees. At most one more is pending than are placed:
        the cluster grows by doubling, and no thousand actors are pending where there is no room.
        """
        now = time.monotonic()
        self._try_unfit_again(now)
        self._forget_gone(now)
        placed = [engine for engine in self.engines if engine.is_placed]
        pending = [engine for engine in self.engines if not engine.is_placed]
        lacking = max(0, wanted - len(placed))
        for engine in pending[min(lacking, len(placed) + 1) :]:
            engine.close()
        if now >= self._not_before:
            missing = range(min(lacking, len(placed) + 1) - len(pending))
            self.engines += tuple(self._request_one(driver, start) for _ in missing)
        if placed or not lacking:
            self._pending_since, self._failure = None, ""
        elif self._pending_since is None:
            self._pending_since = now

    def trouble(self, start: Start, resources: dict[str, float]) -> str:
        """Why there are fewer engines than there should be; "" if all is well."""
        troubles = sorted({why for _, why in self._unfit.values()})
        since = self._pending_since
        if since is not None and time.monotonic() - since > _ROOM_SECONDS:
            troubles.append(_no_room(start, resources))
        elif self._failure:
            troubles.append(self._failure)
        return " ".join(troubles)

    def end(self, why: PicowatchError) -> None:
        """End all engines."""
        for engine in self.engines:
            engine.end(why)

    def _try_unfit_again(self, now: float) -> None:
        """Nodes that could not be used are avoided for a minute, then tried again."""
        used = {engine.node_id for engine in self.engines if engine.is_placed}
        ages = {node: now - since for node, (since, _) in self._unfit.items()}
        before, self._avoided = self._avoided, {one for one in ages if ages[one] < _UNFIT_SECONDS}
        tried = {one for one in ages if ages[one] < 2 * _UNFIT_SECONDS} - used
        self._unfit = {one: self._unfit[one] for one in self._avoided | tried}
        if before - self._avoided:  # what is pending would not go to those
            for engine in self.engines:
                if not engine.node_id:
                    engine.close()

    def _forget_gone(self, now: float) -> None:
        gone = [engine for engine in self.engines if engine.gone is not None]
        self.engines = tuple(engine for engine in self.engines if engine not in gone)
        lost = [one for one in gone if not isinstance(one.gone, EngineStopped | NodeUnfit)]
        for why in {str(engine.gone) for engine in lost if engine.is_placed}:
            log.info("%s", why)
        for engine in gone:
            if isinstance(engine.gone, NodeUnfit):
                self._unfit[engine.node_id] = (now, engine.gone.message)
                self._avoided.add(engine.node_id)
            elif engine in lost and not engine.is_placed and str(engine.gone) != LOST:
                self._failure = str(engine.gone)
                self._not_before = self._pending_since = now + _PAUSE_SECONDS

    def _request_one(self, driver: Driver, start: Start) -> RemoteEngine:
        number = next(self._numbers)
        options: dict[str, Any] = {
            "num_cpus": start.cpus,
            "num_gpus": start.gpus,
            "max_concurrency": _THREADS,
            "scheduling_strategy": "SPREAD",
        }
        if self._avoided:
            options["label_selector"] = {NODE_ID: f"!in({','.join(self._avoided)})"}
        driver.call("place", number, options)
        return RemoteEngine(driver, number, start, self._transfer)


def _no_room(start: Start, resources: dict[str, float]) -> str:
    if start.gpus and not resources.get("GPU"):
        return (
            "The Ray cluster has no GPU now. picowatch has requested one and is waiting. If "
            "none will come, set gpus_per_engine: 0 for engines on the CPU."
        )
    return (
        f"The Ray cluster has no room for an engine now ({start.gpus:g} GPU, {start.cpus:g} CPU). "
        "picowatch has requested it and is waiting."
    )
