"""What follows a change of a recipe: error file, contact sheets, `when_done`."""

import logging
from collections.abc import Sequence

from picowatch.daemon.archive import Archive
from picowatch.daemon.contact_sheets import make_due_sheets
from picowatch.files.retry import passes, unexpected
from picowatch.ledger.rows import QueuedImage
from picowatch.save import KnownRecipe
from picowatch.streams import harmless, harmless_lines
from picowatch.work.run import Run

log = logging.getLogger("picowatch")

FAILURES_SHOWN = 20  # in one error file


class Finishing:
    """Draws the consequences of what changed: error file, contact sheets, `when_done`.

    Each step looks at what is there and may be repeated.
    """

    def __init__(self, run: Run, archive: Archive) -> None:
        self.archive, self.observers = archive, run.observers
        self.ledger, self.outbox = run.ledger, run.outbox

    def finish_all(self) -> None:
        """All recipes with something to do; what was done is committed at once.

        Raises what has to be waited for once each has had its turn: a folder that cannot be written
        may hold up one recipe for good.
        """
        waits: OSError | None = None
        done = []
        for recipe, todo, has_any in self.ledger.todo():
            try:
                is_done = not has_any or self.finish(recipe)
            except Exception as error:  # no recipe, picture or hook may end the daemon
                if isinstance(error, OSError) and passes(error):
                    waits = error
                    continue
                words = unexpected(error)
                log.error("%s: %s", recipe, words)
                self.ledger.note_problem(recipe, f"{recipe}: {words}")
                self.outbox.problems.add_warning(recipe, words)
                is_done = True
            if is_done:
                done.append((recipe, todo))
        if done:
            self.ledger.done_with(done)
        if waits:
            raise waits

    def finish(self, recipe: str) -> bool:
        """Draw the consequences; False if the recipe cannot be taken out of the inbox yet.

        An invalid save's error file stays: the next good save tries the failed images again anyway.
        """
        known = self.ledger.known_recipe(recipe)
        if known is None or known.outcome != "accepted":
            make_due_sheets(recipe, self.ledger, self.outbox)
            return True
        self._report_failures(recipe, known)
        # Asked first: of images that end meanwhile, the sheet is drawn at their own turn.
        are_all_done = self.ledger.recipe_counts(recipe).are_all_done
        make_due_sheets(recipe, self.ledger, self.outbox)
        return not are_all_done or self.archive.take_away(recipe, known)

    def _report_failures(self, recipe: str, known: KnownRecipe) -> None:
        if failures := self.ledger.failures(recipe):
            # Before the file is there, and until it is gone: what is noted is looked at again.
            self.ledger.note_problem(recipe, f"{recipe}: {failures[-1][1]}")
            if self.outbox.problems.write_error(recipe, _failure_text(recipe, failures)):
                self.observers.failed(recipe)
        elif known.problem:
            self.outbox.problems.remove_error(recipe)
            self.ledger.note_problem(recipe, None)


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
