"""Keeps engines on the cluster as they are wanted. Runs in a process of its own, with Ray."""

import time
from collections.abc import Callable
from functools import partial
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any

import ray

from picowatch.engine.cluster import bootstrap
from picowatch.engine.cluster.connection import ClusterAway, Probe
from picowatch.engine.cluster.engine_actor import EngineActor
from picowatch.engine.cluster.messages import (
    Begin,
    FromDriver,
    Left,
    ListNodes,
    Nodes,
    Note,
    Render,
    Tell,
    ToDriver,
    Trouble,
    Want,
)
from picowatch.engine.cluster.model_transfer import ModelTransfer
from picowatch.engine.cluster.nodes import list_nodes

_TICK_SECONDS = 1.0
_END_SECONDS = 0.8
_UNFIT_SECONDS = 60.0  # until a node that was not fit is tried again
_SILENT_SECONDS = 10.0  # of the head, before it is said
_AWAY_SECONDS = 30.0  # … before it is given up
_ROOM_SECONDS = 5.0  # that an engine may wait for room before it is said
_LONGEST_PAUSE = 60.0
_NODE_ID = "ray.io/node-id"  # a label that Ray gives each node
_THREADS = 8  # of an actor: one listens, the others answer at once

Order = ToDriver | Callable[[], None]


class Driver:
    """Asks Ray for as many engines as are wanted. All of it runs in one thread."""

    def __init__(
        self, begin: Begin, say: Callable[[FromDriver], None], orders: SimpleQueue[Order]
    ) -> None:
        """Ray is connected. `orders` ends with None."""
        self._begin = begin
        self._say = say
        self._orders = orders
        self._probe = Probe()
        self._wanted = 0
        self._numbers = count(1)
        self._engines: list[EngineActor] = []
        self._avoided: dict[str, tuple[float, str]] = {}  # nodes: until when, and why
        self._failures = 0  # of engines that were never placed, in a row
        self._not_before = 0.0
        self._waiting_since: float | None = None  # for the first engine
        self._trouble: str | None = None  # what was said last
        ray.cloudpickle.register_pickle_by_value(bootstrap)
        self._actor = ray.remote(bootstrap.AgentActor)
        self._gpus = self._gpus_of_engines()
        self._transfer = ModelTransfer(begin.options)

    def run(self) -> None:
        """Until the daemon is gone; raises ClusterAway."""
        while True:
            try:
                order = self._orders.get(timeout=_TICK_SECONDS)
                if order is None:
                    self._end()
                    return
                self._take_up(order)
            except Empty:
                pass
            if self._probe.silent_seconds > _AWAY_SECONDS:
                raise ClusterAway("The head of the Ray cluster no longer answers.")
            self._adjust()
            self._report()

    def _end(self) -> None:
        """Give all back; the actors are gone then, or soon."""
        for engine in self._engines:
            engine.release()
        deadline = time.monotonic() + _END_SECONDS
        for engine in self._engines:
            engine.join(max(0.0, deadline - time.monotonic()))

    def _gpus_of_engines(self) -> float:
        """GPUs for an engine: 0 where engines are to use the CPU, or can use nothing else."""
        asked = self._begin.settings.gpus_per_engine
        if self._begin.options.device in ("cpu", "mps"):
            return 0
        if self._begin.settings.address is None and not self._probe.resources.get("GPU"):
            if asked:
                self._say(Note("Ray sees no GPU on this machine: engines use the CPU"))
            return 0
        return asked

    def _take_up(self, order: Order) -> None:
        match order:
            case Want(engines):
                self._wanted = engines
            case Render():
                self._with(order.engine, lambda engine: engine.render(order))
            case Tell(engine, "release"):
                self._with(engine, EngineActor.release)
            case Tell(engine, what):
                self._with(engine, lambda found: found.tell(what))
            case ListNodes():
                self._say(Nodes(list_nodes()))
            case None:
                pass
            case _:
                order()

    def _with(self, number: int, action: Callable[[EngineActor], None]) -> None:
        """An engine that left meanwhile has told the daemon so."""
        for engine in self._engines:
            if engine.number == number:
                action(engine)

    def _changed(self, engine: EngineActor) -> None:
        """It was placed, or is over."""
        if engine not in self._engines:
            return
        if not engine.over:
            self._failures, self._not_before = 0, 0.0
            return
        self._engines.remove(engine)
        if engine.unfit and engine.why:
            self._avoided[engine.unfit] = (time.monotonic() + _UNFIT_SECONDS, engine.why.message)
        if engine.placed:
            self._say(Left(engine.number, engine.why))
        elif engine.why is not None:
            self._failures += 1
            self._not_before = time.monotonic() + min(2.0**self._failures, _LONGEST_PAUSE)
            self._say(Note(str(engine.why)))

    # -- as many as are wanted

    def _adjust(self) -> None:
        """Ask for engines that are lacking, and no more for those that are not wanted.

        An actor that waits for room is what Ray's autoscaler sees. At most one more wait than are
        there: the cluster grows by doubling, and no thousand actors wait where there is no room.
        """
        now = time.monotonic()
        self._avoided = {node: one for node, one in self._avoided.items() if one[0] > now}
        placed = [engine for engine in self._engines if engine.placed]
        pending = [engine for engine in self._engines if not engine.placed]
        lacking = max(0, self._target() - len(placed))
        for engine in pending[min(lacking, len(placed) + 1) :]:
            engine.release()
        if now >= self._not_before:
            for _ in range(min(lacking, len(placed) + 1) - len(pending)):
                self._engines.append(self._ask_for_one())
        if placed or not lacking:
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = now

    def _target(self) -> int:
        engines = self._begin.settings.engines
        if engines == "auto":
            return self._wanted
        return engines if self._wanted else 0

    def _ask_for_one(self) -> EngineActor:
        options: dict[str, Any] = {
            "num_cpus": self._begin.settings.cpus_per_engine,
            "num_gpus": self._gpus,
            "max_restarts": 0,
            "max_concurrency": _THREADS,
            "scheduling_strategy": "SPREAD",
        }
        if self._avoided:
            options["label_selector"] = {_NODE_ID: f"!in({','.join(self._avoided)})"}
        return EngineActor(
            next(self._numbers),
            self._actor.options(**options).remote(),
            self._begin,
            self._gpus,
            self._transfer,
            self._say,
            lambda engine: self._orders.put(partial(self._changed, engine)),
        )

    # -- what there is to say

    def _report(self) -> None:
        """Say why there are fewer engines than there should be, once it is something else."""
        text = " ".join(self._troubles())
        if text != self._trouble:
            self._trouble = text
            self._say(Trouble(text))

    def _troubles(self) -> list[str]:
        if self._probe.silent_seconds > _SILENT_SECONDS:
            return ["The head of the Ray cluster does not answer; waiting for it."]
        troubles = sorted({why for _, why in self._avoided.values()})
        since = self._waiting_since
        if since is not None and time.monotonic() - since > _ROOM_SECONDS:
            troubles.append(self._no_room())
        return troubles

    def _no_room(self) -> str:
        gpus, cpus = self._gpus, self._begin.settings.cpus_per_engine
        if gpus and not self._probe.resources.get("GPU"):
            return (
                "The Ray cluster has no GPU now. picowatch has requested one and is waiting. If "
                "none will come, set gpus_per_engine: 0 for engines on the CPU."
            )
        return (
            f"The Ray cluster has no room for an engine now ({gpus:g} GPU, {cpus:g} CPU). "
            "picowatch has requested it and is waiting."
        )
