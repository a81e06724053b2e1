"""One engine on the cluster: requested, placed, at work, gone. Imports no Ray and no torch."""

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, NamedTuple

from picowatch.engine.child_main import Ended, FromEngine, MakeRenderer, Render, Step
from picowatch.engine.cluster.check import differences
from picowatch.engine.cluster.driver import Driver, NodeUnfit
from picowatch.engine.cluster.model_transfer import ModelTransfer, needs_of
from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import (
    EngineLost,
    MemoryUse,
    OnPreview,
    OnStep,
    Preview,
    RenderedImage,
    resolve,
    unseen,
)
from picowatch.engine.versions import versions
from picowatch.errors import EngineStopped, PicowatchError, RenderFailed
from picowatch.recipe.request import ImageRequest

log = logging.getLogger("picowatch")


class Start(NamedTuple):
    """What an engine is started with on a node, and what it takes from the cluster.

    `make_renderer` is called in its process, as of a ChildEngine.
    """

    options: EngineOptions
    make_renderer: MakeRenderer
    gpus: float
    cpus: float


class Batch(NamedTuple):
    """One batch, and where its results go."""

    images: tuple[ImageRequest, ...]
    on_step: OnStep
    on_preview: OnPreview
    preview_seconds: float
    future: Future[list[RenderedImage]]


class RemoteEngine:
    """An Engine on a node of the cluster.

    `is_placed`: it takes batches. `gone` is why it ended; it never comes back.
    """

    def __init__(self, driver: Driver, number: int, start: Start, transfer: ModelTransfer) -> None:
        """An actor with that number was requested from the driver."""
        self.is_placed = False
        self.gone: PicowatchError | None = None
        self.node_id = ""
        self._driver = driver
        self._number = number
        self._start = start
        self._transfer = transfer
        self._node = "a node"
        self._known = {"device": start.options.device, "precision": start.options.precision}
        self._memory: MemoryUse | None = None
        self._lock = threading.Lock()
        self._batch: Batch | None = None
        threading.Thread(target=self._run, name=f"engine-{number}", daemon=True).start()

    def render(
        self,
        batch: Sequence[ImageRequest],
        on_step: OnStep,
        on_preview: OnPreview = unseen,
        preview_seconds: float = 0,
    ) -> Future[list[RenderedImage]]:
        """See `Engine.render`; raises EngineLost besides."""
        future: Future[list[RenderedImage]] = Future()
        future.set_running_or_notify_cancel()
        with self._lock:
            if self.gone is not None:
                resolve(future, EngineLost("The engine is gone."))
                return future
            if self._batch is not None:
                raise RuntimeError("one batch at a time")
            given = Batch(tuple(batch), on_step, on_preview, preview_seconds, future)
            self._batch = given
        threading.Thread(target=self._send, args=(given,), name="batch", daemon=True).start()
        return future

    def describe(self) -> dict[str, str]:
        """Device and precision as set, and as found once a picture was rendered; node, versions."""
        return self._known

    def memory(self) -> MemoryUse | None:
        """As of its last batch."""
        return self._memory

    def prepare(self) -> None:
        """See `Engine.prepare`."""
        self._ask("engine.prepare")

    def interrupt(self) -> None:
        """See `Engine.interrupt`."""
        if self._batch is not None:
            self._ask("engine.interrupt")

    def close(self) -> None:
        """Give its place back to the cluster; another engine joins when one is wanted."""
        self.end(EngineStopped("The engine was closed."))

    def end(self, why: PicowatchError) -> None:
        """End the engine for good; a batch in progress ends with this error."""
        with self._lock:
            if self.gone is not None:
                return
            self.gone = why
            batch, self._batch = self._batch, None
        self._driver.call("kill", self._number)
        if batch is not None:
            resolve(batch.future, why)

    # -- its thread

    def _run(self) -> None:
        try:
            self._arrive()
            while True:
                for message in self._ask("listen").result():
                    self._receive(message)
        except PicowatchError as error:
            self.end(error)

    def _arrive(self) -> None:
        """Wait until it is placed; check the node's versions, and start an engine there."""
        there: dict[str, str] = self._ask("introduce").result()
        self.node_id, self._node = there.pop("id"), there["node"]
        if unfit := differences(there):
            raise NodeUnfit(f"{self._node} is not used: {unfit}.")
        options, make_renderer, _, cpus = self._start
        self._ask("start", options, make_renderer, cpus).result()
        self._known |= {name: there[name] for name in ("node", *versions())}
        self.is_placed = True
        log.info("an engine joined on %s", self._node)

    def _receive(self, message: FromEngine) -> None:
        """About the batch in progress: there is one at a time, and it ends with Ended."""
        batch = self._batch
        if batch is None:  # the engine was ended meanwhile
            return
        match message:
            case Step(done, total):
                batch.on_step(done, total)
            case Preview() as preview:
                batch.on_preview(preview)
            case Ended(_, outcome, memory):
                self._memory = memory
                if isinstance(outcome, list):
                    outcome = [replace(image, node=self._node) for image in outcome]
                    found = {"device": outcome[0].device, "precision": outcome[0].precision}
                    self._known = self._known | found
                self._batch = None
                resolve(batch.future, outcome)

    # -- a thread for each batch

    def _send(self, batch: Batch) -> None:
        """Start a batch on the node, with what it needs."""
        needs, steps = needs_of(batch.images), batch.images[0].steps
        start_images = self._transfer.start_images(batch.images)
        work = Render(self._number, batch.images, batch.preview_seconds)
        try:
            # Again and again, for files that were sent may be deleted before they are used.
            while lacking := self._ask("render", work, needs, start_images).result():
                for need in lacking:
                    log.info("%s %s is sent to %s", need.kind, need.name, self._node)
                # So that it is not taken for an engine that hangs.
                self._transfer.bring(
                    lacking, self.node_id, self._ask, lambda: batch.on_step(0, steps)
                )
        except RenderFailed as failed:
            self._batch = None
            resolve(batch.future, failed)
        except PicowatchError as error:
            self.end(error)

    def _ask(self, method: str, *arguments: Any) -> Future[Any]:
        """Call a method of its actor, or of the agent there."""
        return self._driver.call("ask", self._number, method, *arguments, node=self._node)
