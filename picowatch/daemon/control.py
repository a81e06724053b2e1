"""Commands of other processes: pause, resume, retry, cancel, make, star, unstar, delete."""

import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from picowatch.daemon.backlog import Backlog
from picowatch.daemon.contact_sheets import make_due_sheets
from picowatch.daemon.finishing import Finishing
from picowatch.daemon.reporting import RecentErrors
from picowatch.inbox.dropped import why_no_recipe
from picowatch.inbox.files import stamp_of
from picowatch.inbox.inbox import Inbox
from picowatch.inbox.names import is_recipe_path
from picowatch.ledger.ledger import PAUSED, Ledger
from picowatch.ledger.rows import Outcome
from picowatch.outbox.commands import Answer, Command, Commands
from picowatch.outbox.outbox import Outbox
from picowatch.outbox.status import images, images_wait
from picowatch.recipe.messages.problems import harmless
from picowatch.settings import Settings
from picowatch.work.pool import WorkerPool
from picowatch.work.publish import FOLDER_REMEDY

log = logging.getLogger("picowatch")

NAMED = 10  # recipes in an answer
MISSING_SECONDS = 30.0  # that a network share may take to show a file another machine wrote


@dataclass(eq=False)
class Control:
    """Runs commands; each may come twice if picowatch dies between running and answering it.

    `go_on` is called while a command takes long.
    """

    settings: Settings
    inbox: Inbox
    ledger: Ledger
    outbox: Outbox
    backlog: Backlog
    pool: WorkerPool
    finishing: Finishing
    commands: Commands
    errors: RecentErrors
    go_on: Callable[[], None]

    def __post_init__(self) -> None:
        self._missing_since: dict[str, float] = {}  # recipes of `make`
        # By `cancel` command: the unanswered saves that came before it, and after it.
        self._around: dict[Command, tuple[set[str], set[str]]] = {}

    def restore_pause(self) -> None:
        """A pause continues after a restart."""
        if self.ledger.fact(PAUSED) == "yes":
            self.pool.pause()
            log.info("paused: nothing is rendered until `picowatch resume`")

    def run_commands(self) -> None:
        """Do what was requested meanwhile."""
        self.commands.answer_all(self.do)

    def do(self, command: Command) -> Answer | None:
        """Run it and return the answer; None as long as there is no answer yet."""
        match command:
            case Command("pause"):
                return self._pause()
            case Command("resume"):
                return self._resume()
            case Command("retry"):
                return self._retry(command.recipe)
            case Command("cancel", str(recipe)):
                return self._cancel(command, recipe)
            case Command("make", str(recipe), str(digest)) if is_recipe_path(recipe):
                return self._make(recipe, digest)
            case Command("make once", str(recipe), str(digest)) if is_recipe_path(recipe):
                if answer := self._make(recipe, digest):
                    self.finishing.remove(recipe, digest)
                return answer
            case Command("star" | "unstar", files=(_, *_)):
                return self._star(command.files, starred=command.name == "star")
            case Command("delete", files=(_, *_)):
                return self._delete(command.files)
        return Answer(False, f"Unknown command '{command.name}', or not of this form.")

    # -- pause

    def _pause(self) -> Answer:
        if self.pool.paused:
            return Answer(True, f"It is already paused; {self._queued()}.")
        self._set_paused(True)
        running = (
            " when the images in progress are finished" if self.ledger.counts().running else ""
        )
        return Answer(True, f"Paused{running}; {self._queued()}.")

    def _resume(self) -> Answer:
        if not self.pool.paused:
            return Answer(True, f"It was not paused; {self._queued()}.")
        self._set_paused(False)
        return Answer(True, f"Resumed; {self._queued()}.")

    def _set_paused(self, paused: bool) -> None:
        self.outbox.memos.note_pause(paused)
        self.ledger.remember(PAUSED, "yes" if paused else "")
        log.info("%s, as requested", "paused" if paused else "resumed")
        if paused:
            self.pool.pause()
        else:
            self.pool.resume()

    def _queued(self) -> str:
        return images_wait(self.ledger.counts().queued)

    # -- retry and cancel

    def _retry(self, pattern: str | None) -> Answer:
        failed = self.ledger.recipes_with_failures()
        retried = self.ledger.retry(failed if pattern is None else _matching(pattern, failed))
        for recipe in retried:
            if self.ledger.is_valid(recipe):  # else it says what is wrong with the last save
                self.outbox.problems.remove_error(recipe)
                self.errors.forget(recipe)
            log.info("%s: %s queued again, as requested", recipe, images(retried[recipe]))
        self.pool.wake()
        if retried:
            return Answer(True, f"{images(sum(retried.values()))} queued again.")
        if pattern is None:
            return Answer(True, "No image has failed.")
        return Answer(
            False,
            f"No image of {pattern} has failed.{_named('Recipes with failed images', failed)}",
        )

    def _cancel(self, command: Command, pattern: str) -> Answer | None:
        """What is in progress is finished, or stopped under the setting `interrupt`.

        Saves that came before are answered first: what they request is cancelled, too. Those that
        came later stay.
        """
        saved = self.backlog.unanswered().union(self.inbox.expected_saves())
        unanswered = {*_matching(pattern, saved)}
        if command not in self._around:
            later = {path for path in unanswered if self._is_saved_since(path, command.sent_at_ns)}
            self._around[command] = unanswered - later, later
        earlier, later = self._around[command]
        if earlier & unanswered:
            return None
        del self._around[command]
        queued = [recipe for recipe, _ in self.ledger.queued_recipes()]
        running = set(_matching(pattern, self.ledger.recipes_in_progress()))
        missing = set(_matching(pattern, self.ledger.recipes_missing_pictures()))
        recipes = {*_matching(pattern, queued), *running, *missing} - later
        if not recipes:
            return Answer(
                False,
                f"No image of {pattern} is queued.{_named('Recipes with queued images', queued)}",
            )
        known = {recipe: self.ledger.known_recipe(recipe) for recipe in sorted(recipes)}
        self.outbox.memos.note_cancellation(
            {recipe: one.stamp for recipe, one in known.items() if one}
        )
        cancelled = self.ledger.cancel(recipes)
        for picture in missing:
            self.inbox.waiting.forget(picture)  # only its next save counts
        stopped = self.pool.cancel(recipes) if self.settings.interrupt else 0
        for recipe in sorted(recipes):
            log.info("%s: queued images cancelled, as requested", recipe)
            make_due_sheets(recipe, self.ledger, self.outbox, self.go_on)
        rest = ""
        if running:
            rest = (
                " Images in progress are stopped."
                if stopped
                else " Images in progress are finished."
            )
        return Answer(True, f"{images(cancelled)} cancelled.{rest}")

    def _is_saved_since(self, path: str, time_ns: int) -> bool:
        """Or moved in, by itself or with a folder: it keeps the time of its last write.

        Moving a folder changes its ctime, and neither its mtime nor the times of what is in it.
        """
        file = self.settings.inbox / path
        try:
            status = file.stat()
            folders = [folder.stat() for folder in file.parents[: path.count("/")]]
        except OSError:
            return False
        moved = [one.st_ctime_ns for one in folders if one.st_ctime_ns > one.st_mtime_ns]
        return max(status.st_mtime_ns, status.st_ctime_ns, *moved) > time_ns

    # -- pictures

    def _star(self, files: Collection[str], *, starred: bool) -> Answer:
        """Only pictures that the gallery shows; the others are named."""
        shown, unknown = self._shown(files)
        changed = self.outbox.star(shown, starred)
        words = "starred" if starred else "without a star"
        if changed:
            log.info("%s: %s, as requested", _listed(changed), words)
        return Answer(not unknown, f"{_pictures(len(shown))} {words}.{unknown}")

    def _delete(self, files: Collection[str]) -> Answer:
        """They are not rendered again unless a save asks for them, as when a user deletes them."""
        shown, unknown = self._shown(files)
        kept = self.outbox.delete(shown)
        if deleted := [file for file in shown if file not in kept]:
            log.info("%s: deleted, as requested", _listed(deleted))
        words = f"{_pictures(len(deleted))} deleted.{unknown}"
        if kept:
            words += f"{_named('No permission to delete', kept)} {FOLDER_REMEDY}"
        return Answer(not (unknown or kept), words)

    def _shown(self, files: Collection[str]) -> tuple[list[str], str]:
        """Those that the gallery shows, and a sentence about the others.

        One with a star counts, too: its file may be gone since a crash, and so is its tile.
        """
        known = {*self.outbox.gallery.shown(files), *self.outbox.stars.files()}
        unknown = {*files} - known
        return sorted({*files} & known), _named("Not in the gallery", sorted(unknown))

    # -- make

    def _make(self, recipe: str, digest: str) -> Answer | None:
        """The pictures of a save, once it was answered and all of them have ended."""
        stamp, known = stamp_of(self.settings.inbox, recipe), self.ledger.known_recipe(recipe)
        if stamp is not None and (known is None or stamp.written_since(known.stamp)):
            why = why_no_recipe(self.settings.inbox, recipe)
            return Answer(False, f"{why} Save it in another folder.") if why else None
        outcome = self.ledger.outcome(recipe, digest)
        if outcome is None and stamp is None and known is None:
            now = self.outbox.memos.recall().name_now(recipe, digest)
            return self._missing(recipe) if now == recipe else self._make(now, digest)
        self._missing_since.pop(recipe, None)
        if outcome is None:
            if known is not None and not known.digest:  # its bytes could not be read
                return self._refused(recipe)
            return Answer(False, f"{recipe} was saved again meanwhile, with different content.")
        if outcome.unfinished:
            return None
        self.finishing.finished(recipe)  # the answer names its error file and contact sheets
        return self._result(recipe, self.ledger.outcome(recipe, digest) or outcome)

    def _missing(self, recipe: str) -> Answer | None:
        since = self._missing_since.setdefault(recipe, time.monotonic())
        if time.monotonic() - since < MISSING_SECONDS:
            return None
        del self._missing_since[recipe]
        return Answer(
            False,
            f"{recipe} was not found in {self.settings.inbox}, the inbox that is being watched.",
        )

    def _refused(self, recipe: str) -> Answer:
        problems = self.outbox.problems
        error, warning = problems.error(recipe), problems.warning(recipe)
        return Answer(False, error, (), error, warning)

    def _result(self, recipe: str, outcome: Outcome) -> Answer:
        if not outcome.valid:
            return self._refused(recipe)
        problems = self.outbox.problems
        error, warning = problems.error(recipe), problems.warning(recipe)
        # One that the user deleted is not rendered again as long as its entry is the same.
        pictures = tuple(filter(self.outbox.exists, outcome.pictures))
        sheets = tuple(filter(self.outbox.exists, outcome.sheets))
        done, words = True, f"{images(len(pictures))} rendered."
        if outcome.failed:
            file = self.outbox.names.error_file(recipe)
            done, words = False, f"{images(outcome.failed)} failed: see {file} in the outbox."
        elif outcome.cancelled:
            done, words = False, f"{images(outcome.cancelled)} cancelled."
        return Answer(done, words, pictures, error, warning, sheets)


def _matching(pattern: str, recipes: Iterable[str]) -> list[str]:
    """The recipe of that name; else those in the folder of that name; else those a glob fits."""
    every = list(recipes)
    folder = pattern.rstrip("/")
    if pattern in every:
        return [pattern]
    if inside := [one for one in every if folder == "." or one.startswith(f"{folder}/")]:
        return inside
    return [one for one in every if fnmatchcase(one, pattern)]


def _pictures(count: int) -> str:
    return f"{count} picture{'' if count == 1 else 's'}"


def _listed(files: Sequence[str]) -> str:
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return harmless(f"{files[0]}{more}")


def _named(words: str, recipes: list[str]) -> str:
    if not recipes:
        return ""
    more = f" and {len(recipes) - NAMED} more" if len(recipes) > NAMED else ""
    return f" {words}: {', '.join(recipes[:NAMED])}{more}."
