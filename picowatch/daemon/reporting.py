"""The status: gathered from the daemon's parts, shown on the console, written to files."""

import logging
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice

from picowatch.errors import LedgerCorrupt
from picowatch.files.retry import PASSING, Retry
from picowatch.inbox.inbox import Inbox
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rows import Counts, QueuedRecipes
from picowatch.observers.console import Console
from picowatch.observers.observers import Observers
from picowatch.outbox.outbox import Outbox
from picowatch.outbox.status import EngineStatus, Status
from picowatch.systemd import notify
from picowatch.work.pool import WorkerPool
from picowatch.work.rendering import Progress
from picowatch.work.worker import Worker

log = logging.getLogger("picowatch")

STATUS_SECONDS = 1.0  # between writes of the status while something changes
HEARTBEAT_SECONDS = 5.0  # … while nothing does
ERRORS_KEPT = 5  # in the status
NAMED = 10  # queued recipes in the status
# Counting queued recipes costs more the more there are; it rests this many times as long.
COUNTING_REST = 20


class RecentErrors:
    """The last error of each recipe, until it is fixed."""

    def __init__(self, on_failed: Callable[[str], None]) -> None:
        """`on_failed` is called with the recipe when its error file says something new."""
        self.on_failed = on_failed
        self._lines: dict[str, str] = {}

    def note(self, recipe: str, line: str) -> None:
        """The newest error, in a line."""
        self._lines.pop(recipe, None)  # so that it is the last one
        self._lines[recipe] = line

    def forget(self, recipe: str) -> None:
        """It is fixed, or its recipe is gone."""
        self._lines.pop(recipe, None)

    def newest(self) -> tuple[str, ...]:
        """The last ones."""
        return tuple(islice(self._lines.values(), max(0, len(self._lines) - ERRORS_KEPT), None))


@dataclass(kw_only=True, eq=False)
class Reporting:
    """Shows the state to people and programs; what cannot be read or written now comes later.

    `now` is the wall clock.
    """

    console: Console
    observers: Observers
    inbox: Inbox
    ledger: Ledger
    outbox: Outbox
    pool: WorkerPool
    errors: RecentErrors
    retry: Retry
    now: Callable[[], float]

    def __post_init__(self) -> None:
        self._started = self.now()
        self._written_at = float("-inf")
        self._written: tuple[object, ...] = ()
        self._written_probes: tuple[str, ...] = ()
        self._counts = Counts()
        self._queued_recipes: QueuedRecipes = ()
        self._queued_at_counts = Counts()  # when they were looked up
        self._look_again_at = float("-inf")

    def report(self) -> None:
        """Show the state of things; files are written rarely, and not while nothing changes."""
        status = self._status()
        self.console.show(status)
        self.observers.status(status)
        since = time.monotonic() - self._written_at
        problems = self.outbox.problems.changes
        news = status.line(), status.step, status.pictures, status.errors, problems
        changed = news != self._written
        probed = status.probes != self._written_probes
        if since >= HEARTBEAT_SECONDS or (changed and since >= STATUS_SECONDS) or probed:
            self._written_at = time.monotonic()
            self._written, self._written_probes = news, status.probes
            notify("WATCHDOG=1", f"STATUS={status.line()}")
            try:
                self.outbox.status.write(status)
            except OSError as error:
                log.debug("status not written: %s", error)

    def report_end(self) -> None:
        """The daemon ends."""
        with suppress(OSError):
            self.outbox.status.write(replace(self._status(), ended=True))

    def _status(self) -> Status:
        counts = self._known_counts()
        engines = tuple(map(_engine_status, self.pool.workers))
        first = engines[0] if engines else EngineStatus(number=0)
        waiting = self._known_queued_recipes(counts)
        common = Status(
            updated=self.now(),
            started=self._started,
            images={
                "queued": counts.queued,
                "running": counts.running,
                "done": counts.done,
                "failed": counts.failed,
                "cancelled": counts.cancelled,
            },
            paused=self.pool.paused,
            waiting=waiting[:NAMED],
            waiting_recipes=len(waiting),
            pictures=tuple(self.pool.publisher.newest),
            errors=self.errors.newest(),
            device=first.device,
            precision=first.precision,
            memory_bytes=first.memory_bytes,
            memory_peak_bytes=first.memory_peak_bytes,
            engines=engines,
            inbox=str(self.inbox.path),
            watch="polling" if self.inbox.polling else "events",
            trouble=self.retry.trouble or self.pool.trouble,
            probes=tuple(self.inbox.probes),
        )
        progress = self.pool.progress()
        return self._with_time_left(self._with_progress(common, progress), progress)

    def _known_counts(self) -> Counts:
        """How many images are in each state; the last known while the ledger cannot be read."""
        with suppress(sqlite3.OperationalError, LedgerCorrupt):
            self._counts = self.ledger.counts()
        return self._counts

    def _known_queued_recipes(self, counts: Counts) -> QueuedRecipes:
        """The queued recipes; looked up when something changed, but not too often.

        That recipes were renamed changes no count, so now and then it is looked up anyway.
        """
        due = self._look_again_at + (HEARTBEAT_SECONDS if counts == self._queued_at_counts else 0.0)
        if time.monotonic() >= due:
            began = time.monotonic()
            with suppress(*PASSING, LedgerCorrupt):
                self._queued_recipes, self._queued_at_counts = self.ledger.queued_recipes(), counts
            took = time.monotonic() - began
            self._look_again_at = time.monotonic() + max(STATUS_SECONDS, COUNTING_REST * took)
        return self._queued_recipes

    def _with_progress(self, status: Status, progress: Progress | None) -> Status:
        if progress is None:
            return status
        try:
            name = self.ledger.recipe_of(progress.image)
            recipe = self.ledger.recipe_counts(name)
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
        """How long so many images take, those in progress included; None before the first one."""
        each = self.pool.seconds_per_image
        if each is None:
            return None
        share = 0.0
        if progress is not None and progress.steps:
            share = progress.batch * progress.step / progress.steps
        return round(each * max(0.0, images - share), 1)


def _engine_status(worker: Worker) -> EngineStatus:
    engine, memory, progress = worker.engine.describe(), worker.engine.memory(), worker.progress
    return EngineStatus(
        number=worker.state.number,
        node=engine.get("node", ""),
        device=engine["device"],
        precision=engine["precision"],
        checkpoint=worker.state.checkpoint_name,
        recipe=progress.image.recipe if progress else "",
        images=worker.state.rendered,
        batch=progress.batch if progress else 0,
        steps_per_second=round(progress.steps_per_second, 2) if progress else 0.0,
        memory_bytes=memory.now if memory else None,
        memory_peak_bytes=memory.peak if memory else None,
        trouble=worker.state.trouble,
    )
