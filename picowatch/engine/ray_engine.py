"""One engine on a Ray cluster, as the daemon sees it and on its node. Imports no torch."""

import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from uuid import uuid4

import ray
from ray import exceptions

from picowatch.engine.child import Batch, ChildEngine, RemoteEngine
from picowatch.engine.failures import as_clause
from picowatch.engine.protocol import (
    EngineCannotStart,
    EngineLost,
    EngineOptions,
    FromEngine,
    MakeRenderer,
    Outcome,
    Render,
    Step,
    cache_folder,
)
from picowatch.errors import EngineDied, EngineStopped
from picowatch.recipe.request import ImageRequest

_VERDICT_SECONDS = 15.0  # for Ray to find out why an actor cannot be reached
_THREADS = 4  # of an actor: for `render`, for `stay`, and for calls that return at once
_MEMORY = (
    "Most often memory ran out there: try a smaller size, batch_size: 1 or fewer engines. Ray's "
    "logs on that node may say more."
)


class EngineActor:
    """A ChildEngine on a node, called by several of Ray's threads."""

    def __init__(self, options: EngineOptions, make_renderer: MakeRenderer) -> None:
        self._pictures = Path(tempfile.gettempdir(), f"picowatch-{uuid4()}")
        there = replace(options, cache=cache_folder(), start_images=self._pictures)
        self._engine = ChildEngine(there, make_renderer)

    def node(self) -> str:
        """Return this node's name, or its address if it was given none."""
        here = ray.get_runtime_context().get_node_id()
        return next(str(node["NodeName"]) for node in ray.nodes() if node["NodeID"] == here)

    def render(self, work: Render, pictures: dict[str, bytes]) -> Iterator[FromEngine]:
        """Render a batch with these start images by hash, and yield the engine's reports."""
        self._pictures.mkdir(mode=0o700)
        try:
            for digest, content in pictures.items():
                (self._pictures / digest).write_bytes(content)
            reports: SimpleQueue[FromEngine | None] = SimpleQueue()
            future = self._engine.render(
                work.batch,
                lambda *step: reports.put(Step(*step)),
                reports.put,
                work.preview_seconds,
            )
            future.add_done_callback(lambda _: reports.put(None))
            while (report := reports.get()) is not None:
                yield report
        finally:  # before the outcome, after which the next batch may come at once
            shutil.rmtree(self._pictures)
        if (memory := self._engine.memory()) is not None:
            yield memory
        yield future.exception() or future.result()  # type: ignore[misc]

    def interrupt(self) -> None:
        """End the batch in progress at its next step."""
        self._engine.interrupt()

    def stay(self) -> None:
        """Never return, so that waiting for it tells when this actor ends."""
        threading.Event().wait()


class RayEngine(RemoteEngine):
    """An Engine on a node of the cluster.

    `is_placed`: it takes batches. `gone` is why it ended; it never comes back.
    """

    def __init__(
        self, options: EngineOptions, make_renderer: MakeRenderer, gpus: float, cpus: float
    ) -> None:
        """Request an actor with so many of a node's GPUs and cores. Raises Ray's errors."""
        super().__init__(options)
        self.is_placed = False
        self.gone: Exception | None = None
        self.requested_at = time.monotonic()
        self._node = "a node"
        actor: Any = ray.remote(EngineActor).options(
            num_cpus=cpus, num_gpus=gpus, max_concurrency=_THREADS, scheduling_strategy="SPREAD"
        )
        self._actor = actor.remote(options, make_renderer)
        self._awaited = self._actor.node.remote()

    def look(self) -> None:
        """Check whether the engine was placed or has ended. Never raises."""
        try:
            if self.gone is not None or not ray.wait([self._awaited], timeout=0)[0]:
                return
            self._node = ray.get(self._awaited)
            self._known = self._known | {"node": self._node}
            self._awaited = self._actor.stay.remote()
            self.is_placed = True
        except Exception as error:  # Ray raises errors of many classes, and gRPC's
            self.end(self._explained(error))

    def interrupt(self) -> None:
        """Implement `Engine.interrupt`."""
        if self._batch is not None and not self._batch.future.done():
            self._actor.interrupt.remote()

    def close(self) -> None:
        """End the engine and release its place in the cluster."""
        self.end(EngineStopped("The engine was closed."))

    def end(self, why: Exception) -> None:
        """End the engine for good; a batch in progress ends with this error."""
        with self._lock:
            if self.gone is not None:
                return
            self.gone = why
            self._end_batch(why)
        with suppress(Exception):  # Ray is going down, or the actor is gone already
            ray.kill(self._actor)

    # -- the thread of a batch

    def _outcome(self, batch: Batch) -> Outcome:
        if self.gone is not None:
            raise EngineLost("The engine is gone.")
        try:
            outcome = self._pass_on(self._reports(batch.work), batch)
            if isinstance(outcome, list):
                return [replace(image, node=self._node) for image in outcome]
            if isinstance(outcome, EngineCannotStart):
                raise self._unfit(outcome.message, outcome.remedy, outcome.trace)
        except Exception as error:  # its remaining reports must not reach the next batch
            self.end(error)
            raise
        return type(outcome)(f"{self._node}: {outcome.message}", outcome.remedy, outcome.trace)

    def _reports(self, work: Render) -> Iterator[FromEngine]:
        """Have a batch rendered, and yield the actor's reports. Raises EngineDied."""
        try:
            render = self._actor.render.options(num_returns="streaming")
            for report in render.remote(work, self._start_images(work.batch)):
                yield ray.get(report)
        except Exception as error:  # as in `look`
            raise self._explained(error) from error

    def _start_images(self, batch: Sequence[ImageRequest]) -> dict[str, bytes]:
        """Return the start images and masks of a batch by hash; the engine reports missing ones."""
        found: dict[str, bytes] = {}
        if (folder := self._options.start_images) is not None:
            for digest in {digest for request in batch for digest in request.pictures.values()}:
                with suppress(OSError):
                    found[digest] = (folder / digest).read_bytes()
        return found

    def _unfit(self, why: str, remedy: str = "", trace: str = "") -> EngineLost:
        return EngineLost(f"{self._node} is not used: {why}", remedy, trace)

    def _explained(self, error: Exception) -> Exception:
        """Return an error with a readable sentence about why the actor ended."""
        if self.gone is not None:  # Ray may be shut down any moment
            return self.gone
        if isinstance(error, exceptions.ActorUnavailableError):  # Ray knows the reason later
            try:
                ray.get(self._actor.interrupt.remote(), timeout=_VERDICT_SECONDS)
            except Exception as later:
                error = later
        if isinstance(error, exceptions.NodeDiedError) or "node has died" in str(error):
            return EngineLost(f"The cluster lost {self._node}.")
        crashed = isinstance(error, exceptions.ActorDiedError | exceptions.OutOfMemoryError)
        if crashed and self.is_placed:
            return EngineDied(f"The engine on {self._node} crashed or was killed.", _MEMORY)
        # picowatch is missing there, or the disk is full.
        if crashed or isinstance(error, exceptions.RayTaskError):
            return self._unfit(f"{as_clause(str(error).strip().splitlines()[-1])}.")
        return EngineLost(f"The connection to the engine on {self._node} was lost.")
