"""The daemon's loop, which is the whole story: a save becomes pictures.

`_tick` takes what the inbox noticed, and `_answer` gives it to the intake: the ledger accepts a
save (`Ledger.accept`) and queues all its images. The pool has a worker for each engine, whose
thread claims a batch, renders it and has it published (`Worker._work`).
"""

import logging
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from picowatch.daemon.attempts import Attempts, safely
from picowatch.daemon.backlog import Backlog
from picowatch.daemon.control import Control
from picowatch.daemon.finishing import Finishing
from picowatch.daemon.intake import SLICE_SECONDS, Intake
from picowatch.daemon.recovery import Recovery
from picowatch.daemon.reporting import Reporting
from picowatch.daemon.settings_file import SettingsWatch
from picowatch.daemon.watches import ClockWatch, OutboxWatch
from picowatch.errors import LedgerCorrupt
from picowatch.files.retry import PASSING, Ended
from picowatch.inbox.inbox import Inbox
from picowatch.outbox.status import images_wait
from picowatch.systemd import notify
from picowatch.work.pool import WorkerPool
from picowatch.work.result import RunResult

log = logging.getLogger("picowatch")

IDLE_SECONDS = 1.0  # between looks at the inbox's folder
WORKING_SECONDS = 0.25  # between looks at the batch in progress
TIDY_SECONDS = 3600.0  # between deletions of copies that nobody needs any more


@dataclass(kw_only=True, eq=False)
class Daemon:
    """Takes saves from the inbox to the pool, until `stop`.

    `wake` ends a rest early: set it after setting `stop`.
    """

    recovery: Recovery
    inbox: Inbox
    backlog: Backlog
    intake: Intake
    finishing: Finishing
    control: Control
    pool: WorkerPool
    reporting: Reporting
    attempts: Attempts
    outbox_watch: OutboxWatch
    clock_watch: ClockWatch
    settings_watch: SettingsWatch | None
    result: RunResult
    stop: threading.Event
    wake: threading.Event

    def __post_init__(self) -> None:
        self._tidy_at = time.monotonic() + TIDY_SECONDS

    def run(self, once: bool = False) -> RunResult:
        """Run until `stop`, or `once`: until what is in the inbox now is done."""
        try:
            self.recovery.run()
            self.inbox.start(time.monotonic())
            notify("READY=1")
            while not (self.stop.is_set() or self.result.reason):
                self._tick()
                if once and self._is_all_done():
                    self._catch_up()  # `make` can get its answer now
                    if self._is_all_done():
                        self.reporting.report()
                        break
                self.wake.wait(self._rest())
                self.wake.clear()
        except Ended:
            pass
        except LedgerCorrupt as error:
            self.result.cannot_go_on(str(error), ledger_corrupt=True)
        except PASSING as error:
            self.result.cannot_go_on(f"saves cannot be answered: {error}")
        finally:
            self._shut_down()
        return self.result

    def _tick(self) -> None:
        if self.clock_watch.has_jumped():  # file times may mislead now
            self.inbox.rescan(time.monotonic())
        if self.outbox_watch.is_in_place():
            self._notice()
            if self.attempts.are_due():
                self._catch_up()
            self._update_pool()
        safely(self.reporting.report)

    def _notice(self) -> None:
        """While saves are being answered, only what comes before them is taken in."""
        if found := self.inbox.poll(time.monotonic(), self.backlog.priority):
            self.backlog.add(found)
            self.intake.look_again()
        self.backlog.finished.extend(self.finishing.back_again())

    def _catch_up(self) -> None:
        """Do what is in the backlog; what cannot be written now is tried again later."""
        backlog, attempts = self.backlog, self.attempts
        attempts.all_of(
            [
                self._answer,
                partial(attempts.each, backlog.follow_ups, lambda action: action(), SLICE_SECONDS),
                partial(attempts.each, backlog.finished, self.finishing.finished, SLICE_SECONDS),
                # After these, for `make --rm` ends what these say about its recipe.
                self.control.run_commands,
                self._look_at_settings,
                self._tidy_up,
            ]
        )

    def _tidy_up(self) -> None:
        """Start images that were rendered or replaced would fill the disk in months."""
        if time.monotonic() >= self._tidy_at:
            safely(self.intake.tidy_up)
            self._tidy_at = time.monotonic() + TIDY_SECONDS

    def _look_at_settings(self) -> None:
        if self.settings_watch:
            safely(self.settings_watch.look)

    def _answer(self) -> None:
        """Answer a slice of the evidence: between two slices others use the ledger."""
        if self.backlog.evidence:
            self.backlog.answered(self.intake.answer(self.backlog.evidence))
            self._look_ahead()
            self.pool.saves_were_answered()

    def _look_ahead(self) -> None:
        self.pool.look_ahead(self.inbox.ready_in(time.monotonic()))

    def _update_pool(self) -> None:
        self._look_ahead()
        safely(self.pool.update)
        if any(self.inbox.expected_saves()):
            self.pool.expect_save()
        self.pool.start_when(self.inbox.is_settled() and not self.backlog.evidence)

    def _is_all_done(self) -> bool:
        """Whether nothing is left to do, or only what a pause keeps in the queue."""
        if not self.inbox.is_settled() or self.backlog:
            return False
        counts = self.pool.unfinished()
        self.result.kept_waiting = counts.queued if self.pool.paused else 0
        return counts.queued == self.result.kept_waiting and not counts.running

    def _rest(self) -> float:
        """Seconds until there may be something to do."""
        if self.outbox_watch.is_away:
            return IDLE_SECONDS
        if self.backlog and self.attempts.are_due():
            return 0.0
        rest = WORKING_SECONDS if self.pool.progress() else IDLE_SECONDS
        if self.backlog.evidence:  # a passing error: what is ready is answered after it
            return rest
        ready_in = self.inbox.ready_in(time.monotonic())
        return rest if ready_in is None else min(rest, ready_in)

    def _shut_down(self) -> None:
        if not self.result.can_restart:  # systemd kills what says so and is not gone soon
            notify("STOPPING=1")
        self.stop.set()  # ends all waiting for the disk
        self.pool.stop()
        self.inbox.close()
        with suppress(Ended, LedgerCorrupt, *PASSING):
            self.attempts.each(self.backlog.finished, self.finishing.finished)
        lost = self.outbox_watch.is_away or self.result.outbox_replaced
        undone = self.backlog.finished or self.backlog.follow_ups or lost
        self.result.left_undone = bool(undone) or not self.recovery.is_done
        self.reporting.report_end()
        if self.result.outbox_replaced:
            log.warning("%s; picowatch starts over with what is there", self.result.reason)
        elif self.result.reason:
            log.error("picowatch exits: %s", self.result.reason)
        if self.result.kept_waiting:
            waiting = images_wait(self.result.kept_waiting)
            log.warning("paused: %s until `picowatch resume`", waiting)
