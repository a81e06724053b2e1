"""Commands of other processes: pause, resume, retry, cancel, make, delete, keep."""

import logging
import shlex
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain, filterfalse

from picowatch.daemon.followups import follow_up, follow_up_all
from picowatch.daemon.picture_commands import EVENT, PictureCommands, briefly, counted, named, told
from picowatch.daemon.pool import WorkerPool
from picowatch.daemon.run import SLICE_SECONDS, Run
from picowatch.files.atomic import make_folder
from picowatch.files.names import natural_key
from picowatch.inbox.matching import matching, no_such
from picowatch.inbox.names import PICTURES_NAME, is_dropped, is_recipe_path, is_template
from picowatch.inbox.reasons import reason_of
from picowatch.ledger import contact_sheets, control, followups, queries
from picowatch.ledger.rows import Outcome, SizeAndTime, WaitingCommand
from picowatch.outbox.commands import COMMANDS, Answer, Command, answer_all
from picowatch.outbox.status import images, images_wait, number_of
from picowatch.recipe.reading import NothingSaid

log = logging.getLogger("picowatch")

MISSING_SECONDS = 30.0  # that a network share may take to show a file another machine wrote
NOTHING = "It requests no image."


class Control:
    """Runs commands; each may come twice if picowatch dies between running and answering it."""

    def __init__(self, run: Run, pool: WorkerPool) -> None:
        self.run, self.ledger, self.inbox, self.pool = run, run.ledger, run.inbox, pool
        self.files = run.inbox.files
        self.folders: list[str] = []  # that a `make` is waiting for
        self.pictures = PictureCommands(run)
        self._commands = run.outbox.root / COMMANDS
        make_folder(self._commands, durable=False)

    def run_all(self) -> bool:
        """Run the commands that are there; return whether any was answered."""
        self.folders = []
        self.run.to_cancel.clear()
        self.pictures.ends_at = time.monotonic() + SLICE_SECONDS
        with self.run.writing.optional(COMMANDS):
            make_folder(self._commands, durable=False)
        return answer_all(self.run.outbox.root, self.do)

    def do(self, command: Command) -> Answer | None:
        """Run a command and return the answer, or None while there is none yet."""
        if command.sender is not None and not self._may_be_requested(command):
            return Answer(False, "Only administrators may do this.")
        match command:
            case Command("pause" | "resume"):
                return self._set_paused(command.name == "pause")
            case Command("retry"):
                return self._retry(command.patterns)
            case Command("retry all") if command.patterns:
                return self._retry_all(command.patterns)
            case Command("cancel", str(recipe)):
                return self._cancel(command, recipe)
            case Command("make" | "make once", str(recipe), str(digest)) if is_recipe_path(recipe):
                answer = self._make(command, recipe, digest)
                if answer and command.name == "make once":
                    followups.leave_to_make(self.ledger, recipe)
                    self.run.outbox.problems.clear(recipe)
                return answer
            case Command("make folder", str(folder)):
                return self._make_folder(command, folder.rstrip("/"))
            case Command("delete", files=(_, *_)):
                return self.pictures.delete(command)
            case Command("keep" | "keep copies", str(folder), files=(_, *_)):
                return self.pictures.keep(command, folder.rstrip("/"))
        return Answer(False, f"Unknown command '{command.name}', or its arguments are wrong.")

    def _may_be_requested(self, command: Command) -> bool:
        """Whether the sender of a request may make it: all may wait for a recipe."""
        if command.name not in ("make once", "make folder") or not command.recipe:
            return command.name == "make"
        with suppress(OSError, ValueError):  # owners take recipes back, or have folders read again
            return (self.files.root / command.recipe).lstat().st_uid == command.sender
        return True  # it is gone

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
        queued = images_wait(queries.counts(self.ledger)["queued"])
        if paused == control.is_paused(self.ledger):
            return Answer(True, f"It {'is already' if paused else 'was not'} paused; {queued}.")
        words = "Paused" if paused else "Resumed"
        (control.pause if paused else control.resume)(self.ledger)
        log.info("%s, as requested", words.lower(), extra=EVENT)
        self.pool.wake()
        if paused and queries.counts(self.ledger)["running"]:
            words += " when the images in progress are finished"
        return Answer(True, f"{words}; {queued}.")

    # -- retry and cancel

    def _retry(self, patterns: Sequence[str]) -> Answer:
        """Queue failed images again, and have refused files read again, as they are now."""
        refused = queries.recipes_that_are(self.ledger, "refused")
        wrong = sorted({*control.recipes_with_failures(self.ledger), *refused})
        chosen, missing = _matching_any(patterns, wrong) if patterns else (wrong, [])
        unknown = self._unknown(missing)
        if patterns and not chosen:
            none = f"No failed image or refused file matches {briefly(patterns)}."
            return Answer(False, f"{unknown.lstrip() or none}{named('Failed', wrong)}")
        retried = control.retry(self.ledger, chosen)
        self.pool.wake()
        again = [recipe for recipe in chosen if recipe in refused]
        parts = [f"{images(retried)} queued again"] if retried else []
        if again:
            control.want_again(self.ledger, again, as_saved=False)
            self.inbox.want_scan()
            parts.append(f"{number_of(len(again), 'file')} read again")
        done = "; ".join(parts) or "Nothing has failed"
        if parts:
            log.info("%s: %s, as requested", briefly(chosen), done, extra=EVENT)
        return Answer(not unknown, f"{done}.{unknown}")

    def _retry_all(self, patterns: Sequence[str]) -> Answer:
        """Have recipes read again as if they had been saved; equal pictures are kept."""
        known = [*filterfalse(is_template, queries.known_recipes(self.ledger))]
        recipes, missing = _matching_any(patterns, known)
        unknown = self._unknown(missing)
        if not recipes:
            words = f"No recipe or picture {briefly(patterns)} is in the inbox."
            return Answer(False, unknown.lstrip() or words)
        control.want_again(self.ledger, recipes, as_saved=True)
        self.inbox.want_scan()
        has_pictures = any(map(is_dropped, recipes))
        many = number_of(len(recipes), "picture") if has_pictures else briefly(recipes)
        log.info("%s: %s read again, as requested", briefly(patterns), many, extra=EVENT)
        words = f"{many} read again, with files and templates as they are now."
        return Answer(not unknown, f"{words} Pictures that would be the same are kept.{unknown}")

    def _unknown(self, patterns: Sequence[str]) -> str:
        """Return that no recipes are called so, and why or the nearest names; "" if all are."""
        known = [*queries.known_recipes(self.ledger)] if patterns else []

        def why(name: str) -> str:
            return self._ignored(name.rstrip("/")) or no_such(name, known, "the inbox")

        return told(_matching_any(patterns, known)[1], why)

    def _ignored(self, path: str) -> str:
        """Return that a file or folder is ignored and why, as the status does; "" if it is not."""
        why = reason_of(self.inbox.skipped, path)
        return why and f"{path} is ignored: {why}{'' if why.endswith('?') else '.'}"

    def _cancel(self, command: Command, pattern: str) -> Answer | None:
        """Cancel what was saved before the command, accepted or not; running images stop."""
        if not self.inbox.has_noticed(pattern.rstrip("/"), partial(matching, pattern)):
            self._waiting(command)
            if not self.inbox.has_looked():
                return None
        read, lacking = self.inbox.pending(), self.run.lacking_room
        versions = {path: self.files.size_and_time(path) for path in (*read, *lacking)}

        def is_meant(version: SizeAndTime | None) -> bool:  # a time in the future is ignored
            return version is None or not command.sent_at_ns < version.mtime_ns < time.time() * 1e9

        pending = {path for path, version in versions.items() if is_meant(version)}
        unfinished = control.unfinished_recipes(self.ledger, pattern.rstrip("/"))
        if not (chosen := matching(pattern, unfinished)):
            unfinished = control.unfinished_recipes(self.ledger)
            chosen = matching(pattern, unfinished)
        recipes = [path for path in chosen if path not in pending and is_meant(unfinished[path])]
        with self.ledger.transaction():
            cancelled, running = control.cancel(self.ledger, recipes)
            waiting = counted(self.ledger, command, cancelled, running)
        if recipes:
            log.info(
                "%s: %s cancelled, as requested", briefly(recipes), images(cancelled), extra=EVENT
            )
        if still := matching(pattern, pending):
            self.run.to_cancel.update(lacking.intersection(still))  # which are accepted for that
            if not self.run.to_cancel.issubset(read):
                self.inbox.want_reread()
            return None  # each is cancelled once it is accepted, before any of it is rendered
        if not waiting.cancelled:
            others = named("Recipes with queued images", [*unfinished])
            words = self._unknown([pattern]).lstrip() or f"No image of {pattern} is queued."
            return Answer(False, f"{words}{others}")
        rest = " Images in progress are stopped." if waiting.running else ""
        return Answer(True, f"{images(waiting.cancelled)} cancelled.{rest}")

    # -- make

    def _make(self, command: Command, recipe: str, digest: str) -> Answer | None:
        """Return the pictures of a save once it is refused or all its images have ended."""
        known = queries.known_recipe(self.ledger, recipe)
        size_and_time = self.files.size_and_time(recipe)
        if size_and_time is not None and (
            known is None or size_and_time.written_since(known.size_and_time)
        ):
            why = self.files.why_no_recipe(recipe)
            return Answer(False, f"{why} Save it in another folder.") if why else None
        outcome = queries.outcome(self.ledger, recipe, digest)
        if outcome is None and size_and_time is None and known is None:
            if new := self.run.new_names.get(recipe):
                return self._make(command, new, digest)
            if abs(time.time() - self._waiting(command).since) < MISSING_SECONDS:
                return None
            words = f"{recipe} was not found in {self.files.root}, the inbox being watched."
            return Answer(False, self._ignored(recipe) or words)
        if outcome is None:
            if known is not None and not known.digest:  # its bytes could not be read
                return self._result(recipe)
            return Answer(False, f"{recipe} was saved again meanwhile, with different content.")
        is_reread = not outcome.valid and self.inbox.is_to_be_reread(recipe)
        if outcome.unfinished or is_reread or recipe in self.run.lacking_room:
            return None
        follow_up(self.run, recipe)  # the answer names its error file and contact sheets
        return self._result(recipe, queries.outcome(self.ledger, recipe, digest) or outcome)

    def _make_folder(self, command: Command, folder: str) -> Answer | None:
        """Return the pictures of all recipes and dropped pictures in a folder, once all ended."""
        self.folders.append(folder)
        with self.ledger.transaction():
            waiting = control.waiting_command(self.ledger, command.file)
            if waiting is None:
                below = filterfalse(is_template, queries.known_in(self.ledger, folder))
                control.want_again(self.ledger, [*below], as_saved=False)
                waiting = self._waiting(command, queries.last_save(self.ledger))
        if not self.inbox.inbox_id or not self.inbox.has_looked():
            return None
        left = *self.inbox.pending(), *self.run.lacking_room
        if any(path.startswith(f"{folder}/") for path in left):
            return None
        # The answer names error files and contact sheets.
        if queries.is_unfinished_below(self.ledger, folder) or not follow_up_all(self.run):
            return None
        template = self.files.template_above(f"{folder}/{PICTURES_NAME}") or ""
        known = queries.known_recipe(self.ledger, template)
        if known and known.outcome == "refused":
            return self._result(template)
        ended = queries.outcomes_below(self.ledger, folder, waiting.last_save or 0)
        if not (ended or template):
            return Answer(False, self._ignored(folder) or f"{folder} has no recipes any more.")
        paths = (path for path, it in ended.items() if not (is_template(path) and it.valid))
        parts = {path: self._result(path, ended[path]) for path in sorted(paths, key=natural_key)}
        done = [part for part in parts.values() if part.done]
        words, note = f"{len(done)} of {len(parts)} rendered.", "" if parts else NOTHING
        warning = self.run.outbox.problems.warning(template) if template else ""
        return Answer(len(done) == len(parts), words, (), "", warning, (), note, parts)

    def _result(self, recipe: str, outcome: Outcome | None = None) -> Answer:
        """Return what became of a recipe; without an outcome it was refused."""
        problems = self.run.outbox.problems
        error, warning = problems.error(recipe), problems.warning(recipe)
        if outcome is None or not outcome.valid:
            gone = f"{recipe} is wrong, and its error file was removed. Save it again to see why."
            why = error or (str(NothingSaid()) if is_dropped(recipe) else gone)
            return Answer(False, why, (), error, warning)
        # One that the user deleted is not rendered again as long as its entry is the same.
        pictures = tuple(filter(self.run.outbox.exists, outcome.pictures))
        drawn = contact_sheets.drawn_sheets(self.ledger, recipe)
        sheets = tuple(filter(self.run.outbox.exists, drawn))
        done = not (outcome.failed or outcome.cancelled)
        note = NOTHING if done and not outcome.pictures else ""
        if missing := len(outcome.pictures) - len(pictures):
            which = f"{missing} of its {len(outcome.pictures)}" if pictures else "Its"
            were = "was" if pictures and missing == 1 else "were"
            again = f"picowatch retry --all {shlex.quote(recipe)}"
            note = f"{which} pictures {were} deleted. `{again}` renders them again."
        words = f"{images(len(pictures))} rendered."
        if outcome.failed:
            file = self.run.outbox.names.error_file(recipe)
            words = f"{images(outcome.failed)} failed: see {file} in the outbox."
        elif outcome.cancelled:
            words = f"{images(outcome.cancelled)} cancelled."
        return Answer(done, words, pictures, error, warning, sheets, note)


def _matching_any(patterns: Sequence[str], paths: Collection[str]) -> tuple[list[str], list[str]]:
    """Return what matches any of these, and which match nothing; whole names are looked up."""
    every = {*paths}
    found = {path: [path] if path in every else matching(path, paths) for path in patterns}
    missing = [path for path, its in found.items() if not its]
    return [*dict.fromkeys(chain.from_iterable(found.values()))], missing
