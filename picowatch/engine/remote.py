"""What engines in other processes have in common, on this machine or on Ray. Imports no torch."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from picowatch.engine.child_main import FromEngine, Outcome, Ready, Render, Step
from picowatch.engine.options import EngineOptions, versions
from picowatch.engine.protocol import (
    EngineCannotStart,
    MemoryUse,
    OnPreview,
    OnStep,
    Preview,
    RenderedImage,
    resolve,
    unseen,
)
from picowatch.recipe.request import ImageRequest


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch, and where its results go."""

    work: Render
    on_step: OnStep
    on_preview: OnPreview
    future: Future[list[RenderedImage]] = field(default_factory=Future)


class RemoteEngine(ABC):
    """An Engine with a thread for each batch, which passes on what another process reports."""

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._batch: Batch | None = None  # the last one
        self._thread: threading.Thread | None = None  # … its thread
        self._reported: MemoryUse | None = None  # after it
        found = {"device": options.device, "precision": str(options.precision)}
        self._known = found | versions()

    def render(
        self,
        batch: Sequence[ImageRequest],
        on_step: OnStep,
        on_preview: OnPreview = unseen,
        preview_seconds: float = 0,
    ) -> Future[list[RenderedImage]]:
        """Implement `Engine.render`."""
        begun = Batch(Render(tuple(batch), preview_seconds), on_step, on_preview)
        begun.future.set_running_or_notify_cancel()  # only `interrupt` ends it
        thread = threading.Thread(target=self._run, args=(begun,), name="engine", daemon=True)
        with self._lock:
            if self._batch is not None and not self._batch.future.done():
                raise RuntimeError("one batch at a time")
            self._batch = begun
            thread.start()
            self._thread = thread
        return begun.future

    def describe(self) -> dict[str, str]:
        """Return device and precision as set, or as found with a picture; and versions."""
        return self._known

    def memory(self) -> MemoryUse | None:
        """Return what was held after the last batch."""
        return self._reported

    @abstractmethod
    def _outcome(self, batch: Batch) -> Outcome | Exception:
        """Render a batch, in its thread; what is raised ends the batch as well."""

    def _run(self, batch: Batch) -> None:
        try:
            outcome = self._outcome(batch)
        except Exception as error:  # the worker must not wait for its future forever
            outcome = error
        resolve(batch.future, outcome)

    def _pass_on(self, reports: Iterable[FromEngine], batch: Batch) -> Outcome:
        """Pass on the reports of a batch up to its outcome, which is returned."""
        for report in reports:
            match report:
                case Ready():
                    pass
                case Step(done, total):
                    batch.on_step(done, total)
                case Preview():
                    batch.on_preview(report)
                case MemoryUse():
                    self._reported = report
                case [first, *_]:
                    found = {"device": first.device, "precision": first.precision}
                    self._known = self._known | found  # another thread may read the old one
                    return report
                case _:
                    return report
        raise EOFError

    def _end_batch(self, why: Exception) -> None:
        """End the batch in progress, if there is one; to be called with the lock."""
        if self._batch is not None:
            resolve(self._batch.future, why)

    def join(self, seconds: float) -> None:
        """Wait for the last batch's thread, unless it is that one: `on_step` may call `close`."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(seconds)


def cannot_start(error: Exception) -> EngineCannotStart:
    """Say that the system refused a process or a thread."""
    return EngineCannotStart(f"The engine could not be started: {error}.")
