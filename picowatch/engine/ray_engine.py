"""One engine on a Ray cluster: requested, placed, at work, gone. Imports no torch."""

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import ray
from ray import exceptions

from picowatch.catalog import Catalog
from picowatch.engine import ray_actor
from picowatch.engine.child_main import FromEngine, MakeRenderer, Outcome, Render
from picowatch.engine.failures import one_line
from picowatch.engine.options import EngineOptions, versions
from picowatch.engine.protocol import EngineCannotStart, EngineLost
from picowatch.engine.remote import Batch, RemoteEngine
from picowatch.engine.verify import ModelNotThere, find_model
from picowatch.errors import EngineDied, EngineStopped, PicowatchError, RenderFailed
from picowatch.recipe.request import ImageRequest

_VERDICT_SECONDS = 15.0  # until Ray knows why an actor cannot be reached
_THREADS = 4  # of an actor: one renders, one stays, the others answer at once
_CRASHES = (exceptions.ActorDiedError, exceptions.OutOfMemoryError)
_MEMORY = (
    "Most often memory ran out there: try a smaller size, batch_size: 1 or fewer engines. Ray's "
    "logs on that node may say more."
)
ray.cloudpickle.register_pickle_by_value(ray_actor)


class RayEngine(RemoteEngine):
    """An Engine on a node of the cluster.

    `is_placed`: it takes batches. `gone` is why it ended; it never comes back.
    """

    def __init__(
        self, options: EngineOptions, make_renderer: MakeRenderer, gpus: float, cpus: float
    ) -> None:
        """Request an actor with so many of a node's GPUs and cores; raises what Ray raises."""
        super().__init__(options)
        self.is_placed = False
        self.gone: Exception | None = None
        self.requested_at = time.monotonic()
        self._node = "a node"
        actor: Any = ray.remote(ray_actor.EngineActor).options(
            num_cpus=cpus,
            num_gpus=gpus,
            max_concurrency=_THREADS,
            scheduling_strategy="SPREAD",
        )
        self._actor = actor.remote()
        self._awaited = self._actor.start.remote(versions(), [ray.put((options, make_renderer))])

    def look(self) -> None:
        """Notice that it was placed, or has ended; raises nothing."""
        try:
            if self.gone is not None or not ray.wait([self._awaited], timeout=0)[0]:
                return
            self._node, differs = ray.get(self._awaited)
            if differs:
                self.end(self._unfit(f"{differs}.", "Install the same versions there as here."))
                return
            self._known = self._known | {"node": self._node}
            self._awaited = self._actor.stay.remote()
            self.is_placed = True
        except Exception as error:  # Ray raises errors of many classes, and gRPC's
            self.end(self._explained(error))

    def prepare(self) -> None:
        """Implement `Engine.prepare`; an actor prepares itself as soon as it is placed."""

    def interrupt(self) -> None:
        """Implement `Engine.interrupt`."""
        if self._batch is not None and not self._batch.future.done():
            self._actor.interrupt.remote()

    def close(self) -> None:
        """Give its place back to the cluster; another engine joins when one is wanted."""
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

    def _outcome(self, batch: Batch) -> Outcome | Exception:
        if self.gone is not None:
            return EngineLost("The engine is gone.")
        try:
            outcome = self._pass_on(self._reports(batch.work), batch)
        except Exception as error:  # whatever it still reports is not for the next batch
            self.end(error)
            return error
        if isinstance(outcome, list):
            return [replace(image, node=self._node) for image in outcome]
        if isinstance(outcome, EngineStopped):
            return outcome
        if unfit := self._why_unfit(outcome):
            self.end(unfit)
            return unfit
        return type(outcome)(f"{self._node}: {outcome.message}", outcome.remedy, outcome.trace)

    def _reports(self, work: Render) -> Iterator[FromEngine]:
        """Have a batch rendered; yield what the actor reports. Raises EngineDied."""
        try:
            render = self._actor.render.options(num_returns="streaming")
            for report in render.remote(work, self._start_images(work.batch)):
                yield ray.get(report)
        except Exception as error:  # as in `look`
            raise self._explained(error) from error

    def _start_images(self, batch: Sequence[ImageRequest]) -> dict[str, bytes]:
        """The start images and masks of a batch by hash; the engine reports what is missing."""
        found: dict[str, bytes] = {}
        if (folder := self._options.start_images) is not None:
            for digest in {digest for request in batch for digest in request.pictures.values()}:
                with suppress(OSError):
                    found[digest] = (folder / digest).read_bytes()
        return found

    def _why_unfit(self, failure: PicowatchError) -> EngineLost | None:
        """Say why the node cannot be used, if that is why a batch failed."""
        remedy = failure.remedy
        if isinstance(failure, ModelNotThere) and self._has(failure):
            models = self._options.models
            remedy = (
                f"Its models folder has to be {models}, too: share it, or copy what is missing."
            )
        elif not isinstance(failure, EngineCannotStart):
            return None
        return self._unfit(failure.message, remedy, failure.trace)

    def _unfit(self, why: str, remedy: str = "", trace: str = "") -> EngineLost:
        return EngineLost(f"{self._node} is not used: {why}", remedy, trace)

    def _has(self, missing: ModelNotThere) -> bool:
        """Whether the daemon's machine has the model that the node lacks."""
        catalog = Catalog(self._options.models, self._options.hash_cache, keep_hashes=False)
        try:
            find_model(catalog, *missing.model)
        except RenderFailed:
            return False
        return True

    def _explained(self, error: Exception) -> Exception:
        """Say why the actor ended in a sentence for people, which Ray's texts are not."""
        if self.gone is not None:  # Ray may be shut down any moment
            return self.gone
        if isinstance(error, exceptions.ActorUnavailableError):  # why is known a moment later
            try:
                ray.get(self._actor.interrupt.remote(), timeout=_VERDICT_SECONDS)
            except Exception as later:
                error = later
        if isinstance(error, exceptions.RayTaskError):  # raised on the node: a full disk
            return self._unfit(f"{one_line(error.cause)}.")
        if isinstance(error, exceptions.NodeDiedError) or "node has died" in str(error):
            return EngineLost(f"The cluster lost {self._node}.")
        if isinstance(error, _CRASHES) and self.is_placed:
            return EngineDied(f"The engine on {self._node} crashed or was killed.", _MEMORY)
        return EngineLost(f"The connection to the engine on {self._node} was lost.")
