"""Follows up on a recipe: error file, contact sheets, `when_done`."""

import json
import logging
import shlex
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from math import prod
from os.path import commonprefix
from pathlib import Path
from typing import Any

from picowatch.daemon.run import SLICE_SECONDS, Run
from picowatch.errors import PictureUnreadable
from picowatch.files.atomic import check_in_place
from picowatch.files.essential import unexpected
from picowatch.files.names import is_picture_name
from picowatch.files.safe_paths import OtherBytes
from picowatch.inbox.folder import FileChanged, FileUnreadable, InboxFolder
from picowatch.inbox.names import is_template
from picowatch.inbox.read import names_in
from picowatch.ledger import contact_sheets, followups, queries
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rows import DueSheet, KnownRecipe, QueuedImage
from picowatch.metadata.embedded_text import chunk_of
from picowatch.outbox.listing import Listing
from picowatch.outbox.outbox import Outbox
from picowatch.outbox.sheets import Cell, SheetTooLarge
from picowatch.recipe.fields import Axis
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.request import ImageRequest
from picowatch.streams import harmless, harmless_lines

log = logging.getLogger("picowatch")

LARGEST_PICTURE = 512  # pixels; the full-size pictures are beside the sheet
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
    # Asked first: images that end meanwhile bring the recipe another turn, with its sheet.
    are_all_done = {*queries.requested(run.ledger, recipe)} == {"done"}
    make_due_sheets(run, recipe)
    return not are_all_done or run.when_done == "keep" or _take_away(run, recipe, known)


# -- `when_done`: files are taken out of the inbox if their bytes are those that were accepted


def _take_away(run: Run, path: str, known: KnownRecipe) -> bool:
    """Archive or delete a recipe whose images all succeeded; False if it is to be tried again."""
    inbox = run.inbox
    found = inbox.files.size_and_time(path)
    # A newer save waits to be accepted: even the same bytes may request new seeds.
    if found is not None and found.written_since(known.size_and_time):
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
        place = f"entry {image.entry_index + 1}", f"image {image.image_index + 1}"
        where = ", ".join(filter(None, (*place, image.request.seed_used)))
        parts.append(f"{where}:\n{harmless_lines(reason)}")
    if (more := len(failures) - FAILURES_SHOWN) > 0:
        parts.append(f"And {more} more: `picowatch status --all {shlex.quote(recipe)}` lists them.")
    parts.append(
        "The other images of this recipe are not affected. Save the recipe again to retry the "
        "failed ones."
    )
    return "\n\n".join(parts) + "\n"


# -- contact sheets: which are due, and what they show


def sheet_of(recipe: Recipe) -> str | None:
    """Return what the entry's contact sheet shows, as JSON for the ledger; None without a sheet."""
    if not recipe.wants_sheet:
        return None
    axes = [{"label": axis.label, "values": list(axis.values)} for axis in recipe.sweep]
    shown = {"prompt": recipe.prompt, "axes": axes, "images": recipe.image_count}
    return json.dumps(shown | ({"seconds": True} if recipe.grid_seconds else {}))


def make_due_sheets(run: Run, recipe: str) -> None:
    """Draw the due contact sheets, unless their pictures were all deleted or are too many."""
    for due in contact_sheets.sheets_due(run.ledger, recipe):
        if any(run.outbox.exists(picture) for _, picture in due.images if picture):
            file = contact_sheets.reserve_sheet(run.ledger, due, run.outbox.names)
            try:
                _publish(recipe, due, file, run.outbox)
                log.info("%s: contact sheet %s", recipe, file)
            except SheetTooLarge as error:
                words = (
                    f"No contact sheet: {error} are too many for one page. Request fewer at once."
                )
                log.warning("%s: %s", recipe, words, extra={"event": "warning", "recipe": recipe})
                run.outbox.problems.add_warning(recipe, words)
        else:
            check_in_place(run.outbox.root / ".picowatch")  # are they deleted, or only away?
        contact_sheets.mark_sheet_done(run.ledger, due)


def _publish(recipe: str, due: DueSheet, file: str, outbox: Outbox) -> None:
    """Draw and write a sheet. Images of earlier draws of the seeds are not shown."""
    shown: dict[str, Any] = json.loads(due.sheet)
    axes = [Axis(axis["label"], tuple(axis["values"])) for axis in shown["axes"]]
    images, with_seconds = due.images[-shown.pop("images", 0) :], shown.pop("seconds", False)
    requests = [request for request, _ in images]
    size = prod(len(axis.values) for axis in axes)
    seeds = _seeds([requests[at : at + size] for at in range(0, len(requests), size)])
    words = _differing_words(requests, size)
    cells, labels = [], []
    for at, (_, picture) in enumerate(images):
        path = outbox.root / picture if picture else None
        label = [] if axes else [f"{seeds.label} {seeds.values[at // size]}"]
        label += [_seconds(path)] if path and with_seconds else []
        labels.append(", ".join(filter(None, [*label, words[at]])))
        cells.append(Cell(path, ", ".join(filter(None, [path.name if path else "", labels[-1]]))))
    if axes and len(seeds.values) > 1:
        axes.insert(0, seeds)
        shown["axes"] = [{"label": axis.label, "values": list(axis.values)} for axis in axes]
    side = max(max(request.published_size) for request in requests)
    files = [picture for _, picture in images]
    about = {"recipe": recipe, **shown, "files": files, "labels": labels}
    outbox.publish_sheet(file, cells, axes, min(side, LARGEST_PICTURE), about)


def _seeds(rounds: Sequence[Sequence[ImageRequest]]) -> Axis:
    """Return in what a combination's images differ; each round has an image of each combination."""
    for label, field in (("seed", "seed"), ("variation", "variation_seed")):
        seeds = [{getattr(request, field) for request in requests} for requests in rounds]
        if all(len(same) == 1 for same in seeds) and len(set().union(*seeds)) == len(rounds):
            return Axis(label, tuple(str(*same) for same in seeds))
    return Axis("image", tuple(str(number) for number, _ in enumerate(rounds, start=1)))


def _differing_words(requests: Sequence[ImageRequest], size: int) -> list[str]:
    """Return each prompt without the beginning and end that all of its combination share."""
    prompts, middles = [request.prompt.split() for request in requests], []
    for at, prompt in enumerate(prompts):
        alike = prompts[at % size :: size]  # there are `size` combinations in each round
        first = len(commonprefix(alike))  # noqa: RUF071  (words, not paths)
        last = len(commonprefix([words[first:][::-1] for words in alike]))  # noqa: RUF071
        middles.append(" ".join(prompt[first : len(prompt) - last]))
    return middles


def _seconds(picture: Path) -> str:
    """Return the seconds that a picture took without loading, from its metadata; "" without any."""
    with suppress(PictureUnreadable, KeyError):  # deleted meanwhile, or changed by another program
        timings = chunk_of(picture).rendered["timings"]
        return f"{sum(timings.values()) - timings.get('load', 0):.3g} s"
    return ""
