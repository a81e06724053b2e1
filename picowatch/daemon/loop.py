"""The daemon's loop, which is the whole story: a save becomes pictures.

`_tick` takes what the inbox noticed, and `_answer` gives it to the intake: the ledger accepts a
save (`Ledger.accept`) and queues all its images. The pool has a worker for each engine, whose
thread claims a batch, renders it and has it published (`Worker._work`).
"""

import logging
import threading
import time
from contextlib import suppress
from functools import partial

from picowatch.daemon.attempts import Attempts, safely
from picowatch.daemon.backlog import Backlog
from picowatch.daemon.control import Control
from picowatch.daemon.finishing import Finishing
from picowatch.daemon.intake import SLICE_SECONDS, Intake
from picowatch.daemon.recovery import Recovery
from picowatch.daemon.reporting import Reporting
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


class Daemon:
    """Takes saves from the inbox to the pool, until it is told to stop."""

    def __init__(
        self,
        *,
        recovery: Recovery,
        inbox: Inbox,
        backlog: Backlog,
        intake: Intake,
        finishing: Finishing,
        control: Control,
        pool: WorkerPool,
        reporting: Reporting,
        attempts: Attempts,
        outbox_watch: OutboxWatch,
        clock_watch: ClockWatch,
        result: RunResult,
        stop: threading.Event,
        wake: threading.Event,
    ) -> None:
        """`wake` ends a rest early: set it after setting `stop`."""
        self._recovery = recovery
        self._inbox = inbox
        self._backlog = backlog
        self._intake = intake
        self._finishing = finishing
        self._control = control
        self._pool = pool
        self._reporting = reporting
        self._attempts = attempts
        self._outbox_watch = outbox_watch
        self._clock_watch = clock_watch
        self._result = result
        self._stop = stop
        self._wake = wake

    def run(self, once: bool = False) -> RunResult:
        """Run until `stop`, or `once`: until what is in the inbox now is done."""
        try:
            self._recovery.run()
            self._inbox.start(time.monotonic())
            notify("READY=1")
            while not (self._stop.is_set() or self._result.reason):
                self._tick()
                if once and self._is_all_done():
                    self._catch_up()  # `make` can get its answer now
                    if self._is_all_done():
                        self._reporting.report()
                        break
                self._wake.wait(self._rest())
                self._wake.clear()
        except Ended:
            pass
        except LedgerCorrupt as error:
            self._result.cannot_go_on(str(error), ledger_corrupt=True)
        except PASSING as error:
            self._result.cannot_go_on(f"saves cannot be answered: {error}")
        finally:
            self._shut_down()
        return self._result

    def _tick(self) -> None:
        if self._clock_watch.has_jumped():  # file times may mislead now
            self._inbox.rescan(time.monotonic())
        if self._outbox_watch.is_in_place():
            self._notice()
            if self._attempts.are_due():
                self._catch_up()
            self._update_pool()
        safely(self._reporting.report)

    def _notice(self) -> None:
        """While saves are being answered, only what comes before them is taken in."""
        if found := self._inbox.poll(time.monotonic(), self._backlog.priority):
            self._backlog.add(found)
            self._intake.look_again()

    def _catch_up(self) -> None:
        """Do what is in the backlog; what cannot be written now is tried again later."""
        backlog, attempts = self._backlog, self._attempts
        attempts.all_of(
            [
                self._answer,
                self._control.run_commands,
                partial(attempts.each, backlog.follow_ups, lambda action: action(), SLICE_SECONDS),
                partial(attempts.each, backlog.finished, self._finishing.finished, SLICE_SECONDS),
            ]
        )

    def _answer(self) -> None:
        """Answer a slice of the evidence: between two slices others use the ledger."""
        if self._backlog.evidence:
            self._backlog.answered(self._intake.answer(self._backlog.evidence))
            self._pool.saves_were_answered()

    def _update_pool(self) -> None:
        safely(self._pool.update)
        if self._inbox.expects_saves():
            self._pool.expect_save()
        self._pool.start_when(self._inbox.is_settled() and not self._backlog.evidence)

    def _is_all_done(self) -> bool:
        """Whether nothing is left to do, or only what a pause keeps in the queue."""
        if not self._inbox.is_settled() or self._backlog:
            return False
        counts = self._pool.unfinished()
        self._result.kept_waiting = counts.queued if self._pool.paused else 0
        return counts.queued == self._result.kept_waiting and not counts.running

    def _rest(self) -> float:
        """Seconds until there may be something to do."""
        if self._outbox_watch.is_away:
            return IDLE_SECONDS
        if self._backlog and self._attempts.are_due():
            return 0.0
        rest = WORKING_SECONDS if self._pool.progress() else IDLE_SECONDS
        if self._backlog.evidence:  # a passing error: what is ready is answered after it
            return rest
        ready_in = self._inbox.ready_in(time.monotonic())
        return rest if ready_in is None else min(rest, ready_in)

    def _shut_down(self) -> None:
        notify("STOPPING=1")
        self._stop.set()  # ends all waiting for the disk
        self._pool.stop()
        self._inbox.close()
        with suppress(Ended, LedgerCorrupt, *PASSING):
            self._attempts.each(self._backlog.finished, self._finishing.finished)
        lost = self._outbox_watch.is_away or self._result.outbox_replaced
        undone = self._backlog.finished or self._backlog.follow_ups or lost
        self._result.left_undone = bool(undone) or not self._recovery.is_done
        self._reporting.report_end()
        if self._result.outbox_replaced:
            log.warning("%s; picowatch starts over with what is there", self._result.reason)
        elif self._result.reason:
            log.error("picowatch exits: %s", self._result.reason)
        if self._result.kept_waiting:
            waiting = images_wait(self._result.kept_waiting)
            log.warning("paused: %s until `picowatch resume`", waiting)
