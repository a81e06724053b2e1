"""Accepts each save by queueing its images, or refuses it with one readable error file."""

import logging
import secrets
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from picowatch.daemon.model_hashes import NotHashed
from picowatch.daemon.reader import Reader, Reading
from picowatch.daemon.run import SLICE_SECONDS, Run
from picowatch.daemon.save_outcome import (
    Asked,
    Event,
    Refused,
    SaveOutcome,
    SaveReader,
    accepted,
    refused,
    said,
    said_once,
)
from picowatch.files.essential import PASSING, RETRY_SECONDS, Ended
from picowatch.files.names import first_folder, is_picture_name
from picowatch.inbox.folder import FileChanged
from picowatch.inbox.names import PICTURES_NAME, is_dropped, is_template, sidecar_paths
from picowatch.inbox.read import Saved
from picowatch.inbox.settle import LACKED, TEMPLATE, Pending
from picowatch.ledger import accept, followups, queries
from picowatch.ledger.accept import QueueFull
from picowatch.ledger.rows import NEVER_READ, Acceptance, KnownRecipe, Save
from picowatch.outbox.status import images
from picowatch.recipe.converters import SEEDS

log = logging.getLogger("picowatch")

MOST_NAMES = 1000  # that are remembered after a renaming, for `make`


class Accepting:
    """Takes changes of the inbox to the ledger.

    An error file is written before the ledger commits, and that of a recipe that is valid now or
    gone is removed after it. So what was not committed is done again, unless the user undoes it.
    """

    def __init__(
        self, run: Run, saves: SaveReader, start_images: Path, max_queued: Mapping[str, int]
    ) -> None:
        self._run, self._inbox, self._waiting = run, run.inbox, run.inbox.waiting
        self._saves, self._start_images, self._max_queued = saves, start_images, max_queued
        self.reader = Reader(run.inbox, run.hashes, self._read, run.wake)
        self._folders: set[str] = set()  # at the inbox's first level, whose results have a folder
        self._changed: list[str] = []  # files of problems that the ledger does not know will go
        self._tried: set[str] = set()  # what lacked room when it was read again
        # Of one transaction: paths that are taken, with former names, and what the log says.
        self._taken: list[tuple[str, str, Saved | None]] = []
        self._events: list[Event] = []

    # -- in the reader's threads

    def _read(self, pending: Pending) -> Reading:
        saved = None
        try:
            saved = self._inbox.read(pending)
            if saved is None or (pending.digest and pending.digest == saved.digest):
                return Reading(pending, saved)
            return Reading(pending, saved, self._saves.outcome(saved))
        except (FileChanged, NotHashed, Ended, *PASSING) as error:
            return Reading(pending, error=error)
        except Exception as error:  # no single file may end the reading
            assert pending.size_and_time
            saved = saved or Saved(pending.path, "", pending.size_and_time, self._inbox.inbox_id)
            return Reading(pending, saved, refused(pending.path, error))

    # -- in the round

    def take(self, now: float) -> bool:
        """Accept or refuse some of the inbox's changes; return whether there were any."""
        self._clear_all()
        self.reader.offer(self._waiting.quiet(now))
        if not (readings := self.reader.results()):
            return False
        self._taken, self._events = [], []
        count, end = 0, time.monotonic() + SLICE_SECONDS
        try:
            with self._run.ledger.transaction():
                for count, reading in enumerate(readings, start=1):  # noqa: B007
                    self._take(reading, now)
                    if time.monotonic() >= end:
                        break
        except PASSING:  # none was committed
            self._changed += [reading.pending.path for reading in readings[:count]]
            raise
        self.reader.drop(readings[:count])
        names = self._run.new_names
        for path, old, saved in self._taken:
            self._inbox.taken(path, saved)
            self._run.to_count.update((path, old))
            names.pop(path, "")  # so none lead in a circle
            if old:
                names[old] = path
            if len(names) > MOST_NAMES:
                del names[next(iter(names))]
            self._changed += filter(None, (path, old))
        self._clear_all()
        for event in said_once(self._events):
            extra = {"event": event.event, "recipe": event.recipe, "code": event.code}
            log.log(event.level, "%s", event.text, extra=extra)
            if event.level == logging.ERROR:
                if event.recipe not in self._run.lacking_room:
                    self._run.result.count_failure()
                self._run.observers.failed(event.recipe)
        return bool(self._taken)

    def tries_again(self) -> bool:
        """Read again what lacked room, as the queue is empty; return whether any may have it."""
        lacking = self._run.lacking_room
        if lacking and lacking != self._tried:
            self._tried = {*lacking}
            self._inbox.want_reread()
            return True
        self._run.result.count_failure(len(lacking))  # what lacked it then, too
        lacking.clear()
        return False

    def _take(self, reading: Reading, now: float) -> None:
        pending, error = reading.pending, reading.error
        if not self._waiting.has(pending):
            return  # it has changed, and is read again
        take = partial(self._try_to_take, reading, now)
        try:
            if isinstance(error, FileChanged | FileNotFoundError):
                raise error
            if error:
                self._run.writing.refused(("save", pending.path), error, "alone")
            if error or not self._run.writing.alone("save", pending.path, take):
                self._waiting.read_again(pending, time.monotonic() + RETRY_SECONDS)
        except NotHashed as needed:
            self._run.hashes.begin(needed)
            self._waiting.settle_again(pending, now)
        except (FileChanged, FileNotFoundError):
            self._waiting.settle_again(pending, now)

    def _try_to_take(self, reading: Reading, now: float) -> None:
        pending, saved = reading.pending, reading.saved
        if pending.size_and_time is None:
            if self._inbox.is_deleted(pending, now):
                self._events.append(self._deleted(pending.path))
                self._taken.append((pending.path, "", None))
        elif saved is None:
            self._waiting.drop(pending.path)
        else:
            known = queries.known_recipe(self._run.ledger, saved.path)
            old = self._inbox.renamed_from(saved, known) if reading.outcome else ""
            if self._may_be_taken(reading, saved, known, old, now):
                with self._run.ledger.transaction():
                    found = self._answer(reading, saved, known, old)
                self._events += found
                self._taken.append((saved.path, old, saved))

    def _may_be_taken(
        self, reading: Reading, saved: Saved, known: KnownRecipe | None, old: str, now: float
    ) -> bool:
        """Whether everything that a save needs is there; else it is read again."""
        inbox, pending, outcome = self._inbox, reading.pending, reading.outcome
        is_new = known is None or known.digest != saved.digest
        if known and old and inbox.is_searched(pending, now):
            return False
        is_other = known and not known.size_and_time.is_of_same_file(saved.size_and_time)
        comes_first = known and is_other and self._waiting.is_new_name_of(known.size_and_time)
        if comes_first and not old:
            # It is no new name itself, so two such files do not wait for each other.
            self._waiting.note(replace(pending, is_new=False, since=now))
            return False
        if known and is_new and outcome is None:  # another recipe has got this name meanwhile
            self._waiting.drop(saved.path)
            inbox.want_scan()
            return False
        if outcome and saved.dropped and saved.template != inbox.template_of(saved.path):
            inbox.want_scan()  # the template is being saved, and comes first
            self._waiting.settle_again(pending, now)
            return False
        if saved.damage and is_new and is_picture_name(saved.path):
            return not inbox.may_be_incomplete(pending, now)
        copies = outcome.copies if isinstance(outcome, Asked) else ()
        if not all((self._start_images / digest).is_file() for digest in copies):
            self._waiting.read_again(pending)  # an image that needed them was finished meanwhile
            return False
        problem = known.problem if known and not is_new else None
        is_refused_again = isinstance(outcome, Refused) and outcome.line == problem
        if is_refused_again and pending.why in (LACKED, TEMPLATE):
            self._waiting.drop(saved.path)
            return False
        return True

    def _clear_all(self) -> None:
        """Remove files of problems that recipes do not have; the next round tries again."""
        alone = self._run.writing.alone
        self._changed = [
            path for path in self._changed if not alone("gone", path, partial(self._clear, path))
        ]

    def _clear(self, path: str) -> None:
        known = queries.known_recipe(self._run.ledger, path)
        if known is None:
            self._run.outbox.problems.clear(path)
            if is_dropped(path) and (template := self._inbox.files.template_above(path)):
                names = path, *sidecar_paths(path)
                self._run.outbox.problems.remove_warnings_of(names, template)
        elif not known.problem:
            self._run.outbox.problems.remove_error(path)

    # -- what becomes of a change

    def _answer(
        self, reading: Reading, saved: Saved, known: KnownRecipe | None, old: str
    ) -> list[Event]:
        """Return what the log says of a change; `old` is the former name of what was renamed."""
        run, path, outcome = self._run, saved.path, reading.outcome
        saved = replace(saved, why=reading.pending.why)
        if outcome is None:
            version = saved.size_and_time
            if known and (known.size_and_time, known.inbox_id) != (version, saved.inbox_id):
                queries.seen(run.ledger, saved.inbox_id, [(path, version)])
            return []
        if (folder := first_folder(path)) and folder not in self._folders:
            run.outbox.hand_group_on(path, self._inbox.files.root)
            self._folders.add(folder)
        self._look_at_template(path)
        run.lacking_room.difference_update((path, old))
        try:
            if old:
                self._look_at_template(old)
                return self._renamed(old, saved, outcome, known)
            if known and known.is_kept_as(saved):  # which came by an exchange of names
                self._keep(saved, outcome)
                return [said(path, "now the name of another file, whose queue is kept", "renamed")]
            return self._saved(saved, outcome, known)
        except NotHashed:
            raise
        except QueueFull as full:
            why = refused(path, full, waits=not full.alone)
            if why.waits:
                run.lacking_room.add(path)
            if known and known.problem == why.line and reading.pending.why == LACKED:
                return []  # it has been told
            return self._refuse(saved, why)
        # A LoRA that was drawn may be refused, and no single recipe may take the daemon down.
        except Exception as error:
            return self._refuse(saved, refused(path, error))

    def _look_at_template(self, path: str) -> None:
        """Have the template of a changed picture looked at: perhaps none waits for a prompt now."""
        if is_dropped(path):
            template = f"{self._inbox.template_folder(path)}/{PICTURES_NAME}"
            followups.look_again(self._run.ledger, template)

    def _saved(self, saved: Saved, outcome: SaveOutcome, known: KnownRecipe | None) -> list[Event]:
        if isinstance(outcome, Refused):
            return self._refuse(saved, outcome)
        log.debug("%s: a save, because of %s", saved.path, saved.why)
        if is_template(saved.path):  # it requests nothing itself; a scan then finds its pictures
            self._accept(saved, Asked(()))
            self._run.outbox.problems.write_warnings(saved.path, ())
            words = "saved, it applies to the pictures in its folder"
            if known and known.outcome == "accepted":
                folder = shlex.quote(saved.path.rpartition("/")[0])
                again = f"`picowatch retry --all {folder}` renders the others again"
                words = f"saved, it applies to pictures saved from now on; {again}"
            return [said(saved.path, words)]
        result, newest = self._accept(saved, outcome, known), ""
        if not (result.queued or result.cancelled):
            files = (file for _, file in sorted(result.existing, reverse=True))
            newest = next(filter(self._run.outbox.exists, files), "")
            if newest:
                self._run.outbox.show_as_latest(newest)
        words = accepted(result, newest)
        words += "" if outcome.entries else ", it says nothing to render"
        return [*self._warn(saved, outcome.warnings), said(saved.path, words)]

    def _accept(self, saved: Saved, asked: Asked, known: KnownRecipe | None = None) -> Acceptance:
        repeats = known is not None and known.repeats(saved, is_picture=saved.dropped is not None)
        is_cancelled = saved.path in self._run.to_cancel
        return accept.accept(
            self._run.ledger,
            saved,
            asked.entries,
            draw_seed=partial(secrets.randbelow, SEEDS),
            picture_exists=self._run.outbox.exists,
            formers=saved.formers,
            repeats_last_save=repeats,
            max_queued=None if is_cancelled else self._max_queued.get(first_folder(saved.path)),
        )

    def _warn(self, saved: Saved, warnings: Sequence[str]) -> list[Event]:
        """Write warnings; a picture's are added to its template's file: thousands may share it."""
        problems = self._run.outbox.problems
        if saved.dropped is None:
            path, new = saved.path, list(warnings)
            problems.write_warnings(path, warnings)
        else:
            path = saved.dropped.template.name
            new = [warning for warning in warnings if problems.add_warning(path, warning)]
        return [Event(logging.WARNING, path, f"{path}: {each}", "warning") for each in new]

    def _refuse(self, save: Save, why: Refused) -> list[Event]:
        """Refuse a save, or its template, which has one error file for all its pictures."""
        ledger, path = self._run.ledger, why.template or save.path
        self._run.outbox.problems.write_error(path, why.text)
        self._run.to_count.add(path)
        if why.lacks_prompt:
            if not accept.refuse_for_template(ledger, save, path, why.line):
                return []
        else:
            if why.template:
                known = queries.known_recipe(ledger, path)
                version = known.size_and_time if known else NEVER_READ
                save = Save(path, save.template, version, save.inbox_id)
            accept.refuse(ledger, save, why.line, waits=why.waits)
        return [Event(logging.ERROR, path, why.line, "refused", why.code)]

    def _deleted(self, path: str) -> Event:
        self._run.lacking_room.discard(path)
        with self._run.ledger.transaction():
            self._look_at_template(path)
            cancelled = accept.forget(self._run.ledger, path)
        if is_template(path):
            self._inbox.want_scan()  # the files of its folder are ordinary recipes now
        return said(path, f"deleted, {images(cancelled)} cancelled", "gone")

    def _renamed(
        self, old: str, saved: Saved, outcome: SaveOutcome, known: KnownRecipe | None
    ) -> list[Event]:
        """Keep the queue of a valid recipe; what was invalid, or reads differently, is new.

        So is a photo that got another text or mask beside it. If the file that was `known` by the
        new name may have another one, too, the two exchange theirs: so any permutation of names is
        carried out, whichever of them comes first.
        """
        ledger, new = self._run.ledger, saved.path
        before = queries.known_recipe(ledger, old)
        exchanges = known is not None and self._waiting.may_be(known.size_and_time)
        accept.rename(ledger, old, new, exchanges=exchanges)
        renamed = said(old, f"renamed to {new}, its queue is kept", "renamed")
        is_same = self._inbox.reads_alike(old, new) and not is_template(new)
        if before and before.is_kept_as(saved) and is_same:
            self._keep(saved, outcome)
            return [renamed]
        return [renamed, *self._saved(saved, outcome, before)]

    def _keep(self, saved: Saved, outcome: SaveOutcome) -> None:
        """Apply the new folder's default priority; other fields apply from the next save."""
        asked = outcome if isinstance(outcome, Asked) else Asked(())
        priorities = [entry.priority for entry in asked.entries]
        queries.seen(self._run.ledger, saved.inbox_id, [(saved.path, saved.size_and_time)])
        accept.prioritise(self._run.ledger, saved.path, priorities)
        self._warn(saved, asked.warnings)
