"""How things stand: gathered from the daemon's parts, shown on the console, written to files."""

import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace

from picowatch.daemon.intake import Intake
from picowatch.errors import LedgerCorrupt
from picowatch.files.retry import PASSING, Retry
from picowatch.inbox.inbox import Inbox
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rows import Counts, Waiting
from picowatch.observers.console import Console
from picowatch.outbox.commands import Commands
from picowatch.outbox.lock import Whereabouts
from picowatch.outbox.outbox import Outbox
from picowatch.outbox.status import EngineStatus, Status
from picowatch.settings import Settings
from picowatch.systemd import notify
from picowatch.work.pool import WorkerPool
from picowatch.work.publish import Publisher
from picowatch.work.result import RunResult
from picowatch.work.worker import Progress, Worker

log = logging.getLogger("picowatch")

STATUS_SECONDS = 1.0  # between writes of the status while something changes
HEARTBEAT_SECONDS = 5.0  # … while nothing does
NAMED = 10  # waiting recipes in the status
# Counting what waits costs more the more there is; it rests this many times as long as it took.
COUNTING_REST = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the daemon connects.

    `finished` is where pool and publisher put the recipes of ended images. `whereabouts` looks
    where the outbox is. `only` the images
    of these recipes are the daemon's matter, if any are named.
    """

    settings: Settings
    inbox: Inbox
    ledger: Ledger
    outbox: Outbox
    intake: Intake
    pool: WorkerPool
    publisher: Publisher
    console: Console
    retry: Retry
    result: RunResult
    commands: Commands
    finished: deque[str]
    whereabouts: Callable[[], Whereabouts]
    only: Collection[str] | None = None


class Reporting:
    """Tells people and programs; what cannot be read or written just now is told later."""

    def __init__(
        self,
        parts: Parts,
        *,
        now: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._parts = parts
        self._now = now
        self._steady = steady
        self._started = now()
        self._told_at = float("-inf")
        self._told: tuple[object, ...] = ()
        self._told_heard: tuple[str, ...] = ()
        self._counts = Counts()
        self._waiting: Waiting = ()
        self._waiting_of = Counts()  # the counts when it was looked up
        self._look_again_at = float("-inf")

    def tell(self) -> None:
        """Show the state of things; files are written rarely, and not while nothing changes."""
        status = self._status()
        self._parts.console.show(status)
        since = self._steady() - self._told_at
        problems = self._parts.outbox.problems.changes
        news = status.line(), status.step, status.pictures, status.errors, problems
        changed = news != self._told
        probed = status.heard != self._told_heard
        if since >= HEARTBEAT_SECONDS or (changed and since >= STATUS_SECONDS) or probed:
            self._told_at, self._told, self._told_heard = self._steady(), news, status.heard
            notify("WATCHDOG=1", f"STATUS={status.line()}")
            try:
                self._parts.outbox.tell(status)
            except OSError as error:
                log.debug("status not written: %s", error)

    def tell_the_end(self) -> None:
        """The daemon ends."""
        with suppress(OSError):
            self._parts.outbox.tell(replace(self._status(), ended=True))

    def _status(self) -> Status:
        parts, counts = self._parts, self._known_counts()
        engines = tuple(map(_engine_status, parts.pool.workers))
        first = engines[0] if engines else EngineStatus(number=0)
        waiting = self._known_waiting(counts)
        common = Status(
            updated=self._now(),
            started=self._started,
            images={
                "queued": counts.queued,
                "running": counts.running,
                "done": counts.done,
                "failed": counts.failed,
                "cancelled": counts.cancelled,
            },
            paused=parts.pool.paused,
            waiting=waiting[:NAMED],
            waiting_recipes=len(waiting),
            pictures=tuple(parts.publisher.newest),
            errors=parts.intake.errors,
            device=first.device,
            precision=first.precision,
            memory_bytes=first.memory_bytes,
            memory_peak_bytes=first.memory_peak_bytes,
            engines=engines,
            inbox=str(parts.settings.inbox),
            watch="polling" if parts.inbox.polling else "events",
            trouble=parts.retry.trouble or parts.pool.trouble,
            heard=tuple(parts.inbox.heard),
        )
        progress = parts.pool.progress()
        return self._with_time_left(self._with_progress(common, progress), progress)

    def _known_counts(self) -> Counts:
        """How many images are in each state; the last known while the ledger cannot be read."""
        with suppress(sqlite3.OperationalError, LedgerCorrupt):
            self._counts = self._parts.ledger.counts()
        return self._counts

    def _known_waiting(self, counts: Counts) -> Waiting:
        """What waits; looked up when there is news, but not too often.

        That recipes were renamed changes no count, so now and then it is looked up anyway.
        """
        due = self._look_again_at + (HEARTBEAT_SECONDS if counts == self._waiting_of else 0.0)
        if self._steady() >= due:
            began = self._steady()
            with suppress(*PASSING, LedgerCorrupt):
                self._waiting, self._waiting_of = self._parts.ledger.waiting(), counts
            took = self._steady() - began
            self._look_again_at = self._steady() + max(STATUS_SECONDS, COUNTING_REST * took)
        return self._waiting

    def _with_progress(self, status: Status, progress: Progress | None) -> Status:
        if progress is None:
            return status
        try:
            name = self._parts.ledger.recipe_of(progress.image)
            recipe = self._parts.ledger.recipe_counts(name)
        except sqlite3.OperationalError:
            return status
        total = recipe.queued + recipe.running + recipe.done + recipe.failed
        ended = recipe.done + recipe.failed
        return replace(
            status,
            recipe=name,
            image=min(ended + 1, total),
            of=total,
            step=progress.step,
            steps=progress.steps,
            steps_per_second=round(progress.steps_per_second, 2),
            seconds_left=self._seconds(total - ended, progress),
        )

    def _with_time_left(self, status: Status, progress: Progress | None) -> Status:
        unfinished = status.images["queued"] + status.images["running"]
        seconds = self._seconds(unfinished, progress) if unfinished else None
        return replace(status, all_seconds_left=seconds)

    def _seconds(self, images: int, progress: Progress | None) -> float | None:
        """How long so many images take, those in work included; None before the first one."""
        each = self._parts.pool.seconds_per_image
        if each is None:
            return None
        share = 0.0
        if progress is not None and progress.steps:
            share = progress.batch * progress.step / progress.steps
        return round(each * max(0.0, images - share), 1)


def _engine_status(worker: Worker) -> EngineStatus:
    engine, memory, progress = worker.engine.describe(), worker.engine.memory(), worker.progress
    return EngineStatus(
        number=worker.number,
        node=engine.get("node", ""),
        device=engine["device"],
        precision=engine["precision"],
        checkpoint=worker.checkpoint_name,
        recipe=progress.image.recipe if progress else "",
        images=worker.made,
        batch=progress.batch if progress else 0,
        steps_per_second=round(progress.steps_per_second, 2) if progress else 0.0,
        memory_bytes=memory.now if memory else None,
        memory_peak_bytes=memory.peak if memory else None,
        trouble=worker.trouble,
    )
