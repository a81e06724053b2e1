"""The daemon's loop: notice saves, answer them, keep the worker going, tell how it stands."""

import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from picowatch import patience as waiting
from picowatch.answering import Answers, Stopping
from picowatch.console import Console
from picowatch.errors import LedgerCorrupt
from picowatch.inbox.inbox import Evidence, Inbox
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rows import Counts
from picowatch.outbox.commands import Commands
from picowatch.outbox.outbox import Outbox
from picowatch.outbox.status import Status, duration
from picowatch.patience import PASSING, Ended, Patience
from picowatch.publishing import Publisher
from picowatch.service import notify
from picowatch.settings import Settings
from picowatch.steering import Steering
from picowatch.worker import Worker

log = logging.getLogger("picowatch")

MAX_DAEMON_DEATHS = 5  # in a row, with the same image in work
LONGEST_FIRST_LOOK = 5.0  # seconds that images which wait are held back at the start
IDLE_SECONDS = 1.0  # between looks at the inbox's folder
WORKING_SECONDS = 0.25  # between looks at the batch in work
STATUS_SECONDS = 1.0  # between writes of the status while something runs
HEARTBEAT_SECONDS = 5.0  # … while nothing does
CLOCK_JUMP_SECONDS = 60.0  # of the wall clock against one that only runs; less is no news


class Daemon:
    """Connects inbox, ledger, worker and outbox until it is told to stop."""

    def __init__(
        self,
        settings: Settings,
        inbox: Inbox,
        ledger: Ledger,
        outbox: Outbox,
        answers: Answers,
        worker: Worker,
        publisher: Publisher,
        console: Console,
        finished: deque[str],
        patience: Patience,
        commands: Commands,
        *,
        after_crash: bool,
        stop: threading.Event,
        wake: threading.Event,
        now: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        """`finished` is where worker and publisher put the recipes of ended images.

        `after_crash`: the last daemon did not end by itself, so what it may have left undone
        is done. `wake` ends a rest early: set it after setting `stop`.
        """
        self._settings = settings
        self._inbox = inbox
        self._ledger = ledger
        self._outbox = outbox
        self._answers = answers
        self._worker = worker
        self._publisher = publisher
        self._console = console
        self._finished = finished
        self._patience = patience
        self._commands = commands
        answers.meanwhile = self._meanwhile
        self._steering = Steering(ledger, outbox, look=worker.look)
        self._after_crash = after_crash
        self._stop = stop
        self._wake = wake
        self._now = now
        self._steady = steady
        self._started = now()
        self._unanswered: list[Evidence] = []
        self._to_tell: deque[Callable[[], None]] = deque()
        self._retry_at = 0.0
        self._status_at = float("-inf")
        self._start_worker_at = 0.0
        self._last_line = ""
        self._last_heard: tuple[str, ...] = ()
        self._counts = Counts()
        self._clock_ahead = now() - steady()
        self.broken = ""  # why it could not go on
        self.ledger_corrupt = False  # … was this

    def run(self, once: bool = False) -> bool:
        """Work until `stop`, or `once`: until what is in the inbox now is done.

        Gives whether everything that was asked of this run succeeded.
        """
        try:
            self._patience.until_done("daemon", self._recover)
            self._inbox.start(self._steady())
            self._start_worker_at = self._steady() + LONGEST_FIRST_LOOK
            notify("READY=1")
            while not self._stop.is_set() and not self._is_broken():
                self._tick()
                if once and self._is_all_done():
                    break
                self._wake.wait(self._rest())
                self._wake.clear()
        except (Stopping, Ended):
            pass
        except LedgerCorrupt as error:
            self.ledger_corrupt, self.broken = True, str(error)
        except PASSING as error:
            self.broken = f"saves cannot be answered: {error}"
        finally:
            self._shut_down()
        if self.broken:
            log.error("picowatch ends: %s", self.broken)
        failed = self._worker.failed or self._publisher.failed or self._answers.rejected
        return not (self.broken or failed)

    def _is_broken(self) -> bool:
        self.broken = self.broken or self._publisher.broken or self._worker.broken
        return bool(self.broken)

    def _tick(self) -> None:
        self._look_at_the_clock()
        self._unanswered += self._inbox.poll(self._steady())
        if self._steady() >= self._retry_at:
            self._work_off()
        if not self._worker.is_started():
            self._start_worker()
        self._tell()

    def _start_worker(self) -> None:
        """Once it is known what was saved and deleted meanwhile: obsolete images are not made."""
        settled = self._inbox.is_settled() and not self._unanswered
        if settled or self._steady() >= self._start_worker_at:
            self._worker.start()

    def _work_off(self) -> None:
        """Answer what there is; what cannot be written now is tried again later."""
        try:
            if self._unanswered:
                self._answer()
            self._commands.work_off(self._steering.do)
            while self._to_tell:
                self._to_tell[0]()
                self._to_tell.popleft()
            while self._finished:
                self._answers.finished(self._finished[0])
                self._finished.popleft()
        except PASSING as error:
            self._patience.wait_begins("daemon", error)
            self._retry_at = self._steady() + waiting.RETRY_SECONDS
        else:
            self._patience.wait_ends("daemon")

    def _answer(self) -> None:
        self._to_tell.extend(self._answers.answer(self._unanswered))
        self._unanswered = []
        if self._settings.interrupt:
            self._worker.interrupt_unasked()
        self._worker.look()

    def _look_at_the_clock(self) -> None:
        """A clock that is set says nothing of the inbox; after a sleep it is looked at."""
        ahead = self._now() - self._steady()
        jump, self._clock_ahead = ahead - self._clock_ahead, ahead
        if abs(jump) >= CLOCK_JUMP_SECONDS:
            log.warning(
                "the clock jumped %s by %s; the whole inbox is compared",
                "ahead" if jump > 0 else "back",
                duration(abs(jump)),
            )
            self._inbox.rescan(self._steady())

    def _is_all_done(self) -> bool:
        counts = self._ledger.counts()
        return (
            self._inbox.is_settled()
            and not (self._unanswered or self._to_tell or self._finished)
            and counts.queued == counts.running == 0
        )

    def _rest(self) -> float:
        """Seconds until there may be something to do."""
        if (self._finished or self._to_tell) and self._steady() >= self._retry_at:
            return 0.0
        rest = WORKING_SECONDS if self._worker.progress() else IDLE_SECONDS
        ready_in = self._inbox.ready_in(self._steady())
        return rest if ready_in is None else min(rest, ready_in)

    def _recover(self) -> None:
        """Mend what a crash left (docs/durability.md)."""
        if self._after_crash:
            log.warning("picowatch did not end by itself last time; what it left is mended")
            self._outbox.remove_leftovers()
            self._outbox.mend_latest()
        for image in self._ledger.running():
            if self._outbox.holds(image.file, image.digest):
                self._ledger.finish(image.id)
            elif image.deaths + 1 >= MAX_DAEMON_DEATHS:
                reason = f"picowatch died {MAX_DAEMON_DEATHS} times in a row with it in work."
                self._ledger.fail(image.id, reason)
                log.error("%s: seed %s set aside: %s", image.recipe, image.request.seed, reason)
                self._finished.append(image.recipe)
            else:
                log.info("%s: seed %s goes on", image.recipe, image.request.seed)
                self._ledger.retry_after_daemon_death(image.id)
        self._answers.tidy_up()
        self._finished.extend(self._ledger.recipes_with_sheets_due())
        if self._after_crash:
            self._finished.extend(self._ledger.accepted_recipes())
        enlisted = self._outbox.enlisted()
        for image in self._ledger.unlisted():
            if image.file in enlisted:
                self._ledger.mark_listed(image.id)
            else:
                self._publisher.enlist(image)

    def _shut_down(self) -> None:
        notify("STOPPING=1")
        self._stop.set()  # whoever waits for the disk waits no more
        self._worker.stop()
        self._is_broken()
        self.ledger_corrupt |= self._worker.ledger_corrupt or self._publisher.ledger_corrupt
        self._inbox.close()
        with suppress(*PASSING, LedgerCorrupt):
            while self._finished:
                self._answers.finished(self._finished[0])
                self._finished.popleft()
        self._patience.left_undone = bool(self._finished or self._to_tell)
        with suppress(OSError):
            self._outbox.status.write(self._status())
            self._outbox.status.clear()

    # -- telling

    def _meanwhile(self) -> None:
        """A long answer must not look like a hang: health checks and watchdogs go on."""
        self._inbox.listen(self._steady())
        self._tell()

    def _tell(self) -> None:
        """Show the state of things; files are written rarely, and not while nothing changes."""
        status = self._status()
        self._console.show(status)
        since = self._steady() - self._status_at
        changed = status.line() != self._last_line
        probed = status.heard != self._last_heard
        if since >= HEARTBEAT_SECONDS or (changed and since >= STATUS_SECONDS) or probed:
            self._status_at, self._last_line = self._steady(), status.line()
            self._last_heard = status.heard
            notify("WATCHDOG=1", f"STATUS={status.line()}")
            try:
                self._outbox.status.write(status)
            except OSError as error:
                log.debug("status not written: %s", error)

    def _status(self) -> Status:
        counts = self._known_counts()
        images = {
            "queued": counts.queued,
            "running": counts.running,
            "done": counts.done,
            "failed": counts.failed,
            "cancelled": counts.cancelled,
        }
        common = Status(
            updated=self._now(),
            started=self._started,
            images=images,
            errors=tuple(self._answers.errors),
            inbox=str(self._settings.inbox),
            watch="polling" if self._inbox.polling else "events",
            trouble=self._patience.trouble or self._worker.trouble,
            heard=tuple(self._inbox.heard),
        )
        return self._with_progress(common)

    def _known_counts(self) -> Counts:
        """How many images are in each state; the last known while the ledger cannot be read."""
        with suppress(sqlite3.OperationalError, LedgerCorrupt):
            self._counts = self._ledger.counts()
        return self._counts

    def _with_progress(self, status: Status) -> Status:
        progress = self._worker.progress()
        if progress is None:
            return status
        try:
            recipe = self._ledger.recipe_counts(progress.image.recipe)
        except sqlite3.OperationalError:
            return status
        total = recipe.queued + recipe.running + recipe.done + recipe.failed
        ended = recipe.done + recipe.failed
        left = None
        if (each := self._worker.seconds_per_image) is not None:
            share = progress.step / progress.steps if progress.steps else 0.0
            left = each * max(0.0, total - ended - progress.batch * share)
        return replace(
            status,
            recipe=progress.image.recipe,
            image=min(ended + 1, total),
            of=total,
            step=progress.step,
            steps=progress.steps,
            steps_per_second=round(progress.steps_per_second, 2),
            seconds_left=None if left is None else round(left, 1),
        )
