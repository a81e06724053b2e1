"""The status: gathered from the daemon's parts, shown on the console, written to files."""

import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from itertools import chain, islice
from math import inf, log2
from typing import Any, NamedTuple

from picowatch.daemon.clock import Estimate, Rates, Shares, Work, work_of
from picowatch.daemon.commands import Control
from picowatch.daemon.pool import WorkerPool
from picowatch.daemon.rendering import Rendering, is_copy, time_left
from picowatch.daemon.run import Run, uptime
from picowatch.daemon.worker import Worker
from picowatch.errors import LedgerCorrupt
from picowatch.files.essential import PASSING
from picowatch.files.names import is_picture_name
from picowatch.inbox.names import ENDINGS, folders_above
from picowatch.ledger import control, queries, queue
from picowatch.outbox.status import EngineStatus, FolderStatus, Status, images_wait, no_room
from picowatch.service import notify

log = logging.getLogger("picowatch")

REPORT_SECONDS = 0.5  # between reports while something changes
HEARTBEAT_SECONDS = 5.0  # … while nothing does, or if writing takes long
ERRORS_KEPT = 5  # in the status
IGNORED = 500  # files in the status
NAMED = 10  # queued recipes in the status
NEW_KINDS = 200  # of queued images whose requests are read for a status
FINE_STEPS = 4  # of images' pixels from one power of two to the next
WRITING_REST = 20  # times as long as the last report took
COUNTING_REST = 50  # … as counting took, which costs more the more images there are


class Reporting:
    """Shows the state to people and programs; what cannot be read is tried again."""

    def __init__(self, run: Run, pool: WorkerPool, control: Control) -> None:
        self.run, self.ledger, self.inbox = run, run.ledger, run.inbox
        self.pool, self.control = pool, control
        self._report_at = self._written_at = self._count_at = float("-inf")
        self._known = Status(updated=0.0, started=0.0)
        self._counted: tuple[object, ...] = ()  # what the known status was made from
        self._works: dict[tuple[str, int], Work] = {}  # of queued images, by what they are alike in
        self._shares = Shares()
        self.busy: frozenset[str] = frozenset()  # folders with images to render, and those above

    def hurry(self) -> None:
        """Write the next status at once: somebody gave a command, and looks."""
        self._report_at = self._count_at = float("-inf")

    def report(self) -> None:
        """Show and write the state of things if it is new, or the last time is some time ago."""
        began = time.monotonic()
        if began < self._report_at:
            return
        trouble = self.run.writing.trouble or self.pool.trouble, *self._refused()
        problems = self.run.watch.problem, self.run.outbox.problems.changes
        made_from = self.ledger.changes, trouble, problems, self.inbox.skipped
        is_new = made_from != self._counted or bool(self.pool.renderings())
        if not is_new and began - self._written_at < HEARTBEAT_SECONDS:
            return
        self._written_at = began
        if is_new and began >= self._count_at:
            self._count(made_from)
        status = self._status()
        self.run.console.show(status)
        self.run.observers.status(status)
        notify("WATCHDOG=1", f"STATUS={status.line()}")
        self.run.outbox.status.write(status)
        rest = WRITING_REST * (time.monotonic() - began)
        self._report_at = began + min(max(REPORT_SECONDS, rest), HEARTBEAT_SECONDS)

    def report_end(self) -> None:
        """Write the last status, and log what stays queued."""
        self._count(())
        status = self._status()
        self.run.observers.status(status)
        self.run.outbox.status.write(replace(status, ended=True))
        queued = status.images["queued"]
        if queued and not status.paused:
            log.info("%s for the next start", images_wait(queued))

    def _count(self, made_from: tuple[object, ...]) -> None:
        """Ask the ledger; if it cannot be read, what it said last stays."""
        began = time.thread_time()  # without waiting for the ledger's lock or disk
        with suppress(*PASSING, LedgerCorrupt):
            self._known, self._counted = self._by_ledger(), made_from
        took = time.thread_time() - began
        self._count_at = time.monotonic() + COUNTING_REST * took

    def _status(self) -> Status:
        """Return the status now, with what the ledger said last."""
        root = self.run.outbox.root
        newest = tuple(self.pool.publisher.newest)  # a copy: pictures are added meanwhile
        there = (file for file in newest if os.path.isfile(root / file))  # noqa: PTH113 (never raises)
        now, ago = time.time(), time.monotonic() - self.inbox.scanned_at
        progress: dict[str, Any] = {}  # of the first batch
        if self._known.recipe and (renderings := self.pool.renderings()):
            first, at = renderings[0], renderings[0].reported
            progress = {"phase": at.phase, "step": at.step, "steps": at.steps}
            progress |= {"steps_per_second": first.steps_per_second, "loading": first.loading}
        return replace(
            self._known,
            updated=now,
            started=round(now - (uptime() - self.run.began), 0),  # steady: two clocks are read
            pictures=tuple(there),
            engines=tuple(map(_engine_status, self.pool.workers)),
            ignored=tuple(islice(sorted(self.inbox.skipped.items()), IGNORED)),
            ignored_count=len(self.inbox.skipped),
            inbox=str(self.inbox.files.root),
            models=str(self.run.watch.settings.models),
            settings=self.run.watch.settings.file,
            scanned=now - ago if ago < inf else None,
            trouble=self.run.writing.trouble or self.pool.trouble,
            troubles=self._troubles(),
            shares=dict(self.pool.shares),
            last=self.run.result.last.partition("  ")[2],
            **progress,
        )

    def _troubles(self) -> dict[str, str]:
        """Return what is in trouble and why, also what nobody waits for now."""
        inbox = self.inbox
        stuck = next((now.trouble for now in self.pool.renderings() if now.trouble), "")
        found = {
            "outbox": self.run.writing.trouble or no_room(self.run.outbox.root),
            "inbox": inbox.trouble and f"{inbox.files.root} {inbox.trouble}",
            "models": self.run.hashes.catalog.away(),
            "engine": self.pool.trouble or stuck,
            "paused": "until `picowatch resume`" if self._known.paused else "",
        }
        return {what: why for what, why in found.items() if why}

    def _by_ledger(self) -> Status:
        counts = queries.counts(self.ledger)
        errors, error_count, refused = queries.problems(self.ledger, ERRORS_KEPT)
        others = [*self._refused(), *filter(None, [self.run.watch.line])]
        errors, error_count = [*errors, *others][-ERRORS_KEPT:], error_count + len(others)
        renderings = self.pool.renderings()
        for now in renderings:
            now.recipes = queue.running_recipes(self.ledger, now.batch)
        renderings = [now for now in renderings if now.recipes]  # others stop: nobody requests them
        running = [now.recipe for now in renderings]
        names: dict[str, int] = {}
        works = {name: Counter[Work]() for name in ("", *map(self._name_of, running))}
        for recipe, work, count in self._queued():
            name = self._name_of(recipe)
            names[name] = names.get(name, 0) + count
            works[""][work] += count
            if name != recipe or name in works:
                works.setdefault(name, Counter())[work] += count
        self._shares.keep({*names, *works})
        busy = [name for name in {*names, *works} if name]
        of_pictures = (name for name in busy if not name.lower().endswith(ENDINGS))
        self.busy = frozenset(chain(of_pictures, *map(folders_above, busy)))
        shown = {key: rate for now in renderings for key, rate in now.rates.items()}
        rates = self.pool.clock.rates(shown, [now.device for now in renderings])
        counted = _Counted(works, renderings, rates)
        left = self._left(counted)
        status = Status(
            updated=0.0,
            started=0.0,
            images=dict(counts),
            paused=control.is_paused(self.ledger),
            waiting=tuple(islice(names.items(), NAMED)),
            waiting_recipes=len(names),
            all_seconds_left=left and left.seconds,
            all_about=bool(left and not left.is_measured),
            errors=tuple(errors),
            error_count=error_count,
            refused=refused,
        )
        return self._with_progress(status, counted, running)

    def _queued(self) -> Iterator[tuple[str, Work, int]]:
        """Yield recipes with the work of their queued images, and how many there are.

        Requests of images unlike those before are read, but only some in each count. Others are
        taken for images that are known, until a later count.
        """
        rows = queries.queued_recipes(self.ledger, self.pool.shares)
        step = cache(lambda pixels: round(FINE_STEPS * log2(pixels or 1)))  # a folder has few sizes
        keys = [(row[1], step(row[3])) for row in rows]
        known = {key: self._works[key] for key in keys if key in self._works}
        ids = {key: row[4] for key, row in zip(keys, rows, strict=True) if key not in known}
        some = dict(islice(ids.items(), NEW_KINDS))
        found = queries.requests(self.ledger, some.values())
        known |= {key: work_of(found[id_]) for key, id_ in some.items() if id_ in found}
        self._works, other = known, next(reversed(known.values()), ())
        for key, (recipe, _, count, *_) in zip(keys, rows, strict=True):
            yield recipe, known.get(key, other), count

    def _refused(self) -> list[str]:
        """Return what cannot be written, and holds up nothing else."""
        return [*self.run.writing.waiting, *self.run.writing.missing]

    def _name_of(self, recipe: str) -> str:
        """Return the folder that `make` is rendering, a picture's template's, or the recipe."""
        for folder in self.control.folders:
            if _is_in(folder, recipe):
                return folder
        return self.inbox.template_folder(recipe) if is_picture_name(recipe) else recipe

    def _is_of(self, now: Rendering, name: str) -> int:
        """Count the images of a batch in this recipe or folder."""
        return sum(_is_in(name, self._name_of(recipe)) for recipe in now.recipes.values())

    def _left(self, counted: "_Counted", name: str = "") -> Estimate | None:
        """Return what everything queued and in progress takes, or this recipe or folder."""
        batches = [now for now in counted.renderings if not name or self._is_of(now, name)]
        held = {hash_ for worker in self.pool.workers for hash_ in worker.loaded}
        works, found = counted.works_of(name), []
        for copies in (False, True):  # which are made at the same time
            its = {work: count for work, count in works.items() if is_copy(work) == copies}
            now = [batch for batch in batches if is_copy(batch.works[0]) == copies]
            engines = sum(is_copy(batch.works[0]) == copies for batch in counted.renderings)
            found.append(time_left(its, now, counted.rates, engines, held))
        return max(filter(None, found), default=None)

    def _with_progress(self, status: Status, counted: "_Counted", running: Sequence[str]) -> Status:
        """Add what is being rendered, and the folders with images to render."""
        names = list(filter(None, counted.works))
        folders = [name for name in names if not name.lower().endswith(ENDINGS)][:NAMED]
        shown = (self._progress_of(folder, counted)[0] for folder in folders)
        status = replace(status, folders=tuple(folder for folder in shown if folder.of))
        if not running:
            return status
        name = names[0]
        its, queued = self._progress_of(name, counted)
        if not its.of:
            return status
        in_progress = sum(self._is_of(now, name) for now in counted.renderings)
        last = max(1, its.of - queued)  # those being published are not queued
        return replace(
            status,
            recipe=running[0],
            folder="" if name == running[0] else name,
            image=max(1, last - max(1, in_progress) + 1),
            last_image=last,
            of=its.of,
            share=its.share,
            seconds_left=its.seconds_left,
            about=its.about,
        )

    def _progress_of(self, name: str, counted: "_Counted") -> tuple[FolderStatus, int]:
        """Return how far a recipe or folder is, and how many of its images are queued."""
        images = queries.requested(self.ledger, name)
        asked, ended = images.total() - images["cancelled"], images["done"] + images["failed"]
        works, loading = counted.works_of(name), 0.0
        seconds = counted.rates.images(works).seconds
        for now in counted.renderings:
            if count := self._is_of(now, name):
                loading += now.loading_left(counted.rates)
                seconds += now.left(counted.rates).seconds * count / len(now.batch)
                for image, work in zip(now.batch, now.works, strict=True):
                    works[work] += _is_in(name, self._name_of(now.recipes.get(image.id, "")))
        left = self._left(counted, name)
        status = FolderStatus(
            folder=name,
            done=ended,
            of=asked,
            failed=images["failed"],
            share=self._shares.share(name, asked, ended, works, seconds, loading, counted.rates),
            seconds_left=left and left.seconds,
            about=bool(left and not left.is_measured),
        )
        return status, images["queued"]


class _Counted(NamedTuple):
    """What is queued and in progress, and how long it takes."""

    # How many images of each work are queued: in all under "", then in the recipes and folders in
    # progress, and in all other folders, in the queue's order.
    works: dict[str, Counter[Work]]
    renderings: Sequence[Rendering]
    rates: Rates

    def works_of(self, name: str) -> Counter[Work]:
        """Return the queued works of a recipe or folder, or of all of them."""
        found: Counter[Work] = Counter()
        for recipe, works in self.works.items():
            if _is_in(name, recipe):
                found.update(works)
        return found


def _is_in(folder: str, name: str) -> bool:
    """Whether a recipe or folder is this folder, or lies in it."""
    return name == folder or name.startswith(f"{folder}/")


def _engine_status(worker: Worker) -> EngineStatus:
    memory, now = worker.memory, worker.rendering
    return EngineStatus(
        number=worker.number,
        node=worker.node,
        device=worker.device,
        precision=worker.precision,
        checkpoint=worker.checkpoint_name,
        recipe=now.recipe if now else "",
        images=worker.rendered,
        batch=len(now.batch) if now else 0,
        steps_per_second=now.steps_per_second if now else 0.0,
        memory_bytes=memory.now if memory else None,
        memory_peak_bytes=memory.peak if memory else None,
        trouble=worker.trouble or (now.trouble if now else ""),
    )
