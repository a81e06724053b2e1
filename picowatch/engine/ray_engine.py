"""One engine on a Ray cluster: requested, placed, at work, gone. Imports no torch.

RayEngine     an Engine, as the daemon sees it
EngineActor   the process on a node, with a ChildEngine
"""

import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from uuid import uuid4

import ray
from ray import exceptions

from picowatch.catalog import Catalog
from picowatch.engine.child import ChildEngine
from picowatch.engine.child_main import MakeRenderer, Step
from picowatch.engine.options import EngineOptions, cache_folder
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

_VERDICT_SECONDS = 15.0  # until Ray knows why an actor cannot be reached
_THREADS = 4  # of an actor: one renders, one stays, the others answer at once
_CRASHES = (exceptions.ActorDiedError, exceptions.OutOfMemoryError)
_MEMORY = (
    "Most often memory ran out there: try a smaller size, batch_size: 1 or fewer engines. Ray's "
    "logs on that node may say more."
)


# From the actor, the last of a batch: its pictures or why there are none, and what it holds then.
_Ended = tuple[list[RenderedImage] | BaseException, MemoryUse | None]


class EngineActor:
    """An engine on a node. One of Ray's threads renders, the others answer."""

    def __init__(self, options: EngineOptions, make_renderer: MakeRenderer) -> None:
        self._pictures = Path(tempfile.gettempdir(), f"picowatch-{uuid4()}")
        there = replace(options, cache=cache_folder(), start_images=self._pictures)
        self._engine = ChildEngine(there, make_renderer)

    def introduce(self, wanted: dict[str, str]) -> str:
        """Return this node's name. Its pictures would differ with other versions than `wanted`.

        What follows "+" is the build (torch 2.13.0+cpu): machines may differ in it. Ray itself
        refuses a node with another Python or Ray. The name is its address, if it was given none.
        """
        here = ray.get_runtime_context().get_node_id()
        [name] = [str(node["NodeName"]) for node in ray.nodes() if node["NodeID"] == here]
        found = versions()
        for library, version in wanted.items():
            if found.get(library, "").partition("+")[0] != version.partition("+")[0]:
                there = found.get(library, "missing")
                raise EngineLost(
                    f"{name} is not used: {library} is {there} there and {version} here.",
                    "Install the same versions there as here.",
                )
        self._engine.prepare()
        return name

    def render(
        self, batch: Sequence[ImageRequest], preview_seconds: float, pictures: dict[str, bytes]
    ) -> Iterator[Step | Preview | _Ended]:
        """Render a batch with these start images by hash; yield what the engine reports."""
        self._pictures.mkdir(mode=0o700)
        try:
            for digest, content in pictures.items():
                (self._pictures / digest).write_bytes(content)
            reports: SimpleQueue[Step | Preview | None] = SimpleQueue()
            future = self._engine.render(
                batch, lambda *step: reports.put(Step(*step)), reports.put, preview_seconds
            )
            future.add_done_callback(lambda _: reports.put(None))
            while (report := reports.get()) is not None:
                yield report
        finally:  # the next batch may come at once
            shutil.rmtree(self._pictures)
        yield future.exception() or future.result(), self._engine.memory()

    def interrupt(self) -> None:
        """End the batch in progress at its next step."""
        self._engine.interrupt()

    def stay(self) -> None:
        """Never return: whoever waits for it learns of this actor's end."""
        threading.Event().wait()


class RayEngine:
    """An Engine on a node of the cluster.

    `is_placed`: it takes batches. `gone` is why it ended; it never comes back.
    """

    def __init__(
        self, options: EngineOptions, make_renderer: MakeRenderer, gpus: float, cpus: float
    ) -> None:
        """Request an actor with so many of a node's GPUs and cores; raises what Ray raises."""
        self.is_placed = False
        self.gone: PicowatchError | None = None
        self.requested_at = time.monotonic()
        self._node = "a node"
        self._options = options
        self._known = {"device": options.device, "precision": str(options.precision)}
        self._memory: MemoryUse | None = None
        self._lock = threading.Lock()
        self._future: Future[list[RenderedImage]] | None = None  # of the last batch
        self._thread: threading.Thread | None = None  # … its thread
        actor: Any = ray.remote(EngineActor).options(
            num_cpus=cpus,
            num_gpus=gpus,
            max_concurrency=_THREADS,
            scheduling_strategy="SPREAD",
        )
        self._actor = actor.remote(options, make_renderer)
        self._awaited = self._actor.introduce.remote(versions())

    def look(self) -> None:
        """Notice that it was placed, or has ended; raises nothing."""
        try:
            if self.gone is None and ray.wait([self._awaited], timeout=0)[0]:
                self._node = ray.get(self._awaited)
                self._known |= {"node": self._node} | versions()
                self._awaited = self._actor.stay.remote()
                self.is_placed = True
        except Exception as error:  # Ray raises errors of many classes, and gRPC's
            self._fail(error)

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
            if self._future is not None and not self._future.done():
                raise RuntimeError("one batch at a time")
            self._future = future
            arguments = (future, batch, on_step, on_preview, preview_seconds)
            self._thread = threading.Thread(target=self._render, args=arguments, daemon=True)
            self._thread.start()
        return future

    def describe(self) -> dict[str, str]:
        """Device and precision as set, or as found once a picture was rendered; node, versions."""
        return self._known

    def memory(self) -> MemoryUse | None:
        """What it held after its last batch."""
        return self._memory

    def prepare(self) -> None:
        """Implement `Engine.prepare`; an actor prepares itself as soon as it is placed."""

    def interrupt(self) -> None:
        """Implement `Engine.interrupt`."""
        if self._future is not None and not self._future.done():
            self._actor.interrupt.remote()

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
        if self._future is not None:
            resolve(self._future, why)

    def join(self, seconds: float) -> None:
        """Wait until nothing of an engine that ended waits for Ray."""
        if self._thread is not None:
            self._thread.join(seconds)

    # -- the thread of a batch

    def _render(
        self,
        future: Future[list[RenderedImage]],
        batch: Sequence[ImageRequest],
        on_step: OnStep,
        on_preview: OnPreview,
        preview_seconds: float,
    ) -> None:
        try:
            streaming = self._actor.render.options(num_returns="streaming")
            pictures = self._start_images(batch)
            for report in streaming.remote(tuple(batch), preview_seconds, pictures):
                match ray.get(report):
                    case Step(done, total):
                        on_step(done, total)
                    case Preview() as preview:
                        on_preview(preview)
                    case (outcome, memory):
                        self._memory = memory
                        resolve(future, self._outcome(outcome))
        except Exception as error:  # as in `look`
            self._fail(error)

    def _start_images(self, batch: Sequence[ImageRequest]) -> dict[str, bytes]:
        """The start images and masks of a batch by hash; the engine reports what is missing."""
        found: dict[str, bytes] = {}
        if (folder := self._options.start_images) is not None:
            for digest in {digest for request in batch for digest in request.pictures.values()}:
                with suppress(OSError):
                    found[digest] = (folder / digest).read_bytes()
        return found

    def _outcome(
        self, outcome: list[RenderedImage] | PicowatchError
    ) -> list[RenderedImage] | PicowatchError:
        """Return a batch's outcome with the node's name; ends what no image is at fault for."""
        if isinstance(outcome, list):
            found = {"device": outcome[0].device, "precision": outcome[0].precision}
            self._known = self._known | found
            return [replace(image, node=self._node) for image in outcome]
        message, remedy, trace = outcome.message, outcome.remedy, outcome.trace
        lacks = isinstance(outcome, ModelNotThere) and self._has(outcome)
        if lacks:
            models = self._options.models
            remedy = (
                f"Its models folder has to be {models}, too: share it, or copy what is missing."
            )
        if lacks or isinstance(outcome, EngineCannotStart):
            lost = EngineLost(f"{self._node} is not used: {message}", remedy, trace)
            self.end(lost)
            return lost
        if isinstance(outcome, EngineStopped):
            return outcome
        return type(outcome)(f"{self._node}: {message}", remedy, trace)

    def _has(self, missing: ModelNotThere) -> bool:
        """Whether the daemon's machine has the model that the node lacks."""
        catalog = Catalog(self._options.models, self._options.hash_cache, keep_hashes=False)
        try:
            find_model(catalog, *missing.model)
        except RenderFailed:
            return False
        return True

    def _fail(self, error: Exception) -> None:
        """Say why the actor ended in a sentence for people, which Ray's texts are not."""
        if self.gone is not None:  # Ray may be shut down any moment
            return
        if isinstance(error, exceptions.ActorUnavailableError):  # why is known a moment later
            try:
                ray.get(self._actor.introduce.remote({}), timeout=_VERDICT_SECONDS)
            except Exception as later:
                error = later
        if isinstance(error, exceptions.RayTaskError):  # raised on the node: a full disk
            cause = error.cause
            if not isinstance(cause, EngineLost):
                reason = " ".join(str(cause).split())[:300].rstrip(".")
                cause = EngineLost(f"{self._node} is not used: {reason}.")
            self.end(cause)
        elif isinstance(error, exceptions.NodeDiedError) or "node has died" in str(error):
            self.end(EngineLost(f"The cluster lost {self._node}."))
        elif not isinstance(error, _CRASHES):
            self.end(EngineLost(f"The connection to the engine on {self._node} was lost."))
        elif self.is_placed:
            words = f"The engine on {self._node} crashed or was killed."
            self.end(EngineDied(words, _MEMORY))
        else:
            reason = str(error).strip().splitlines()[-1][:300].rstrip(".")
            self.end(EngineLost(f"No engine can be started on a node of the cluster: {reason}."))
