"""The consequences of a recipe's changes: error file, contact sheets, `when_done`."""

import json
import logging
from collections.abc import Sequence

from picowatch.daemon.run import Run
from picowatch.daemon.sheets import make_due_sheets
from picowatch.files.inside import OtherBytes, checked_blocks, sha256_of, unlink_below
from picowatch.files.names import is_picture_name
from picowatch.files.pictures import MAX_BYTES
from picowatch.files.retry import passes, unexpected
from picowatch.inbox.files import FileChanged, FileUnreadable, complete_file
from picowatch.inbox.inbox import Inbox
from picowatch.inbox.reading import sidecars_of, size_and_time_at
from picowatch.ledger import outstanding, questions
from picowatch.ledger.rows import KnownRecipe, QueuedImage
from picowatch.streams import harmless, harmless_lines

log = logging.getLogger("picowatch")

FAILURES_SHOWN = 20  # in one error file


class Finishing:
    """Draws the consequences of what changed: error file, contact sheets, `when_done`.

    Each step looks at what is there and may be repeated.
    """

    def __init__(self, run: Run, inbox: Inbox) -> None:
        self.settings, self.inbox, self.observers = run.settings, inbox, run.observers
        self.ledger, self.outbox = run.ledger, run.outbox

    def finish_all(self) -> None:
        """Finish all recipes that have changed, and commit that at once.

        An error that has to be waited for is raised only after each had its turn: one recipe's
        folder may stay unwritable for good.
        """
        waits: OSError | None = None
        done = []
        for recipe, todo, has_any in outstanding.todo(self.ledger):
            try:
                is_done = not has_any or self.finish(recipe)
            except Exception as error:  # no recipe, picture or hook may end the daemon
                if isinstance(error, OSError) and passes(error):
                    waits = error
                    continue
                words = unexpected(error)
                log.error("%s: %s", recipe, words)
                outstanding.note_problem(self.ledger, recipe, f"{recipe}: {words}")
                self.outbox.problems.add_warning(recipe, words)
                is_done = True
            if is_done:
                done.append((recipe, todo))
        if done:
            outstanding.done_with(self.ledger, done)
        if waits:
            raise waits

    def list_failures(self) -> None:
        """Add what was refused or failed to failures.jsonl, not twice even after a crash."""
        if unlisted := outstanding.unlisted_failures(self.ledger):
            recent = self.outbox.failures.recent()
            lines = [line for text in unlisted.values() if (line := json.loads(text)) not in recent]
            if lines:
                self.outbox.failures.append(*lines)
            outstanding.mark_failures_listed(self.ledger, unlisted)

    def finish(self, recipe: str) -> bool:
        """Draw the consequences; False if the recipe cannot be taken out of the inbox yet.

        An invalid save's error file stays: the next valid one tries the failed images again anyway.
        """
        known = questions.known_recipe(self.ledger, recipe)
        if known is None or known.outcome != "accepted":
            make_due_sheets(recipe, self.ledger, self.outbox)
            return True
        self._report_failures(recipe, known)
        # Asked first: images that end meanwhile bring the recipe another turn, with its sheet.
        are_all_done = {*questions.requested(self.ledger, recipe)} == {"done"}
        make_due_sheets(recipe, self.ledger, self.outbox)
        return not are_all_done or self._take_away(recipe, known)

    def _report_failures(self, recipe: str, known: KnownRecipe) -> None:
        if failures := questions.failures(self.ledger, recipe):
            # Noted before the file is written and until it is removed, for a crash in between.
            outstanding.note_problem(self.ledger, recipe, f"{recipe}: {failures[-1][1]}")
            if self.outbox.problems.write_error(recipe, _failure_text(recipe, failures)):
                self.observers.failed(recipe)
        elif known.problem:
            self.outbox.problems.remove_error(recipe)
            outstanding.note_problem(self.ledger, recipe, None)

    # -- `when_done`: files are taken out of the inbox if their bytes are those that were accepted

    def _take_away(self, path: str, known: KnownRecipe) -> bool:
        """Archive or delete a recipe whose images all succeeded; False if it is to be tried again.

        A dropped picture's sidecars go with it: they would be the prompt or the mask of the next
        picture of that name.
        """
        found = size_and_time_at(self.settings.inbox, path)
        # A newer save waits to be accepted: even the same bytes may request new seeds.
        is_saved_again = found is not None and found.written_since(known.size_and_time)
        if self.settings.when_done == "keep" or is_saved_again:
            return True
        if not self.inbox.folder:
            return False
        files = self._with_sidecars(path, known.digest) if found else {}
        # All are archived before the first is removed: a full disk interrupts this.
        kept = {file: self._keep(file, its, path) for file, its in files.items()}
        if kept.get(path) and self._take_out(path, known.digest):
            log.info("%s: done, %s", path, kept[path])
            outstanding.archive(self.ledger, path)
            for file, its in files.items():
                if kept[file] and file != path:
                    self._take_out(file, its)
        return self.inbox.is_there()  # if not, the file may come back with the inbox

    def _with_sidecars(self, path: str, digest: str) -> dict[str, str]:
        """Return a recipe, or a dropped picture with its sidecars, each with its sha256.

        None of them if one is changing.
        """
        digests, inbox = {path: digest}, self.settings.inbox
        try:
            for sidecar in sidecars_of(inbox, path) if is_picture_name(path) else ():
                with complete_file(inbox, sidecar) as (file, _):
                    digests[sidecar] = sha256_of(file, MAX_BYTES)
        except (FileUnreadable, FileChanged, FileNotFoundError):
            return {}
        return digests

    def _keep(self, file: str, digest: str, recipe: str) -> str:
        """Archive a file if set; return what happens to it, "" if it has other bytes now."""
        if self.settings.when_done == "delete":
            return "deleted"
        blocks = checked_blocks(self.settings.inbox, file, digest, MAX_BYTES)
        try:
            return f"moved to {self.outbox.archive(file, digest, blocks, recipe)}"
        except OtherBytes:
            return ""

    def _take_out(self, file: str, digest: str) -> bool:
        """Remove a file with these bytes from the inbox, unless it is a link.

        Returns whether that worked.
        """
        inbox = self.settings.inbox
        try:
            return unlink_below(inbox, file, lambda found: sha256_of(found, MAX_BYTES) == digest)
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
