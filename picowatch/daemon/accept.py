"""Accepts each save by queueing its images, or refuses it with one readable error file."""

import hashlib
import logging
import secrets
import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from picowatch.catalog import Catalog
from picowatch.daemon.events import Event, accepted, explained, said, said_once, warned
from picowatch.daemon.model_hashes import ModelHashes, NotHashed
from picowatch.daemon.run import Run
from picowatch.daemon.sheets import sheet_of
from picowatch.errors import ModelRefused, PicowatchError, PictureUnreadable
from picowatch.files.attempt import PASSING, RETRY_SECONDS, unexpected
from picowatch.inbox.differences import PICTURES, READABLE, prompt_of
from picowatch.inbox.files import FileChanged, FileUnreadable
from picowatch.inbox.inbox import Inbox
from picowatch.inbox.names import (
    is_dropped,
    is_reached,
    is_template,
    syntax_of,
)
from picowatch.inbox.reading import (
    Change,
    Deleted,
    Saved,
    is_meant_as_template,
    size_and_time_at,
    template_above,
)
from picowatch.ledger import accept, outstanding, questions
from picowatch.ledger.rows import NEVER_READ, Acceptance, RequestedEntry, Save
from picowatch.metadata import PICOWATCH, read_chunk
from picowatch.outbox.start_images import NamedPictures
from picowatch.outbox.status import images
from picowatch.recipe import (
    DefaultsFile,
    Dropped,
    Recipe,
    RecipeInvalid,
    read_recipes,
)
from picowatch.recipe.converters import SEEDS
from picowatch.recipe.inventory import Inventory
from picowatch.recipe.reading import NothingSaid, check_template, dropped_recipes
from picowatch.recipe.resolve.start_image import refuse_unusable, why_no_path

log = logging.getLogger("picowatch")

# The longest transaction of accepted saves, unless a single save takes longer: no engine gets its
# next batch meanwhile.
SLICE_SECONDS = 0.2
_NO_TEMPLATE = (
    "The pictures beside this file are no requests, as its name lacks an underscore. Rename it to "
    "_pictures.yaml."
)
FRESH_SECONDS = 0.5  # before the models folder is scanned again


class Accepting:
    """Takes changes of the inbox to the ledger.

    An error file is written before the ledger commits, and the error file of a deleted recipe is
    removed after it. So what was not committed is done again, unless the user undoes the change.
    """

    def __init__(self, run: Run, inbox: Inbox) -> None:
        self.run, self.inbox = run, inbox
        self.settings, self.ledger, self.outbox = run.settings, run.ledger, run.outbox
        self._catalog = Catalog(
            self.settings.models, self.settings.hash_cache, has_ended=run.attempts.has_ended
        )
        self._hashes = ModelHashes(self._catalog)
        self._inventory: Inventory | None = None
        self._inventory_at = 0.0
        self._gone: list[str] = []  # if the ledger has none of these paths, their problems go

    def take(self, now: float) -> bool:
        """Accept or refuse some of the inbox's changes; return whether there were any.

        A save whose model has to be hashed first waits without holding up the others.
        """
        self._clear_gone()
        if not len(self.inbox):
            return False
        seen: list[str] = []
        taken: list[str] = []
        events: list[Event] = []
        inventory = self._fresh_inventory(now)
        missing = self._hashes.missing()
        end = time.monotonic() + SLICE_SECONDS
        try:
            with self.ledger.transaction():
                for change in self.inbox.changes(now, missing):
                    seen.append(change.path)
                    take = partial(self._take, change, inventory, taken, events)
                    if not self.run.attempts.attempt("save", change.path, take):
                        self.inbox.let_rest(change.path, now + RETRY_SECONDS)
                    if time.monotonic() >= end:
                        break
        except PASSING:
            self._gone += seen  # nothing of them was committed
            raise
        for path in taken:
            self.inbox.taken(path)
        for event in said_once(events):
            log.log(event.level, "%s", event.text)
            if event.level == logging.ERROR:
                self.run.result.count_failure()
                self.run.observers.failed(event.recipe)
        self._clear_gone()
        return bool(taken)

    def _take(
        self, change: Change, inventory: Inventory, taken: list[str], events: list[Event]
    ) -> None:
        try:
            events += self._safely(change, inventory)
        except NotHashed as needed:
            self.inbox.put_off(change.path, self._hashes.begin(needed))
        except FileChanged:
            self.inbox.want_scan()
        else:
            taken.append(change.path)

    def _clear_gone(self) -> None:
        """Remove the error files of recipes that are gone or were never committed.

        After a disk error, the next round retries.
        """
        attempt = self.run.attempts.attempt
        self._gone = [
            path for path in self._gone if not attempt("gone", path, partial(self._clear, path))
        ]

    def _clear(self, path: str) -> None:
        if questions.known_recipe(self.ledger, path) is None:  # else a new recipe has this name
            self.outbox.problems.clear(path)

    def is_busy(self) -> bool:
        """Whether a save waits for a model to be hashed."""
        return self._hashes.is_busy()

    def _fresh_inventory(self, now: float) -> Inventory:
        # A recipe that has been quiet for `settle_seconds` may name a model that came just before.
        fresh = min(FRESH_SECONDS, self.settings.settle_seconds)
        if self._inventory is None or now - self._inventory_at > fresh:
            self._hashes.look_again()
            self._inventory = self._catalog.inventory(
                self.settings.checkpoint, must_exist=self.settings.names_models
            )
            self._inventory_at = now
        return self._inventory

    # -- changes

    def _safely(self, change: Change, inventory: Inventory) -> list[Event]:
        try:
            with self.ledger.transaction():
                self._look_at_templates(change)
                if isinstance(change, Deleted):
                    return self._deleted(change.path)
                return (
                    self._renamed(change, inventory)
                    if change.old
                    else self._saved(change, inventory)
                )
        except (NotHashed, FileChanged):
            raise
        except Exception as error:  # no single recipe may take the daemon down
            words = unexpected(error)
            if isinstance(change, Deleted):
                return [Event(logging.ERROR, change.path, f"{change.path}: {words}")]
            return self._refuse(change, words)

    def _look_at_templates(self, change: Change) -> None:
        """Have templates of changed pictures looked at: perhaps none waits for a prompt now."""
        paths = (change.path,) if isinstance(change, Deleted) else (change.path, change.old)
        for path in filter(is_dropped, paths):
            if template := template_above(self.settings.inbox, path):
                outstanding.look_again(self.ledger, template)

    def _saved(self, seen: Saved, inventory: Inventory) -> list[Event]:
        try:
            if seen.unreadable:
                what = "picture" if is_dropped(seen.path) else "recipe"
                words = f"This {what} cannot be read: {seen.unreadable}."
                return self._refuse(seen, words, waits_for=f"{READABLE}{seen.unreadable}")
            if seen.dropped is not None:
                return self._saved_picture(seen, seen.dropped, inventory)
            if is_template(seen.path):
                return self._saved_template(seen, inventory)
            return self._saved_recipe(seen, inventory)
        except (RecipeInvalid, ModelRefused, FileUnreadable) as error:
            return self._refuse(seen, error)

    def _saved_recipe(self, seen: Saved, inventory: Inventory) -> list[Event]:
        pictures = self.inbox.pictures_of(seen.path)
        is_meant = is_meant_as_template(self.settings.inbox, seen.path)
        try:
            recipes = self._recipes(seen, inventory, pictures)
            if is_meant and not any(recipe.pictures for recipe in recipes):
                return self._refuse(seen, _NO_TEMPLATE)
            refuse_unusable(recipes, pictures.keep)
            entries = [self._entry(recipe, pictures.keep) for recipe in recipes]
            result = self._accept(seen, entries, is_again=seen.is_again and not seen.old)
        except RecipeInvalid as error:
            if is_meant:
                return self._refuse(seen, _NO_TEMPLATE)
            return self._refuse(seen, error, waits_for=_those_refused(pictures))
        warnings = _warnings_of(recipes)
        self.outbox.problems.remove_error(seen.path)
        self.outbox.problems.write_warnings(seen.path, warnings)
        words = accepted(result, self._show_newest(result))
        if not recipes:
            words += ", it says nothing to render"
        return [*warned(seen.path, warnings), said(seen.path, words)]

    def _accept(
        self, save: Save, entries: Sequence[RequestedEntry], *, is_again: bool = False
    ) -> Acceptance:
        return accept.accept(
            self.ledger,
            save,
            entries,
            draw_seed=partial(secrets.randbelow, SEEDS),
            picture_exists=self.outbox.exists,
            is_again=is_again,
        )

    def _show_newest(self, result: Acceptance) -> str:
        """Point latest.png to the newest picture of a save that requests nothing new; return it."""
        if result.queued or result.cancelled:
            return ""
        newest = next(filter(self.outbox.exists, reversed(result.existing)), "")
        if newest:
            self.outbox.show_as_latest(newest)
        return newest

    # -- dropped pictures

    def _saved_template(self, seen: Saved, inventory: Inventory) -> list[Event]:
        """Accept a template, which requests nothing itself; a scan then finds its pictures."""
        pictures = self.inbox.pictures_of(seen.path)
        template = DefaultsFile(seen.path, seen.content)
        try:
            self._check_template(template, seen, inventory, pictures)
        except RecipeInvalid as error:
            return self._refuse(seen, error, waits_for=_those_refused(pictures))
        before = questions.known_recipe(self.ledger, seen.path)
        self._accept(seen, [])
        self.outbox.problems.clear(seen.path)
        self.inbox.want_scan()
        words = "saved, it applies to the pictures in its folder"
        if before and before.outcome == "accepted":
            folder = shlex.quote(seen.path.rpartition("/")[0])
            again = f"`picowatch retry --all {folder}` renders the others again"
            words = f"saved, it applies to pictures saved from now on; {again}"
        return [said(seen.path, words)]

    def _check_template(
        self,
        template: DefaultsFile,
        seen: Saved,
        inventory: Inventory,
        pictures: NamedPictures,
    ) -> None:
        """Raise RecipeInvalid or FileUnreadable if nothing can be rendered with the template."""
        if "/" not in template.name:
            raise FileUnreadable(
                "Pictures cannot be dropped into the inbox itself, where recipes are saved.",
                f"Move {template.name} into a folder of its own.",
            )
        most = self.settings.max_images_per_save
        check_template(template, inventory, seen.defaults, most, pictures)

    def _saved_picture(self, seen: Saved, dropped: Dropped, inventory: Inventory) -> list[Event]:
        pictures = self.inbox.pictures_of(seen.path)
        try:
            self._refuse_unusable_picture(seen, dropped, pictures)
            recipes = self._recipes(seen, inventory, pictures)
            own = {seen.path: seen.digest}
            if dropped.mask:
                own[dropped.mask] = pictures.digest(dropped.mask)
            hash_picture = pictures.hashes(own)
            entries = [self._entry(recipe, hash_picture) for recipe in recipes]
            result = self._accept(seen, entries, is_again=seen.is_again)
        except NothingSaid as error:
            return self._wait_for_prompt(seen, dropped.template.name, error)
        except (RecipeInvalid, PictureUnreadable) as error:
            found = size_and_time_at(self.settings.inbox, seen.path)
            if found is None or found.written_since(seen.size_and_time):
                raise FileChanged from error
            named = self.inbox.pictures_of(dropped.template.name)
            try:
                self._check_template(dropped.template, seen, inventory, named)
            except (RecipeInvalid, FileUnreadable) as wrong:
                return self._refuse_template(dropped, wrong, _those_refused(named))
            words = f"This picture cannot be used: {error}"
            why = error if isinstance(error, RecipeInvalid) else words
            return self._refuse(seen, why, waits_for=_those_refused(pictures))
        except ModelRefused as error:
            return self._refuse_template(dropped, error)
        self.outbox.problems.remove_error(seen.path)
        words = accepted(result, self._show_newest(result))
        warned = self._warn_once(dropped.template.name, _warnings_of(recipes))
        return [*warned, said(seen.path, words)]

    def _wait_for_prompt(self, seen: Saved, template: str, why: NothingSaid) -> list[Event]:
        """Refuse a picture without a prompt; its template has one error file for all of them."""
        text, line = explained(template, why)
        self.outbox.problems.write_error(template, text)
        waits_for = prompt_of(template, seen.template)
        is_news = accept.refuse_for_template(self.ledger, seen, template, line, waits_for)
        self.outbox.problems.remove_error(seen.path)
        return [Event(logging.ERROR, template, line)] if is_news else []

    def _warn_once(self, template: str, warnings: Iterable[str]) -> list[Event]:
        """Add warnings to a template's file: thousands of pictures may share one. Log new ones."""
        add = partial(self.outbox.problems.add_warning, template)
        return warned(template, filter(add, warnings))

    def _refuse_unusable_picture(
        self, seen: Saved, dropped: Dropped, pictures: NamedPictures
    ) -> None:
        """Raise PictureUnreadable if the picture or its mask cannot be used."""
        if seen.damage:
            raise PictureUnreadable(seen.damage)
        if why_no_path(seen.path):
            raise PictureUnreadable(
                "Its name is too long, or has characters that a recipe cannot contain.",
                "Rename it.",
            )
        for path in filter(None, (seen.path, dropped.mask)):
            pictures.size(path)
        if self._made_with(pictures.texts(seen.path)) == dropped.template.name:
            raise PictureUnreadable(
                f"It was rendered with {dropped.template.name}: it would be rendered endlessly.",
                "Drop it into another folder, or remove its metadata.",
            )

    def _made_with(self, texts: Mapping[str, str]) -> str | None:
        """Return the template that a picture with these texts was rendered with, or None."""
        with suppress(PictureUnreadable, KeyError):
            recipe = read_chunk(texts[PICOWATCH]).recipe
            if is_dropped(recipe) and is_reached(recipe):
                return template_above(self.settings.inbox, recipe)
        return None

    def _refuse_template(
        self, dropped: Dropped, why: PicowatchError, waits_for: str | None = None
    ) -> list[Event]:
        """Refuse a template with one error for all its pictures, which wait until it is right."""
        name = dropped.template.name
        known = questions.known_recipe(self.ledger, name)
        digest = hashlib.sha256(dropped.template.content).hexdigest()
        size_and_time = known.size_and_time if known else NEVER_READ
        save = Save(name, digest, size_and_time, self.inbox.folder)
        return self._refuse(save, why, waits_for=waits_for)

    # -- recipes

    def _recipes(self, seen: Saved, inventory: Inventory, pictures: NamedPictures) -> list[Recipe]:
        """Read the recipes of a save. Raises RecipeInvalid."""
        most = self.settings.max_images_per_save
        if seen.dropped is not None:
            return dropped_recipes(seen.dropped, inventory, seen.defaults, most, pictures)
        return read_recipes(seen.path, seen.content, inventory, seen.defaults, most, pictures)

    def _entry(self, recipe: Recipe, hash_picture: Callable[[str], str]) -> RequestedEntry:
        hash_of = self._hashes.with_pictures(hash_picture)
        return RequestedEntry(
            digest=recipe.digest(hash_of),
            priority=recipe.priority,
            random=recipe.wants_random_seed,
            requests=partial(recipe.image_requests, hash_of),
            sheet=sheet_of(recipe),
            may_differ=recipe.draws_from_files,
        )

    def _refuse(
        self, save: Save, why: PicowatchError | str, *, waits_for: str | None = None
    ) -> list[Event]:
        text, line = explained(save.path, why)
        self.outbox.problems.write_error(save.path, text)
        accept.refuse(self.ledger, save, line, waits_for=waits_for)
        return [Event(logging.ERROR, save.path, line)]

    def _deleted(self, path: str) -> list[Event]:
        cancelled = accept.forget(self.ledger, path)
        if is_template(path):
            self.inbox.want_scan()  # the files of its folder are ordinary recipes now
        self._gone.append(path)
        return [Event(logging.INFO, path, f"{path}: deleted, {images(cancelled)} cancelled")]

    def _renamed(self, seen: Saved, inventory: Inventory) -> list[Event]:
        """Keep the queue of a valid recipe; read one that was invalid, or reads differently now."""
        old, new = seen.old, seen.path
        before = questions.known_recipe(self.ledger, old)
        accept.rename(self.ledger, old, new, seen.size_and_time, self.inbox.folder)
        self._gone.append(old)
        if before and before.again:
            self.inbox.want_scan()
        words = f"{old}: renamed to {new}, its queue is kept"
        renamed = Event(logging.INFO, new, words)
        is_kept = before and before.outcome == "accepted"
        if is_kept and not is_template(new) and syntax_of(old) == syntax_of(new):
            self._apply_new_folder(seen, inventory)
            return [renamed]
        return [renamed, *self._saved(replace(seen, is_again=True), inventory)]

    def _apply_new_folder(self, seen: Saved, inventory: Inventory) -> None:
        """Apply the new folder's default priority; other fields apply from the next save."""
        recipes: list[Recipe] = []
        with suppress(RecipeInvalid, PictureUnreadable):
            if not seen.unreadable:
                recipes = self._recipes(seen, inventory, self.inbox.pictures_of(seen.path))
        accept.prioritise(self.ledger, seen.path, [recipe.priority for recipe in recipes])
        self.outbox.problems.remove_error(seen.path)
        if seen.dropped is None:
            self.outbox.problems.write_warnings(seen.path, _warnings_of(recipes))


def _those_refused(pictures: NamedPictures) -> str | None:
    """Return the pictures that could not be used, for which a recipe waits; None if all could."""
    return f"{PICTURES}{pictures.refused}" if pictures.refused else None


def _warnings_of(recipes: Sequence[Recipe]) -> list[str]:
    """Return each warning once."""
    return list(dict.fromkeys(w for recipe in recipes for w in recipe.warnings))
