"""One engine on a Ray cluster: requested, placed, at work, gone. Imports no torch."""

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import Any, NamedTuple

import ray
from ray import exceptions

from picowatch.catalog import Catalog
from picowatch.engine import ray_actor
from picowatch.engine.child_main import Ended, MakeRenderer, Render, Step
from picowatch.engine.child_process import engine_environment
from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import (
    EngineCannotStart,
    EngineLost,
    MemoryUse,
    OnPreview,
    OnStep,
    Preview,
    RenderedImage,
    resolve,
    unseen,
)
from picowatch.engine.ray_cluster import LOST, NODE_ID, one_line
from picowatch.engine.ray_nodes import ClusterAway, NodeUnfit, differences, lacking
from picowatch.engine.versions import versions
from picowatch.errors import EngineDied, EngineStopped, PicowatchError, RenderFailed
from picowatch.recipe.request import ImageRequest

log = logging.getLogger("picowatch")

_VERDICT_SECONDS = 15.0  # until Ray knows why an actor cannot be reached
_THREADS = 4  # of an actor: one renders, one stays, the others answer at once
ray.cloudpickle.register_pickle_by_value(ray_actor)


class Start(NamedTuple):
    """What an engine is started with on a node, and what it takes from the cluster."""

    options: EngineOptions
    make_renderer: MakeRenderer
    gpus: float
    cpus: float


class RayEngine:
    """An Engine on a node of the cluster.

    `is_placed`: it takes batches. `gone` is why it ended; it never comes back.
    """

    def __init__(self, start: Start, avoided: Sequence[str] = ()) -> None:
        """Request an actor, on none of the nodes with these ids."""
        self.is_placed = False
        self.gone: PicowatchError | None = None
        self.node_id = ""
        self._start = start
        self._catalog = Catalog(start.options.models, start.options.hash_cache, keep_hashes=False)
        self._node = "a node"
        self._known = {"device": start.options.device, "precision": start.options.precision}
        self._memory: MemoryUse | None = None
        self._lock = threading.Lock()
        self._numbers = count()
        self._work: Render | None = None  # the batch in progress
        self._future: Future[list[RenderedImage]] | None = None  # … its pictures
        self._actor: Any = None
        self._thread = threading.Thread(target=self._run, args=(avoided,), daemon=True)
        self._thread.start()

    def render(
        self,
        batch: Sequence[ImageRequest],
        on_step: OnStep,
        on_preview: OnPreview = unseen,
        preview_seconds: float = 0,
    ) -> Future[list[RenderedImage]]:
        """See `Engine.render`; raises EngineLost besides."""
        future: Future[list[RenderedImage]] = Future()
        future.set_running_or_notify_cancel()  # only `interrupt` ends it
        with self._lock:
            if self.gone is not None:
                resolve(future, EngineLost("The engine is gone."))
                return future
            if self._work is not None:
                raise RuntimeError("one batch at a time")
            work = Render(next(self._numbers), tuple(batch), preview_seconds)
            self._work, self._future = work, future
        rendering = threading.Thread(
            target=self._render, args=(work, on_step, on_preview), daemon=True
        )
        rendering.start()
        return future

    def describe(self) -> dict[str, str]:
        """Device and precision as set, or as found once a picture was rendered; node, versions."""
        return self._known

    def memory(self) -> MemoryUse | None:
        """What it held of a GPU after its last batch."""
        return self._memory

    def prepare(self) -> None:
        """See `Engine.prepare`; an actor prepares itself as soon as it is placed."""

    def interrupt(self) -> None:
        """See `Engine.interrupt`."""
        if (work := self._work) is not None:
            self._actor.interrupt.remote(work.number)

    def close(self) -> None:
        """Give its place back to the cluster; another engine joins when one is wanted."""
        self.end(EngineStopped("The engine was closed."))

    def end(self, why: PicowatchError) -> None:
        """End the engine for good; a batch in progress ends with this error."""
        with self._lock:
            if self.gone is not None:
                return
            self.gone = why
            self._kill()
        self._end_batch(why)

    def join(self, seconds: float) -> None:
        """Wait until nothing of an engine that ended waits for Ray."""
        self._thread.join(seconds)

    # -- its thread

    def _run(self, avoided: Sequence[str]) -> None:
        try:
            actor = self._requested(avoided)
            with self._lock:
                self._actor = actor
                if self.gone is not None:  # it took long: the head did not answer
                    self._kill()
            self._arrive()
            ray.get(actor.stay.remote())
        except Exception as error:  # Ray raises errors of many classes, and gRPC's
            self.end(self._explained(error))

    def _requested(self, avoided: Sequence[str]) -> Any:
        """An actor that is still to be placed."""
        options: dict[str, Any] = {
            "num_cpus": self._start.cpus,
            "num_gpus": self._start.gpus,
            "max_concurrency": _THREADS,
            "scheduling_strategy": "SPREAD",
            "runtime_env": {"env_vars": engine_environment()},
        }
        if avoided:
            options["label_selector"] = {NODE_ID: f"!in({','.join(avoided)})"}
        try:
            return ray.remote(ray_actor.EngineActor).options(**options).remote()
        except Exception as error:  # it is another cluster by now
            raise ClusterAway(f"{LOST[:-1]}: {one_line(error)}.") from error

    def _arrive(self) -> None:
        """Wait until it is placed; check the node's versions, and start an engine there."""
        there: dict[str, str] = ray.get(self._actor.introduce.remote())
        self.node_id, self._node = there.pop("id"), there["node"]
        if unfit := differences(there):
            remedy = "Install the same versions there as here."
            raise NodeUnfit(f"{self._node} is not used: {unfit}.", remedy)
        options, make_renderer, _, cpus = self._start
        ray.get(self._actor.start.remote(options, make_renderer, cpus))
        self._known |= {name: there[name] for name in ("node", *versions())}
        self.is_placed = True
        log.info("an engine joined on %s", self._node)

    # -- a thread for each batch

    def _render(self, work: Render, on_step: OnStep, on_preview: OnPreview) -> None:
        try:
            if words := lacking(self._catalog, work.batch):
                self._end_batch(RenderFailed(words, "When it is complete, save the recipe again."))
                return
            streaming = self._actor.render.options(num_returns="streaming")
            for answer in streaming.remote(work, self._start_images(work.batch)):
                for report in ray.get(answer):
                    match report:
                        case Step(done=done, total=total):
                            on_step(done, total)
                        case Preview() as preview:
                            on_preview(preview)
                        case Ended(outcome=outcome, memory=memory):
                            self._ended(outcome, memory)
        except Exception as error:  # as in `_run`
            self.end(self._explained(error))

    def _start_images(self, batch: Sequence[ImageRequest]) -> dict[str, bytes]:
        """The start images and masks of a batch by hash; the engine reports what is missing."""
        found: dict[str, bytes] = {}
        if (folder := self._start.options.start_images) is not None:
            for digest in {digest for request in batch for digest in request.pictures.values()}:
                with suppress(OSError):
                    found[digest] = (folder / digest).read_bytes()
        return found

    def _ended(
        self, outcome: list[RenderedImage] | PicowatchError, memory: MemoryUse | None
    ) -> None:
        if isinstance(outcome, EngineCannotStart | NodeUnfit):
            words = f"{self._node} is not used: {outcome.message}"
            self.end(NodeUnfit(words, outcome.remedy, outcome.trace))
        elif isinstance(outcome, EngineDied):
            self.end(outcome)
        elif isinstance(outcome, list):
            found = {"device": outcome[0].device, "precision": outcome[0].precision}
            self._known, self._memory = self._known | found, memory
            self._end_batch([replace(image, node=self._node) for image in outcome])
        else:
            self._end_batch(outcome)

    def _end_batch(self, outcome: list[RenderedImage] | PicowatchError) -> None:
        with self._lock:
            future, self._work, self._future = self._future, None, None
        if future is not None:
            resolve(future, outcome)

    # -- its end

    def _kill(self) -> None:
        if self._actor is not None:
            with suppress(Exception):  # Ray is going down, or the actor is gone already
                ray.kill(self._actor)

    def _explained(self, error: Exception) -> PicowatchError:
        """Why it ended, in a sentence for people, which Ray's texts are not."""
        if self.gone is not None:
            return self.gone
        if isinstance(error, exceptions.ActorUnavailableError):  # why is known a moment later
            try:
                ray.get(self._actor.introduce.remote(), timeout=_VERDICT_SECONDS)
            except Exception as later:
                error = later
        if isinstance(error, PicowatchError):
            return error
        if isinstance(error, exceptions.RayTaskError):  # raised on the node: a full disk
            return NodeUnfit(
                f"{self._node} is not used: {one_line(error.cause)}.", "Ray's logs there say more."
            )
        if isinstance(error, exceptions.OutOfMemoryError):  # the batch may be at fault
            return EngineDied(
                f"Ray ended the engine on {self._node}, because memory ran low there.",
                "Try a smaller size or batch_size: 1, or fewer engines on that node.",
            )
        if isinstance(error, exceptions.NodeDiedError) or "node has died" in str(error):
            return EngineLost(f"The cluster lost {self._node}.")
        if isinstance(error, exceptions.ActorDiedError) and self.is_placed:
            return EngineDied(
                f"The engine on {self._node} crashed or was killed.",
                "Most often memory ran out there, or a driver or a library of torch is at fault: "
                "Ray's logs on that node may say more.",
            )
        return EngineLost(f"The connection to the engine on {self._node} was lost.")
