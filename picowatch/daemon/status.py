"""The status: gathered from the daemon's parts, shown on the console, written to files."""

import logging
import os
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice

from picowatch.daemon.pool import WorkerPool
from picowatch.daemon.run import Run
from picowatch.daemon.settings_file import SettingsWatch
from picowatch.daemon.worker import Worker
from picowatch.errors import LedgerCorrupt
from picowatch.files.names import is_picture_name
from picowatch.files.retry import PASSING
from picowatch.inbox.inbox import Inbox
from picowatch.observers.console import Console
from picowatch.outbox.status import EngineStatus, FolderStatus, Status, images_wait
from picowatch.service import notify

log = logging.getLogger("picowatch")

STATES = ("queued", "running", "done", "failed", "cancelled")
REPORT_SECONDS = 0.5  # between reports while something changes
HEARTBEAT_SECONDS = 5.0  # … while nothing does, or if counting takes long
ERRORS_KEPT = 5  # in the status
NAMED = 10  # queued recipes in the status
# Counting queued images costs more the more there are; it rests this many times as long.
COUNTING_REST = 20


class Reporting:
    """Shows the state to people and programs; what cannot be read or written is tried again."""

    def __init__(
        self,
        run: Run,
        console: Console,
        inbox: Inbox,
        pool: WorkerPool,
        settings_watch: SettingsWatch,
    ) -> None:
        self.run, self.ledger, self.outbox = run, run.ledger, run.outbox
        self.console, self.inbox, self.pool = console, inbox, pool
        self.settings_watch = settings_watch
        self._report_at = self._written_at = float("-inf")
        now = time.time()
        self._known = Status(updated=now, started=now, images=dict.fromkeys(STATES, 0))
        self._written: tuple[object, ...] = ()  # what the written status was made from

    def hurry(self) -> None:
        """Write the next status at once: somebody gave a command, and looks."""
        self._report_at = float("-inf")

    def report(self) -> None:
        """Show the state of things, if the last time is some time ago; write it if it is new."""
        began = time.monotonic()
        if began < self._report_at:
            return
        trouble = self.run.retry.trouble or self.pool.trouble
        problems = self.settings_watch.problem, self.outbox.problems.changes
        made_from = self.ledger.changes, trouble, problems
        is_new = made_from != self._written or bool(self.pool.renderings())
        status = self._status(is_new)
        self.console.show(status)
        self.run.observers.status(status)
        if is_new or began - self._written_at >= HEARTBEAT_SECONDS:
            self._written, self._written_at = made_from, began
            notify("WATCHDOG=1", f"STATUS={status.line()}")
            try:
                self.outbox.status.write(status)
            except OSError as error:
                log.debug("status not written: %s", error)
        rest = COUNTING_REST * (time.monotonic() - began)
        self._report_at = began + min(max(REPORT_SECONDS, rest), HEARTBEAT_SECONDS)

    def report_end(self) -> None:
        """Write the last status, and log what stays queued."""
        status = self._status(is_new=True)
        self.run.observers.status(status)
        with suppress(OSError):
            self.outbox.status.write(replace(status, ended=True))
        queued = status.images["queued"]
        if queued and not status.paused:
            log.info("%s for the next start", images_wait(queued))

    def _status(self, is_new: bool) -> Status:
        """Return the status now, with what the ledger said last unless that is new and readable."""
        if is_new:
            with suppress(*PASSING, LedgerCorrupt):
                self._known = self._by_ledger()
        root = self.outbox.root
        newest = tuple(self.pool.publisher.newest)  # a copy: pictures are added meanwhile
        there = (one for one in newest if os.path.isfile(root / one))  # noqa: PTH113 (never raises)
        return replace(
            self._known,
            updated=time.time(),
            pictures=tuple(there),
            engines=tuple(map(_engine_status, self.pool.workers)),
            inbox=str(self.inbox.path),
            scanned=time.time() - (time.monotonic() - self.inbox.scanned_at),
            trouble=self.run.retry.trouble or self.pool.trouble,
        )

    def _by_ledger(self) -> Status:
        counts = self.ledger.counts()
        errors, error_count, refused = self.ledger.problems(ERRORS_KEPT)
        if problem := self.settings_watch.problem:
            errors, error_count = [*errors, problem][-ERRORS_KEPT:], error_count + 1
        waiting: Counter[str] = Counter()
        for recipe, count in self.ledger.queued_recipes():
            waiting[self._name_of(recipe)] += count
        status = Status(
            updated=time.time(),
            started=self._known.started,
            images=dict(counts),
            paused=self.ledger.is_paused(),
            waiting=tuple(islice(waiting.items(), NAMED)),
            waiting_recipes=len(waiting),
            errors=tuple(errors),
            error_count=error_count,
            refused=refused,
        )
        if not (counts["queued"] or counts["running"]):
            return status
        folders = self._look_up_folders(waiting)
        shown = tuple(self._folder_status(name, folders[name]) for name in [*folders][:NAMED])
        seconds = self.pool.seconds_left(self.ledger.queued_kinds())
        status = replace(status, all_seconds_left=_rounded(seconds), folders=shown)
        return self._with_progress(status, folders)

    def _name_of(self, recipe: str) -> str:
        """Return the recipe, or for a dropped picture the folder of its template."""
        return self.inbox.template_folder(recipe) if is_picture_name(recipe) else recipe

    def _look_up_folders(self, queued: Iterable[str]) -> "dict[str, _Requested]":
        """Return the folders with images to render, in the order of the queue."""
        found: dict[str, _Requested] = {}
        for folder, state, kind, count in self.ledger.requested_by_dropped():
            one = found.setdefault(self.inbox.template_folder(folder), _Requested())
            one.add(state, kind, count)
        waiting = [name for name in queued if name in found]
        running = [name for name, one in found.items() if one.images["running"]]
        return {name: found[name] for name in (*running, *waiting)}

    def _folder_status(self, name: str, one: "_Requested") -> FolderStatus:
        seconds = self.pool.seconds_left(one.queued, lambda recipe: self._name_of(recipe) == name)
        failed = one.images["failed"]
        return FolderStatus(
            folder=name,
            done=one.images["done"] + failed,
            of=one.total,
            failed=failed,
            seconds_left=_rounded(seconds),
        )

    def _with_progress(self, status: Status, folders: "dict[str, _Requested]") -> Status:
        """Add what is being rendered. Pictures being published count as neither that nor queued."""
        renderings = self.pool.renderings()
        if not renderings:
            return status
        one = renderings[0]
        recipe = self.ledger.recipe_of(one.first)
        folder = folders.get(self._name_of(recipe)) if is_picture_name(recipe) else None
        requested = folder or _Requested()
        if not folder:
            for images in self.ledger.requested(recipe):
                requested.add(*images)
        if not requested.total:  # nobody requests it any more: it is stopped
            return status
        own = self._name_of(one.first.recipe)

        def is_own(other: str) -> bool:
            return self._name_of(other) == own

        in_progress = sum(is_own(image.recipe) for each in renderings for image in each.batch)
        last = max(1, requested.total - requested.images["queued"])
        return replace(
            status,
            recipe=recipe,
            folder=self._name_of(recipe) if folder else "",
            image=max(1, last - max(1, in_progress) + 1),
            last_image=last,
            of=requested.total,
            step=one.step,
            steps=one.steps,
            steps_per_second=one.steps_per_second,
            loading=one.loading,
            seconds_left=_rounded(self.pool.seconds_left(requested.queued, is_own)),
        )


@dataclass(slots=True)
class _Requested:
    """The images that a recipe requests, or all pictures of a template."""

    images: Counter[str] = field(default_factory=Counter)  # by state
    queued: list[tuple[str, int]] = field(default_factory=list)  # kinds, and how many of each

    def add(self, state: str, kind: str, count: int) -> None:
        self.images[state] += count
        if state == "queued":
            self.queued.append((kind, count))

    @property
    def total(self) -> int:
        return self.images.total() - self.images["cancelled"]


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def _engine_status(worker: Worker) -> EngineStatus:
    memory, now = worker.memory, worker.rendering
    return EngineStatus(
        number=worker.number,
        node=worker.node,
        device=worker.device,
        precision=worker.precision,
        checkpoint=worker.checkpoint_name,
        recipe=now.first.recipe if now else "",
        images=worker.rendered,
        batch=len(now.batch) if now else 0,
        steps_per_second=now.steps_per_second if now else 0.0,
        memory_bytes=memory.now if memory else None,
        memory_peak_bytes=memory.peak if memory else None,
        trouble=worker.trouble,
    )
