"""The daemon's round, which is the whole story: a save becomes pictures.

Everything still to be done is a row of the ledger, and every step can safely run again. So a start,
the recovery from a crash and an ordinary round run the same code. Meanwhile a worker thread per
engine claims a batch, renders it and hands it over to be published (daemon/worker.py).
"""

import logging
import threading
import time
from functools import partial
from typing import NoReturn

from picowatch import __version__
from picowatch.daemon import finish
from picowatch.daemon.accept import Accepting
from picowatch.daemon.commands import Control
from picowatch.daemon.pool import WorkerPool
from picowatch.daemon.run import Run, RunResult
from picowatch.daemon.status import Reporting
from picowatch.engine.protocol import Executor
from picowatch.files.atomic import FolderAway
from picowatch.files.attempt import Ended
from picowatch.ledger import control, outstanding, questions, queue
from picowatch.ledger.rows import PutBack, QueuedImage
from picowatch.outbox.problems import SETTINGS_ERROR
from picowatch.outbox.start_images import remove_copies_but
from picowatch.outbox.status import images_wait
from picowatch.service import notify
from picowatch.streams import harmless_lines

log = logging.getLogger("picowatch")

IDLE_SECONDS = 1.0  # between rounds
WORKING_SECONDS = 0.25  # … while something is rendered
LONGEST_FIRST_LOOK = 5.0  # that queued images are held back at the start
TIDY_SECONDS = 3600.0  # between deletions of what nobody needs any more
MAX_DAEMON_DEATHS = 5  # in a row, with the same image in progress
CLOSING = "The settings stay as they were. Fix the file and save it again."
TAKES_AWAY = (
    "when_done: %s removes finished recipes from the inbox. No other picowatch may watch it: it "
    "would take them for deleted"
)


class Daemon:
    """Takes saves from the inbox to the engines until `stop` is set.

    Set `wake` after `stop` to end the wait between two rounds.
    """

    def __init__(self, run: Run, executor: Executor) -> None:
        self._shared, self.mode = run, run.mode
        self.ledger, self.outbox, self.inbox = run.ledger, run.outbox, run.inbox
        self.attempts, self.result = run.attempts, run.result
        self.lock, self.settings_watch = run.lock, run.watch
        self.stop, self.wake = run.stop, run.wake
        make = run.outbox.gallery.make_missing_thumbnails
        self.thumbnails = threading.Thread(target=make, args=(run.stop.wait,), daemon=True)
        self.pool = WorkerPool(run, executor)
        self.accepting = Accepting(run)
        self.control = Control(run, self.pool)
        self.reporting = Reporting(run, self.pool, self.control)
        self._is_ready, self._begins_at = False, 0.0
        self._tidy_at = 0.0
        self._more = False  # whether there is more to do
        self._left: object = None  # when a single run looked last
        self._waits_since = float("inf")  # a single run, for nothing but a disk or a file

    def run(self) -> RunResult:
        """Run until `stop` is set, or as the mode says.

        If the result says `restart`, another daemon can be started at once.
        """
        settings = self._shared.settings
        log.info("picowatch %s is watching %s", __version__, settings.inbox)
        if settings.when_done != "keep" and not self.mode.once:
            log.warning(TAKES_AWAY, settings.when_done)
        try:
            with self._shared.ended_by_errors(unexpected=False):
                self._run_rounds()
        finally:
            self._shut_down()
        if not self.result.restart:
            log.info("picowatch ended")
        return self.result

    def _run_rounds(self) -> None:
        once, is_idle = self.mode.once, False
        while not (self.stop.is_set() or self.result.reason):
            was_idle, more = is_idle, self._try_round()
            # The next round reports to `make` what ended in the middle of this one.
            is_idle = once and not more and self._has_nothing_left()
            if once and (self.mode.until() or (is_idle and was_idle)):
                break
            if not (more or is_idle):
                if once and self._waits_too_long():
                    break
                self.wake.wait(self._rest())
            self.wake.clear()

    def _try_round(self) -> bool:
        """Run a round; a full or missing disk ends it, and a later round tries again.

        New settings may name another disk: then a batch that cannot be published is not waited for.
        """
        self._more = False
        self.settings_watch.look()
        if self.settings_watch.new and self.attempts.trouble:
            self._start_over(f"{self.settings_watch.name} was saved")
        self.attempts.attempt("round", "", self._round, is_alone=False)
        self.reporting.report()
        return self._more

    def _round(self) -> None:
        now = time.monotonic()
        self._check_outbox()
        if not self._is_ready:
            self._recover()
            self._is_ready, self._begins_at = True, now + LONGEST_FIRST_LOOK
            self.thumbnails.start()
            notify("READY=1")
        self.attempts.attempt("settings", SETTINGS_ERROR, self._show_settings_problem)
        if self.pool.finish_batches(self.settings_watch.new is not None):
            self._start_over(f"{self.settings_watch.name} was saved")
        if self.inbox.is_there():
            self.inbox.look(now)
            self._shared.observers.ignored(self.inbox.skipped)
        with self.pool.claiming:  # a command may cancel what is accepted here
            if self.inbox.folder:
                self._more = self.accepting.take(now)
            if self.control.run_all():
                self.reporting.hurry()
        self._update_pool(self._more)  # so engines have work while the steps below wait for a disk
        self._more |= not finish.finish_all(self._shared)
        self.attempts.attempt("list", "failures.jsonl", partial(finish.list_failures, self._shared))
        self.attempts.attempt("list", "images.jsonl", self.pool.publisher.list_published)
        self._tidy_up(now)
        self.attempts.forget_old()

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

    def _update_pool(self, more: bool) -> None:
        if more:
            self.pool.wake()
        # Before, saves and deletions since the last run may make queued images obsolete.
        if not (more or len(self.inbox) or self._shared.hashes.is_busy()):
            self._begins_at = 0.0
        if time.monotonic() >= self._begins_at:
            self.pool.update()

    def _tidy_up(self, now: float) -> None:
        """Delete what nobody needs any more: copies of start images, old saves."""
        if now >= self._tidy_at:
            self._tidy_at = now + TIDY_SECONDS
            remove_copies_but(self.outbox.root, queue.start_images_needed(self.ledger))
            outstanding.prune(self.ledger, time.time())

    # -- start and end

    def _recover(self) -> None:
        """Repair what a crash left behind."""
        known = questions.known_recipes(self.ledger)
        wrong = [recipe for recipe, one in known.items() if one.problem]
        self.outbox.repair(known, wrong, self.stop.is_set)
        queue.nothing_is_written(self.ledger)
        for image in queue.running(self.ledger):
            self._decide(image)
        if control.is_paused(self.ledger):
            log.info("paused: nothing is rendered until `picowatch resume`")

    def _decide(self, image: QueuedImage) -> None:
        """Finish, fail or requeue an image that was in progress when the last daemon ended."""
        if self.outbox.holds(image.file, image.digest):
            self.outbox.complete(image.file)
            queue.finish(self.ledger, [image], ())
        elif image.deaths + 1 >= MAX_DAEMON_DEATHS:
            reason = f"picowatch died {MAX_DAEMON_DEATHS} times in a row while rendering it."
            queue.fail(self.ledger, image, reason)
            log.error("%s: seed %s set aside: %s", image.recipe, image.request.seed, reason)
        else:
            queue.put_back(self.ledger, image, PutBack.DAEMON_DIED)
            words = "%s: seed %s queued again: picowatch was killed while rendering it"
            log.warning(words, image.recipe, image.request.seed)

    def _has_nothing_left(self) -> bool:
        """Return whether nothing is left to do except what a pause keeps queued."""
        if self.attempts.trouble or len(self.inbox) or self._shared.hashes.is_busy():
            return False
        if outstanding.todo(self.ledger):
            return False
        if outstanding.unlisted(self.ledger) or outstanding.unlisted_failures(self.ledger):
            return False
        queued = questions.queued(self.ledger, self.mode.only)
        self.result.kept_waiting = queued if control.is_paused(self.ledger) else 0
        return queued == self.result.kept_waiting and not questions.counts(self.ledger)["running"]

    def _waits_too_long(self) -> bool:
        """Whether a single run has done nothing but wait for long; if so, note for what."""
        now = time.monotonic()
        self._waits_since = float("inf") if self._works() else min(self._waits_since, now)
        is_too_long = now - self._waits_since > (self.attempts.limit or 0.0)
        if is_too_long:
            self.result.cannot_go_on(self._waited_for())
        return is_too_long

    def _works(self) -> bool:
        """Whether anything is done, or will be without waiting for a disk or a file."""
        if self._more or self._shared.hashes.is_busy() or self.pool.is_busy():
            return True
        if not self.attempts.trouble and self._left != (left := self._what_is_left()):
            self._left = left
            return True
        if self.inbox.folder and len(self.inbox) and not self.inbox.pending():
            return True  # the next scan says whether files are gone
        may_render = self.inbox.folder and not (
            self.attempts.trouble or control.is_paused(self.ledger)
        )
        return bool(may_render and questions.queued(self.ledger, self.mode.only))

    def _what_is_left(self) -> object:
        unlisted = len(outstanding.unlisted(self.ledger))
        return len(self.inbox), outstanding.todo(self.ledger), unlisted

    def _waited_for(self) -> str:
        if self.attempts.trouble:
            return f"cannot write: {self.attempts.trouble}"
        if not self.inbox.folder:
            return f"the inbox {self.inbox.path} is not there, or another folder is in its place"
        if self.attempts.waiting:
            return ", ".join(self.attempts.waiting)
        return f"{', '.join(self.inbox.pending()[:1])} in the inbox is still being written"

    def _rest(self) -> float:
        """Seconds until there may be something to do."""
        rest = WORKING_SECONDS if self.pool.renderings() else IDLE_SECONDS
        if self.attempts.trouble or not self.inbox.folder:
            return rest
        return min(rest, max(self.inbox.ready_in(time.monotonic()), 0.01))

    def _shut_down(self) -> None:
        if not self.result.restart:  # having been told, systemd kills what does not end soon
            notify("STOPPING=1")
        self.stop.set()  # ends every wait for a disk
        self.pool.stop()
        if self.thumbnails.is_alive():
            self.thumbnails.join()
        self.inbox.close()
        self.reporting.report_end()
        if self.result.restart:
            log.warning("%s; picowatch starts over", self.result.reason)
        elif self.result.reason:
            log.error("picowatch exits: %s", self.result.reason)
        if self.result.kept_waiting:
            waiting = images_wait(self.result.kept_waiting)
            log.warning("paused: %s until `picowatch resume`", waiting)
