"""The status: gathered from the daemon's parts, shown on the console, written to files."""

import logging
import os
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from itertools import islice

from picowatch.daemon.commands import Control
from picowatch.daemon.durations import Left, Rendering
from picowatch.daemon.pool import WorkerPool
from picowatch.daemon.run import Run
from picowatch.daemon.worker import Worker
from picowatch.errors import LedgerCorrupt
from picowatch.files.attempt import PASSING
from picowatch.files.names import is_picture_name
from picowatch.inbox.names import ENDINGS
from picowatch.ledger import control, questions, queue
from picowatch.outbox.status import EngineStatus, FolderStatus, Status, images_wait
from picowatch.service import notify

log = logging.getLogger("picowatch")

STATES = ("queued", "running", "done", "failed", "cancelled")
REPORT_SECONDS = 0.5  # between reports while something changes
HEARTBEAT_SECONDS = 5.0  # … while nothing does, or if counting takes long
ERRORS_KEPT = 5  # in the status
IGNORED = 20  # files in the status
NAMED = 10  # queued recipes in the status
# Counting queued images costs more the more there are; it rests this many times as long.
COUNTING_REST = 20


class Reporting:
    """Shows the state to people and programs; what cannot be read or written is tried again."""

    def __init__(self, run: Run, pool: WorkerPool, control: Control) -> None:
        self.run, self.ledger, self.inbox = run, run.ledger, run.inbox
        self.pool, self.control = pool, control
        self._report_at = self._written_at = float("-inf")
        now = time.time()
        self._known = Status(updated=now, started=now, images=dict.fromkeys(STATES, 0))
        self._written: tuple[object, ...] = ()  # what the written status was made from

    def hurry(self) -> None:
        """Write the next status at once: somebody gave a command, and looks."""
        self._report_at = float("-inf")

    def report(self) -> None:
        """Show and write the state of things if it is new, or the last time is some time ago."""
        began = time.monotonic()
        if began < self._report_at:
            return
        trouble = self.run.attempts.trouble or self.pool.trouble
        problems = self.run.watch.problem, self.run.outbox.problems.changes
        made_from = self.ledger.changes, trouble, problems, self.inbox.skipped
        is_new = made_from != self._written or bool(self.pool.renderings())
        if not is_new and began - self._written_at < HEARTBEAT_SECONDS:
            return
        self._written, self._written_at = made_from, began
        status = self._status(is_new)
        self.run.console.show(status)
        self.run.observers.status(status)
        notify("WATCHDOG=1", f"STATUS={status.line()}")
        try:
            self.run.outbox.status.write(status)
        except OSError as error:
            log.debug("status not written: %s", error)
        rest = COUNTING_REST * (time.monotonic() - began)
        self._report_at = began + min(max(REPORT_SECONDS, rest), HEARTBEAT_SECONDS)

    def report_end(self) -> None:
        """Write the last status, and log what stays queued."""
        status = self._status(is_new=True)
        self.run.observers.status(status)
        with suppress(OSError):
            self.run.outbox.status.write(replace(status, ended=True))
        queued = status.images["queued"]
        if queued and not status.paused:
            log.info("%s for the next start", images_wait(queued))

    def _status(self, is_new: bool) -> Status:
        """Return the status now, with what the ledger said last unless that is new and readable."""
        if is_new:
            with suppress(*PASSING, LedgerCorrupt):
                self._known = self._by_ledger()
        root = self.run.outbox.root
        newest = tuple(self.pool.publisher.newest)  # a copy: pictures are added meanwhile
        there = (one for one in newest if os.path.isfile(root / one))  # noqa: PTH113 (never raises)
        return replace(
            self._known,
            updated=time.time(),
            pictures=tuple(there),
            engines=tuple(map(_engine_status, self.pool.workers)),
            ignored=tuple(islice(sorted(self.inbox.skipped.items()), IGNORED)),
            ignored_count=len(self.inbox.skipped),
            inbox=str(self.inbox.path),
            scanned=time.time() - (time.monotonic() - self.inbox.scanned_at),
            trouble=self.run.attempts.trouble or self.pool.trouble,
        )

    def _by_ledger(self) -> Status:
        counts = questions.counts(self.ledger)
        errors, error_count, refused = questions.problems(self.ledger, ERRORS_KEPT)
        others = [*self.run.attempts.waiting, *filter(None, [self.run.watch.line])]
        errors, error_count = [*errors, *others][-ERRORS_KEPT:], error_count + len(others)
        waiting: _Waiting = Counter()
        names: Counter[str] = Counter()
        for recipe, kind, count in questions.queued_recipes(self.ledger):
            name = self._name_of(recipe)
            waiting[name, kind] += count
            names[name] += count
        left = self._left(waiting)
        status = Status(
            updated=time.time(),
            started=self._known.started,
            images=dict(counts),
            paused=control.is_paused(self.ledger),
            waiting=tuple(islice(names.items(), NAMED)),
            waiting_recipes=len(names),
            all_seconds_left=left.seconds,
            all_is_rough=left.is_rough,
            errors=tuple(errors),
            error_count=error_count,
            refused=refused,
        )
        return self._with_progress(status, waiting)

    def _name_of(self, recipe: str) -> str:
        """Return the folder that `make` is rendering, a picture's template's, or the recipe."""
        for folder in self.control.folders:
            if _is_in(folder, recipe):
                return folder
        return self.inbox.template_folder(recipe) if is_picture_name(recipe) else recipe

    def _renderings(self) -> list[Rendering]:
        """Return the batches in progress, but for those that stop as nobody requests them."""
        return [now for now in self.pool.renderings() if queue.are_running(self.ledger, now.batch)]

    def _left(self, waiting: "_Waiting", name: str = "") -> Left:
        """Return how long everything queued and in progress takes, or this recipe or folder."""
        renderings = self._renderings()
        images: dict[str, float] = {}
        for (one, kind), count in waiting.items():
            if not name or _is_in(name, one):
                images[kind] = images.get(kind, 0) + count
        for now in renderings:
            if not name or any(_is_in(name, self._name_of(image.recipe)) for image in now.batch):
                images[now.kind] = images.get(now.kind, 0) + now.images_left
        return self.pool.durations.left(images, len(renderings))

    def _with_progress(self, status: Status, waiting: "_Waiting") -> Status:
        """Add what is being rendered, and the folders with images to render.

        Pictures being published count as neither rendered nor queued.
        """
        renderings = self._renderings()
        running = [queue.recipe_of(self.ledger, one.batch[0]) for one in renderings]
        names = dict.fromkeys([*map(self._name_of, running), *(name for name, _ in waiting)])
        folders = [name for name in names if not name.lower().endswith(ENDINGS)][:NAMED]
        shown = (self._folder_status(folder, waiting) for folder in folders)
        status = replace(status, folders=tuple(one for one in shown if one.of))
        requested = questions.requested(self.ledger, next(iter(names))) if running else Counter()
        del requested["cancelled"]
        if not requested:
            return status
        now, name = renderings[0], next(iter(names))
        in_progress = sum(
            _is_in(name, self._name_of(image.recipe)) for one in renderings for image in one.batch
        )
        last = max(1, requested.total() - requested["queued"])
        left = self._left(waiting, name)
        return replace(
            status,
            recipe=running[0],
            folder="" if name == running[0] else name,
            image=max(1, last - max(1, in_progress) + 1),
            last_image=last,
            of=requested.total(),
            step=now.step,
            steps=now.steps,
            steps_per_second=now.steps_per_second,
            loading=now.loading,
            seconds_left=left.seconds,
            is_rough=left.is_rough,
        )

    def _folder_status(self, folder: str, waiting: "_Waiting") -> FolderStatus:
        images, left = questions.requested(self.ledger, folder), self._left(waiting, folder)
        return FolderStatus(
            folder=folder,
            done=images["done"] + images["failed"],
            of=images.total() - images["cancelled"],
            failed=images["failed"],
            seconds_left=left.seconds,
            is_rough=left.is_rough,
        )


# How many images are queued, by recipe or folder and by kind, in the queue's order.
_Waiting = Counter[tuple[str, str]]


def _is_in(folder: str, name: str) -> bool:
    """Whether a recipe or folder is this one, or lies in it."""
    return name == folder or name.startswith(f"{folder}/")


def _engine_status(worker: Worker) -> EngineStatus:
    memory, now = worker.memory, worker.rendering
    return EngineStatus(
        number=worker.number,
        node=worker.node,
        device=worker.device,
        precision=worker.precision,
        checkpoint=worker.checkpoint_name,
        recipe=now.batch[0].recipe if now else "",
        images=worker.rendered,
        batch=len(now.batch) if now else 0,
        steps_per_second=now.steps_per_second if now else 0.0,
        memory_bytes=memory.now if memory else None,
        memory_peak_bytes=memory.peak if memory else None,
        trouble=worker.trouble,
    )
