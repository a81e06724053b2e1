"""One engine on the cluster, as the driver sees it: asked for, placed, at work, gone."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayError, RayTaskError

from picowatch.engine.cluster.courier import Courier, needs_of
from picowatch.engine.cluster.versions import differences
from picowatch.engine.cluster.wire import (
    Begin,
    Ended,
    FromDriver,
    FromHost,
    Joined,
    Note,
    Render,
    Said,
    Unfit,
)
from picowatch.engine.protocol import EngineLost
from picowatch.engine.versions import versions
from picowatch.errors import EngineDied, PicowatchError, RenderFailed

_TRIES = 3  # files that were sent may be deleted before they are used

Heard = Future[tuple[tuple[int, FromHost], ...]]


@dataclass(frozen=True, slots=True)
class Office:
    """What all postings work with.

    `node_name` names a node by its id. `arrived` is called once a posting takes batches,
    `resigned` with one that is no more and with why, `unfit` with a node's id and why it is not
    to be used for now; all from the posting's own thread.
    """

    begin: Begin
    gpus: float
    courier: Courier
    say: Callable[[FromDriver], None]
    node_name: Callable[[str], str]
    arrived: Callable[[], None]
    resigned: Callable[["Posting", PicowatchError | None], None]
    unfit: Callable[[str, str], None]


class Posting:
    """A host's actor, and the thread that passes on what is said to it and by it."""

    def __init__(self, number: int, actor: Any, office: Office) -> None:
        """`number` is what the daemon knows the engine by."""
        self.number = number
        self.placed = False
        self._actor = actor
        self._office = office
        self._node = "its node"
        self._released = False
        self._inbox: SimpleQueue[Render | Heard] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"posting-{number}", daemon=True)
        self._thread.start()

    def render(self, order: Render) -> None:
        """A batch for the engine."""
        self._inbox.put(order)

    def tell(self, what: str) -> None:
        """ "prepare" or "interrupt"; what goes wrong with it, other calls say."""
        with suppress(RayError, ConnectionError):
            self._actor.ask.remote(what)

    def release(self) -> None:
        """End it; its thread resigns then."""
        self._released = True
        self._end()

    def join(self, seconds: float) -> None:
        """Wait until it has resigned, if that comes so soon."""
        self._thread.join(seconds)

    def _end(self) -> None:
        with suppress(Exception):  # Ray is going down, or the actor is gone already
            ray.kill(self._actor)

    def _run(self) -> None:
        why: PicowatchError | None = None
        try:
            self._arrive()
            self._listen()
            while True:
                self._take_up(self._inbox.get())
        except EngineLost as lost:
            why = lost
        # An actor and its node end in many ways; what pickles not is one of them.
        except Exception as error:
            why = self._how_lost(error)
        finally:
            self._end()
            self._office.resigned(self, None if self._released else why)

    def _arrive(self) -> None:
        """Wait until it is placed; look whether the node has what it takes, and move in."""
        there = ray.get(self._actor.introduce.remote())
        node = there.pop("node")
        self._node = self._office.node_name(node) or there["host"]
        differing = differences(there)
        if differing:
            raise self._unfit(node, differing)
        begin, settings = self._office.begin, self._office.begin.settings
        answer = ray.get(
            self._actor.settle.remote(
                begin.options,
                begin.program,
                self._node,
                self._office.gpus,
                settings.cpus_per_engine,
            )
        )
        if isinstance(answer, Unfit):
            raise self._unfit(node, answer.why)
        self.placed = True
        known = {name: version for name, version in there.items() if name in versions()}
        self._office.say(Joined(self.number, self._node, known))
        self._office.arrived()

    def _unfit(self, node: str, why: str) -> EngineLost:
        lost = EngineLost(f"{self._node} is not used: {why}.")
        self._office.unfit(node, lost.message)
        return lost

    def _listen(self) -> None:
        self._actor.listen.remote().future().add_done_callback(self._inbox.put)

    def _take_up(self, what: Render | Heard) -> None:
        if isinstance(what, Render):
            self._render(what)
            return
        for number, message in what.result():
            self._office.say(Said(self.number, number, message))
        self._listen()

    def _render(self, order: Render) -> None:
        """Start a batch on the node, with what it needs."""
        courier = self._office.courier
        needs = needs_of(order.batch)
        start_images = courier.start_images(order.batch)
        particulars = (order.number, order.batch, order.waiting, needs, start_images)
        try:
            for _ in range(_TRIES):
                lacking = self._ask("render", *particulars)()
                if isinstance(lacking, Unfit):
                    raise EngineLost(f"{self._node} cannot be used: {lacking.why}.")
                if not lacking:
                    return
                for need in lacking:
                    self._office.say(Note(f"{need.kind} {need.name} is sent to {self._node}"))
                    courier.bring(need, self._ask)
            raise EngineLost(f"{self._node} does not keep the model files that are sent to it.")
        except RenderFailed as failed:
            self._office.say(Said(self.number, order.number, Ended(failed, None)))

    def _ask(self, what: str, *words: Any) -> Callable[[], Any]:
        """Call the workplace; bytes go through the object store."""
        sent = [ray.put(word) if isinstance(word, bytes) else word for word in words]
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
