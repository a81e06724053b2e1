"""The daemon's side of one engine on the cluster. Imports no Ray and no torch."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import NamedTuple

from picowatch.engine.cluster.messages import (
    Ended,
    FromEngine,
    Joined,
    Render,
    Tell,
    ToDriver,
)
from picowatch.engine.options import EngineOptions
from picowatch.engine.process.wire import Step
from picowatch.engine.protocol import (
    EngineLost,
    MemoryUse,
    OnPreview,
    OnStep,
    Preview,
    RenderedImage,
    new_future,
    resolve,
    unseen,
)
from picowatch.errors import EngineStopped, PicowatchError
from picowatch.recipe.request import ImageRequest

Pictures = Future[list[RenderedImage]]


class _Work(NamedTuple):
    """The batch on its way through the cluster."""

    number: int
    on_step: OnStep
    on_preview: OnPreview
    future: Pictures


class RemoteEngine:
    """An Engine on a node of the cluster. Once it was closed or lost, it is that for ever."""

    def __init__(
        self,
        joined: Joined,
        options: EngineOptions,
        send: Callable[[ToDriver], None],
        closed: Callable[["RemoteEngine"], None],
    ) -> None:
        """`send` reaches the driver, or does nothing; `closed` is called when this one is."""
        self._joined = joined
        self._send = send
        self._closed = closed
        self._device = options.device
        self._precision: str = options.precision
        self._memory: MemoryUse | None = None
        self._lock = threading.Lock()
        self._batches = 0
        self._work: _Work | None = None
        self._gone: PicowatchError | None = None

    def render(
        self,
        batch: Sequence[ImageRequest],
        on_step: OnStep,
        waiting: int = 0,
        on_preview: OnPreview = unseen,
    ) -> Pictures:
        """See `Engine.render`; raises EngineLost besides."""
        future = new_future()
        with self._lock:
            if self._gone is not None:
                resolve(future, EngineLost("The engine is gone."))
                return future
            if self._work is not None:
                raise RuntimeError("one batch at a time")
            self._batches += 1
            self._work = _Work(self._batches, on_step, on_preview, future)
        self._send(Render(self._joined.engine, self._batches, tuple(batch), waiting))
        return future

    def describe(self) -> dict[str, str]:
        """Device and precision as set, and as found once a picture was made; node, versions."""
        known = {"device": self._device, "precision": self._precision, "node": self._joined.node}
        return known | self._joined.versions

    def memory(self) -> MemoryUse | None:
        """As of its last batch."""
        return self._memory

    def prepare(self) -> None:
        """See `Engine.prepare`."""
        self._send(Tell(self._joined.engine, "prepare"))

    def interrupt(self) -> None:
        """See `Engine.interrupt`."""
        if self._work is not None:
            self._send(Tell(self._joined.engine, "interrupt"))

    def close(self) -> None:
        """Give its place back to the cluster; another engine joins when one is wanted."""
        self._send(Tell(self._joined.engine, "release"))
        self._closed(self)
        self.end(EngineStopped("The engine was closed."))

    def hear(self, number: int, message: FromEngine) -> None:
        """What its agent says of the batch with that number; called by one thread."""
        work = self._work
        if work is None or work.number != number:
            return
        match message:
            case Step(done, total):
                work.on_step(done, total)
            case Preview():
                work.on_preview(message)
            case Ended(outcome, memory):
                self._memory = memory
                self._learn(outcome)
                self._work = None
                resolve(work.future, outcome)

    def end(self, why: PicowatchError) -> None:
        """It is no more; a batch in progress ends with this."""
        with self._lock:
            self._gone = self._gone or why
            work, self._work = self._work, None
        if work is not None:
            resolve(work.future, why)

    def _learn(self, outcome: list[RenderedImage] | PicowatchError) -> None:
        if isinstance(outcome, list) and outcome:
            self._device, self._precision = outcome[0].device, outcome[0].precision
