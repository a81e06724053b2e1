"""Follows up on a recipe: error file, contact sheets, `when_done`."""

import json
import logging
import shlex
import time
from collections.abc import Sequence
from functools import partial

from picowatch.daemon.run import SLICE_SECONDS, Run
from picowatch.daemon.sheets import make_due_sheets
from picowatch.files.essential import unexpected
from picowatch.files.names import is_picture_name
from picowatch.files.safe_paths import OtherBytes
from picowatch.inbox.files import FileChanged, FileUnreadable
from picowatch.inbox.folder import InboxFolder
from picowatch.inbox.names import is_template
from picowatch.inbox.read import names_in
from picowatch.ledger import followups, queries
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rows import KnownRecipe, QueuedImage
from picowatch.outbox.listing import Listing
from picowatch.streams import harmless, harmless_lines

log = logging.getLogger("picowatch")

FAILURES_SHOWN = 20  # in one error file
LET_DELETE = "Let the user that runs picowatch delete it there, or set when_done: keep."


def follow_up_all(run: Run) -> bool:
    """Follow up on what has changed, and commit that; False if time is up before."""
    done = []
    is_all, spent = True, 0.0  # what waits alone takes nobody's time
    for recipe, todo in followups.todo(run.ledger):
        began = time.monotonic()
        if follow_up(run, recipe):
            done.append((recipe, todo))
            spent += time.monotonic() - began
            if spent >= SLICE_SECONDS:
                is_all = False
                break
    if done:
        run.to_count.update(recipe for recipe, _ in done)
        followups.done_with(run.ledger, done)
    return is_all


def list_lines(ledger: Ledger, table: str, listing: Listing) -> None:
    """Add what the ledger has for a list, not twice even after a crash."""
    while unlisted := followups.unlisted_lines(ledger, table):
        recent = listing.recent()
        lines = [line for text in unlisted.values() if (line := json.loads(text)) not in recent]
        if lines:
            listing.append(*lines)
        followups.mark_lines_listed(ledger, table, unlisted)


def follow_up(run: Run, recipe: str) -> bool:
    """Follow up on a recipe; False if some is left. An unwritable folder holds up no other one."""
    try:
        return run.writing.alone("follow-up", recipe, partial(_finish, run, recipe))
    except Exception as error:  # no recipe, picture or hook may end the daemon
        words = unexpected(error)
        log.error("%s: %s", recipe, words)
        followups.note_problem(run.ledger, recipe, f"{recipe}: {words}")
        run.outbox.problems.add_warning(recipe, words)
        return True


def _finish(run: Run, recipe: str) -> bool:
    """Do what is missing, which may be repeated; return False if some is left."""
    known = queries.known_recipe(run.ledger, recipe)
    if known is None or known.outcome != "accepted":
        # The error file stays: the next valid save tries failed images again anyway.
        make_due_sheets(run, recipe)
        return True
    _report_failures(run, recipe, known)
    # Asked first: images that end meanwhile bring the recipe another turn, with its sheet.
    are_all_done = {*queries.requested(run.ledger, recipe)} == {"done"}
    make_due_sheets(run, recipe)
    return not are_all_done or _take_away(run, recipe, known)


def _report_failures(run: Run, recipe: str, known: KnownRecipe) -> None:
    if failures := queries.failures(run.ledger, recipe):
        # Noted before the file is written and until it is removed, for a crash in between.
        followups.note_problem(run.ledger, recipe, f"{recipe}: {failures[-1][1]}")
        if run.outbox.problems.write_error(recipe, _failure_text(recipe, failures)):
            run.observers.failed(recipe)
    elif known.problem and not (
        is_template(recipe) and queries.lacks_prompts(run.ledger, recipe, known.digest)
    ):
        run.outbox.problems.remove_error(recipe)
        followups.note_problem(run.ledger, recipe, None)


# -- `when_done`: files are taken out of the inbox if their bytes are those that were accepted


def _take_away(run: Run, path: str, known: KnownRecipe) -> bool:
    """Archive or delete a recipe whose images all succeeded; False if it is to be tried again."""
    inbox = run.inbox
    found = inbox.files.size_and_time(path)
    # A newer save waits to be accepted: even the same bytes may request new seeds.
    is_saved_again = found is not None and found.written_since(known.size_and_time)
    if run.when_done == "keep" or is_saved_again:
        return True
    if not inbox.inbox_id:
        return False
    # Sidecars go with a dropped picture: they would belong to the next one of its name.
    files = _with_sidecars(inbox.files, path, known.digest) if found else {}
    # All are archived before the first is removed: a full disk interrupts this.
    kept = _kept(run, files, path)
    if kept.get(path) and _take_out(run, path, known.digest):
        log.info("%s: done, %s", path, kept[path])
        followups.archive(run.ledger, path)
        for file, its in files.items():
            if kept[file] and file != path:
                _take_out(run, file, its)
    return inbox.is_there()  # if not, the file may come back with the inbox


def _with_sidecars(inbox: InboxFolder, path: str, digest: str) -> dict[str, str]:
    """Return a recipe, or a dropped picture with its sidecars, each with its sha256."""
    digests = {path: digest}
    sidecars = inbox.sidecars_of(path) if is_picture_name(path) else ()
    template = inbox.template_above(path) if sidecars else None
    try:
        named = names_in(template, inbox.read(template)) if template else ()
        for sidecar in sidecars:
            if sidecar not in named:  # a mask that the template names is for all its pictures
                digests[sidecar] = inbox.digest(sidecar)
    except (FileUnreadable, FileChanged, FileNotFoundError):
        return {}  # a sidecar is changing
    return digests


def _kept(run: Run, files: dict[str, str], recipe: str) -> dict[str, str]:
    """Archive files if set; return what happens to each, "" if it has other bytes now."""
    if run.when_done == "delete":
        return dict.fromkeys(files, "deleted")
    kept = {}
    for file, name in run.outbox.archived_as(files, recipe).items():
        try:
            found = run.inbox.files.size_and_time(file)
            blocks = run.inbox.files.blocks(file, files[file])
            run.outbox.archive(name, blocks, found.mtime_ns if found else None)
            kept[file] = f"moved to {name}"
        except OtherBytes:
            kept[file] = ""
    return kept


def _take_out(run: Run, file: str, digest: str) -> bool:
    """Remove a file with these bytes from the inbox, unless it is a link; False if it stays."""
    try:
        return run.inbox.files.delete(file, digest)
    except FileNotFoundError:  # taken out already, perhaps before a crash
        pass
    except OSError as error:
        log.warning("%s: done, but it stays in the inbox: %s. %s", file, error.strerror, LET_DELETE)
    return False


def _failure_text(recipe: str, failures: Sequence[tuple[QueuedImage, str]]) -> str:
    parts = [harmless(f"inbox/{recipe}")]
    for image, reason in failures[:FAILURES_SHOWN]:
        where = f"entry {image.entry_index + 1}, image {image.image_index + 1}"
        parts.append(f"{where}, seed {image.request.seed}:\n{harmless_lines(reason)}")
    if (more := len(failures) - FAILURES_SHOWN) > 0:
        parts.append(f"And {more} more: `picowatch status --all {shlex.quote(recipe)}` lists them.")
    parts.append(
        "The other images of this recipe are not affected. Save the recipe again to retry the "
        "failed ones."
    )
    return "\n\n".join(parts) + "\n"
