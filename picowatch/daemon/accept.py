"""Accepts each save with images in the queue, or refuses it with one readable error file."""

import hashlib
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

from picowatch.catalog import Catalog
from picowatch.daemon.contact_sheets import sheet_of
from picowatch.daemon.model_hashes import ModelHashes, NotHashed
from picowatch.errors import ModelRefused, PicowatchError, PictureUnreadable
from picowatch.files.retry import unexpected
from picowatch.inbox.changes import Change, Deleted, Renamed, Saved, Unreadable
from picowatch.inbox.dropped import template_above
from picowatch.inbox.files import FileUnreadable
from picowatch.inbox.inbox import PICTURES, READABLE, TEMPLATE, Inbox
from picowatch.inbox.names import (
    is_dropped,
    is_reached,
    is_template,
    stands_for_unreadable,
    syntax_of,
)
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rows import Acceptance, RequestedEntry
from picowatch.metadata import PICOWATCH, read_chunk
from picowatch.outbox.outbox import Outbox
from picowatch.outbox.start_images import NamedPictures
from picowatch.outbox.status import images
from picowatch.recipe import (
    DefaultsFile,
    Dropped,
    Recipe,
    RecipeInvalid,
    error_text,
    one_line,
    read_recipes,
)
from picowatch.recipe.dropped import NothingSaid, check_template, dropped_recipes
from picowatch.recipe.fields import SEEDS
from picowatch.recipe.inventory import Inventory
from picowatch.recipe.messages.problems import CLOSING, closing_of, harmless, harmless_lines
from picowatch.recipe.resolve.start_image import refuse_unusable, why_no_path
from picowatch.save import NEVER_READ, KnownRecipe, Save
from picowatch.settings import Settings
from picowatch.work.result import RunResult

log = logging.getLogger("picowatch")

# What a transaction of accepted saves takes at most, but for one long one: meanwhile no engine gets
# its next batch.
SLICE_SECONDS = 0.2
FRESH_SECONDS = 0.5  # models may have come and gone since

Report = Callable[[], None]  # logs what became of a save, once that is committed


@dataclass(eq=False)
class Accepting:
    """Takes changes of the inbox to the ledger. `on_refused` is called with a recipe's path.

    An error file is written before the ledger commits, and that of a path where no recipe is any
    more is deleted after it: what is not committed is done again, unless the user takes it back.
    """

    settings: Settings
    inbox: Inbox
    ledger: Ledger
    outbox: Outbox
    result: RunResult
    now: Callable[[], float]
    on_refused: Callable[[str], None] = lambda recipe: None
    _inventory: Inventory | None = field(default=None, init=False)
    _inventory_at: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._catalog = Catalog(self.settings.models, self.settings.hash_cache)
        self._hashes = ModelHashes(self._catalog)

    def take(self, now: float) -> bool:
        """Accept or refuse a slice of what the inbox has; returns whether anything changed.

        A save whose model has to be hashed first waits, and holds up no other of the slice.
        """
        if not len(self.inbox):
            return False
        handled: list[str] = []
        reports: list[Report] = []
        inventory = self._fresh_inventory(now)
        self._hashes.missed.clear()
        end = time.monotonic() + SLICE_SECONDS
        with self.ledger.transaction():
            for change in self.inbox.changes(now):
                try:
                    reports.append(self._safely(change, inventory))
                except NotHashed as needed:
                    self._hashes.begin(needed)
                else:
                    handled.append(change.path)
                if time.monotonic() >= end:
                    break
        for path in handled:
            self.inbox.handled(path)
        for report in reports:
            report()
        return bool(handled)

    def is_busy(self) -> bool:
        """Whether a model is being hashed, for which a save waits."""
        return self._hashes.is_busy()

    def _fresh_inventory(self, now: float) -> Inventory:
        if self._inventory is None or now - self._inventory_at > FRESH_SECONDS:
            self._hashes.look_again()
            self._inventory = self._catalog.inventory(
                self.settings.checkpoint, must_exist=self.settings.names_models
            )
            self._inventory_at = now
        return self._inventory

    # -- changes

    def _safely(self, change: Change, inventory: Inventory) -> Report:
        try:
            with self.ledger.transaction():
                return self._one(change, inventory)
        except NotHashed:
            raise
        except Exception as error:  # no single recipe may take the daemon down
            words = unexpected(error)
            if isinstance(change, Deleted):
                return partial(log.error, "%s: %s", change.path, words)
            stamp = change.stamp
            return self._refuse(Save(change.path, "", stamp, self.now(), self.inbox.folder), words)

    def _one(self, change: Change, inventory: Inventory) -> Report:
        match change:
            case Saved():
                return self._saved(change, inventory)
            case Unreadable(path=path, stamp=stamp, why=why):
                save = Save(path, "", stamp, self.now(), self.inbox.folder)
                waits_for = None if stands_for_unreadable(path) else f"{READABLE}{_reason(why)}"
                return self._refuse(save, why, waits_for=waits_for)
            case Deleted(path=path):
                return self._deleted(path)
        return self._renamed(change, inventory)

    def _saved(self, seen: Saved, inventory: Inventory) -> Report:
        save, before = self._save_of(seen), self.ledger.known_recipe(seen.path)
        try:
            if seen.dropped is not None:
                return self._saved_picture(seen, seen.dropped, save, inventory)
            if is_template(seen.path):
                return self._saved_template(seen, save, inventory, is_new=not _is_valid(before))
            return self._saved_recipe(seen, save, inventory)
        except (RecipeInvalid, ModelRefused, FileUnreadable) as error:
            return self._refuse(save, error)
        finally:
            if seen.dropped is not None and before is not None:
                self._end_waiting(before, seen.dropped.template.name)

    def _save_of(self, seen: Saved) -> Save:
        folder = self.inbox.folder
        return Save(seen.path, seen.digest, seen.stamp, self.now(), folder, seen.template)

    def _saved_recipe(self, seen: Saved, save: Save, inventory: Inventory) -> Report:
        pictures = self._pictures_of(seen.path)
        try:
            recipes = self._recipes(seen, inventory, pictures)
            refuse_unusable(recipes, pictures.keep)
            result = self._accept(save, [self._entry(recipe, pictures.keep) for recipe in recipes])
        except RecipeInvalid as error:
            waits_for = f"{PICTURES}{pictures.refused}" if pictures.refused else None
            return self._refuse(save, error, waits_for=waits_for)
        warnings = _warnings_of(recipes)
        self.outbox.problems.remove_error(seen.path)
        self.outbox.problems.write_warnings(seen.path, warnings)
        newest = self._show_newest(result)
        words = "" if recipes else "it says nothing to render"
        return partial(_report_accepted, seen.path, result, warnings, newest, words)

    def _accept(
        self, save: Save, entries: Sequence[RequestedEntry], *, is_again: bool = False
    ) -> Acceptance:
        return self.ledger.accept(
            save,
            entries,
            draw_seed=partial(secrets.randbelow, SEEDS),
            picture_exists=self.outbox.exists,
            is_again=is_again,
        )

    def _show_newest(self, result: Acceptance) -> str:
        """Point latest.png to the newest picture of a save that asks for nothing new; "" else."""
        if result.queued or result.cancelled:
            return ""
        newest = next(filter(self.outbox.exists, reversed(result.existing)), "")
        if newest:
            self.outbox.show_as_latest(newest)
        return newest

    # -- dropped pictures

    def _saved_template(
        self, seen: Saved, save: Save, inventory: Inventory, *, is_new: bool
    ) -> Report:
        """A template requests nothing itself; if it is right, pictures under it are accepted."""
        self._check_template(DefaultsFile(seen.path, seen.content), seen, inventory)
        self.ledger.accept(save, [], draw_seed=lambda: 0, picture_exists=self.outbox.exists)
        self.outbox.problems.clear(seen.path)
        self.inbox.want_scan()
        words = "it holds for pictures that are saved from now on; save others again for it"
        if is_new:
            words = "the pictures in its folder are rendered with it"
        return partial(log.info, "%s: saved, %s", seen.path, words)

    def _check_template(self, template: DefaultsFile, seen: Saved, inventory: Inventory) -> None:
        """Raise RecipeInvalid or FileUnreadable if nothing can be rendered with it."""
        if "/" not in template.name:
            raise FileUnreadable(
                "Pictures cannot be dropped into the inbox itself, where recipes are saved.",
                "Move it into a folder of its own.",
            )
        if seen.defaults_unreadable:
            raise FileUnreadable(seen.defaults_unreadable)
        check_template(template, inventory, seen.defaults, self.settings.max_images_per_save)

    def _saved_picture(
        self, seen: Saved, dropped: Dropped, save: Save, inventory: Inventory
    ) -> Report:
        pictures = self._pictures_of(seen.path)
        try:
            self._refuse_unusable_picture(seen, dropped, pictures)
            recipes = self._recipes(seen, inventory, pictures)
            own = {seen.path: seen.digest}
            if dropped.mask:
                own[dropped.mask] = pictures.digest(dropped.mask)
            hash_picture = pictures.hashes(own)
            entries = [self._entry(recipe, hash_picture) for recipe in recipes]
            result = self._accept(save, entries, is_again=seen.is_again)
        except RecipeInvalid:
            try:
                self._check_template(dropped.template, seen, inventory)
            except (RecipeInvalid, FileUnreadable) as error:
                return self._refuse_template(dropped, error)
            raise
        except NothingSaid as error:
            waits_for = f"{TEMPLATE}{seen.template}"
            self.ledger.refuse(save, None, waits_for=waits_for, waits=True)
            self.outbox.problems.remove_error(seen.path)
            return self._warn_once(dropped.template.name, [str(error)])
        except PictureUnreadable as error:
            return self._refuse(save, f"This picture cannot be used: {error}")
        except ModelRefused as error:
            return self._refuse_template(dropped, error)
        self.outbox.problems.remove_error(seen.path)
        report = partial(_report_accepted, seen.path, result, (), self._show_newest(result), "")
        warn = self._warn_once(dropped.template.name, _warnings_of(recipes))
        return partial(_both, warn, report)

    def _end_waiting(self, before: KnownRecipe, template: str) -> None:
        """A picture no longer waits for its prompt; the last one takes the warning with it."""
        folder = f"{template.rpartition('/')[0]}/"
        if before.outcome == "waiting" and not self.ledger.waits_below(folder, before.waits_for):
            self.outbox.problems.remove_warning(template, str(NothingSaid()))

    def _warn_once(self, template: str, warnings: Iterable[str]) -> Report:
        """Thousands of pictures may share a warning: it is the template's, until its next save."""
        new = [one for one in warnings if self.outbox.problems.add_warning(template, one)]

        def log_them() -> None:
            for warning in new:
                log.warning("%s: %s", template, warning)

        return log_them

    def _refuse_unusable_picture(
        self, seen: Saved, dropped: Dropped, pictures: NamedPictures
    ) -> None:
        """Raise PictureUnreadable."""
        if seen.unreadable:
            raise PictureUnreadable(seen.unreadable)
        if why_no_path(seen.path):
            raise PictureUnreadable(
                "Its name has characters that no recipe can name, or is too long.", "Rename it."
            )
        for path in filter(None, (seen.path, dropped.mask)):
            pictures.size(path)
        if self._made_with(pictures.texts(seen.path)) == dropped.template.name:
            raise PictureUnreadable(
                f"It was rendered with {dropped.template.name}, and would be again without end.",
                "Drop it into another folder, or remove its metadata.",
            )

    def _made_with(self, texts: Mapping[str, str]) -> str | None:
        """The template that a picture with these texts was rendered with, if it was."""
        with suppress(PictureUnreadable, KeyError):
            recipe = read_chunk(texts[PICOWATCH]).recipe
            if is_dropped(recipe) and is_reached(recipe):
                return template_above(self.settings.inbox, recipe)
        return None

    def _refuse_template(self, dropped: Dropped, why: PicowatchError) -> Report:
        """One error says that the template cannot be used; its pictures wait for its next save."""
        name = dropped.template.name
        known = self.ledger.known_recipe(name)
        digest = hashlib.sha256(dropped.template.content).hexdigest()
        stamp = known.stamp if known else NEVER_READ
        return self._refuse(Save(name, digest, stamp, self.now(), self.inbox.folder), why)

    # -- recipes

    def _pictures_of(self, recipe: str) -> NamedPictures:
        return pictures_of(self.settings, recipe)

    def _recipes(self, seen: Saved, inventory: Inventory, pictures: NamedPictures) -> list[Recipe]:
        """What it says. Raises RecipeInvalid or FileUnreadable."""
        if seen.defaults_unreadable:
            raise FileUnreadable(seen.defaults_unreadable)
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
    ) -> Report:
        text, line = _explained(save.path, why)
        self.outbox.problems.write_error(save.path, text)
        self.ledger.refuse(save, line, waits_for=waits_for)
        return partial(self._report_refused, save.path, line)

    def _report_refused(self, path: str, line: str) -> None:
        self.result.count_failure()
        log.error("%s", line)
        self.on_refused(path)

    def _deleted(self, path: str) -> Report:
        known, template = self.ledger.known_recipe(path), template_above(self.settings.inbox, path)
        cancelled = self.ledger.forget(path)
        if is_template(path):
            self.inbox.want_scan()  # what lies there are recipes now
        if known and template:
            self._end_waiting(known, template)
        deleted = partial(log.info, "%s: deleted, %s cancelled", path, images(cancelled))
        return partial(_both, partial(self._clear, path), deleted)

    def _clear(self, path: str) -> None:
        """Delete what was said of a recipe that is gone, unless another one has its name now."""
        if self.ledger.known_recipe(path) is None:
            self.outbox.problems.clear(path)

    def _renamed(self, seen: Renamed, inventory: Inventory) -> Report:
        """What was valid is kept; what was not, or reads differently now, is read as a new save."""
        old, new = seen.old, seen.path
        before = self.ledger.known_recipe(old)
        self.ledger.rename(
            old, new, seen.stamp, self.inbox.folder, picture_exists=self.outbox.exists
        )
        moved = partial(log.info, "%s: renamed to %s, its queue is kept", old, new)
        renamed = partial(_both, partial(self._clear, old), moved)
        is_kept = before and before.outcome == "accepted" and not before.stamp.is_to_be_read_again
        if is_kept and not is_template(new) and syntax_of(old) == syntax_of(new):
            self._apply_new_folder(seen.saved, inventory)
            return renamed
        saved = self._saved(replace(seen.saved, is_again=True), inventory)
        return partial(_both, renamed, saved)

    def _apply_new_folder(self, seen: Saved, inventory: Inventory) -> None:
        """A folder's defaults may say another priority; all else holds from the next save on."""
        pictures = self._pictures_of(seen.path)
        warnings: list[str] = []
        priorities: list[tuple[str, int]] = []
        with suppress(RecipeInvalid, FileUnreadable, PictureUnreadable):
            recipes = self._recipes(seen, inventory, pictures)
            if seen.dropped is None:
                warnings = _warnings_of(recipes)
            differ = len({recipe.priority for recipe in recipes}) > 1
            for recipe in recipes:
                digest = ""
                if differ:  # otherwise it does not matter which is which, and hashes cost much
                    with suppress(PictureUnreadable, ModelRefused):  # no entry of before, then
                        hash_picture = pictures.hashes({seen.path: seen.digest})
                        digest = recipe.digest(self._hashes.with_pictures(hash_picture))
                priorities.append((digest, recipe.priority))
        self.ledger.prioritise(seen.path, priorities)
        self.outbox.problems.remove_error(seen.path)
        self.outbox.problems.write_warnings(seen.path, warnings)


def _is_valid(before: KnownRecipe | None) -> bool:
    return before is not None and before.outcome == "accepted"


def pictures_of(settings: Settings, recipe: str) -> NamedPictures:
    """The pictures that a recipe may name."""
    return NamedPictures(settings.inbox, settings.outbox, recipe, settings.most_picture_pixels)


def _report_accepted(
    path: str, result: Acceptance, warnings: Sequence[str], newest: str, words: str
) -> None:
    for warning in warnings:
        log.warning("%s: %s", path, warning)
    parts = [f"{images(result.queued)} queued"]
    if result.redrawn:
        parts.append("random seeds drawn again")
    if result.gone:
        parts.append(f"{result.gone} whose picture is gone")
    if result.cancelled:
        parts.append(f"{result.cancelled} cancelled")
    if result.kept:
        parts.append(f"{result.kept} kept")
    if words:
        parts.append(words)
    if result.queued or result.cancelled or not result.existing:
        log.info("%s: saved, %s", path, ", ".join(parts))
    elif newest:
        log.info("%s: saved, nothing new to render; its newest picture is %s", path, newest)
    else:
        log.info("%s: saved, nothing new to render; its pictures were deleted", path)


def _explained(path: str, why: PicowatchError | str) -> tuple[str, str]:
    """The text of the error file, and the line for the log."""
    if isinstance(why, RecipeInvalid):
        # What lies beside a picture is saved instead of the picture.
        closing = CLOSING if is_dropped(path) else closing_of(why, path)
        return error_text(why, closing=closing), one_line(why)
    of_folder = stands_for_unreadable(path)
    heading = path.rpartition("/")[0] if of_folder else path
    closing = "" if of_folder else f"\n\n{CLOSING}"
    first_line = str(why).partition("\n")[0]
    text = harmless_lines(f"{why}{closing}\n")
    return f"{harmless(f'inbox/{heading}')}\n\n{text}", f"{path}: {first_line}"


def _reason(why: str) -> str:
    """Why a file cannot be read, as the inbox words it."""
    for start in ("This picture cannot be read: ", "This recipe cannot be read: "):
        if why.startswith(start):
            return why.removeprefix(start).removesuffix(".")
    return why


def _warnings_of(recipes: Sequence[Recipe]) -> list[str]:
    """Each once."""
    return list(dict.fromkeys(w for recipe in recipes for w in recipe.warnings))


def _both(one: Report, other: Report) -> None:
    one()
    other()
