"""What follows when images of a recipe have ended: error file, contact sheets, `when_done`."""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from picowatch.daemon.contact_sheets import make_due_sheets
from picowatch.daemon.reporting import RecentErrors
from picowatch.files.blocks import OtherBytes
from picowatch.files.picture_names import is_picture_name
from picowatch.files.retry import unexpected
from picowatch.inbox.files import stamp_of
from picowatch.inbox.inbox import Inbox
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rows import QueuedImage
from picowatch.outbox.outbox import Outbox
from picowatch.recipe.messages.problems import harmless, harmless_lines
from picowatch.settings import Settings

log = logging.getLogger("picowatch")

FAILURES_SHOWN = 20  # in one error file


@dataclass(eq=False)
class Finishing:
    """Reports failures, and finishes with a recipe once all of its images have an outcome.

    `go_on` is called between the parts of what takes long; it may raise Ended.
    """

    settings: Settings
    inbox: Inbox
    ledger: Ledger
    outbox: Outbox
    errors: RecentErrors
    go_on: Callable[[], None]

    def __post_init__(self) -> None:
        self._away: set[str] = set()  # recipes that were to be taken out, but were not there

    def back_again(self) -> list[str]:
        """Recipes that were done while the inbox was away, and are there now: finish with them."""
        back = [path for path in self._away if stamp_of(self.settings.inbox, path)]
        self._away.difference_update(back)
        return back

    def finished(self, recipe: str) -> None:
        """An image of this recipe is done or failed, or the picture that it starts from is away."""
        self.safely(recipe, partial(self._finish, recipe))

    def moved(self, recipe: str) -> None:
        """The recipe was renamed: its failures, contact sheets and archive follow it."""
        if failures := self.ledger.failures(recipe):
            self.outbox.problems.write_error(recipe, _failure_text(recipe, failures))
            self.errors.note(recipe, f"{recipe}: {failures[-1][1]}")
        self.conclude(recipe)

    def conclude(self, recipe: str) -> None:
        """Draw the contact sheets that are due; archive or delete a recipe that is done."""
        # Asked first: of images that end meanwhile, the sheet is drawn at their own turn.
        digest = self.ledger.succeeded(recipe)
        make_due_sheets(recipe, self.ledger, self.outbox, self.go_on)
        if digest is not None:
            self._retire(recipe, digest)

    def remove(self, recipe: str, digest: str) -> None:
        """Delete a recipe that was in the inbox for `make` alone, and the files about it."""
        try:
            removed = self.inbox.remove(recipe, digest)
        except FileNotFoundError:
            return  # somebody deleted or renamed it, which the inbox reports
        except OSError as error:  # as in another user's folder, where `make` removes it itself
            log.info("%s: left for `make` to remove: %s", recipe, error.strerror)
            self.inbox.answered.follow_no_rename(recipe)
            return
        if removed:
            log.info("%s: removed, as requested", recipe)
            self.ledger.retire(recipe)
            self.outbox.problems.clear(recipe)
            self.errors.forget(recipe)

    def safely(self, recipe: str, action: Callable[[], None]) -> None:
        """Do what follows an answer or an image; what fails is reported, and not tried again."""
        try:
            action()
        except Exception as error:  # no recipe, picture or hook may end the daemon
            words = unexpected(error)
            log.error("%s: %s", recipe, words)
            self.errors.note(recipe, f"{recipe}: {words}")
            with suppress(OSError):
                self.outbox.problems.add_warning(recipe, words)

    def _finish(self, recipe: str) -> None:
        if self.ledger.misses_picture(recipe):
            self.inbox.answer_when_back(recipe)
        failures = self.ledger.failures(recipe)
        if failures:
            # An invalid save's error file stays: the next good save tries these again anyway.
            if self.ledger.is_valid(recipe):
                if self.outbox.problems.write_error(recipe, _failure_text(recipe, failures)):
                    self.errors.on_failed(recipe)
                self.errors.note(recipe, f"{recipe}: {failures[-1][1]}")
        elif self.ledger.succeeded(recipe) is not None:
            self.outbox.problems.remove_error(recipe)  # a crash may have kept it
            self.errors.forget(recipe)
        self.conclude(recipe)

    def _retire(self, path: str, digest: str) -> None:
        """Archive or delete a recipe whose images all succeeded, if its bytes are the same.

        What lies beside a dropped picture goes with it: it would be the prompt or the mask of
        the next picture of that name.
        """
        if self.settings.when_done == "keep" or self._is_saved_again(path):
            return
        companions = self.inbox.companions(path)
        files = {} if companions is None else {path: digest, **companions}
        # All are kept before the first is removed: on a full disk this is tried again.
        kept = {file: self._keep(file, its, path) for file, its in files.items()}
        if kept.get(path) and self._take_out(path, digest):
            log.info("%s: done, %s", path, kept[path])
            self.ledger.retire(path)
            for file, its in files.items():
                if kept[file] and file != path:
                    self._take_out(file, its)
        elif stamp_of(self.settings.inbox, path) is None:
            self._away.add(path)

    def _is_saved_again(self, recipe: str) -> bool:
        """Whether a save is yet to be answered: the same bytes request new seeds, too."""
        if is_picture_name(recipe):
            return False
        known, stamp = self.ledger.known_recipe(recipe), stamp_of(self.settings.inbox, recipe)
        return bool(known and stamp and stamp.written_since(known.stamp))

    def _keep(self, file: str, digest: str, recipe: str) -> str:
        """Archive a file with these bytes, if set; what becomes of it, "" if it is another now."""
        if self.settings.when_done == "delete":
            return "deleted"
        blocks = self.inbox.blocks(file, digest)
        try:
            return f"moved to {self.outbox.archive(file, digest, blocks, recipe)}"
        except OtherBytes:
            return ""

    def _take_out(self, file: str, digest: str) -> bool:
        """Remove a file with these bytes from the inbox; returns whether it was."""
        try:
            return self.inbox.remove(file, digest)
        except FileNotFoundError:
            return False  # taken out already, perhaps before a crash
        except OSError as error:
            log.warning("%s: done, but it stays in the inbox: %s", file, error.strerror)
            return False


def _failure_text(recipe: str, failures: Sequence[tuple[QueuedImage, str]]) -> str:
    parts = [harmless(f"inbox/{recipe}")]
    for image, reason in failures[:FAILURES_SHOWN]:
        where = f"entry {image.entry_index + 1}, image {image.image_index + 1}"
        parts.append(f"{where}, seed {image.request.seed}:\n{harmless_lines(reason)}")
    if len(failures) > FAILURES_SHOWN:
        parts.append(f"And {len(failures) - FAILURES_SHOWN} more.")
    parts.append(
        "The other images of this recipe are not affected. Save the recipe again to retry the "
        "failed ones."
    )
    return "\n\n".join(parts) + "\n"
