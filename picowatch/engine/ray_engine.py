"""One engine on a Ray cluster: requested, placed, at work, gone. Imports no torch."""

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import Any

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
from picowatch.engine.verify import ModelNotThere, find_model
from picowatch.engine.versions import versions
from picowatch.errors import EngineDied, EngineStopped, PicowatchError, RenderFailed
from picowatch.recipe.request import ImageRequest

log = logging.getLogger("picowatch")

_VERDICT_SECONDS = 15.0  # until Ray knows why an actor cannot be reached
_THREADS = 4  # of an actor: one renders, one stays, the others answer at once
_ENDED = (exceptions.ActorDiedError, exceptions.OutOfMemoryError)
_MEMORY = (
    "Most often memory ran out there (try a smaller size, batch_size: 1 or fewer engines), or a "
    "driver or a library of torch is at fault: Ray's logs on that node may say more."
)
ray.cloudpickle.register_pickle_by_value(ray_actor)


class RayEngine:
    """An Engine on a node of the cluster.

    `is_placed`: it takes batches. `gone` is why it ended; it never comes back. `is_unfit`: its
    node cannot be used as it is.
    """

    def __init__(
        self, options: EngineOptions, make_renderer: MakeRenderer, gpus: float, cpus: float
    ) -> None:
        """Request an actor with so many of a node's GPUs and cores; raises what Ray raises."""
        self.is_placed = self.is_unfit = False
        self.gone: PicowatchError | None = None
        self.node = "a node"
        self.requested_at = time.monotonic()
        self._options, self._make_renderer = options, make_renderer
        self._known = {"device": options.device, "precision": options.precision}
        self._memory: MemoryUse | None = None
        self._lock = threading.Lock()
        self._numbers = count()
        self._work: Render | None = None  # the batch in progress
        self._future: Future[list[RenderedImage]] | None = None  # … its pictures
        actor = ray.remote(ray_actor.EngineActor).options(
            num_cpus=cpus,
            num_gpus=gpus,
            max_concurrency=_THREADS,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": engine_environment()},
        )
        self._actor: Any = actor.remote()
        self._thread = threading.Thread(target=self._stay, daemon=True)
        self._thread.start()

    def render(
        self,
        batch: Sequence[ImageRequest],
        on_step: OnStep,
        on_preview: OnPreview = unseen,
        preview_seconds: float = 0,
    ) -> Future[list[RenderedImage]]:
        """Implement `Engine.render`; raises EngineLost besides."""
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
        arguments = (work, on_step, on_preview)
        threading.Thread(target=self._render, args=arguments, daemon=True).start()
        return future

    def describe(self) -> dict[str, str]:
        """Device and precision as set, or as found once a picture was rendered; node, versions."""
        return self._known

    def memory(self) -> MemoryUse | None:
        """What it held of a GPU after its last batch."""
        return self._memory

    def prepare(self) -> None:
        """Implement `Engine.prepare`; an actor prepares itself as soon as it is placed."""

    def interrupt(self) -> None:
        """Implement `Engine.interrupt`."""
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
        with suppress(Exception):  # Ray is going down, or the actor is gone already
            ray.kill(self._actor)
        self._end_batch(why)

    def join(self, seconds: float) -> None:
        """Wait until nothing of an engine that ended waits for Ray."""
        self._thread.join(seconds)

    # -- its threads: one that stays, and one for each batch

    def _stay(self) -> None:
        try:
            there: dict[str, str] = ray.get(self._actor.introduce.remote())
            self.node = there["node"]
            if unfit := _differences(there):
                self._end_unfit(f"{unfit}.", "Install the same versions there as here.")
                return
            ray.get(self._actor.start.remote(self._options, self._make_renderer))
            self._known |= there
            self.is_placed = True
            log.info("an engine joined on %s", self.node)
            ray.get(self._actor.stay.remote())
        except Exception as error:  # Ray raises errors of many classes, and gRPC's
            self._fail(error)

    def _render(self, work: Render, on_step: OnStep, on_preview: OnPreview) -> None:
        try:
            streaming = self._actor.render.options(num_returns="streaming")
            for answer in streaming.remote(work, self._start_images(work.batch)):
                match ray.get(answer):
                    case Step(done=done, total=total):
                        on_step(done, total)
                    case Preview() as preview:
                        on_preview(preview)
                    case Ended(outcome=outcome, memory=memory):
                        self._ended(outcome, memory)
        except Exception as error:  # as in `_stay`
            self._fail(error)

    def _start_images(self, batch: Sequence[ImageRequest]) -> dict[str, bytes]:
        """The start images and masks of a batch by hash; the engine reports what is missing."""
        found: dict[str, bytes] = {}
        if (folder := self._options.start_images) is not None:
            for digest in {digest for request in batch for digest in request.pictures.values()}:
                with suppress(OSError):
                    found[digest] = (folder / digest).read_bytes()
        return found

    def _ended(
        self, outcome: list[RenderedImage] | PicowatchError, memory: MemoryUse | None
    ) -> None:
        if isinstance(outcome, list):
            found = {"device": outcome[0].device, "precision": outcome[0].precision}
            self._known, self._memory = self._known | found, memory
            self._end_batch([replace(image, node=self.node) for image in outcome])
        elif isinstance(outcome, EngineCannotStart):
            self._end_unfit(outcome.message, outcome.remedy, outcome.trace)
        elif isinstance(outcome, ModelNotThere) and self._has(outcome):
            models = self._options.models
            remedy = (
                f"Its models folder has to be {models}, too: share it, or copy what is missing."
            )
            self._end_unfit(outcome.message, remedy)
        elif isinstance(outcome, EngineDied):
            self.end(outcome)
        else:
            self._end_batch(outcome)

    def _has(self, missing: ModelNotThere) -> bool:
        """Whether the daemon's machine has the model that the node lacks."""
        catalog = Catalog(self._options.models, self._options.hash_cache, keep_hashes=False)
        try:
            find_model(catalog, *missing.model)
        except RenderFailed:
            return False
        return True

    def _end_batch(self, outcome: list[RenderedImage] | PicowatchError) -> None:
        with self._lock:
            future, self._work, self._future = self._future, None, None
        if future is not None:
            resolve(future, outcome)

    # -- its end

    def _end_unfit(self, why: str, remedy: str, trace: str = "") -> None:
        self.is_unfit = True
        self.end(EngineLost(f"{self.node} is not used: {why}", remedy, trace))

    def _fail(self, error: Exception) -> None:
        """Say why the engine ended in a sentence for people, which Ray's texts are not."""
        if self.gone is not None:  # Ray may be shut down any moment
            return
        if isinstance(error, exceptions.ActorUnavailableError):  # why is known a moment later
            try:
                ray.get(self._actor.introduce.remote(), timeout=_VERDICT_SECONDS)
            except Exception as later:
                error = later
        if isinstance(error, exceptions.RayTaskError):  # raised on the node: a full disk
            reason = " ".join(str(error.cause).split())[:300].rstrip(".")
            self._end_unfit(f"{reason}.", "Ray's logs there say more.")
        elif isinstance(error, exceptions.NodeDiedError) or "node has died" in str(error):
            self.end(EngineLost(f"The cluster lost {self.node}."))
        elif isinstance(error, _ENDED) and self.is_placed:
            words = f"The engine on {self.node} crashed or was killed."
            self.end(EngineDied(words, _MEMORY))
        else:
            self.end(EngineLost(f"The connection to the engine on {self.node} was lost."))


def _differences(there: dict[str, str]) -> str:
    """Say in which versions a node differs from this machine; "" in none.

    What follows "+" is the build (torch 2.13.0+cpu): machines may differ in it. Ray itself refuses
    a node with another Python or Ray.
    """
    return ", ".join(
        f"{name} is {there.get(name, 'missing')} there and {version} here"
        for name, version in versions().items()
        if there.get(name, "").partition("+")[0] != version.partition("+")[0]
    )
