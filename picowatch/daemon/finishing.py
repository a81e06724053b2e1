"""What follows when images of a recipe have ended: error file, contact sheets, `when_done`."""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from picowatch.daemon.contact_sheets import make_due_sheets
from picowatch.daemon.reporting import RecentErrors
from picowatch.files.retry import unexpected
from picowatch.inbox.inbox import Inbox
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rows import QueuedImage
from picowatch.outbox.outbox import Outbox
from picowatch.recipe.messages.problems import harmless, harmless_lines
from picowatch.settings import Settings

log = logging.getLogger("picowatch")

FAILURES_SHOWN = 20  # in one error file


class Finishing:
    """Reports what failed, and finishes with a recipe once nothing of it is left to do."""

    def __init__(
        self,
        settings: Settings,
        inbox: Inbox,
        ledger: Ledger,
        outbox: Outbox,
        *,
        errors: RecentErrors,
        go_on: Callable[[], None],
    ) -> None:
        """`go_on` is called between the parts of what takes long; it may raise Ended."""
        self._when_done = settings.when_done
        self._inbox = inbox
        self._ledger = ledger
        self._outbox = outbox
        self._errors = errors
        self._go_on = go_on

    def finished(self, recipe: str) -> None:
        """An image of this recipe is done or failed."""
        self.safely(recipe, partial(self._finish, recipe))

    def moved(self, recipe: str) -> None:
        """The recipe was renamed: its failures, contact sheets and archive follow it."""
        if failures := self._ledger.failures(recipe):
            self._outbox.problems.write_error(recipe, _failure_text(recipe, failures))
            self._errors.note(recipe, f"{recipe}: {failures[-1][1]}")
        self.conclude(recipe)

    def conclude(self, recipe: str) -> None:
        """Draw the contact sheets that are due; archive or delete a recipe that is done."""
        make_due_sheets(recipe, self._ledger, self._outbox, self._go_on)
        self._retire(recipe)

    def safely(self, recipe: str, action: Callable[[], None]) -> None:
        """Do what follows an answer or an image; what fails is reported, and not tried again."""
        try:
            action()
        except Exception as error:  # no recipe, picture or hook may end the daemon
            words = unexpected(error)
            log.error("%s: %s", recipe, words)
            self._errors.note(recipe, f"{recipe}: {words}")
            with suppress(OSError):
                self._outbox.problems.add_warning(recipe, words)

    def _finish(self, recipe: str) -> None:
        failures = self._ledger.failures(recipe)
        if failures:
            # An invalid save's error file stays: the next good save tries these again anyway.
            if self._ledger.is_valid(recipe):
                if self._outbox.problems.write_error(recipe, _failure_text(recipe, failures)):
                    self._errors.on_failed(recipe)
                self._errors.note(recipe, f"{recipe}: {failures[-1][1]}")
        elif self._ledger.succeeded(recipe) is not None:
            self._outbox.problems.remove_error(recipe)  # a crash may have kept it
            self._errors.forget(recipe)
        self.conclude(recipe)

    def _retire(self, path: str) -> None:
        """Archive or delete a recipe whose images all succeeded and whose bytes are the same."""
        if self._when_done == "keep":
            return
        digest = self._ledger.succeeded(path)
        content = self._inbox.content(path, digest) if digest else None
        if digest is None or content is None:
            return
        archive = self._when_done == "archive"
        where = f"moved to {self._outbox.archive(path, content)}" if archive else "deleted"
        try:
            removed = self._inbox.remove(path, digest)
        except OSError as error:
            log.warning("%s: done, but it stays in the inbox: %s", path, error.strerror)
            return
        if removed:
            log.info("%s: done, %s", path, where)
            self._ledger.forget(path)


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
