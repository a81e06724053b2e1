"""An engine on a Ray cluster, as the daemon sees it and on its node. Imports no torch."""

import shutil
import tempfile
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray import exceptions

from picowatch.engine.failures import as_clause
from picowatch.engine.process.child import CHECK_SECONDS, ChildEngine, RemoteEngine
from picowatch.engine.protocol import (
    Batch,
    EngineCannotStart,
    EngineLost,
    EngineOptions,
    Finished,
    FromEngine,
    MakeRenderer,
    RenderedImage,
    cache_folder,
)
from picowatch.errors import EngineDied, EngineStopped, PicowatchError

_THREADS = 4  # of an actor: for `render`, for `live`, and for calls that return at once
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

    def live(self) -> Iterator[str]:
        """Yield this node's name, or its address if it was given none; end with this actor."""
        here = ray.get_runtime_context().get_node_id()
        yield next(str(node["NodeName"]) for node in ray.nodes() if node["NodeID"] == here)
        threading.Event().wait()

    def render(self, batch: Batch, pictures: dict[str, bytes]) -> Iterator[FromEngine | None]:
        """Render a batch with these start images by hash, and yield the engine's reports."""
        self._pictures.mkdir(mode=0o700)
        try:
            for digest, content in pictures.items():
                (self._pictures / digest).write_bytes(content)
            for report in self._engine.reports(batch):
                if isinstance(report, Finished | PicowatchError):
                    break
                yield report
        finally:  # before the outcome, after which the next batch may come at once
            shutil.rmtree(self._pictures)
        yield report

    def interrupt(self) -> None:
        self._engine.interrupt()


class RayEngine(RemoteEngine):
    """An Engine on a `node`: `is_placed` once it takes batches; `gone` is why it ended for good."""

    def __init__(
        self, options: EngineOptions, make_renderer: MakeRenderer, gpus: float, cpus: float
    ) -> None:
        """Request an actor with so many of a node's GPUs and cores. Raises Ray's errors."""
        self._options = options
        self.is_placed = False
        self.gone: Exception | None = None
        self.requested_at = time.monotonic()
        self.node = "a node"
        self._in_use = threading.Lock()  # by a batch
        actor: Any = ray.remote(EngineActor).options(
            num_cpus=cpus, num_gpus=gpus, max_concurrency=_THREADS, scheduling_strategy="SPREAD"
        )
        self._actor = actor.remote(options, make_renderer)
        self._life = self._actor.live.options(num_returns="streaming").remote()

    def update(self) -> None:
        """Check whether the engine was placed or has ended; a batch finds out why. Never raises."""
        if self.gone is not None or self._in_use.locked():
            return
        try:
            if ray.wait([self._life], timeout=0)[0]:
                self.node, self.is_placed = ray.get(next(self._life)), True
        except Exception as error:  # Ray raises errors of many classes, and gRPC's
            self.end(self._explained(error))

    def interrupt(self) -> None:
        self._actor.interrupt.remote()

    def close(self) -> None:
        """End the engine and release its place in the cluster."""
        self.end(EngineStopped("The engine was closed."))

    def end(self, why: Exception) -> None:
        """End the engine for good; a batch in progress soon ends with this error."""
        if self.gone is None:
            self.gone = why
            with suppress(Exception):  # Ray is going down, or the actor is gone already
                ray.kill(self._actor)

    def wait(self, seconds: float) -> None:
        """Wait until no batch uses Ray any more."""
        if self._in_use.acquire(timeout=seconds):
            self._in_use.release()

    def reports(self, batch: Batch) -> Generator[FromEngine | None, None, None]:
        """Implement `RemoteEngine.reports`; pictures and errors get the node's name."""
        report = None
        with self._in_use:
            if self.gone is not None:
                raise EngineLost("The engine is gone.")
            try:
                for report in self._streamed(batch):
                    yield self._named(report)
            except Exception as error:  # as in `update`
                self.end(why := self._explained(error))
                raise why from error
            finally:
                if not isinstance(report, Finished | PicowatchError):
                    self.close()

    def _streamed(self, batch: Batch) -> Iterator[FromEngine | None]:
        """Have a batch rendered, and yield the actor's reports. Raises Ray's errors."""
        render = self._actor.render.options(num_returns="streaming")
        stream = render.remote(batch, self._start_images(batch))
        try:
            while True:
                yield from self._until_ready(stream)
                yield ray.get(next(stream))
        except exceptions.ActorUnavailableError:  # Ray knows the reason later
            verdict = self._actor.interrupt.remote()
            yield from self._until_ready(verdict)
            ray.get(verdict)
            raise

    def _until_ready(self, result: Any) -> Iterator[None]:
        """Wait for a result of Ray's. Raises why the engine is gone, once it is."""
        while not ray.wait([result], timeout=CHECK_SECONDS)[0]:
            if self.gone is not None:
                raise self.gone
            yield None

    def _named(self, report: FromEngine | None) -> FromEngine | None:
        match report:
            case RenderedImage():
                return replace(report, node=self.node)
            case EngineCannotStart(message=why, remedy=remedy, trace=trace):
                self.end(unfit := self._unfit(why, remedy, trace))
                return unfit
            case PicowatchError(message=why, remedy=remedy, trace=trace):
                return type(report)(f"{self.node}: {why}", remedy, trace)
            case _:
                return report

    def _start_images(self, batch: Batch) -> dict[str, bytes]:
        """Return the start images and masks by hash; the engine reports what is missing."""
        found: dict[str, bytes] = {}
        if (folder := self._options.start_images) is not None:
            for digest in {digest for request in batch for digest in request.pictures.values()}:
                with suppress(OSError):
                    found[digest] = (folder / digest).read_bytes()
        return found

    def _unfit(self, why: str, remedy: str = "", trace: str = "") -> EngineLost:
        return EngineLost(f"{self.node} is not used: {why}", remedy, trace)

    def _explained(self, error: Exception) -> Exception:
        """Return an error with a readable sentence about why the actor ended."""
        if self.gone is not None:  # Ray may be shut down any moment
            return self.gone
        if isinstance(error, exceptions.NodeDiedError) or "node has died" in str(error):
            return EngineLost(f"The cluster lost {self.node}.")
        crashed = isinstance(error, exceptions.ActorDiedError | exceptions.OutOfMemoryError)
        if crashed and self.is_placed:
            return EngineDied(f"The engine on {self.node} crashed or was killed.", _MEMORY)
        # picowatch is missing there, or the disk is full.
        if crashed or isinstance(error, exceptions.RayTaskError):
            return self._unfit(f"{as_clause(str(error).strip().splitlines()[-1])}.")
        return EngineLost(f"The connection to the engine on {self.node} was lost.")
