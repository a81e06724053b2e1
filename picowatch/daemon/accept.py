"""Accepts each save by queueing its images, or refuses it with one readable error file."""

import logging
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial

from picowatch.daemon.accept_pictures import saved_picture, saved_template
from picowatch.daemon.answer import queue_images, recipes_of, refuse, those_refused, warnings_of
from picowatch.daemon.events import Event, said_once, warned
from picowatch.daemon.model_hashes import NotHashed
from picowatch.daemon.run import SLICE_SECONDS, Run
from picowatch.errors import ModelRefused, PictureUnreadable
from picowatch.files.attempt import PASSING, RETRY_SECONDS, unexpected
from picowatch.inbox.differences import READABLE
from picowatch.inbox.files import FileChanged, FileUnreadable
from picowatch.inbox.names import is_dropped, is_template, syntax_of
from picowatch.inbox.reading import Change, Deleted, Saved, is_meant_as_template, template_above
from picowatch.ledger import accept, outstanding, questions
from picowatch.outbox.status import images
from picowatch.recipe import Recipe, RecipeInvalid
from picowatch.recipe.resolve.start_image import refuse_unusable

log = logging.getLogger("picowatch")

_NO_TEMPLATE = (
    "Pictures beside this file are not requests, because its name lacks an underscore. Rename it "
    "to _pictures.yaml."
)


class Accepting:
    """Takes changes of the inbox to the ledger.

    An error file is written before the ledger commits, and that of a recipe that is valid now or
    gone is removed after it. So what was not committed is done again, unless the user undoes it.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._changed: list[str] = []  # files of problems that the ledger does not know will go

    def take(self, now: float) -> bool:
        """Accept or refuse some of the inbox's changes; return whether there were any.

        A save whose model has to be hashed first waits without holding up the others.
        """
        run = self._run
        self._clear_all()
        if not len(run.inbox):
            return False
        seen: list[str] = []
        taken: list[str] = []
        events: list[Event] = []
        run.hashes.look_again(now)
        end = time.monotonic() + SLICE_SECONDS
        try:
            with run.ledger.transaction():
                for change in run.inbox.changes(now, run.hashes.missing()):
                    seen.append(change.path)
                    take = partial(self._take, change, taken, events)
                    if not run.attempts.attempt("save", change.path, take):
                        run.inbox.let_rest(change.path, now + RETRY_SECONDS)
                    if time.monotonic() >= end:
                        break
        except PASSING:
            self._changed += seen  # nothing of them was committed
            raise
        for path in taken:
            run.inbox.taken(path)
        self._clear_all()
        for event in said_once(events):
            log.log(event.level, "%s", event.text)
            if event.level == logging.ERROR:
                run.result.count_failure()
                run.observers.failed(event.recipe)
        return bool(taken)

    def _take(self, change: Change, taken: list[str], events: list[Event]) -> None:
        try:
            events += _safely(self._run, change)
        except NotHashed as needed:
            self._run.inbox.put_off(change.path, self._run.hashes.begin(needed))
        except FileChanged:
            self._run.inbox.want_scan()
        else:
            taken.append(change.path)
            old = "" if isinstance(change, Deleted) else change.old
            self._changed += filter(None, (change.path, old))

    def _clear_all(self) -> None:
        """Remove files of problems that recipes do not have; the next round tries again."""
        attempt = self._run.attempts.attempt
        self._changed = [
            path for path in self._changed if not attempt("gone", path, partial(self._clear, path))
        ]

    def _clear(self, path: str) -> None:
        known = questions.known_recipe(self._run.ledger, path)
        if known is None:
            self._run.outbox.problems.clear(path)
        elif not known.problem:
            self._run.outbox.problems.remove_error(path)


def _safely(run: Run, change: Change) -> list[Event]:
    try:
        with run.ledger.transaction():
            _look_at_templates(run, change)
            if isinstance(change, Deleted):
                return _deleted(run, change.path)
            return _renamed(run, change) if change.old else _saved(run, change)
    except (NotHashed, FileChanged):
        raise
    except Exception as error:  # no single recipe may take the daemon down
        words = unexpected(error)
        if isinstance(change, Deleted):
            return [Event(logging.ERROR, change.path, f"{change.path}: {words}")]
        return refuse(run, change, words)


def _look_at_templates(run: Run, change: Change) -> None:
    """Have templates of changed pictures looked at: perhaps none waits for a prompt now."""
    paths = (change.path,) if isinstance(change, Deleted) else (change.path, change.old)
    for path in filter(is_dropped, paths):
        if template := template_above(run.settings.inbox, path):
            outstanding.look_again(run.ledger, template)


def _saved(run: Run, seen: Saved) -> list[Event]:
    try:
        if seen.unreadable:
            what = "picture" if is_dropped(seen.path) else "recipe"
            words = f"This {what} cannot be read: {seen.unreadable}."
            return refuse(run, seen, words, waits_for=f"{READABLE}{seen.unreadable}")
        if seen.dropped is not None:
            return saved_picture(run, seen, seen.dropped)
        if is_template(seen.path):
            return saved_template(run, seen)
        return _saved_recipe(run, seen)
    except (RecipeInvalid, ModelRefused, FileUnreadable) as error:
        return refuse(run, seen, error)


def _saved_recipe(run: Run, seen: Saved) -> list[Event]:
    pictures = run.inbox.pictures_of(seen.path)
    is_meant = is_meant_as_template(run.settings.inbox, seen.path)
    try:
        recipes = recipes_of(run, seen, pictures)
        if is_meant and not any(recipe.pictures for recipe in recipes):
            return refuse(run, seen, _NO_TEMPLATE)
        refuse_unusable(recipes, pictures.keep)
        is_again = seen.is_again and not seen.old
        queued = queue_images(run, seen, recipes, pictures.keep, is_again=is_again)
    except RecipeInvalid as error:
        if is_meant:
            return refuse(run, seen, _NO_TEMPLATE)
        return refuse(run, seen, error, waits_for=those_refused(pictures))
    warnings = warnings_of(recipes)
    run.outbox.problems.write_warnings(seen.path, warnings)
    return [*warned(seen.path, warnings), queued]


def _deleted(run: Run, path: str) -> list[Event]:
    cancelled = accept.forget(run.ledger, path)
    if is_template(path):
        run.inbox.want_scan()  # the files of its folder are ordinary recipes now
    return [Event(logging.INFO, path, f"{path}: deleted, {images(cancelled)} cancelled")]


def _renamed(run: Run, seen: Saved) -> list[Event]:
    """Keep the queue of a valid recipe; read one that was invalid, or reads differently now."""
    old, new = seen.old, seen.path
    before = questions.known_recipe(run.ledger, old)
    accept.rename(run.ledger, old, new, seen.size_and_time, run.inbox.folder)
    if before and before.again:
        run.inbox.want_scan()
    renamed = Event(logging.INFO, new, f"{old}: renamed to {new}, its queue is kept")
    is_kept = before and before.outcome == "accepted"
    if is_kept and not is_template(new) and syntax_of(old) == syntax_of(new):
        _apply_new_folder(run, seen)
        return [renamed]
    return [renamed, *_saved(run, replace(seen, is_again=True))]


def _apply_new_folder(run: Run, seen: Saved) -> None:
    """Apply the new folder's default priority; other fields apply from the next save."""
    recipes: list[Recipe] = []
    with suppress(RecipeInvalid, PictureUnreadable):
        if not seen.unreadable:
            recipes = recipes_of(run, seen, run.inbox.pictures_of(seen.path))
    accept.prioritise(run.ledger, seen.path, [recipe.priority for recipe in recipes])
    if seen.dropped is None:
        run.outbox.problems.write_warnings(seen.path, warnings_of(recipes))
