"""Draws the consequences of a recipe's changes: error file, contact sheets, `when_done`."""

import json
import logging
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from picowatch.daemon.run import SLICE_SECONDS, Run
from picowatch.daemon.sheets import make_due_sheets
from picowatch.files.attempt import unexpected
from picowatch.files.inside import OtherBytes, checked_blocks, sha256_of, unlink_below
from picowatch.files.names import is_picture_name
from picowatch.inbox.differences import prompt_of
from picowatch.inbox.files import FileChanged, FileUnreadable, complete_file
from picowatch.inbox.names import is_template
from picowatch.inbox.reading import sidecars_of, size_and_time_at
from picowatch.ledger import outstanding, questions
from picowatch.ledger.rows import KnownRecipe, QueuedImage
from picowatch.streams import harmless, harmless_lines

log = logging.getLogger("picowatch")

FAILURES_SHOWN = 20  # in one error file


def finish_all(run: Run) -> bool:
    """Draw the consequences of what has changed, and commit that; False if time is up before.

    What a disk refuses waits alone: one recipe's folder may stay unwritable for good.
    """
    done = []
    is_all, spent = True, 0.0  # what waits alone takes nobody's time
    for recipe, todo in outstanding.todo(run.ledger):
        began = time.monotonic()
        try:
            is_done = finish(run, recipe)
        except Exception as error:  # no recipe, picture or hook may end the daemon
            words = unexpected(error)
            log.error("%s: %s", recipe, words)
            outstanding.note_problem(run.ledger, recipe, f"{recipe}: {words}")
            run.outbox.problems.add_warning(recipe, words)
            is_done = True
        if is_done:
            done.append((recipe, todo))
            spent += time.monotonic() - began
            if spent >= SLICE_SECONDS:
                is_all = False
                break
    if done:
        outstanding.done_with(run.ledger, done)
    return is_all


def list_failures(run: Run) -> None:
    """Add what was refused or failed to failures.jsonl, not twice even after a crash."""
    if unlisted := outstanding.unlisted_failures(run.ledger):
        recent = run.outbox.failures.recent()
        lines = [line for text in unlisted.values() if (line := json.loads(text)) not in recent]
        if lines:
            run.outbox.failures.append(*lines)
        outstanding.mark_failures_listed(run.ledger, unlisted)


def finish(run: Run, recipe: str) -> bool:
    """Draw a recipe's consequences; False if some are to be drawn later.

    Each step looks at what is there and may be repeated. An invalid save's error file stays: the
    next valid one tries the failed images again anyway.
    """
    known = questions.known_recipe(run.ledger, recipe)
    if known is None or known.outcome != "accepted":
        return make_due_sheets(run, recipe)
    report = partial(_report_failures, run, recipe, known)
    is_reported = run.attempts.attempt("error file", recipe, report)
    # Asked first: images that end meanwhile bring the recipe another turn, with its sheet.
    are_all_done = {*questions.requested(run.ledger, recipe)} == {"done"}
    if not (make_due_sheets(run, recipe) and is_reported):
        return False
    take_away = partial(_take_away, run, recipe, known)
    return not are_all_done or run.attempts.attempt("archive", recipe, take_away)


def _report_failures(run: Run, recipe: str, known: KnownRecipe) -> None:
    if failures := questions.failures(run.ledger, recipe):
        # Noted before the file is written and until it is removed, for a crash in between.
        outstanding.note_problem(run.ledger, recipe, f"{recipe}: {failures[-1][1]}")
        if run.outbox.problems.write_error(recipe, _failure_text(recipe, failures)):
            run.observers.failed(recipe)
    elif known.problem and not _lacks_prompts(run, recipe, known):
        run.outbox.problems.remove_error(recipe)
        outstanding.note_problem(run.ledger, recipe, None)


def _lacks_prompts(run: Run, recipe: str, known: KnownRecipe) -> bool:
    """Whether the recipe is a template under which pictures wait for a prompt."""
    waits_for = prompt_of(recipe, known.digest)
    return is_template(recipe) and questions.is_waited_for(run.ledger, waits_for)


# -- `when_done`: files are taken out of the inbox if their bytes are those that were accepted


def _take_away(run: Run, path: str, known: KnownRecipe) -> bool:
    """Archive or delete a recipe whose images all succeeded; False if it is to be tried again.

    A dropped picture's sidecars go with it: they would be the prompt or the mask of the next
    picture of that name.
    """
    inbox = run.inbox
    found = size_and_time_at(inbox.path, path)
    # A newer save waits to be accepted: even the same bytes may request new seeds.
    is_saved_again = found is not None and found.written_since(known.size_and_time)
    if run.settings.when_done == "keep" or is_saved_again:
        return True
    if not inbox.folder:
        return False
    files = _with_sidecars(inbox.path, path, known.digest) if found else {}
    # All are archived before the first is removed: a full disk interrupts this.
    kept = {file: _keep(run, file, its, path) for file, its in files.items()}
    if kept.get(path) and _take_out(inbox.path, path, known.digest):
        log.info("%s: done, %s", path, kept[path])
        outstanding.archive(run.ledger, path)
        for file, its in files.items():
            if kept[file] and file != path:
                _take_out(inbox.path, file, its)
    return inbox.is_there()  # if not, the file may come back with the inbox


def _with_sidecars(inbox: Path, path: str, digest: str) -> dict[str, str]:
    """Return a recipe, or a dropped picture with its sidecars, each with its sha256.

    None of them if one is changing.
    """
    digests = {path: digest}
    try:
        for sidecar in sidecars_of(inbox, path) if is_picture_name(path) else ():
            with complete_file(inbox, sidecar) as (file, _):
                digests[sidecar] = sha256_of(file)
    except (FileUnreadable, FileChanged, FileNotFoundError):
        return {}
    return digests


def _keep(run: Run, file: str, digest: str, recipe: str) -> str:
    """Archive a file if set; return what happens to it, "" if it has other bytes now."""
    if run.settings.when_done == "delete":
        return "deleted"
    blocks = checked_blocks(run.settings.inbox, file, digest)
    try:
        return f"moved to {run.outbox.archive(file, digest, blocks, recipe)}"
    except OtherBytes:
        return ""


def _take_out(inbox: Path, file: str, digest: str) -> bool:
    """Remove a file with these bytes from the inbox, unless it is a link.

    Returns whether that worked.
    """
    try:
        return unlink_below(inbox, file, lambda found: sha256_of(found) == digest)
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
