"""The daemon's round, which is the whole story: a save becomes pictures.

Everything still to be done is a row of the ledger, and every step can safely run again. So a start,
the recovery from a crash and an ordinary round run the same code. Meanwhile a worker thread per
engine claims a batch, renders it and hands it over to be published (daemon/worker.py).
"""

import logging
import threading
import time
from contextlib import suppress
from typing import NoReturn

from picowatch import __version__
from picowatch.daemon.accept import Accepting
from picowatch.daemon.commands import Control
from picowatch.daemon.followups import follow_up_all, list_lines
from picowatch.daemon.pool import WorkerPool
from picowatch.daemon.reader import WAKE_SECONDS
from picowatch.daemon.run import Run, RunResult
from picowatch.daemon.status import Reporting
from picowatch.daemon.summary import Summaries, Totals
from picowatch.errors import LedgerCorrupt
from picowatch.files.atomic import FolderAway
from picowatch.files.essential import PASSING, Ended
from picowatch.inbox.named_pictures import remove_copies_but
from picowatch.ledger import control, followups, queries, queue
from picowatch.ledger.rows import PutBack
from picowatch.outbox.commands import tidy_up
from picowatch.outbox.problems import SETTINGS_ERROR
from picowatch.outbox.status import images_wait
from picowatch.service import notify
from picowatch.streams import harmless_lines

log = logging.getLogger("picowatch")

IDLE_SECONDS = 1.0  # between rounds
WORKING_SECONDS = 0.25  # … while something is rendered
LONGEST_FIRST_LOOK = 5.0  # that queued images are held back at the start
TIDY_SECONDS = 3600.0  # between deletions of what nobody needs: copies of start images, old saves
MAX_DAEMON_DEATHS = 5  # in a row, with the same image in progress
CLOSING = "The settings stay as they were. Fix this and save the file again."
TAKES_AWAY = (
    "when_done: %s removes finished recipes from the inbox. No other picowatch may watch it: it "
    "would take them for deleted"
)


class Daemon:
    """Takes saves to the engines until `stop` is set; then `wake` ends the wait between rounds."""

    def __init__(self, run: Run, pool: WorkerPool, accepting: Accepting) -> None:
        self._shared, self.mode = run, run.mode
        self.ledger, self.outbox, self.inbox = run.ledger, run.outbox, run.inbox
        self.writing, self.result = run.writing, run.result
        self.lock, self.settings_watch = run.lock, run.watch
        self.stop, self.wake = run.stop, run.wake
        tend = run.outbox.gallery.tend
        self.tending = threading.Thread(target=tend, args=(run.stop.wait,), daemon=True)
        self.pool, self.accepting = pool, accepting
        self.control = Control(run, pool)
        self.reporting = Reporting(run, pool, self.control)
        self.summaries, self.totals = Summaries(run), Totals(run)
        self._is_ready, self._begins_at = False, 0.0
        self._tidy_at = 0.0
        self._more = False  # whether there is more to do
        self._left: object = None  # when a single run looked last
        self._waits_since = float("inf")  # a single run, for nothing but a disk or a file

    def run(self) -> RunResult:
        """Run until `stop` is set or the mode ends it; the result may ask to `restart` a daemon."""
        words, root = "picowatch %s is watching %s", self.inbox.files.root
        log.info(words, __version__, root, extra={"event": "started"})
        if (when_done := self._shared.when_done) != "keep" and not self.mode.once:
            log.warning(TAKES_AWAY, when_done)
        try:
            with self._shared.ended_by_errors(unexpected=False):
                self._run_rounds()
        finally:
            self._shut_down()
        if not self.result.restart:
            log.info("picowatch ended", extra={"event": "ended"})
        return self.result

    def _run_rounds(self) -> None:
        once, is_idle = self.mode.once, False
        while not (self.stop.is_set() or self.result.reason):
            self._more, was_idle = False, is_idle
            self.settings_watch.look()
            new = self.settings_watch.new
            # On another disk: a batch that cannot be published is not waited for.
            if new and new.outbox != self.outbox.root and self.writing.trouble:
                self._start_over(f"{self.settings_watch.name} was saved")
            self.writing.ends_round(self._round)  # a later round tries again
            self.reporting.report()
            # The next round reports to `make` what ended in the middle of this round.
            is_idle = once and not self._more and self._has_nothing_left()
            is_idle = is_idle and not self.accepting.tries_again()
            if once and (self.mode.until() or (is_idle and was_idle)):
                break
            is_resting = not (self._more or is_idle)
            if is_resting and once and self._waits_too_long():
                break
            if is_resting:
                self.accepting.reader.read_for(self._rest())
            elif self.accepting.reader.reads_more():
                self.accepting.reader.read_for(WAKE_SECONDS)
            self.wake.clear()

    def _round(self) -> None:
        now = time.monotonic()
        self._check_outbox()
        if not self._is_ready:
            self._recover()
            self._is_ready, self._begins_at = True, now + LONGEST_FIRST_LOOK
            self.tending.start()
            notify("READY=1")
        self.writing.alone("settings", SETTINGS_ERROR, self._show_settings_problem)
        if self.pool.finish_batches(self.settings_watch.new is not None):
            self._start_over(f"{self.settings_watch.name} was saved")
        if self.inbox.is_there():
            self.inbox.look(now)
            self._shared.observers.ignored(self.inbox.skipped)
        with self.pool.claiming:  # a command may cancel what is accepted here
            if self.inbox.inbox_id:
                self._more = self.accepting.take(now)
            if self.control.run_all():
                self.reporting.hurry()
        if self._more:
            self.pool.wake()
        # Before, saves and deletions since the last run may make queued images obsolete.
        elif not (len(self.inbox.waiting) or self._shared.hashes.being_read()):
            self._begins_at = 0.0
        if time.monotonic() >= self._begins_at:
            self.pool.update()  # so engines have work while the steps below wait for a disk
        self._more |= not follow_up_all(self._shared)
        with self.writing.optional("failures.jsonl"):
            list_lines(self.ledger, "failures", self.outbox.failures)
        self.outbox.gallery.catch_up()
        self.pool.publisher.list_published()
        list_lines(self.ledger, "history", self.outbox.listing)
        self.summaries.look(self.reporting.busy)
        self.totals.look()
        if now >= self._tidy_at:
            self._tidy_at = now + TIDY_SECONDS
            tidy_up(self.outbox.root)
            remove_copies_but(self.outbox.root, queue.start_images_needed(self.ledger))
            followups.prune(self.ledger, time.time())

    def _show_settings_problem(self) -> None:
        problem = self.settings_watch.problem
        text = problem and harmless_lines(f"{problem}\n\n{CLOSING}\n")
        if self.outbox.problems.show_settings_error(text) and problem:
            log.error("%s The settings stay as they were.", self.settings_watch.line)

    def _start_over(self, why: str) -> NoReturn:
        self.result.cannot_go_on(why, restart=True)
        raise Ended

    def _check_outbox(self) -> None:
        """Raise FolderAway if the outbox is away; end the run if it or the ledger was replaced."""
        if not self.lock.is_in_place():
            if not self.lock.is_replaced():
                raise FolderAway(self.outbox.root)
            self._start_over(
                f"the outbox {self.outbox.root} was replaced, or its .picowatch deleted"
            )
        if not self.ledger.is_in_place():
            self._start_over("the ledger was deleted or replaced")

    # -- start and end

    def _recover(self) -> None:
        """Finish, fail or requeue what was in progress when the last daemon ended."""
        known = queries.known_recipes(self.ledger)
        wrong = [recipe for recipe, row in known.items() if row.problem]
        self.outbox.repair(known.keys() | queries.recipes_that_are(self.ledger, "archived"), wrong)
        self.outbox.gallery.catch_up()
        for image in queue.running(self.ledger):
            if self.outbox.holds(image.file, image.digest):
                self.outbox.complete(image.file)
                queue.finish(self.ledger, [(image, None, False)])
            elif self.lock.ended_well:  # but could not write what it put back
                queue.put_back(self.ledger, image)
            elif image.deaths + 1 >= MAX_DAEMON_DEATHS:
                reason = f"picowatch died {MAX_DAEMON_DEATHS} times in a row while rendering it."
                queue.fail(self.ledger, image, reason)
                extra = {"event": "failed", "recipe": image.recipe}
                what = f"{image.request.seed_used} set aside".lstrip()
                log.error("%s: %s: %s", image.recipe, what, reason, extra=extra)
            else:
                queue.put_back(self.ledger, image, PutBack.DAEMON_DIED)
                what = f"{image.request.seed_used} queued again".lstrip()
                words = "%s: %s: picowatch was killed while rendering it"
                log.warning(words, image.recipe, what)
        self.lock.ended_well = False
        if control.is_paused(self.ledger):
            log.info("paused: nothing is rendered until `picowatch resume`")

    def _has_nothing_left(self) -> bool:
        """Return whether nothing is left to do except what a pause keeps queued."""
        ledger = self.ledger
        if self.writing.trouble or self._shared.hashes.being_read() or any(self._left_but_images()):
            return False
        queued = queries.queued(ledger, self.mode.only)
        self.result.kept_waiting = queued if control.is_paused(ledger) else 0
        return queued == self.result.kept_waiting and not queries.counts(ledger)["running"]

    def _left_but_images(self) -> tuple[object, ...]:
        """Return which changes, recipes, pictures and lines of the list are left."""
        ledger = self.ledger
        unlisted = [image.id for image in followups.unlisted(ledger)]
        lines = followups.unlisted_lines(ledger, "history")
        return len(self.inbox.waiting), followups.todo(ledger), unlisted, lines

    def _waits_too_long(self) -> bool:
        """Whether a single run has done nothing but wait for long; if so, note for what."""
        now = time.monotonic()
        self._waits_since = float("inf") if self._works() else min(self._waits_since, now)
        if now - self._waits_since <= (self.writing.limit or 0.0):
            return False
        if self.writing.trouble:
            why = f"cannot write: {self.writing.trouble}"
        elif not self.inbox.inbox_id:
            why = f"the inbox {self.inbox.files.root} {self.inbox.trouble}"
        else:
            written = f"{', '.join(self.inbox.pending()[:1])} in the inbox is still being written"
            why = ", ".join(self.writing.waiting) or written
        self.result.cannot_go_on(why)
        return True

    def _works(self) -> bool:
        """Whether anything is done, or will be without waiting for a disk or a file."""
        if self._more or self._shared.hashes.being_read() or self.pool.is_busy():
            return True
        # A batch may end between two looks: others take turns with what waits for the inbox.
        left = *self._left_but_images(), queries.counts(self.ledger)["done"]
        if not self.writing.trouble and self._left != left:
            self._left = left
            return True
        # A file whose answer cannot be written is read again and again.
        if self.accepting.reader.is_busy() and not self.writing.waiting:
            return True
        if self.inbox.inbox_id and len(self.inbox.waiting) and not self.inbox.pending():
            return True  # the next scan says whether files are gone
        if not self.inbox.inbox_id or self.writing.trouble or control.is_paused(self.ledger):
            return False
        return bool(queries.queued(self.ledger, self.mode.only))

    def _rest(self) -> float:
        rest = WORKING_SECONDS if self.pool.renderings() else IDLE_SECONDS
        if self.writing.trouble or not self.inbox.inbox_id:
            return rest
        return min(rest, max(self.inbox.ready_in(time.monotonic()), 0.01))

    def _shut_down(self) -> None:
        if not self.result.restart:  # having been told, systemd kills what does not end soon
            notify("STOPPING=1")
        self.stop.set()  # ends every wait for a disk
        self.pool.stop()
        if self.tending.is_alive():
            self.tending.join()
        self.accepting.reader.close()
        self.inbox.close()
        self.reporting.report_end()
        with suppress(*PASSING, LedgerCorrupt):  # what the ledger said last stays
            self.totals.count()
        if self.result.restart:
            log.warning("%s; picowatch starts over", self.result.reason)
        elif self.result.reason:
            log.error("picowatch exits: %s", self.result.reason)
        if self.result.kept_waiting:
            waiting = images_wait(self.result.kept_waiting)
            log.warning("paused: %s until `picowatch resume`", waiting)
