"""A worker for each engine; the ledger's queue is shared among them."""

import logging
import threading
import time
from functools import partial
from itertools import count
from math import ceil

from picowatch.daemon.batch_sizes import BatchSizes
from picowatch.daemon.dropped import DroppedPictures
from picowatch.daemon.durations import Durations, Rendering
from picowatch.daemon.publish import Publisher
from picowatch.daemon.run import Run
from picowatch.daemon.worker import Shared, Worker
from picowatch.engine.protocol import Executor
from picowatch.ledger import control, questions, queue
from picowatch.ledger.rows import QueuedImage
from picowatch.recipe.request import ImageRequest

log = logging.getLogger("picowatch")

PASSES = 4  # batches of each engine that may come before the oldest image


class WorkerPool:
    """Renders the ledger's queue until it is stopped."""

    def __init__(self, run: Run, executor: Executor) -> None:
        self.run, self.ledger = run, run.ledger
        self.executor, self._only = executor, run.mode.only
        inbox, start_images = run.settings.inbox, run.settings.start_images
        self.publisher, self.durations = Publisher(run), Durations()
        self._shared = Shared(
            claim=self._claim,
            publisher=self.publisher,
            batch_sizes=BatchSizes(run.settings.batch_size, run.ledger),
            durations=self.durations,
            dropped=DroppedPictures(inbox, start_images, run.ledger),
            stopping=threading.Event(),
        )
        self.claiming = threading.Lock()  # whoever holds it keeps all workers from claiming
        self._finishes = False  # True: batches in progress are finished, none is claimed
        self._numbers = count(1)
        self._threads: list[threading.Thread] = []  # of workers, also those whose engine is gone
        self._no_engine_since: float | None = None  # while images are queued
        self.workers: tuple[Worker, ...] = ()

    def update(self) -> None:
        """Give new engines workers, end those of lost ones, and request as many as have work."""
        engines = self.executor.engines()
        for worker in self.workers:
            if worker.engine not in engines:
                worker.leave()
        staying = [worker for worker in self.workers if worker.engine in engines]
        known = [worker.engine for worker in staying]
        new = [engine for engine in engines if engine not in known]
        joining = [Worker(self.run, self._shared, engine, next(self._numbers)) for engine in new]
        self.workers = (*staying, *joining)
        # Ended threads are dropped: a cluster's engines come and go for weeks.
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        for worker in joining:
            worker.thread.start()
            self._threads.append(worker.thread)
        queued = 0 if control.is_paused(self.ledger) else questions.queued(self.ledger, self._only)
        self._request_engines(queued)
        self._give_up(queued)
        if queued:  # some may have been left to an engine that is slow or gone
            for worker in self.workers:
                if worker.idle:
                    worker.wake()

    def _give_up(self, queued: int) -> None:
        """End a single run if no engine can start, or if none has come for long.

        The time counts from the first call that finds none: thousands of saves may have been
        accepted before it.
        """
        now = time.monotonic()
        if self.workers and all(worker.gave_up for worker in self.workers):
            self.run.result.cannot_go_on(self.workers[0].trouble)
        if self.workers or not queued or self.run.attempts.keeps_trying:
            self._no_engine_since = None
        elif self.executor.is_final:
            self.run.result.cannot_go_on(self.executor.trouble)
        elif self._no_engine_since is None:
            self._no_engine_since = now
        elif now - self._no_engine_since > self.run.settings.stall_seconds:
            self.run.result.cannot_go_on(self.executor.trouble or "No engine became available.")

    def _request_engines(self, queued: int) -> None:
        """Request an engine for each batch, if batches are as large as those in progress."""
        working = [len(one.batch) for worker in self.workers if (one := worker.rendering)]
        self.executor.wanted = len(working) + ceil(queued / max(working, default=1))

    def finish_batches(self, wanted: bool) -> bool:
        """Claim no batches while `wanted`; return whether it is and none is in progress."""
        with self.claiming:
            is_over, self._finishes = self._finishes and not wanted, wanted
        if is_over:
            self.wake()
        return wanted and not questions.counts(self.ledger)["running"]

    def wake(self) -> None:
        """Wake all workers: images may be queued, or a pause may have begun or ended."""
        for worker in self.workers:
            worker.wake()

    def stop(self) -> None:
        """End within 2 seconds; the batches in progress go back to the queue."""
        self._shared.stopping.set()
        self.wake()
        for thread in self._threads:
            thread.join()
        self.executor.close()
        self.publisher.close()

    # -- state

    def renderings(self) -> list[Rendering]:
        return [one for worker in self.workers if (one := worker.rendering)]

    def is_busy(self) -> bool:
        """Whether a batch is rendered or published."""
        return any(worker.rendering or worker.is_publishing for worker in self.workers)

    @property
    def trouble(self) -> str:
        """Why nothing is rendered; "" while one engine can work."""
        if not self.workers:
            return self.executor.trouble
        if any(worker.gave_up or not worker.trouble for worker in self.workers):
            return ""
        return self.workers[0].trouble

    # -- claiming

    def _claim(self, worker: Worker) -> list[QueuedImage]:
        """Return the worker's next batch; workers that are idle share a short queue."""
        with self.claiming:
            worker.idle = True
            if self._finishes or control.is_paused(self.ledger):
                return []
            others = {one.checkpoint for one in self.workers if one is not worker} - {""}
            batch = queue.claim(
                self.ledger,
                self.run.outbox.names,
                partial(self._size, worker),
                worker.checkpoint,
                others - {worker.checkpoint},
                0 if len(self.workers) == 1 else PASSES * len(self.workers),
                self._only,
            )
            if batch:
                worker.idle = False
                first = batch[0].request
                worker.checkpoint, worker.checkpoint_name = first.checkpoint_hash, first.checkpoint
            return batch

    def _size(self, worker: Worker, request: ImageRequest) -> int:
        device = f"{worker.device} {worker.precision}".strip()
        size = self._shared.batch_sizes.size(request, device)
        idle = sum(one.idle and not one.trouble for one in self.workers)
        if idle < 2:
            return size
        return min(size, ceil(questions.counts(self.ledger)["queued"] / idle))
