"""Answers every save: with images in the queue, or with one readable error file."""

import hashlib
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from picowatch.catalog import Catalog
from picowatch.daemon.contact_sheets import sheet_of
from picowatch.daemon.finishing import Finishing
from picowatch.daemon.model_hashes import ModelHashes, NotHashed
from picowatch.daemon.reporting import RecentErrors
from picowatch.errors import ModelRefused, PicowatchError, PictureUnreadable
from picowatch.files.retry import PASSING, unexpected
from picowatch.inbox.dropped import template_above
from picowatch.inbox.evidence import Deleted, Evidence, Renamed, Saved, Unreadable
from picowatch.inbox.files import FileUnreadable
from picowatch.inbox.inbox import Inbox
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
from picowatch.outbox.start_images import NamedPictures, remove_copies_but
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
from picowatch.save import Save, Stamp
from picowatch.settings import Settings
from picowatch.work.result import RunResult

log = logging.getLogger("picowatch")

# What a transaction of answers takes at most, but for one long answer: meanwhile no engine gets
# its next batch, and no other save is looked at.
SLICE_SECONDS = 0.2
INBOX_LAST_SEEN = "inbox last seen"  # the ledger's fact


@dataclass(eq=False)
class Intake:
    """Takes evidence from the inbox to the ledger, and answers the user in the outbox.

    `go_on` is called between the parts of what takes long; it may raise Ended.
    """

    settings: Settings
    inbox: Inbox
    ledger: Ledger
    outbox: Outbox
    finishing: Finishing
    errors: RecentErrors
    go_on: Callable[[], None]
    result: RunResult
    now: Callable[[], float]

    def __post_init__(self) -> None:
        self._catalog = Catalog(self.settings.models, self.settings.hash_cache)
        self._hashes = ModelHashes(self._catalog)
        self._inventory: Inventory | None = None
        for path in self.ledger.rejected_recipes():
            if is_template(path):
                self.inbox.templates.refuse(path)
        self._to_hash: NotHashed | None = None

    def look_again(self) -> None:
        """There is new evidence, or new settings: models may have come and gone before that."""
        self._hashes.look_again()
        self._inventory = None

    def answer(self, evidence: Iterable[Evidence]) -> list[Callable[[], None]]:
        """Write what was noticed into the ledger: as much as SLICE_SECONDS allow, at once.

        Returns for each that is answered what is to be done once that is committed: it logs,
        shows and tidies, and may be repeated. Nothing is answered where a model has to be
        hashed first: the next call does that, outside of the transaction. If `go_on` raises
        Ended, nothing has happened. Error files are written and removed before the transaction
        ends: a crash in between repeats both.
        """
        inventory = self._prepared()
        try:
            with self.ledger.transaction():
                follow_ups = self._answer_slice(evidence, inventory)
                if (last_seen := self.inbox.last_seen) is not None:
                    self.ledger.remember(INBOX_LAST_SEEN, last_seen)
        except PASSING:
            self.look_again()  # models may be installed until it is tried again
            raise
        return follow_ups

    def _answer_slice(
        self, evidence: Iterable[Evidence], inventory: Inventory
    ) -> list[Callable[[], None]]:
        end = time.monotonic() + SLICE_SECONDS
        follow_ups: list[Callable[[], None]] = []
        for seen in evidence:
            try:
                follow_up = self._answer_safely(seen, inventory)
            except NotHashed as needed:
                self._to_hash = needed
                break
            follow_ups.append(partial(self.finishing.safely, seen.path, follow_up))
            if time.monotonic() >= end:
                break
        return follow_ups

    def _prepared(self) -> Inventory:
        if self._to_hash is not None:
            self._hashes.compute(self._to_hash, self.go_on)
            self._to_hash = None
        if self._inventory is None:
            self._inventory = self._catalog.inventory(
                self.settings.checkpoint,
                must_exist=self.settings.names_models,
                go_on=self.go_on,
            )
        return self._inventory

    def watch_awaited_pictures(self) -> None:
        """Answer refused recipes again when the pictures that they are waiting for change."""
        for recipe, refused in self.ledger.awaited().items():
            self._watch_pictures(recipe, refused)

    def answer_again_without_error(self) -> None:
        """After a crash: an error file may be gone although its recipe is refused as before.

        It was removed for a rename or a deletion that the ledger did not keep.
        """
        for recipe in self.ledger.rejected_recipes():
            if not self.outbox.problems.error(recipe):
                self.inbox.answer_again_after(recipe, "no error file", lambda: "refused")

    def tidy_up(self) -> None:
        """Delete start images that no queued image needs any more."""
        remove_copies_but(self.settings.outbox, self.ledger.start_images_needed())

    # -- evidence

    def _answer_safely(self, seen: Evidence, inventory: Inventory) -> Callable[[], None]:
        try:
            with self.ledger.transaction():
                return self._answer_one(seen, inventory)
        except NotHashed:
            raise
        except Exception as error:  # no single recipe may take the watcher down
            return self._reject_unexpected(seen, unexpected(error))

    def _reject_unexpected(self, seen: Evidence, words: str) -> Callable[[], None]:
        path, stamp = seen.path, Stamp(0, 0, 0) if isinstance(seen, Deleted) else seen.stamp
        try:
            with self.ledger.transaction():
                return self._reject(Save(path, "", stamp, self.now()), words)
        except Exception as error:
            unexpected(error)  # then the log alone says it
            return partial(self._report_rejected, path, f"{path}: {words}")

    def _answer_one(self, seen: Evidence, inventory: Inventory) -> Callable[[], None]:
        if isinstance(seen, Saved):
            return self._saved(seen, inventory)
        if isinstance(seen, Unreadable):
            return self._reject(Save(seen.path, "", seen.stamp, self.now()), seen.why)
        if isinstance(seen, Deleted):
            return self._deleted(seen)
        return self._renamed(seen, inventory)

    def _saved(self, seen: Saved, inventory: Inventory) -> Callable[[], None]:
        save = Save(seen.path, seen.digest, seen.stamp, self.now())
        try:
            if seen.dropped is not None:
                return self._saved_picture(seen, seen.dropped, save, inventory)
            if is_template(seen.path):
                return self._saved_template(seen, save, inventory)
            return self._saved_recipe(seen, save, inventory)
        except (RecipeInvalid, ModelRefused, FileUnreadable) as error:
            return self._reject(save, error)

    def _saved_recipe(self, seen: Saved, save: Save, inventory: Inventory) -> Callable[[], None]:
        pictures = self._pictures_of(seen.path)
        try:
            recipes = self._recipes(seen, inventory, pictures)
            refuse_unusable(recipes, pictures.keep, self.go_on)
            result = self._accept(save, [self._entry(recipe, pictures.keep) for recipe in recipes])
        except RecipeInvalid as error:
            follow_up = self._reject(save, error)
            self.ledger.await_pictures(seen.path, pictures.refused)
            return _in_turn(follow_up, partial(self._watch_pictures, seen.path, pictures.refused))
        warnings = _warnings_of(recipes)
        self.outbox.problems.remove_error(seen.path)
        self.outbox.problems.write_warnings(seen.path, warnings)
        return partial(self._report_accepted, seen.path, result, warnings)

    def _accept(
        self, save: Save, entries: Sequence[RequestedEntry], *, is_again: bool = False
    ) -> Acceptance:
        return self.ledger.accept(
            save,
            entries,
            draw_seed=partial(secrets.randbelow, SEEDS),
            picture_exists=self.outbox.exists,
            is_again=is_again,
            go_on=self.go_on,
        )

    # -- dropped pictures

    def _saved_template(self, seen: Saved, save: Save, inventory: Inventory) -> Callable[[], None]:
        """It requests nothing itself; if it is right, pictures under it are answered."""
        self._check_template(DefaultsFile(seen.path, seen.content), seen, inventory)
        self.ledger.accept(save, [], draw_seed=lambda: 0, picture_exists=self.outbox.exists)
        self.outbox.problems.clear(seen.path)
        self.inbox.release_template(seen.path)
        return partial(self._report_template, seen.path)

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

    def _report_template(self, path: str) -> None:
        self.errors.forget(path)
        log.info("%s: saved, pictures in its folder are rendered with it", path)

    def _saved_picture(
        self, seen: Saved, dropped: Dropped, save: Save, inventory: Inventory
    ) -> Callable[[], None]:
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
            except (RecipeInvalid, FileUnreadable):
                return self._hold_back(seen, dropped, inventory)
            raise
        except NothingSaid as error:
            self.inbox.templates.has_no_request(seen.path, dropped.template.name)
            return self._warned_once(dropped.template.name, [str(error)])
        except PictureUnreadable as error:
            if not self.inbox.is_as_seen(seen):
                self.inbox.answered.hold(seen.path)  # moved or deleted since, or the inbox is away
                return lambda: None
            return self._reject(save, f"This picture cannot be used: {error}")
        except ModelRefused as error:
            return self._hold_back(seen, dropped, inventory, str(error))
        self.outbox.problems.remove_error(seen.path)
        warnings = _warnings_of(recipes)
        return _in_turn(
            self._warned_once(dropped.template.name, warnings),
            partial(self._report_accepted, seen.path, result, ()),
        )

    def _warned_once(self, template: str, warnings: Iterable[str]) -> Callable[[], None]:
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

    def _hold_back(
        self, seen: Saved, dropped: Dropped, inventory: Inventory, why: str = ""
    ) -> Callable[[], None]:
        """Its template cannot be used: one error says so, and the picture waits for its next save.

        `why` says what is wrong beside the template itself, if anything is.
        """
        self.inbox.answered.hold(seen.path)
        template = dropped.template
        known = self.ledger.known_recipe(template.name)
        if known is None or not self.ledger.is_valid(template.name):
            self.inbox.templates.refuse(template.name)  # its own answer has said why, or will
            return lambda: None
        digest = hashlib.sha256(template.content).hexdigest()
        if why:
            return self._reject(Save(template.name, digest, known.stamp, self.now()), why)
        of_template = Saved(template.name, template.content, digest, known.stamp, seen.defaults)
        return self._saved(of_template, inventory)

    def _watch_pictures(self, recipe: str, refused: str) -> None:
        """Answer it again once a picture that it could not use is another one."""
        if refused:
            look = partial(self._pictures_of(recipe).look_again, refused)
            self.inbox.answer_again_after(recipe, refused, look)

    def _pictures_of(self, recipe: str) -> NamedPictures:
        settings = self.settings
        most_pixels = settings.most_picture_pixels
        return NamedPictures(settings.inbox, settings.outbox, recipe, most_pixels)

    def _recipes(self, seen: Saved, inventory: Inventory, pictures: NamedPictures) -> list[Recipe]:
        """What it says. Raises RecipeInvalid or FileUnreadable."""
        if seen.defaults_unreadable:
            raise FileUnreadable(seen.defaults_unreadable)
        if seen.dropped is not None:
            return dropped_recipes(
                seen.dropped,
                inventory,
                seen.defaults,
                self.settings.max_images_per_save,
                pictures,
                self.go_on,
            )
        return read_recipes(
            seen.path,
            seen.content,
            inventory,
            seen.defaults,
            self.settings.max_images_per_save,
            pictures,
            self.go_on,
        )

    def _entry(self, recipe: Recipe, hash_picture: Callable[[str], str]) -> RequestedEntry:
        self.go_on()
        hash_of = self._hashes.with_pictures(hash_picture)
        return RequestedEntry(
            digest=recipe.digest(hash_of),
            priority=recipe.priority,
            random=recipe.wants_random_seed,
            requests=partial(recipe.image_requests, hash_of, go_on=self.go_on),
            sheet=sheet_of(recipe),
            may_differ=recipe.draws_from_files,
        )

    def _reject(self, save: Save, why: PicowatchError | str) -> Callable[[], None]:
        """Nothing under a template that is refused is answered until it is right."""
        if is_template(save.path):
            self.inbox.templates.refuse(save.path)
        text, line = _explained(save.path, why)
        self.outbox.problems.write_error(save.path, text)
        self.ledger.reject(save)
        return partial(self._report_rejected, save.path, line)

    def _deleted(self, seen: Deleted) -> Callable[[], None]:
        cancelled = self.ledger.forget(seen.path)
        self.outbox.problems.clear(seen.path)
        self.errors.forget(seen.path)
        return partial(log.info, "%s: deleted, %s cancelled", seen.path, images(cancelled))

    def _renamed(self, seen: Renamed, inventory: Inventory) -> Callable[[], None]:
        """What was valid is kept; what was not, or reads differently now, is answered again."""
        new = seen.path
        self.outbox.memos.note_rename(seen.old, new, self.ledger.saves_of_images(seen.old))
        self.ledger.rename(seen.old, new, seen.stamp, picture_exists=self.outbox.exists)
        self.outbox.problems.clear(seen.old)
        for name in (seen.old, new):
            self.errors.forget(name)
        follow_up = partial(log.info, "%s: renamed to %s, its queue is kept", seen.old, new)
        if self.ledger.queue_missing_again(new):
            log.info("%s: queued again", new)
        known = self.ledger.known_recipe(new)
        is_same = known is not None and known.digest == seen.saved.digest
        is_kept = is_same and self.ledger.is_valid(new) and not is_template(new)
        if is_kept and syntax_of(seen.old) == syntax_of(new):
            self._apply_new_folder(seen.saved, inventory)
            return _in_turn(follow_up, partial(self.finishing.moved, new))
        return _in_turn(follow_up, self._saved(seen.saved, inventory))

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

    # -- reporting

    def _report_rejected(self, path: str, line: str) -> None:
        self.result.count_failure()
        self.errors.note(path, line)
        log.error("%s", line)
        self.errors.on_failed(path)

    def _report_accepted(self, path: str, result: Acceptance, warnings: Sequence[str]) -> None:
        self.errors.forget(path)
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
        if result.queued or result.cancelled or not result.existing:
            log.info("%s: saved, %s", path, ", ".join(parts))
        else:
            newest = next(filter(self.outbox.exists, reversed(result.existing)), None)
            if newest is None:
                log.info("%s: saved, nothing new to render; its pictures were deleted", path)
            else:
                log.info("%s: saved, nothing new to render; its newest picture is %s", path, newest)
                self.outbox.show_as_latest(newest)
        if not result.queued:
            self.finishing.conclude(path)


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


def _warnings_of(recipes: Sequence[Recipe]) -> list[str]:
    """Each once."""
    return list(dict.fromkeys(w for recipe in recipes for w in recipe.warnings))


def _in_turn(*steps: Callable[[], None]) -> Callable[[], None]:
    def all_of_them() -> None:
        for step in steps:
            step()

    return all_of_them
