"""Every save is answered: with images in the queue, or with one readable error file."""

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import cast

from picowatch.catalog import Catalog, Kind, Model
from picowatch.engine.batches import batch_key
from picowatch.errors import LedgerCorrupt, ModelRefused, PictureUnreadable
from picowatch.inbox.files import FileUnreadable
from picowatch.inbox.inbox import Evidence, Gone, Inbox, Renamed, Saved, Unreadable
from picowatch.inbox.names import is_txt
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rows import Acceptance, AskedEntry, QueuedImage
from picowatch.outbox.outbox import Outbox
from picowatch.outbox.start_images import NamedPictures, StartImages
from picowatch.outbox.status import images
from picowatch.patience import passes
from picowatch.recipe import HashOf, Recipe, RecipeInvalid, error_text, one_line, read_recipes
from picowatch.recipe.known import Known
from picowatch.recipe.problems import harmless, harmless_lines
from picowatch.recipe.start_image import refuse_unusable
from picowatch.save import Save, Stamp
from picowatch.settings import Settings
from picowatch.sheets import make_due_sheets, sheet_of

log = logging.getLogger("picowatch")

CLOSING = "Nothing of this file was run. Save it again when it is mended."
SEEDS = 2**32
PICTURES = ("image", "mask")  # kinds of what recipes name that are no models
ERRORS_KEPT = 5  # for the status
FAILURES_SHOWN = 20  # in one error file


class Stopping(Exception):
    """picowatch ends in the middle of an answer; the next start gives it."""


class Answers:
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
        stop: threading.Event,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._inbox = inbox
        self._ledger = ledger
        self._outbox = outbox
        self._catalog = catalog
        self._start_images = start_images
        self._stop = stop
        self._now = now
        self._hashes: dict[tuple[Kind, str], str] = {}
        self.meanwhile: Callable[[], None] = lambda: None  # called while an answer takes long
        # Called with the recipe when its error file says something new.
        self.on_failed: Callable[[str], None] = lambda recipe: None
        self.rejected = 0
        self.errors: deque[str] = deque(maxlen=ERRORS_KEPT)

    def answer(self, evidence: Sequence[Evidence]) -> list[Callable[[], None]]:
        """Write what was noticed into the ledger, all in one transaction.

        Gives what is to be done once that is kept: it tells the log, shows and tidies, and may
        be done again. Raises Stopping if `stop` is set meanwhile; then nothing has happened.
        Error files are written and removed before the transaction ends: a crash in between
        repeats both.
        """
        self._hashes.clear()
        known = self._catalog.known(self._settings.checkpoint)
        tell: list[Callable[[], None]] = []
        with self._ledger.transaction():
            for seen in evidence:
                told = self._answer_safely(seen, known)
                tell.append(partial(self._safely, seen.path, told))
            if self._inbox.inode is not None:
                self._ledger.remember("inbox inode", str(self._inbox.inode))
        return tell

    def recall(self) -> None:
        """What refused recipes are waiting for is looked at from now on."""
        for recipe, refused in self._ledger.awaited().items():
            self._await(recipe, refused)

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
            is_valid = self._ledger.is_valid(recipe)
            if is_valid and self._outbox.write_error(recipe, _failure_text(recipe, failures)):
                self.on_failed(recipe)
            self.errors.append(f"{recipe}: {failures[-1][1]}")
        elif self._ledger.succeeded(recipe) is not None:
            self._outbox.remove_error(recipe)  # a crash may have kept it
        make_due_sheets(recipe, self._ledger, self._outbox)
        if not failures:
            self._retire(recipe)

    def _safely(self, recipe: str, action: Callable[[], None]) -> None:
        """Do what follows an answer or an image; what fails is said, and not tried again."""
        try:
            action()
        except LedgerCorrupt:
            raise
        except Exception as error:  # no recipe, picture or hook may end the daemon
            if passes(error):
                raise
            log.debug("unexpected", exc_info=True)
            words = f"Something went wrong that should not: {type(error).__name__}: {error}."
            log.error("%s: %s", recipe, words)
            self.errors.append(f"{recipe}: {words}")
            with suppress(OSError):
                self._outbox.add_warning(recipe, words)

    # -- evidence

    def _answer_safely(self, seen: Evidence, known: Known) -> Callable[[], None]:
        try:
            with self._ledger.transaction():
                return self._answer_one(seen, known)
        except (Stopping, LedgerCorrupt):
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
        except LedgerCorrupt:
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
            entries = [_entry(recipe, self._hashes_for(pictures)) for recipe in recipes]
            result = self._ledger.accept(
                save,
                entries,
                batch_key=lambda request: repr(batch_key(request)),
                draw_seed=partial(secrets.randbelow, SEEDS),
                picture_exists=self._outbox.exists,
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
        )

    def _hashes_for(self, pictures: NamedPictures) -> HashOf:
        """Gives the hash of anything a recipe names; its pictures are copied and kept.

        Each is looked up once: models in a round of answers, pictures in a save.
        """

        def hash_of(kind: str, name: str) -> str:
            if kind in PICTURES:
                return pictures.keep(name)
            key = cast(Kind, kind), name
            if key not in self._hashes:
                self._hashes[key] = self._hash(self._catalog.find(*key))
            return self._hashes[key]

        return hash_of

    def _hash(self, model: Model) -> str:
        """The model's hash. Gigabytes are read for it once, so it gives way to `stop`."""
        found: list[str] = []
        failed: list[ModelRefused] = []

        def read() -> None:
            try:
                found.append(self._catalog.sha256(model))
            except ModelRefused as error:
                failed.append(error)

        reader = threading.Thread(target=read, name="hash", daemon=True)
        reader.start()
        while reader.is_alive():
            reader.join(timeout=0.1)
            self.meanwhile()
            if self._stop.is_set():
                raise Stopping
        if failed:
            raise failed[0]
        return found[0]

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
        make_due_sheets(recipe, self._ledger, self._outbox)
        if not failures:
            self._retire(recipe)

    # -- telling

    def _tell_rejected(self, path: str, line: str) -> None:
        self.rejected += 1
        self.errors.append(line)
        log.error("%s", line)
        self.on_failed(path)

    def _tell_accepted(self, path: str, result: Acceptance, warnings: Sequence[str]) -> None:
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
            make_due_sheets(path, self._ledger, self._outbox)
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


def _entry(recipe: Recipe, hash_of: HashOf) -> AskedEntry:
    return AskedEntry(
        digest=recipe.digest(hash_of),
        priority=recipe.priority,
        random=recipe.wants_random_seed,
        requests=partial(recipe.image_requests, hash_of),
        sheet=sheet_of(recipe),
    )


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
