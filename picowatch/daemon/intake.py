"""Every save is answered: with images in the queue, or with one readable error file."""

import logging
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import cast

from picowatch.catalog import Catalog, Kind
from picowatch.catalog.hashing import Hashing
from picowatch.daemon.contact_sheets import make_due_sheets, sheet_of
from picowatch.daemon.reporting import RecentErrors
from picowatch.engine.batches import batch_key
from picowatch.errors import ControlFlow, LedgerCorrupt, ModelRefused, PictureUnreadable
from picowatch.files.retry import Ended, passes
from picowatch.inbox.files import FileUnreadable
from picowatch.inbox.inbox import Evidence, Gone, Inbox, Renamed, Saved, Unreadable
from picowatch.inbox.names import is_txt
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rows import Acceptance, AskedEntry, QueuedImage
from picowatch.outbox.outbox import Outbox
from picowatch.outbox.start_images import NamedPictures, StartImages
from picowatch.outbox.status import images
from picowatch.recipe import HashOf, Recipe, RecipeInvalid, error_text, one_line, read_recipes
from picowatch.recipe.known import Known
from picowatch.recipe.messages.problems import harmless, harmless_lines
from picowatch.recipe.resolve.start_image import refuse_unusable
from picowatch.save import Save, Stamp
from picowatch.settings import Settings
from picowatch.work.result import RunResult

log = logging.getLogger("picowatch")

CLOSING = "Nothing of this file was run. Save it again when it is mended."
SEEDS = 2**32
# What a transaction of answers takes at most, but for one long answer: meanwhile no engine gets
# its next batch, and no other save is looked at.
SLICE_SECONDS = 0.2
PICTURES = ("image", "mask")  # kinds of what recipes name that are no models
FAILURES_SHOWN = 20  # in one error file


class _NotHashed(ControlFlow):
    """An answer needs the hash of a model, which takes long."""

    def __init__(self, kind: Kind, name: str) -> None:
        super().__init__(kind, name)
        self.model = kind, name


class Intake:
    """Takes evidence from the inbox to the ledger, and tells the user in the outbox."""

    def __init__(
        self,
        settings: Settings,
        inbox: Inbox,
        ledger: Ledger,
        outbox: Outbox,
        catalog: Catalog,
        start_images: StartImages,
        *,
        errors: RecentErrors,
        on_failed: Callable[[str], None],
        go_on: Callable[[], None],
        result: RunResult,
        now: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        """`errors` are told of each recipe that fails.

        `on_failed` is called with the recipe when its error file says something new, `go_on`
        between the parts of what takes long; it may raise Ended.
        """
        self._settings = settings
        self._inbox = inbox
        self._ledger = ledger
        self._outbox = outbox
        self._catalog = catalog
        self._start_images = start_images
        self._now = now
        self._steady = steady
        self._known: Known | None = None
        self._hashes: dict[tuple[Kind, str], str | ModelRefused] = {}
        self._to_hash: tuple[Kind, str] | None = None
        self._errors = errors
        self._on_failed = on_failed
        self._go_on = go_on
        self._result = result

    def look_again(self) -> None:
        """There is new evidence: models may have come and gone before it."""
        self._hashes.clear()
        self._known = None

    def answer(self, evidence: Iterable[Evidence]) -> list[Callable[[], None]]:
        """Write what was noticed into the ledger: as much as SLICE_SECONDS allow, at once.

        Gives for each that is answered what is to be done once that is kept: it tells the log,
        shows and tidies, and may be done again. Nothing is answered where a model has to be
        hashed first: the next call does that, outside of the transaction. If `go_on` raises
        Ended, nothing has happened. Error files are written and removed before the transaction
        ends: a crash in between repeats both.
        """
        known = self._prepared()
        end = self._steady() + SLICE_SECONDS
        tell: list[Callable[[], None]] = []
        with self._ledger.transaction():
            for seen in evidence:
                try:
                    told = self._answer_safely(seen, known)
                except _NotHashed as needed:
                    self._to_hash = needed.model
                    break
                tell.append(partial(self._safely, seen.path, told))
                if self._steady() >= end:
                    break
            if self._inbox.inode is not None:
                self._ledger.remember("inbox inode", str(self._inbox.inode))
        return tell

    def _prepared(self) -> Known:
        if self._to_hash is not None:
            self._hashes[self._to_hash] = self._hash(*self._to_hash)
            self._to_hash = None
        if self._known is None:
            self._known = self._catalog.known(self._settings.checkpoint)
        return self._known

    def recall(self) -> None:
        """What refused recipes are waiting for is looked at from now on."""
        for recipe, refused in self._ledger.awaited().items():
            self._await(recipe, refused)

    def answer_again_without_error(self) -> None:
        """After a crash: an error file may be gone although its recipe is refused as before.

        It was removed for a rename or a deletion that the ledger did not keep.
        """
        for recipe in self._ledger.rejected_recipes():
            if not self._outbox.error(recipe):
                self._inbox.answer_again_after(recipe, "no error file", lambda: "refused")

    def tidy_up(self) -> None:
        """Delete what was kept for images that wait no more."""
        self._start_images.forget_all_but(self._ledger.start_images_needed())

    def finished(self, recipe: str) -> None:
        """An image of this recipe is done or failed: its error file, and `when_done`."""
        self._safely(recipe, partial(self._finish, recipe))

    def _finish(self, recipe: str) -> None:
        failures = self._ledger.failures(recipe)
        if failures:
            # An invalid save's error file stays: the next good save tries these again anyway.
            if self._ledger.is_valid(recipe):
                if self._outbox.write_error(recipe, _failure_text(recipe, failures)):
                    self._on_failed(recipe)
                self._errors.note(recipe, f"{recipe}: {failures[-1][1]}")
        elif self._ledger.succeeded(recipe) is not None:
            self._outbox.remove_error(recipe)  # a crash may have kept it
            self._errors.forget(recipe)
        make_due_sheets(recipe, self._ledger, self._outbox, self._go_on)
        if not failures:
            self._retire(recipe)

    def _safely(self, recipe: str, action: Callable[[], None]) -> None:
        """Do what follows an answer or an image; what fails is said, and not tried again."""
        try:
            action()
        except (Ended, LedgerCorrupt):
            raise
        except Exception as error:  # no recipe, picture or hook may end the daemon
            if passes(error):
                raise
            log.debug("unexpected", exc_info=True)
            words = f"Something went wrong that should not: {type(error).__name__}: {error}."
            log.error("%s: %s", recipe, words)
            self._errors.note(recipe, f"{recipe}: {words}")
            with suppress(OSError):
                self._outbox.add_warning(recipe, words)

    # -- evidence

    def _answer_safely(self, seen: Evidence, known: Known) -> Callable[[], None]:
        try:
            with self._ledger.transaction():
                return self._answer_one(seen, known)
        except (Ended, LedgerCorrupt, _NotHashed):
            raise
        except Exception as error:  # no single recipe may take the watcher down
            if passes(error):
                raise
            log.debug("unexpected", exc_info=True)
            words = f"Something went wrong that should not: {type(error).__name__}: {error}."
            return self._reject_unexpected(seen, words)

    def _reject_unexpected(self, seen: Evidence, words: str) -> Callable[[], None]:
        path, stamp = seen.path, Stamp(0, 0, 0) if isinstance(seen, Gone) else seen.stamp
        try:
            with self._ledger.transaction():
                return self._reject_words(Save(path, "", stamp, self._now()), words)
        except (Ended, LedgerCorrupt):
            raise
        except Exception as error:  # then the log alone says it
            if passes(error):
                raise
            return partial(self._tell_rejected, path, f"{path}: {words}")

    def _answer_one(self, seen: Evidence, known: Known) -> Callable[[], None]:
        if isinstance(seen, Saved):
            return self._saved(seen, known)
        if isinstance(seen, Unreadable):
            save = Save(seen.path, "", seen.stamp, self._now())
            return self._reject_words(save, f"This recipe cannot be read: {seen.why}.")
        if isinstance(seen, Gone):
            return self._gone(seen)
        return self._renamed(seen, known)

    def _saved(self, seen: Saved, known: Known) -> Callable[[], None]:
        save = Save(seen.path, seen.digest, seen.stamp, self._now())
        pictures = self._start_images.named_by(seen.path)
        try:
            recipes = self._recipes(seen, known, pictures)
            refuse_unusable(recipes, pictures.keep)
            entries = [self._entry(recipe, pictures) for recipe in recipes]
            result = self._ledger.accept(
                save,
                entries,
                batch_key=lambda request: repr(batch_key(request)),
                draw_seed=partial(secrets.randbelow, SEEDS),
                picture_exists=self._outbox.exists,
                go_on=self._go_on,
            )
        except RecipeInvalid as error:
            tell = self._reject(save, error_text(error), one_line(error))
            self._ledger.await_pictures(seen.path, pictures.refused)
            return _in_turn(tell, partial(self._await, seen.path, pictures.refused))
        except (ModelRefused, FileUnreadable) as error:
            return self._reject_words(save, str(error))
        warnings = list(dict.fromkeys(w for recipe in recipes for w in recipe.warnings))
        self._outbox.remove_error(seen.path)
        self._outbox.write_warnings(seen.path, warnings)
        return partial(self._tell_accepted, seen.path, result, warnings)

    def _await(self, recipe: str, refused: str) -> None:
        """Answer it anew once a picture that it could not use is another one."""
        if refused:
            look = partial(self._start_images.named_by(recipe).look_again, refused)
            self._inbox.answer_again_after(recipe, refused, look)

    def _recipes(self, seen: Saved, known: Known, pictures: NamedPictures) -> list[Recipe]:
        """What it says. Raises RecipeInvalid or FileUnreadable."""
        if seen.defaults_unreadable:
            raise FileUnreadable(seen.defaults_unreadable)
        return read_recipes(
            seen.path,
            seen.content,
            known,
            seen.defaults,
            self._settings.max_images_per_save,
            pictures.texts,
            self._go_on,
        )

    def _entry(self, recipe: Recipe, pictures: NamedPictures) -> AskedEntry:
        self._go_on()
        hash_of = self._hashes_for(pictures)
        return AskedEntry(
            digest=recipe.digest(hash_of),
            priority=recipe.priority,
            random=recipe.wants_random_seed,
            requests=partial(recipe.image_requests, hash_of, go_on=self._go_on),
            sheet=sheet_of(recipe),
        )

    def _hashes_for(self, pictures: NamedPictures) -> HashOf:
        """Gives the hash of anything a recipe names; its pictures are copied and kept.

        Each is looked up once: models until there is new evidence, pictures in a save. Raises
        _NotHashed if a model would have to be read.
        """

        def hash_of(kind: str, name: str) -> str:
            if kind in PICTURES:
                return pictures.keep(name)
            return self._known_hash(cast(Kind, kind), name)

        return hash_of

    def _known_hash(self, kind: Kind, name: str) -> str:
        found = self._hashes.get((kind, name))
        if found is None:
            model = self._catalog.find(kind, name)
            if not self._catalog.is_hashed(model):
                raise _NotHashed(kind, name)
            found = self._hashes[kind, name] = self._catalog.sha256(model)
        if isinstance(found, ModelRefused):
            raise found
        return found

    def _hash(self, kind: Kind, name: str) -> str | ModelRefused:
        """The model's hash, or why it has none. Gigabytes are read for it once."""
        try:
            model = self._catalog.find(kind, name)
            return Hashing(self._catalog, model, self._steady).result(self._go_on)
        except ModelRefused as error:
            return error

    def _reject_words(self, save: Save, words: str) -> Callable[[], None]:
        text = harmless_lines(f"{words}\n\n{CLOSING}\n")
        return self._reject(
            save, f"{harmless(f'inbox/{save.path}')}\n\n{text}", f"{save.path}: {words}"
        )

    def _reject(self, save: Save, text: str, line: str) -> Callable[[], None]:
        self._outbox.write_error(save.path, text)
        self._ledger.reject(save)
        return partial(self._tell_rejected, save.path, line)

    def _gone(self, seen: Gone) -> Callable[[], None]:
        cancelled = self._ledger.forget(seen.path)
        self._outbox.remove_error(seen.path)
        self._outbox.write_warnings(seen.path, ())
        self._errors.forget(seen.path)
        return partial(log.info, "%s: deleted, %s cancelled", seen.path, images(cancelled))

    def _renamed(self, seen: Renamed, known: Known) -> Callable[[], None]:
        """What was valid is kept; what was not, or reads differently now, is answered anew."""
        new = seen.path
        self._outbox.memos.note_rename(seen.old, new, self._ledger.saves_of_images(seen.old))
        was_valid = self._ledger.rename(
            seen.old, new, seen.stamp, picture_exists=self._outbox.exists
        )
        self._outbox.remove_error(seen.old)
        self._outbox.write_warnings(seen.old, ())
        self._errors.forget(seen.old)
        tell = partial(log.info, "%s: renamed to %s, its queue goes on", seen.old, new)
        if was_valid and is_txt(seen.old) == is_txt(new):
            self._move_in(seen.saved, known)
            return _in_turn(tell, partial(self._finish_moved, new))
        return _in_turn(tell, self._saved(seen.saved, known))

    def _move_in(self, seen: Saved, known: Known) -> None:
        """A folder's defaults may say another priority; all else holds from the next save on."""
        pictures = self._start_images.named_by(seen.path)
        warnings: list[str] = []
        priorities: list[tuple[str, int]] = []
        with suppress(RecipeInvalid, FileUnreadable):
            recipes = self._recipes(seen, known, pictures)
            warnings = list(dict.fromkeys(w for recipe in recipes for w in recipe.warnings))
            differ = len({recipe.priority for recipe in recipes}) > 1
            for recipe in recipes:
                digest = ""
                if differ:  # otherwise it does not matter which is which, and hashes cost much
                    with suppress(PictureUnreadable, ModelRefused):  # no entry of before, then
                        digest = recipe.digest(self._hashes_for(pictures))
                priorities.append((digest, recipe.priority))
        self._ledger.prioritise(seen.path, priorities)
        self._outbox.remove_error(seen.path)
        self._outbox.write_warnings(seen.path, warnings)

    def _finish_moved(self, recipe: str) -> None:
        """Failures stand beside the new name now, sheets and the archive are waiting for it."""
        if failures := self._ledger.failures(recipe):
            self._outbox.write_error(recipe, _failure_text(recipe, failures))
            self._errors.note(recipe, f"{recipe}: {failures[-1][1]}")
        make_due_sheets(recipe, self._ledger, self._outbox, self._go_on)
        if not failures:
            self._retire(recipe)

    # -- telling

    def _tell_rejected(self, path: str, line: str) -> None:
        self._result.count_failure()
        self._errors.note(path, line)
        log.error("%s", line)
        self._on_failed(path)

    def _tell_accepted(self, path: str, result: Acceptance, warnings: Sequence[str]) -> None:
        self._errors.forget(path)
        for warning in warnings:
            log.warning("%s: %s", path, warning)
        parts = [f"{images(result.queued)} queued"]
        if result.cancelled:
            parts.append(f"{result.cancelled} cancelled")
        if result.kept:
            parts.append(f"{result.kept} kept")
        if result.queued or result.cancelled or not result.made_before:
            log.info("%s: saved, %s", path, ", ".join(parts))
        else:
            newest = result.made_before[-1]
            log.info("%s: saved, nothing new to make; its newest picture is %s", path, newest)
            self._outbox.show_as_latest(newest)
        if not result.queued:
            make_due_sheets(path, self._ledger, self._outbox, self._go_on)
            self._retire(path)

    # -- when_done

    def _retire(self, path: str) -> None:
        """Archive or delete a recipe whose images all succeeded and whose bytes are the same."""
        if self._settings.when_done == "keep":
            return
        digest = self._ledger.succeeded(path)
        content = self._inbox.content(path, digest) if digest else None
        if digest is None or content is None:
            return
        archive = self._settings.when_done == "archive"
        where = f"moved to {self._outbox.archive(path, content)}" if archive else "deleted"
        try:
            removed = self._inbox.remove(path, digest)
        except OSError as error:
            log.warning("%s: done, but it stays in the inbox: %s", path, error.strerror)
            return
        if removed:
            log.info("%s: done, %s", path, where)
            self._ledger.forget(path)


def _in_turn(*steps: Callable[[], None]) -> Callable[[], None]:
    def all_of_them() -> None:
        for step in steps:
            step()

    return all_of_them


def _failure_text(recipe: str, failures: Sequence[tuple[QueuedImage, str]]) -> str:
    parts = [harmless(f"inbox/{recipe}")]
    for image, reason in failures[:FAILURES_SHOWN]:
        where = f"entry {image.place + 1}, image {image.position + 1}"
        parts.append(f"{where}, seed {image.request.seed}:\n{harmless_lines(reason)}")
    if len(failures) > FAILURES_SHOWN:
        parts.append(f"And {len(failures) - FAILURES_SHOWN} more.")
    parts.append(
        "The other images of this recipe are not touched by this. Save the recipe again to try "
        "the failed ones once more."
    )
    return "\n\n".join(parts) + "\n"
