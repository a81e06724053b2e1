"""The daemon's round, which is the whole story: a save becomes pictures.

Everything still to be done is a row of the ledger, and every step can safely run again. So a start,
the recovery from a crash and an ordinary round run the same code. Meanwhile a worker thread per
engine claims a batch, renders it and hands it over to be published (daemon/worker.py).
"""

import logging
import threading
import time

from picowatch import __version__
from picowatch.daemon.accept import Accepting
from picowatch.daemon.commands import Control
from picowatch.daemon.finish import Finishing
from picowatch.daemon.pool import WorkerPool
from picowatch.daemon.run import Run, RunResult
from picowatch.daemon.status import Reporting
from picowatch.engine.protocol import Executor
from picowatch.files.atomic import FolderAway
from picowatch.files.retry import PASSING, RETRY_SECONDS, Ended, passes
from picowatch.ledger import control, outstanding, questions, queue
from picowatch.ledger.rows import PutBack, QueuedImage
from picowatch.outbox.start_images import remove_copies_but
from picowatch.outbox.status import images_wait
from picowatch.service import ALIVE, notify

log = logging.getLogger("picowatch")

IDLE_SECONDS = 1.0  # between rounds
WORKING_SECONDS = 0.25  # … while something is rendered
TIDY_SECONDS = 3600.0  # between deletions of what nobody needs any more
MAX_DAEMON_DEATHS = 5  # in a row, with the same image in progress
TAKES_AWAY = (
    "when_done: %s removes finished recipes from the inbox: no other picowatch may watch it, or it "
    "would treat them as deleted"
)


class Daemon:
    """Takes saves from the inbox to the engines until `stop` is set.

    Set `wake` after `stop` to end the wait between two rounds.
    """

    def __init__(self, run: Run, executor: Executor) -> None:
        self._shared, self.mode = run, run.mode
        self.ledger, self.outbox, self.inbox = run.ledger, run.outbox, run.inbox
        self.retry, self.result = run.retry, run.result
        self.lock, self.settings_watch = run.lock, run.watch
        self.stop, self.wake = run.stop, run.wake
        make = run.outbox.gallery.make_missing_thumbnails
        self.thumbnails = threading.Thread(target=make, args=(run.stop.wait,), daemon=True)
        self.pool = WorkerPool(run, executor, run.mode.only)
        self.accepting = Accepting(run, run.inbox)
        self.finishing = Finishing(run, run.inbox)
        self.control = Control(run, run.inbox, self.pool, self.finishing)
        self.reporting = Reporting(run, run.console, run.inbox, self.pool, self.control, run.watch)
        self._is_ready = False
        self._tidy_at = 0.0
        self._retry_at = float("-inf")  # no round begins earlier after one that failed

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
                self.wake.wait(self._rest())
            self.wake.clear()

    def _try_round(self) -> bool:
        """Run a round; a full or missing disk ends it, and a later round tries again.

        New settings may name another disk: then a batch that cannot be published is not waited for.
        """
        more = False
        self.settings_watch.look()
        if self.settings_watch.new and self.retry.trouble:
            self._start_over_with_new_settings()
        if time.monotonic() >= self._retry_at:
            try:
                more = self._round(time.monotonic())
                self.retry.worked()
            except PASSING as error:
                if not passes(error):
                    raise
                self.retry.failed(error)
                self._retry_at = time.monotonic() + RETRY_SECONDS
                notify(*ALIVE)  # a start may wait here
        self.reporting.report()
        return more

    def _round(self, now: float) -> bool:
        """Do what is to be done now; return whether there is more."""
        self._check_outbox()
        if not self._is_ready:
            self._recover()
            self._is_ready = True
            self.thumbnails.start()
            notify("READY=1")
        self._show_settings_problem()
        if self.pool.finish_batches(self.settings_watch.new is not None):
            self._start_over_with_new_settings()
        more = False
        if self.inbox.is_there():
            self.inbox.look(now)
        with self.pool.nothing_is_claimed():  # a command may cancel what is accepted here
            if self.inbox.folder:
                more = self.accepting.take(now)
            if self.control.run_all():
                self.reporting.hurry()
        self._update_pool(more)  # so engines have work while the steps below wait for a disk
        self.finishing.finish_all()
        self.finishing.list_failures()
        self.pool.publisher.list_published()
        self._tidy_up(now)
        return more

    def _show_settings_problem(self) -> None:
        watch = self.settings_watch
        if self.outbox.problems.show_settings_error(watch.error_text) and watch.problem:
            log.error("%s The settings stay as they were.", watch.problem)

    def _start_over_with_new_settings(self) -> None:
        self.result.cannot_go_on(self.settings_watch.news, restart=True)
        raise Ended

    def _check_outbox(self) -> None:
        """Raise FolderAway if the outbox is away; end the run if it or the ledger was replaced."""
        if not self.lock.is_in_place():
            if not self.lock.is_replaced():
                raise FolderAway(self.outbox.root)
            words = f"the outbox {self.outbox.root} was replaced, or its .picowatch deleted"
            self.result.cannot_go_on(words, restart=True)
            raise Ended
        if not self.ledger.is_in_place():
            self.result.cannot_go_on("the ledger was deleted or replaced", restart=True)
            raise Ended

    def _update_pool(self, more: bool) -> None:
        if more:
            self.pool.wake()
        if self.pool.may_start(not (more or len(self.inbox) or self.accepting.is_busy())):
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
        if len(self.inbox) or self.accepting.is_busy() or outstanding.todo(self.ledger):
            return False
        if time.monotonic() < self._retry_at:
            return False
        if outstanding.unlisted(self.ledger) or outstanding.unlisted_failures(self.ledger):
            return False
        queued = questions.queued(self.ledger, self.mode.only)
        self.result.kept_waiting = queued if control.is_paused(self.ledger) else 0
        return queued == self.result.kept_waiting and not questions.counts(self.ledger)["running"]

    def _rest(self) -> float:
        """Seconds until there may be something to do."""
        rest = WORKING_SECONDS if self.pool.renderings() else IDLE_SECONDS
        ready_in = self.inbox.ready_in(time.monotonic())
        return rest if ready_in is None or not self.inbox.folder else min(rest, max(ready_in, 0.01))

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
