"""The daemon's loop: notice saves, answer them, keep the pool going, tell how it stands."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from picowatch.daemon.backlog import Backlog
from picowatch.daemon.control import Control
from picowatch.daemon.intake import SLICE_SECONDS
from picowatch.daemon.reporting import Parts, Reporting
from picowatch.errors import LedgerCorrupt
from picowatch.files import retry as waiting
from picowatch.files.atomic import FolderAway
from picowatch.files.retry import PASSING, Ended, passes
from picowatch.ledger.rows import Counts
from picowatch.outbox.lock import Whereabouts
from picowatch.outbox.status import duration, images_wait
from picowatch.systemd import ALIVE, Beat, notify
from picowatch.work.result import RunResult

log = logging.getLogger("picowatch")

MAX_DAEMON_DEATHS = 5  # in a row, with the same image in work
LONGEST_FIRST_LOOK = 5.0  # seconds that images which wait are held back at the start
IDLE_SECONDS = 1.0  # between looks at the inbox's folder
WORKING_SECONDS = 0.25  # between looks at the batch in work
CLOCK_JUMP_SECONDS = 60.0  # of the wall clock against one that only runs; less is no news

T = TypeVar("T")


class Daemon:
    """Connects inbox, ledger, pool and outbox until it is told to stop."""

    def __init__(
        self,
        parts: Parts,
        *,
        after_crash: bool,
        stop: threading.Event,
        wake: threading.Event,
        now: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        """`after_crash`: the last daemon did not end by itself, so what it left undone is done.

        `wake` ends a rest early: set it after setting `stop`.
        """
        self._interrupt = parts.settings.interrupt
        self._inbox = parts.inbox
        self._ledger = parts.ledger
        self._outbox = parts.outbox
        self._intake = parts.intake
        self._pool = parts.pool
        self._publisher = parts.publisher
        self._retry = parts.retry
        self._result = parts.result
        self._commands = parts.commands
        self._control = Control(
            parts.settings,
            parts.ledger,
            parts.outbox,
            parts.pool,
            go_on=self._go_on,
            steady=steady,
        )
        self._reporting = Reporting(parts, now=now, steady=steady)
        parts.intake.go_on = self._go_on
        self._finished = parts.finished
        self._only = parts.only
        self._whereabouts = parts.whereabouts
        self._is_away = False  # the outbox
        self._after_crash = after_crash
        self._recovered = not after_crash
        self._stop = stop
        self._wake = wake
        self._now = now
        self._steady = steady
        self._beat = Beat(steady)
        self._watches = False  # the inbox, and tells how things stand
        self._unanswered = Backlog()
        self._to_tell: deque[Callable[[], None]] = deque()
        self._retry_at = 0.0
        self._start_worker_at = 0.0
        self._clock_ahead = now() - steady()

    def run(self, once: bool = False) -> RunResult:
        """Work until `stop`, or `once`: until what is in the inbox now is done."""
        result = self._result
        try:
            self._retry.until_begun(self._recover)
            self._recovered = True
            self._retry.until_done("daemon", self._intake.recall)
            if self._after_crash:
                self._safely(self._intake.answer_again_without_error)
            self._inbox.start(self._steady())
            self._watches = True
            self._start_worker_at = self._steady() + LONGEST_FIRST_LOOK
            notify("READY=1")
            while not self._stop.is_set() and not result.reason:
                self._tick()
                if once and self._is_all_done():
                    self._work_off()  # who asked what becomes of a recipe can be told now
                    if self._is_all_done():
                        self._reporting.tell()
                        break
                self._wake.wait(self._rest())
                self._wake.clear()
        except Ended:
            pass
        except LedgerCorrupt as error:
            result.cannot_go_on(str(error), ledger_corrupt=True)
        except PASSING as error:
            result.cannot_go_on(f"saves cannot be answered: {error}")
        finally:
            self._shut_down()
        if result.outbox_replaced:
            log.warning("%s; picowatch begins anew with what is there", result.reason)
        elif result.reason:
            log.error("picowatch ends: %s", result.reason)
        if result.kept_waiting:
            log.warning("paused: %s until `picowatch resume`", images_wait(result.kept_waiting))
        return result

    def _tick(self) -> None:
        self._look_at_the_clock()
        if not self._is_outbox_in_place():
            self._safely(self._reporting.tell)
            return
        self._notice()
        if self._steady() >= self._retry_at:
            self._work_off()
        self._safely(self._pool.tend)
        if self._inbox.expects_saves():
            self._pool.expect_work()
        if not self._pool.is_started():
            self._start_worker()
        self._safely(self._reporting.tell)

    def _is_outbox_in_place(self) -> bool:
        """It may be moved, unmounted or deleted; meanwhile nothing is written anywhere."""
        where = self._whereabouts()
        if where is Whereabouts.AWAY:
            if not self._is_away:
                log.warning(
                    "the outbox %s is not there, or another folder is in its place; nothing is "
                    "written until it is back",
                    self._outbox.root,
                )
            self._is_away = True
            self._retry.wait_begins("outbox", FolderAway(self._outbox.root))
            return False
        if where is Whereabouts.REPLACED:
            words = f"the outbox {self._outbox.root} was replaced, or its .picowatch deleted"
            self._result.cannot_go_on(words, outbox_replaced=True)
        elif not self._ledger.is_in_place():
            words = "the ledger was deleted or replaced"
            self._result.cannot_go_on(words, outbox_replaced=True)
        elif self._is_away:
            self._is_away = False
            log.info("the outbox %s is back", self._outbox.root)
            self._retry.wait_ends("outbox")
        return not self._result.outbox_replaced

    def _notice(self) -> None:
        """While saves are being answered, only what comes before them is taken in."""
        if found := self._inbox.poll(self._steady(), self._unanswered.priority):
            self._unanswered.add(found)
            self._intake.look_again()

    def _start_worker(self) -> None:
        """Once it is known what was saved and deleted meanwhile: obsolete images are not made."""
        settled = self._inbox.is_settled() and not self._unanswered
        if settled or self._steady() >= self._start_worker_at:
            self._pool.start()

    def _work_off(self) -> None:
        """Answer what there is; what cannot be written now is tried again later.

        Each by itself: what is stuck holds up nothing else.
        """
        stuck = [
            *self._try(self._answer),
            *self._try(partial(self._commands.work_off, self._control.do)),
            *self._try_each(self._to_tell, lambda tell: tell()),
            *self._try_each(self._finished, self._intake.finished),
        ]
        if stuck:
            self._retry.wait_begins("daemon", stuck[0])
            self._retry_at = self._steady() + waiting.RETRY_SECONDS
        else:
            self._retry.wait_ends("daemon")

    def _try(self, action: Callable[[], None]) -> list[Exception]:
        """Do it, and give the error that is waited for, if there is one."""
        try:
            action()
        except PASSING as error:
            if not passes(error):
                raise
            return [error]
        return []

    def _try_each(self, queue: deque[T], do: Callable[[T], None]) -> list[Exception]:
        """Do what is in the queue, and leave there what has to wait; gives the errors of that."""
        stuck: list[Exception] = []
        end = self._steady() + SLICE_SECONDS
        for _ in range(len(queue)):
            self._go_on()
            if self._watches and self._steady() >= end:
                break  # a save may have come meanwhile
            if waits := self._try(partial(do, queue[0])):
                stuck += waits
                queue.rotate(-1)
            else:
                queue.popleft()
        return stuck

    def _answer(self) -> None:
        """A slice of what there is: between two of them others use the ledger."""
        if not self._unanswered:
            return
        tell = self._intake.answer(self._unanswered)
        self._unanswered.drop(len(tell))
        self._to_tell.extend(tell)
        if self._interrupt:
            self._pool.interrupt_unasked()
        self._pool.look()

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
        """Whether nothing is left to do, or nothing but what a pause keeps waiting."""
        if not self._inbox.is_settled() or self._unanswered or self._to_tell or self._finished:
            return False
        counts = self._unfinished()
        kept_waiting = counts.queued if self._pool.paused else 0
        self._result.kept_waiting = kept_waiting
        return counts.queued == kept_waiting and not counts.running

    def _unfinished(self) -> Counts:
        """How many images wait and run."""
        if self._only is None:
            return self._ledger.counts()
        each = [self._ledger.recipe_counts(recipe) for recipe in self._only]
        return Counts(
            queued=sum(counts.queued for counts in each),
            running=sum(counts.running for counts in each),
        )

    def _rest(self) -> float:
        """Seconds until there may be something to do."""
        if self._is_away:
            return IDLE_SECONDS
        to_do = self._unanswered or self._finished or self._to_tell
        if to_do and self._steady() >= self._retry_at:
            return 0.0
        rest = WORKING_SECONDS if self._pool.progress() else IDLE_SECONDS
        if self._unanswered:  # they have to wait, and what is ready waits for them
            return rest
        ready_in = self._inbox.ready_in(self._steady())
        return rest if ready_in is None else min(rest, ready_in)

    def _go_on(self) -> None:
        """Long work must not look like a hang, and ends with picowatch: it may raise Ended."""
        self._retry.go_on()
        if not self._beat.is_due():
            return
        if self._watches:
            self._inbox.listen(self._steady())
            self._reporting.tell()
        else:
            notify(*ALIVE)

    def _recover(self) -> None:
        """Mend what a crash left (docs/durability.md)."""
        if self._after_crash:
            log.warning("picowatch did not end by itself last time; what it left is mended")
            self._safely(partial(self._outbox.remove_leftovers, self._go_on))
            self._safely(self._outbox.mend_latest)
            self._safely(self._inbox.recover)
            known = self._ledger.known_recipes()
            self._safely(partial(self._outbox.remove_strays, known))
        self._control.recall()
        for image in self._ledger.running():
            self._go_on()
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
        self._safely(self._intake.tidy_up)
        self._finished.extend(self._ledger.recipes_with_sheets_due())
        if self._after_crash:
            self._finished.extend(self._ledger.accepted_recipes())
        enlisted = self._outbox.enlisted()
        for image in self._ledger.unlisted():
            self._go_on()
            if image.file in enlisted:
                self._ledger.mark_listed(image.id)
            else:
                self._safely(partial(self._publisher.enlist, image))

    def _safely(self, action: Callable[[], None]) -> None:
        """Do what the next start can do as well: only what passes is waited for."""
        try:
            action()
        except (Ended, LedgerCorrupt):
            raise
        except Exception as error:
            if passes(error):
                raise
            log.error("something went wrong that should not: %s: %s", type(error).__name__, error)
            log.debug("unexpected", exc_info=True)

    def _shut_down(self) -> None:
        notify("STOPPING=1")
        self._stop.set()  # whoever waits for the disk waits no more
        self._pool.stop()
        self._inbox.close()
        self._watches = False
        with suppress(Ended, LedgerCorrupt):
            self._try_each(self._finished, self._intake.finished)
        lost = self._is_away or self._result.outbox_replaced
        undone = self._finished or self._to_tell or lost or not self._recovered
        self._result.left_undone = bool(undone)
        self._reporting.tell_the_end()
