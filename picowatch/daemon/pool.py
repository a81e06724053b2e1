"""A worker for each engine; the ledger's queue is shared among them."""

import threading
import time
from functools import partial
from itertools import count
from math import ceil

from picowatch.daemon.rendering import Rendering
from picowatch.daemon.run import Run
from picowatch.daemon.worker import Claim, Shared, Worker
from picowatch.engine.protocol import Executor
from picowatch.ledger import control, queries, queue
from picowatch.ledger.rows import QueuedImage
from picowatch.ledger.turns import Turns
from picowatch.recipe.request import ImageRequest

MOST_COPIES, COPIED_PIXELS = 4, 8_000_000  # of a batch: two of each copier are in memory
PASSES = 4  # batches of each engine that may come before the oldest image


class WorkerPool:
    """Renders the ledger's queue until it is stopped."""

    def __init__(self, run: Run, executor: Executor, copying: Executor, shared: Shared) -> None:
        """Have `executor` make what needs a model, and `copying` what needs none."""
        self.run, self.ledger, self._shared = run, run.ledger, shared
        self.executor, self.copying, self._only = executor, copying, run.mode.only
        self.publisher, self.clock = shared.publisher, shared.clock
        self.claiming = threading.Lock()  # whoever holds it keeps all workers from claiming
        self.shares = shared.shares
        self._turns, self._turns_of_copies = Turns(self.shares), Turns(self.shares)
        self._finishes = False  # True: batches in progress are finished, none is claimed
        self._numbers = count(1)
        self._threads: list[threading.Thread] = []  # of workers, also those whose engine is gone
        self._no_engine_since: float | None = None  # while images are queued
        self.workers: tuple[Worker, ...] = ()
        self.copiers: tuple[Worker, ...] = ()

    def update(self) -> None:
        """Give new engines workers, end those of lost engines, and request as many as have work."""
        self.workers = self._joined(self.executor, self.workers, self._claim)
        queued = copies = 0
        if not control.is_paused(self.ledger):
            copies = queries.queued(self.ledger, self._only, copies=True)
            queued = max(0, queries.queued(self.ledger, self._only) - copies)
        self.copying.wanted = copies  # before engines are asked for, or the first copy waits
        self.copiers = self._joined(self.copying, self.copiers, partial(self._claim, copies=True))
        # One for each batch, if batches are as large as those in progress.
        working = [len(now.batch) for worker in self.workers if (now := worker.rendering)]
        self.executor.wanted = len(working) + ceil(queued / max(working, default=1))
        self._give_up(queued)
        # Some may have been left to an engine that is slow or gone.
        for worker in (*(self.workers if queued else ()), *(self.copiers if copies else ())):
            if worker.idle:
                worker.wake.set()

    def _joined(
        self, executor: Executor, workers: tuple[Worker, ...], claim: Claim
    ) -> tuple[Worker, ...]:
        """Return the workers of an executor's engines now; new workers are started."""
        engines = executor.engines()
        for worker in workers:
            if worker.engine not in engines:
                worker.leaving = True
                worker.wake.set()
        staying = [worker for worker in workers if worker.engine in engines]
        known = [worker.engine for worker in staying]
        joining = [
            Worker(self.run, self._shared, claim, engine, next(self._numbers))
            for engine in engines
            if engine not in known
        ]
        # Ended threads are dropped: a cluster's engines come and go for weeks.
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        for worker in joining:
            worker.thread.start()
            self._threads.append(worker.thread)
        return (*staying, *joining)

    def _give_up(self, queued: int) -> None:
        """End a single run if no engine can start, or if none has come for long."""
        now = time.monotonic()
        for workers in (self.workers, self.copiers):
            if workers and all(worker.gave_up for worker in workers):
                self.run.result.cannot_go_on(workers[0].trouble)
        if self.workers or not queued or self.run.writing.keeps_trying:
            self._no_engine_since = None
        elif self.executor.is_final:
            self.run.result.cannot_go_on(self.executor.trouble)
        elif self._no_engine_since is None:
            self._no_engine_since = now  # not the start: accepting many saves takes long
        elif now - self._no_engine_since > self._shared.stall_seconds:
            self.run.result.cannot_go_on(self.executor.trouble or "No engine became available.")

    def finish_batches(self, wanted: bool) -> bool:
        """Claim no batches while `wanted`; return whether it is and none is in progress."""
        with self.claiming:
            is_over, self._finishes = self._finishes and not wanted, wanted
        if is_over:
            self.wake()
        return wanted and not queries.counts(self.ledger)["running"]

    def wake(self) -> None:
        for worker in (*self.workers, *self.copiers):
            worker.wake.set()

    def stop(self) -> None:
        """End within 2 seconds of `stop`; the batches in progress go back to the queue."""
        self.wake()
        for thread in self._threads:
            thread.join()
        self.executor.close()
        self.copying.close()
        self.publisher.close()

    # -- state

    def renderings(self) -> list[Rendering]:
        workers = (*self.workers, *self.copiers)
        return [now for worker in workers if (now := worker.rendering)]

    def is_busy(self) -> bool:
        return any(worker.is_busy for worker in (*self.workers, *self.copiers))

    @property
    def trouble(self) -> str:
        """Why nothing is rendered; "" while an engine can work."""
        if self.copiers and all(worker.trouble for worker in self.copiers):
            return self.copiers[0].trouble
        if not self.workers:
            return self.executor.trouble
        if any(worker.gave_up or not worker.trouble for worker in self.workers):
            return ""
        return self.workers[0].trouble

    # -- claiming

    def _claim(self, worker: Worker, *, copies: bool = False) -> list[QueuedImage]:
        """Return the worker's next batch; workers that are idle share a short queue."""
        with self.claiming:
            worker.idle = True
            if self._finishes or control.is_paused(self.ledger):
                return []
            claim = partial(queue.claim, self.ledger, self.run.outbox.names)
            if copies:
                turns = self._turns_of_copies
                batch = claim(self._count_of_copies, only=self._only, copies=True, turns=turns)
            else:
                others = {other.checkpoint for other in self.workers if other is not worker}
                batch = claim(
                    partial(self._size, worker),
                    worker.checkpoint,
                    others - {"", worker.checkpoint},
                    0 if len(self.workers) == 1 else PASSES * len(self.workers),
                    self._only,
                    turns=self._turns,
                )
            if batch:
                worker.idle = False
                first = batch[0].request
                worker.checkpoint, worker.checkpoint_name = first.checkpoint_hash, first.checkpoint
            return batch

    def _count_of_copies(self, request: ImageRequest) -> int:
        """Return how many copies a batch has: they are in memory, and are recorded, together."""
        width, height = request.published_size
        queued = queries.queued(self.ledger, self._only, copies=True)
        share = queued // max(1, len(self.copiers))
        return max(1, min(MOST_COPIES, COPIED_PIXELS // (width * height), share))

    def _size(self, worker: Worker, request: ImageRequest) -> int:
        device = f"{worker.device} {worker.precision}".strip()
        size = self._shared.batch_sizes.size(request, device)
        idle = sum(other.idle and not other.trouble for other in self.workers)
        if idle < 2:
            return size
        return min(size, ceil(queries.counts(self.ledger)["queued"] / idle))
