"""What a start finds: a ledger that may be damaged or gone, and what a crash left undone.

A lost ledger is rebuilt from the pictures in the outbox; see docs/durability.md for the rest.
"""

import json
import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from picowatch.daemon.attempts import safely
from picowatch.daemon.backlog import Backlog
from picowatch.daemon.control import Control
from picowatch.daemon.intake import Intake
from picowatch.daemon.reporting import RecentErrors
from picowatch.errors import LedgerCorrupt, PictureUnreadable
from picowatch.files.atomic import check_in_place
from picowatch.files.picture_names import is_picture_name, names_of_dropped
from picowatch.files.retry import Retry
from picowatch.inbox.inbox import Inbox
from picowatch.ledger.database import quarantine
from picowatch.ledger.ledger import PAUSED, Ledger
from picowatch.ledger.restore import ExistingPicture, ExistingSheet
from picowatch.ledger.rows import QueuedImage
from picowatch.metadata import PICOWATCH, read_chunk
from picowatch.outbox.encoding import SHEET_KEYWORD
from picowatch.outbox.listing import request_of
from picowatch.outbox.memos import Recalled
from picowatch.outbox.outbox import Outbox
from picowatch.recipe.request import ImageRequest
from picowatch.work.pool import WorkerPool

log = logging.getLogger("picowatch")

MAX_DAEMON_DEATHS = 5  # in a row, with the same image in progress


def open_ledger(
    path: Path, outbox: Outbox, *, check: bool, go_on: Callable[[], None] = lambda: None
) -> Ledger:
    """The ledger, ready for use; `check`: read it whole first, as after a crash.

    `go_on` is called between two pictures that it is rebuilt from; what it raises ends that.

    Raises LedgerUnusable, or sqlite3.OperationalError while it is locked or the disk is full.
    """
    with ExitStack() as failed:  # each try opens it anew
        try:
            ledger = _sound(path, outbox, failed, check=check)
        except LedgerCorrupt as error:
            failed.close()
            set_aside(path, str(error))
            ledger = _opened(path, failed)
        if ledger.wants_restoring():
            _restore(ledger, outbox, go_on)
        failed.pop_all()
    return ledger


def _opened(path: Path, failed: ExitStack, *, check: bool = False) -> Ledger:
    """A ledger that is closed if opening it fails later."""
    ledger = Ledger(path, check=check)
    failed.callback(ledger.close)
    return ledger


def _sound(path: Path, outbox: Outbox, failed: ExitStack, *, check: bool) -> Ledger:
    """The ledger as it is; raises LedgerCorrupt, also for one that is older than the pictures."""
    ledger = _opened(path, failed, check=check)
    if file := _unknown_picture(ledger, outbox):
        raise LedgerCorrupt(
            f"The ledger {path} is older than the pictures, as from a backup: {file} was "
            "rendered after it."
        )
    return ledger


def _unknown_picture(ledger: Ledger, outbox: Outbox) -> str | None:
    """The newest listed picture, if an older ledger would still render it, or never heard of it.

    Each picture is listed after the ledger started it, and nothing takes it out of the ledger. One
    that was deleted and is requested again says nothing.
    """
    if ledger.wants_restoring():
        return None
    for line in reversed(outbox.listing.recent()):
        with suppress(KeyError, TypeError, ValueError):  # not a line of ours
            request_of(line)
            file, digest = str(line["file"]), str(line["digest"])
            if ledger.has_started(file, digest):
                return None
            if outbox.exists(file) or not ledger.has_request(digest):
                return file
    return None


def set_aside(path: Path, damage: str) -> None:
    """Keep a damaged ledger under another name, so that it can be examined."""
    kept = quarantine(path, datetime.now().strftime("%Y%m%d-%H%M%S"))
    log.error("%s It is kept as %s; a new one is built from the pictures.", damage, kept.name)


def _restore(ledger: Ledger, outbox: Outbox, go_on: Callable[[], None]) -> None:
    outbox.problems.remove_all_but(())  # what is still wrong is reported again
    memos = outbox.memos.recall()
    with ledger.transaction():
        if memos.paused:
            ledger.remember(PAUSED, "yes")
        restored = ledger.restore(_existing(outbox, memos, go_on), memos.cancelled)
    if restored:
        log.warning("%s pictures of the outbox are in the new ledger", restored)


def _existing(
    outbox: Outbox, memos: Recalled, go_on: Callable[[], None]
) -> Iterator[ExistingPicture | ExistingSheet]:
    """Every picture and sheet that is there, newest last, then those that users deleted or edited.

    The list is read twice, because its lines need far more memory than their numbers.
    """
    unseen: dict[str, int] = {}  # listed files that were not found yet, with their last lines
    for number, line in enumerate(outbox.listing.all()):
        go_on()
        unseen[line["file"]] = number
    for file, written_at, texts in outbox.pictures():
        go_on()
        if SHEET_KEYWORD in texts:
            yield from _sheets(file, texts[SHEET_KEYWORD], memos)
        elif PICOWATCH in texts:
            listed = unseen.pop(file, None) is not None
            yield from _picture(outbox, file, written_at, texts[PICOWATCH], memos, listed=listed)
    for number, line in enumerate(outbox.listing.all()):
        go_on()
        if unseen.get(line["file"]) == number:
            yield from _deleted(outbox, line, memos)


def _picture(
    outbox: Outbox, file: str, written_at: float, text: str, memos: Recalled, *, listed: bool
) -> Iterator[ExistingPicture]:
    try:
        chunk = read_chunk(text)
    except PictureUnreadable as error:
        log.warning("%s is not in the new ledger: %s", file, error)
        return
    name = memos.name_now(chunk.recipe, chunk.save_digest)
    yield ExistingPicture(
        file=file,
        number=outbox.names.number_of(file, chunk.recipe, chunk.request),
        recipe=name,
        request=_as_named(chunk.request, chunk.recipe, name),
        save_digest=chunk.save_digest,
        entry_index=chunk.entry_index,
        image_index=chunk.image_index,
        written_at=written_at,
        listed=listed,
    )


def _deleted(outbox: Outbox, line: dict[str, Any], memos: Recalled) -> Iterator[ExistingPicture]:
    """A picture that only the list knows: it was rendered, and is not to be rendered again."""
    with suppress(KeyError, TypeError, ValueError):  # not a line of ours
        name, request = memos.name_now(line["recipe"], line["save_digest"]), request_of(line)
        yield ExistingPicture(
            file=line["file"],
            number=outbox.names.number_of(line["file"], line["recipe"], request),
            recipe=name,
            request=_as_named(request, line["recipe"], name),
            save_digest=line["save_digest"],
            entry_index=line["entry_index"],
            image_index=line["image_index"],
            written_at=0.0,
            listed=True,
        )


def _as_named(request: ImageRequest, old: str, new: str) -> ImageRequest:
    """The request of a recipe that was renamed: that of a dropped picture names itself."""
    return request.with_names(names_of_dropped(old, new)) if is_picture_name(old) else request


def _sheets(file: str, text: str, memos: Recalled) -> Iterator[ExistingSheet]:
    """A contact sheet, for each name that its recipe had: its pictures decide whose it is."""
    try:
        shown = json.loads(text)
        recipe = str(shown["recipe"])
        pictures = tuple(picture for picture in shown["files"] if picture)
    except (KeyError, TypeError, ValueError):
        return  # not a sheet of ours
    for name in {recipe, memos.newest_name(recipe)}:
        yield ExistingSheet(file, name, pictures)


@dataclass(eq=False)
class Recovery:
    """Finishes what the last daemon left undone, before anything else begins.

    `after_crash`: the last daemon was killed, or left something undone.
    """

    inbox: Inbox
    ledger: Ledger
    outbox: Outbox
    backlog: Backlog
    pool: WorkerPool
    intake: Intake
    control: Control
    errors: RecentErrors
    retry: Retry
    go_on: Callable[[], None]
    after_crash: bool

    def __post_init__(self) -> None:
        self.is_done = not self.after_crash

    def run(self) -> None:
        """Do it all; what cannot be written is waited for."""
        if self.after_crash:
            log.warning(
                "picowatch was killed or stopped in the middle of something; what it left "
                "unfinished is being repaired"
            )
        self.retry.until_begun(self._recover)
        self.is_done = True
        self.retry.until_done("daemon", partial(safely, self._note_errors))
        self.retry.until_done("daemon", self.intake.watch_awaited_pictures)
        if self.after_crash:
            safely(self.intake.answer_again_without_error)

    def _note_errors(self) -> None:
        """What was wrong still is: the status says so as before."""
        for recipe in self.ledger.rejected_recipes():
            self.go_on()
            if text := self.outbox.problems.error(recipe):
                self.errors.note(recipe, _in_a_line(text))
        for recipe in self.ledger.recipes_with_failures():
            if self.ledger.is_valid(recipe):
                self.errors.note(recipe, f"{recipe}: {self.ledger.failures(recipe)[-1][1]}")

    def _recover(self) -> None:
        """May be done again."""
        if self.after_crash:
            self._tidy_up()
        self.control.restore_pause()
        for image in self.ledger.running():
            self.go_on()
            self._decide(image)
        safely(self.intake.tidy_up)
        finished = self.backlog.finished
        finished.extend(self.ledger.recipes_with_sheets_due())
        finished.extend(self.ledger.recipes_missing_pictures())
        if self.after_crash:
            finished.extend(self.ledger.accepted_recipes())
        self._list_published()

    def _tidy_up(self) -> None:
        """Files that a crash left half-written, or without the answer that they belong to."""
        safely(partial(self.outbox.remove_leftovers, self.go_on))
        safely(self.outbox.repair_latest)
        safely(self.inbox.recover)
        known = self.ledger.known_recipes()
        safely(partial(self.outbox.problems.remove_all_but, known))

    def _decide(self, image: QueuedImage) -> None:
        """What becomes of an image that was in progress when the last daemon died."""
        if self.outbox.holds(image.file, image.digest):
            self.outbox.complete(image.file)
            self.ledger.finish(image.id)
        elif image.deaths + 1 >= MAX_DAEMON_DEATHS:
            reason = f"picowatch died {MAX_DAEMON_DEATHS} times in a row while rendering it."
            self.ledger.fail(image.id, reason)
            log.error("%s: seed %s set aside: %s", image.recipe, image.request.seed, reason)
            self.backlog.finished.append(image.recipe)
        else:
            self.ledger.retry_after_daemon_death(image.id)
            log.info("%s: seed %s queued again", image.recipe, image.request.seed)

    def _list_published(self) -> None:
        """Pictures that are published, but in no list yet; users may have deleted them since."""
        enlisted = self.outbox.listing.recent_files()
        for image in self.ledger.unlisted():
            self.go_on()
            safely(partial(self._list, image, enlisted))

    def _list(self, image: QueuedImage, enlisted: Collection[str]) -> None:
        """Add it to the lists, unless it is in them or deleted."""
        if image.file not in enlisted and self.outbox.exists(image.file):
            self.pool.publisher.add_to_lists(image)
        else:
            check_in_place(self.outbox.root / image.file)  # else it is not deleted, but away
            self.ledger.mark_listed(image.id)


def _in_a_line(error: str) -> str:
    """Where the first mistake of an error file is, and what; without the line that it quotes."""
    place, *others = error.splitlines()
    words = next((line for line in others if line and not line.startswith("    ")), "")
    return f"{place}: {words}"
