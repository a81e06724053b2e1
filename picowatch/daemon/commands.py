"""Commands of other processes: pause, resume, retry, cancel, make, delete."""

import logging
import time
from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase
from functools import partial
from itertools import filterfalse, islice

from picowatch.daemon import finish
from picowatch.daemon.pool import WorkerPool
from picowatch.daemon.publish import FOLDER_REMEDY
from picowatch.daemon.run import Run
from picowatch.files.names import natural_key
from picowatch.inbox.files import size_and_time_of
from picowatch.inbox.names import PICTURES_NAME, is_dropped, is_recipe_path, is_template
from picowatch.inbox.reading import size_and_time_at, template_above, why_no_recipe
from picowatch.inbox.scan import requests_in, scan
from picowatch.ledger import contact_sheets, control, outstanding, questions
from picowatch.ledger.rows import Outcome, SizeAndTime, WaitingCommand
from picowatch.outbox.commands import Answer, Command, answer_all, make_ready
from picowatch.outbox.status import images, images_wait
from picowatch.recipe.reading import NothingSaid
from picowatch.streams import harmless

log = logging.getLogger("picowatch")

NAMED = 10  # recipes in an answer
AT_ONCE = 500  # pictures that are deleted in one round
MISSING_SECONDS = 30.0  # that a network share may take to show a file another machine wrote


class Control:
    """Runs commands; each may come twice if picowatch dies between running and answering it."""

    def __init__(self, run: Run, pool: WorkerPool) -> None:
        self.run, self.ledger, self.inbox, self.pool = run, run.ledger, run.inbox, pool
        self.folders: list[str] = []  # that a `make` is waiting for
        make_ready(run.settings.outbox)

    def run_all(self) -> bool:
        """Run the commands that are there; return whether one was answered."""
        self.folders = []
        return answer_all(self.run.settings.outbox, self.do)

    def do(self, command: Command) -> Answer | None:
        """Run a command and return the answer, or None while there is no answer yet."""
        match command:
            case Command("pause" | "resume"):
                return self._set_paused(command.name == "pause")
            case Command("retry"):
                return self._retry(command.recipe)
            case Command("retry all", str(recipe)):
                return self._retry_all(recipe)
            case Command("cancel", str(recipe)):
                return self._cancel(command, recipe)
            case Command("make" | "make once", str(recipe), str(digest)) if is_recipe_path(recipe):
                answer = self._make(command, recipe, digest)
                if answer and command.name == "make once":
                    outstanding.leave_to_make(self.ledger, recipe)
                    self.run.outbox.problems.clear(recipe)
                return answer
            case Command("make folder", str(folder)):
                return self._make_folder(command, folder.rstrip("/"))
            case Command("delete", files=(_, *_)):
                return self._delete(command)
        return Answer(False, f"Unknown command '{command.name}', or its arguments are wrong.")

    def _waiting(self, command: Command, last_save: int | None = None) -> WaitingCommand:
        """Return what is known of a command that has to wait; it is noted at the first call."""
        waiting = control.waiting_command(self.ledger, command.file)
        if waiting is None:
            waiting = WaitingCommand(time.time(), last_save=last_save)
            control.note_command(self.ledger, command.file, waiting)
            self.inbox.want_scan()
        return waiting

    # -- pause

    def _set_paused(self, paused: bool) -> Answer:
        queued = images_wait(questions.counts(self.ledger)["queued"])
        if paused == control.is_paused(self.ledger):
            return Answer(True, f"It {'is already' if paused else 'was not'} paused; {queued}.")
        words = "Paused" if paused else "Resumed"
        if paused:
            control.pause(self.ledger, time.time())
        else:
            control.resume(self.ledger)
        log.info("%s, as requested", words.lower())
        self.pool.wake()
        if paused and questions.counts(self.ledger)["running"]:
            words += " when the images in progress are finished"
        return Answer(True, f"{words}; {queued}.")

    # -- retry and cancel

    def _retry(self, pattern: str | None) -> Answer:
        """Queue failed images again, and have refused files read again, as they are now."""
        refused = control.refused_recipes(self.ledger)
        wrong = sorted({*control.recipes_with_failures(self.ledger), *refused})
        chosen = wrong if pattern is None else _matching(pattern, wrong)
        if pattern is not None and not chosen:
            words = f"No failed image or refused file matches {pattern}."
            return Answer(False, f"{words}{_named('Failed', wrong)}")
        retried = control.retry(self.ledger, chosen)
        if retried:
            queued = images(sum(retried.values()))
            log.info("%s: %s queued again, as requested", _listed([*retried]), queued)
        self.pool.wake()
        again = [recipe for recipe in chosen if recipe in refused]
        parts = [f"{queued} queued again"] if retried else []
        if again:
            control.want_again(self.ledger, again, as_saved=False)
            self.inbox.want_scan()
            files = "file" if len(again) == 1 else "files"
            parts.append(f"{len(again)} refused {files} read again")
        return Answer(True, f"{'; '.join(parts) or 'Nothing has failed'}.")

    def _retry_all(self, pattern: str) -> Answer:
        """Have recipes read again as if they had been saved; equal pictures are kept."""
        recipes = _matching(pattern, filterfalse(is_template, questions.known_recipes(self.ledger)))
        if not recipes:
            return Answer(False, f"No recipe or picture {pattern} is in the inbox.")
        control.want_again(self.ledger, recipes, as_saved=True)
        self.inbox.want_scan()
        many = _pictures(len(recipes)) if any(map(is_dropped, recipes)) else _listed(recipes)
        log.info("%s: %s read again, as requested", pattern, many)
        words = f"{many} read again, with files and templates as they are now."
        return Answer(True, f"{words} Pictures that would be the same are kept.")

    def _cancel(self, command: Command, pattern: str) -> Answer | None:
        """Cancel what was saved before the command, accepted or not; running images stop.

        Each recipe is cancelled as soon as it is accepted, before any of its images is rendered.
        """
        if not self._has_noticed_all(pattern):
            self._waiting(command)
            if not self.inbox.has_looked():
                return None
        waiting = control.waiting_command(self.ledger, command.file) or WaitingCommand(time.time())
        inbox, is_meant = self.run.settings.inbox, partial(self._came_before, command.sent_at_ns)
        pending = {one for one in self.inbox.pending() if is_meant(size_and_time_of(inbox, one))}
        unfinished = control.unfinished_recipes(self.ledger, pattern.rstrip("/"))
        if not (matching := _matching(pattern, unfinished)):
            unfinished = control.unfinished_recipes(self.ledger)
            matching = _matching(pattern, unfinished)
        recipes = [one for one in matching if one not in pending and is_meant(unfinished[one])]
        with self.ledger.transaction():
            cancelled, running = control.cancel(self.ledger, recipes)
            waiting = waiting.with_cancelled(cancelled, running)
            if cancelled:
                control.note_command(self.ledger, command.file, waiting)
        if recipes:
            log.info("%s: %s cancelled, as requested", _listed(recipes), images(cancelled))
        if _matching(pattern, pending):
            return None
        if not waiting.cancelled:
            others = _named("Recipes with queued images", [*unfinished])
            return Answer(False, f"No image of {pattern} is queued.{others}")
        rest = " Images in progress are stopped." if waiting.running else ""
        return Answer(True, f"{images(waiting.cancelled)} cancelled.{rest}")

    def _has_noticed_all(self, pattern: str) -> bool:
        """Whether the ledger has all that is saved in a folder, or as recipes of these names.

        Only these files are looked at: a scan of thousands of others takes seconds.
        """
        inbox, name = self.run.settings.inbox, pattern.rstrip("/")
        known = questions.known_in(self.ledger, name)
        if not self.inbox.folder:
            return False
        if known and name not in known:
            is_under_template = template_above(inbox, f"{name}/{PICTURES_NAME}") is not None
            found = scan(inbox, known, name, is_under_template).found
        else:
            paths = [name] if known else _matching(pattern, requests_in(inbox))
            there = {path: size_and_time_at(inbox, path) for path in paths}
            found = {path: version for path, version in there.items() if version}
        if not known:
            asked = {path: questions.known_recipe(self.ledger, path) for path in found}
            known = {path: row for path, row in asked.items() if row}
        return found.keys() == known.keys() and not any(
            found[path].written_since(row.size_and_time) for path, row in known.items()
        )

    def _came_before(self, sent_at_ns: int, version: SizeAndTime | None) -> bool:
        """Whether a recipe was saved before a command was sent; a time in the future is ignored."""
        return version is None or not sent_at_ns < version.mtime_ns < time.time() * 1e9

    # -- pictures

    def _delete(self, command: Command) -> Answer | None:
        """Delete pictures and all in folders, as a user would: only a save renders them again.

        Of folders, AT_ONCE are deleted in a round, so that saves do not wait for thousands. What is
        named, and one picture of each folder, stays until the end, to be found in the gallery.
        """
        shown = {name: self.run.outbox.gallery.shown(name) for name in sorted({*command.files})}
        rest = (file for found in shown.values() for file in found[:-1] if file not in shown)
        first = [*islice(dict.fromkeys(rest), AT_ONCE)]
        if len(first) == AT_ONCE and not self._deleted(command, first):
            self.run.wake.set()
            return None
        unknown = _named("Not in the gallery", [name for name in shown if not shown[name]])
        wanted = dict.fromkeys(file for found in shown.values() for file in found)
        kept = self._deleted(command, wanted)
        deleted = control.waiting_command(self.ledger, command.file)
        words = f"{_pictures(deleted.cancelled if deleted else 0)} deleted.{unknown}"
        if kept:
            words += f"{_named('No permission to delete', kept)} {FOLDER_REMEDY}"
        return Answer(not (unknown or kept), words)

    def _deleted(self, command: Command, files: Collection[str]) -> list[str]:
        """Delete pictures, and note how many; return those that may not be deleted."""
        kept = sorted(self.run.outbox.delete([*files]))
        if gone := [file for file in files if file not in {*kept}]:
            log.info("%s: deleted, as requested", _listed(gone))
        waiting = control.waiting_command(self.ledger, command.file) or WaitingCommand(time.time())
        control.note_command(self.ledger, command.file, waiting.with_cancelled(len(gone), 0))
        return kept

    # -- make

    def _make(self, command: Command, recipe: str, digest: str) -> Answer | None:
        """Return the pictures of a save once it is refused or all its images have ended."""
        known = questions.known_recipe(self.ledger, recipe)
        size_and_time = size_and_time_of(self.run.settings.inbox, recipe)
        if size_and_time is not None and (
            known is None or size_and_time.written_since(known.size_and_time)
        ):
            why = why_no_recipe(self.run.settings.inbox, recipe)
            return Answer(False, f"{why} Save it in another folder.") if why else None
        outcome = questions.outcome(self.ledger, recipe, digest)
        if outcome is None and size_and_time is None and known is None:
            if abs(time.time() - self._waiting(command).since) < MISSING_SECONDS:
                return None
            words = f"{recipe} was not found in {self.run.settings.inbox}, the inbox being watched."
            return Answer(False, words)
        if outcome is None:
            if known is not None and not known.digest:  # its bytes could not be read
                return self._refused(recipe)
            return Answer(False, f"{recipe} was saved again meanwhile, with different content.")
        if outcome.unfinished:
            return None
        finish.finish(self.run, recipe)  # the answer names its error file and contact sheets
        return self._result(recipe, questions.outcome(self.ledger, recipe, digest) or outcome)

    def _make_folder(self, command: Command, folder: str) -> Answer | None:
        """Return the pictures of all recipes and dropped pictures in a folder, once all ended."""
        self.folders.append(folder)
        with self.ledger.transaction():
            waiting = control.waiting_command(self.ledger, command.file)
            if waiting is None:
                below = filterfalse(is_template, questions.known_in(self.ledger, folder))
                control.want_again(self.ledger, [*below], as_saved=False)
                waiting = self._waiting(command, questions.last_save(self.ledger))
        if not self.inbox.folder or not self.inbox.has_looked():
            return None
        if any(one.startswith(f"{folder}/") for one in self.inbox.pending()):
            return None
        if questions.is_unfinished_below(self.ledger, folder):
            return None
        if not finish.finish_all(self.run):  # the answer names error files and contact sheets
            return None
        template = template_above(self.run.settings.inbox, f"{folder}/{PICTURES_NAME}") or ""
        known = questions.known_recipe(self.ledger, template)
        if known and known.outcome == "refused":
            return self._refused(template)
        outcomes = questions.outcomes_below(self.ledger, folder, waiting.last_save or 0)
        wanted = [one for one, it in outcomes.items() if not (is_template(one) and it.valid)]
        if not (wanted or template):
            return Answer(False, f"{folder} has no recipes any more.")
        parts = {one: self._result(one, outcomes[one]) for one in sorted(wanted, key=natural_key)}
        done = [part for part in parts.values() if part.done]
        words = f"{len(done)} of {len(parts)} rendered."
        warning = self.run.outbox.problems.warning(template) if template else ""
        return Answer(len(done) == len(parts), words, warning=warning, parts=parts)

    def _refused(self, recipe: str) -> Answer:
        problems = self.run.outbox.problems
        error, warning = problems.error(recipe), problems.warning(recipe)
        removed = f"{recipe} is wrong, and its error file was removed. Save it again to see why."
        why = error or (str(NothingSaid()) if is_dropped(recipe) else removed)
        return Answer(False, why, (), error, warning)

    def _result(self, recipe: str, outcome: Outcome) -> Answer:
        if not outcome.valid:
            return self._refused(recipe)
        problems = self.run.outbox.problems
        error, warning = problems.error(recipe), problems.warning(recipe)
        # One that the user deleted is not rendered again as long as its entry is the same.
        pictures = tuple(filter(self.run.outbox.exists, outcome.pictures))
        sheets = tuple(
            filter(self.run.outbox.exists, contact_sheets.drawn_sheets(self.ledger, recipe))
        )
        done, words = True, f"{images(len(pictures))} rendered."
        if outcome.failed:
            file = self.run.outbox.names.error_file(recipe)
            done, words = False, f"{images(outcome.failed)} failed: see {file} in the outbox."
        elif outcome.cancelled:
            done, words = False, f"{images(outcome.cancelled)} cancelled."
        return Answer(done, words, pictures, error, warning, sheets)


def _matching(pattern: str, recipes: Iterable[str]) -> list[str]:
    """Return the recipe of this name, else those with this stem, folder or glob."""
    every = list(recipes)
    folder = pattern.rstrip("/")
    if pattern in every:
        return [pattern]
    if same := [one for one in every if one.rpartition(".")[0] == pattern]:
        return same
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
