"""One engine on the cluster, as the driver sees it: asked for, placed, at work, gone."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayError, RayTaskError

from picowatch.engine.cluster.messages import (
    Begin,
    Ended,
    FromDriver,
    FromEngine,
    Joined,
    Note,
    Render,
    Said,
    Unfit,
)
from picowatch.engine.cluster.model_transfer import ModelTransfer, needs_of
from picowatch.engine.cluster.nodes import differences, name_of
from picowatch.engine.protocol import EngineLost
from picowatch.engine.versions import versions
from picowatch.errors import EngineDied, PicowatchError, RenderFailed

_TRIES = 3  # files that were sent may be deleted before they are used

Heard = Future[tuple[tuple[int, FromEngine], ...]]


class EngineActor:
    """An actor on the cluster, and the thread that passes on what is said to it and by it.

    `placed`: it takes batches. `over`: it is no more, and `why`, if nobody released it. `unfit` is
    the id of a node that is not to be used for now, for the reason that `why` gives.
    """

    def __init__(
        self,
        number: int,
        actor: Any,
        begin: Begin,
        gpus: float,
        transfer: ModelTransfer,
        say: Callable[[FromDriver], None],
        on_change: Callable[["EngineActor"], None],
    ) -> None:
        """`number` is what the daemon knows the engine by.

        `on_change` is called once it is placed, and once it is over, from its own thread.
        """
        self.number = number
        self.placed = self.over = False
        self.why: PicowatchError | None = None
        self.unfit = ""
        self._actor = actor
        self._begin = begin
        self._gpus = gpus
        self._transfer = transfer
        self._say = say
        self._on_change = on_change
        self._node_id, self._node = "", "its node"
        self._released = False
        self._inbox: SimpleQueue[Render | Heard] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"engine-{number}", daemon=True)
        self._thread.start()

    def render(self, order: Render) -> None:
        """A batch for the engine."""
        self._inbox.put(order)

    def tell(self, what: str) -> None:
        """ "prepare" or "interrupt"; what goes wrong with it, other calls say."""
        with suppress(RayError, ConnectionError):
            self._actor.ask.remote(what)

    def release(self) -> None:
        """End it; its thread ends then."""
        self._released = True
        self._end()

    def join(self, seconds: float) -> None:
        """Wait until it is over, if that comes so soon."""
        self._thread.join(seconds)

    def _end(self) -> None:
        with suppress(Exception):  # Ray is going down, or the actor is gone already
            ray.kill(self._actor)

    def _run(self) -> None:
        try:
            self._arrive()
            self._listen()
            while True:
                self._take_up(self._inbox.get())
        except EngineLost as lost:
            self.why = lost
        # An actor and its node end in many ways; what pickles not is one of them.
        except Exception as error:
            self.why = self._how_lost(error)
        finally:
            self._end()
            if self._released:
                self.why = None
            self.over = True
            self._on_change(self)

    def _arrive(self) -> None:
        """Wait until it is placed; look whether the node has what it takes, and start an engine."""
        there = ray.get(self._actor.introduce.remote())
        self._node_id = there.pop("node")
        self._node = name_of(self._node_id) or there["host"]
        unfit = differences(there)
        if not unfit:
            cpus = self._begin.settings.cpus_per_engine
            start = (self._begin.options, self._begin.program, self._node, self._gpus, cpus)
            answer: Unfit | None = ray.get(self._actor.start.remote(*start))
            unfit = answer.why if answer else ""
        if unfit:
            self.unfit = self._node_id
            raise EngineLost(f"{self._node} is not used: {unfit}.")
        self.placed = True
        known = {name: version for name, version in there.items() if name in versions()}
        self._say(Joined(self.number, self._node, known))
        self._on_change(self)

    def _listen(self) -> None:
        self._actor.ask.remote("listen").future().add_done_callback(self._inbox.put)

    def _take_up(self, what: Render | Heard) -> None:
        if isinstance(what, Render):
            self._render(what)
            return
        for number, message in what.result():
            self._say(Said(self.number, number, message))
        self._listen()

    def _render(self, order: Render) -> None:
        """Start a batch on the node, with what it needs."""
        needs = needs_of(order.batch)
        start_images = self._transfer.start_images(order.batch)
        particulars = (order.number, order.batch, order.waiting, needs, start_images)
        try:
            for _ in range(_TRIES):
                lacking = self._ask("render", *particulars)()
                if isinstance(lacking, Unfit):
                    raise EngineLost(f"{self._node} cannot be used: {lacking.why}.")
                if not lacking:
                    return
                for need in lacking:
                    self._say(Note(f"{need.kind} {need.name} is sent to {self._node}"))
                self._transfer.bring(lacking, self._node_id, self._ask)
            raise EngineLost(f"{self._node} does not keep the model files that are sent to it.")
        except RenderFailed as failed:
            self._say(Said(self.number, order.number, Ended(failed, None)))

    def _ask(self, what: str, *arguments: Any) -> Callable[[], Any]:
        """Call the agent; bytes go through the object store."""
        sent = [ray.put(one) if isinstance(one, bytes) else one for one in arguments]
        answer = self._actor.ask.remote(what, *sent)
        return lambda: ray.get(answer)

    def _how_lost(self, error: Exception) -> PicowatchError:
        """In one sentence for people, which Ray's texts are not."""
        if isinstance(error, OutOfMemoryError):  # the batch may be at fault
            return EngineDied(
                f"Ray ended the engine on {self._node}, because memory ran low there.",
                "Try a smaller size or batch_size: 1, or fewer engines on that node.",
            )
        if isinstance(error, NodeDiedError) or "its node has died" in str(error):
            return EngineLost(f"The node {self._node} of the cluster is gone.")
        if isinstance(error, RayTaskError):
            said = " ".join(str(error.cause).split())[:200].rstrip(".")
            return EngineLost(f"The engine on {self._node} answered with an error: {said}.")
        return EngineLost(f"The engine on {self._node} ended, or the connection to it was lost.")
