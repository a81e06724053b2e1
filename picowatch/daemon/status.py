"""The status: gathered from the daemon's parts, shown on the console, written to files."""

import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from picowatch.errors import LedgerCorrupt
from picowatch.files.retry import PASSING, Retry
from picowatch.inbox.inbox import Inbox
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rows import Counts, QueuedRecipes
from picowatch.observers.console import Console
from picowatch.observers.observers import Observers
from picowatch.outbox.outbox import Outbox
from picowatch.outbox.status import EngineStatus, Status, images_wait
from picowatch.recipe.request import ImageRequest
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


@dataclass(eq=False)
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
    retry: Retry
    now: Callable[[], float]
    settings_problem: Callable[[], str] = lambda: ""

    def __post_init__(self) -> None:
        self._started = self.now()
        self._written_at = float("-inf")
        self._written: tuple[object, ...] = ()
        self._counts = Counts()
        self._queued_recipes: QueuedRecipes = ()
        self._queued_kinds: Sequence[tuple[ImageRequest, int]] = ()
        self._queued_at_counts = Counts()  # when they were looked up
        self._looked_at = float("-inf")
        self._rest_of_looking = 0.0
        self._problems: tuple[tuple[str, ...], int, int] = (), 0, 0

    def hurry(self) -> None:
        """Write the next status at once: somebody did something, and looks."""
        self._written_at = float("-inf")

    def report(self) -> None:
        """Show the state of things; files are written rarely, and not while nothing changes."""
        status = self._status()
        self.console.show(status)
        self.observers.status(status)
        since = time.monotonic() - self._written_at
        problems = self.outbox.problems.changes
        news = status.line(), status.step, status.pictures, status.errors, problems
        if since >= HEARTBEAT_SECONDS or (news != self._written and since >= STATUS_SECONDS):
            self._written_at = time.monotonic()
            self._written = news
            notify("WATCHDOG=1", f"STATUS={status.line()}")
            try:
                self.outbox.status.write(status)
            except OSError as error:
                log.debug("status not written: %s", error)

    def report_end(self) -> None:
        """The daemon ends."""
        status = self._status()
        with suppress(OSError):
            self.outbox.status.write(replace(status, ended=True))
        queued = status.images["queued"]
        if queued and not status.paused:
            log.info("%s for the next start", images_wait(queued))

    def _status(self) -> Status:
        counts = self._known_counts()
        engines = tuple(map(_engine_status, self.pool.workers))
        first = engines[0] if engines else EngineStatus(number=0)
        waiting = self._known_queued_recipes(counts)
        newest = tuple(self.pool.publisher.newest)  # at once: pictures are added meanwhile
        errors, error_count, refused = self._known_problems()
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
            pictures=tuple(filter(self._is_there, newest)),
            errors=errors,
            error_count=error_count,
            refused=refused,
            device=first.device,
            precision=first.precision,
            memory_bytes=first.memory_bytes,
            memory_peak_bytes=first.memory_peak_bytes,
            engines=engines,
            inbox=str(self.inbox.path),
            scanned=self.now() - (time.monotonic() - self.inbox.scanned_at),
            trouble=self.retry.trouble or self.pool.trouble,
        )
        progress = self.pool.progress()
        return self._with_time_left(self._with_progress(common, progress))

    def _is_there(self, picture: str) -> bool:
        """As far as is known: a share that is away may answer with an error."""
        try:
            return self.outbox.exists(picture)
        except OSError:
            return True

    def _known_counts(self) -> Counts:
        """How many images are in each state; the last known while the ledger cannot be read."""
        with suppress(sqlite3.OperationalError, LedgerCorrupt):
            self._counts = self.ledger.counts()
        return self._counts

    def _known_problems(self) -> tuple[tuple[str, ...], int, int]:
        """The newest problems, how many there are, and how many recipes are refused."""
        with suppress(sqlite3.OperationalError, LedgerCorrupt):
            lines, count = self.ledger.problems(ERRORS_KEPT)
            if of_settings := self.settings_problem():
                lines, count = [*lines, of_settings][-ERRORS_KEPT:], count + 1
            self._problems = tuple(lines), count, self.ledger.refused()
        return self._problems

    def _known_queued_recipes(self, counts: Counts) -> QueuedRecipes:
        """The queued recipes; looked up when something changed, but not too often.

        That recipes were renamed changes no count, so now and then it is looked up anyway.
        """
        began = time.monotonic()
        if began - self._looked_at >= max(self._look_again_after(counts), self._rest_of_looking):
            with suppress(*PASSING, LedgerCorrupt):
                self._queued_recipes, self._queued_at_counts = self.ledger.queued_recipes(), counts
                self._queued_kinds = self.ledger.queued_kinds()
            self._looked_at = time.monotonic()
            self._rest_of_looking = COUNTING_REST * (self._looked_at - began)
        return self._queued_recipes

    def _look_again_after(self, counts: Counts) -> float:
        """At once when images were queued or claimed: a claimed batch counts as in progress."""
        if counts.queued != self._queued_at_counts.queued:
            return 0.0
        return HEARTBEAT_SECONDS if counts == self._queued_at_counts else STATUS_SECONDS

    def _with_progress(self, status: Status, progress: Progress | None) -> Status:
        """What is rendering. Pictures that are being published are neither that nor queued."""
        if progress is None:
            return status
        try:
            name = self.ledger.recipe_of(progress.image)
            recipe = self.ledger.recipe_counts(name)
            queued = self.ledger.queued_kinds(name)
        except sqlite3.OperationalError:
            return status
        total = recipe.queued + recipe.running + recipe.done + recipe.failed
        if not total:  # nobody requests it any more: it is stopped
            return status
        last = max(1, total - recipe.queued)
        first = max(1, last - max(1, self.pool.in_progress(progress.image.recipe)) + 1)
        return replace(
            status,
            recipe=name,
            image=first,
            last_image=last,
            of=total,
            step=progress.step,
            steps=progress.steps,
            steps_per_second=round(progress.steps_per_second, 2),
            loading=progress.loading,
            seconds_left=_rounded(self.pool.seconds_left(queued, progress.image.recipe)),
        )

    def _with_time_left(self, status: Status) -> Status:
        if not status.images["queued"] and not status.images["running"]:
            return status
        seconds = self.pool.seconds_left(self._queued_kinds)
        return replace(status, all_seconds_left=_rounded(seconds))


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


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
