"""The consequences of a recipe's changes: error file, contact sheets, `when_done`."""

import json
import logging
from collections.abc import Sequence
from itertools import takewhile
from math import prod
from pathlib import Path
from typing import Any

from picowatch.daemon.run import Run
from picowatch.errors import PictureUnreadable
from picowatch.files.atomic import check_in_place
from picowatch.files.inside import OtherBytes, checked_blocks, sha256_of, unlink_below
from picowatch.files.names import is_picture_name
from picowatch.files.pictures import MAX_BYTES
from picowatch.files.retry import passes, unexpected
from picowatch.inbox.files import FileChanged, FileUnreadable, complete_file
from picowatch.inbox.inbox import Inbox
from picowatch.inbox.reading import sidecars_of, size_and_time_at
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rows import DueSheet, KnownRecipe, QueuedImage
from picowatch.metadata import PICOWATCH, read_chunk, read_texts
from picowatch.outbox.outbox import Outbox
from picowatch.outbox.sheets import Cell, SheetTooLarge
from picowatch.recipe import ImageRequest, Recipe
from picowatch.recipe.fields import Axis
from picowatch.streams import harmless, harmless_lines

log = logging.getLogger("picowatch")

LARGEST_PICTURE = 512  # pixels; the full-size pictures are beside the sheet
FAILURES_SHOWN = 20  # in one error file


def sheet_of(recipe: Recipe) -> str | None:
    """Return what the entry's contact sheet shows, as JSON for the ledger; None without one."""
    if not recipe.wants_sheet:
        return None
    axes = [{"label": axis.label, "values": list(axis.values)} for axis in recipe.sweep]
    shown = {"prompt": recipe.prompt, "axes": axes, "images": recipe.image_count}
    return json.dumps(shown | ({"seconds": True} if recipe.grid_seconds else {}))


def make_due_sheets(recipe: str, ledger: Ledger, outbox: Outbox) -> None:
    """Draw the contact sheets of a recipe's entries whose images have all ended.

    A sheet that cannot be drawn is given up: the log and the recipe's warning file say why. None is
    drawn if all of its pictures were deleted.
    """
    for due in ledger.sheets_due(recipe):
        if not any(outbox.exists(picture) for _, picture in due.images if picture):
            check_in_place(outbox.root / ".picowatch")  # raises if they are not deleted, but away
            ledger.mark_sheet_done(due)
            continue
        file = ledger.reserve_sheet(due, recipe, outbox.names)
        try:
            _publish(recipe, due, file, outbox)
        except SheetTooLarge as error:
            words = f"No contact sheet: {error} are too many for one page."
            log.warning("%s: %s", recipe, words)
            outbox.problems.add_warning(recipe, words)
        else:
            log.info("%s: contact sheet %s", recipe, file)
        ledger.mark_sheet_done(due)


def _publish(recipe: str, due: DueSheet, file: str, outbox: Outbox) -> None:
    """Draw and write a sheet. Images of earlier draws of the seeds are not shown."""
    shown: dict[str, Any] = json.loads(due.sheet)
    axes = [Axis(axis["label"], tuple(axis["values"])) for axis in shown["axes"]]
    images = due.images[-shown.pop("images", 0) :]
    requests, files = [request for request, _ in images], [picture for _, picture in images]
    size = prod(len(axis.values) for axis in axes)
    seeds = _seeds([requests[at : at + size] for at in range(0, len(requests), size)])
    labels = [
        [] if axes else [f"{seeds.label} {seed}"] for seed in seeds.values for _ in range(size)
    ]
    if axes and len(seeds.values) > 1:
        axes.insert(0, seeds)
        shown["axes"] = [{"label": axis.label, "values": list(axis.values)} for axis in axes]
    pictures = [outbox.root / file if file else None for file in files]
    if shown.pop("seconds", False):
        labels = [label + _seconds(one) for label, one in zip(labels, pictures, strict=True)]
    words = _differing_words(requests, size)
    told = [", ".join([*label, *drawn]) for label, drawn in zip(labels, words, strict=True)]
    cells = [Cell(picture, label) for picture, label in zip(pictures, told, strict=True)]
    side = max(max(request.published_size) for request in requests)
    about = {"recipe": recipe, **shown, "files": files, "labels": told}
    outbox.publish_sheet(file, cells, axes, min(side, LARGEST_PICTURE), about)


def _seeds(rounds: Sequence[Sequence[ImageRequest]]) -> Axis:
    """Return in what a combination's images differ; each round has one of each combination."""
    for label, field in (("seed", "seed"), ("variation", "variation_seed")):
        seeds = [{getattr(request, field) for request in requests} for requests in rounds]
        if all(len(one) == 1 for one in seeds) and len(set().union(*seeds)) == len(rounds):
            return Axis(label, tuple(str(*one) for one in seeds))
    return Axis("image", tuple(str(number) for number, _ in enumerate(rounds, start=1)))


def _differing_words(requests: Sequence[ImageRequest], size: int) -> list[list[str]]:
    """Return the words in which each prompt differs from others of its combination.

    They tell apart images whose seeds drew different words from wildcards. Each round has `size`
    combinations.
    """
    words = [request.prompt.split() for request in requests]
    return [_middle(prompt, words[at % size :: size]) for at, prompt in enumerate(words)]


def _middle(prompt: Sequence[str], others: Sequence[Sequence[str]]) -> list[str]:
    """Return the prompt without the beginning and end that all share; [] if all are equal."""
    first = _common([*others])
    last = _common([one[first:][::-1] for one in others])
    return [text] if (text := " ".join(prompt[first : len(prompt) - last])) else []


def _common(texts: Sequence[Sequence[str]]) -> int:
    """Return how many words all texts begin with."""
    places = zip(*texts, strict=False)
    return sum(1 for _ in takewhile(lambda words: len({*words}) == 1, places))


def _seconds(picture: Path | None) -> list[str]:
    """Return the seconds that a picture took without loading, from its metadata."""
    if picture is None:
        return []
    try:
        timings = read_chunk(read_texts(picture)[PICOWATCH]).rendered["timings"]
        return [f"{sum(timings.values()) - timings.get('load', 0):.3g} s"]
    except (PictureUnreadable, KeyError):  # deleted meanwhile, or changed by another program
        return []


class Archive:
    """Takes files out of the inbox if their bytes are those that were accepted."""

    def __init__(self, run: Run, inbox: Inbox) -> None:
        self.settings, self.ledger, self.outbox = run.settings, run.ledger, run.outbox
        self.inbox = inbox

    def take_away(self, path: str, known: KnownRecipe) -> bool:
        """Archive or delete a recipe whose images all succeeded; False if it is to be tried again.

        A dropped picture's sidecars go with it: they would be the prompt or the mask of the next
        picture of that name.
        """
        if self.settings.when_done == "keep" or self._is_saved_again(path, known):
            return True
        if not self.inbox.folder:
            return False
        sidecars = self._sidecars(path, known)
        files = {} if sidecars is None else {path: known.digest, **sidecars}
        # All are archived before the first is removed: a full disk interrupts this.
        kept = {file: self._keep(file, its, path) for file, its in files.items()}
        if kept.get(path) and self._take_out(path, known.digest):
            log.info("%s: done, %s", path, kept[path])
            self.ledger.archive(path)
            for file, its in files.items():
                if kept[file] and file != path:
                    self._take_out(file, its)
        return self.inbox.is_there()  # if not, the file may come back with the inbox

    def remove(self, recipe: str, digest: str) -> None:
        """Delete a recipe that was in the inbox only for `make`, and its error files."""
        try:
            removed = self._unlink(recipe, digest)
        except FileNotFoundError:
            return  # somebody deleted or renamed it, which the inbox reports
        except OSError as error:  # as in another user's folder, where `make` removes it itself
            log.info("%s: left for `make` to remove: %s", recipe, error.strerror)
            self.ledger.leave_to_make(recipe)
            return
        if removed:
            log.info("%s: removed, as requested", recipe)
            self.ledger.archive(recipe)
            self.outbox.problems.clear(recipe)

    def _is_saved_again(self, recipe: str, known: KnownRecipe) -> bool:
        """Whether a newer save waits to be accepted: even the same bytes may request new seeds."""
        if is_picture_name(recipe):
            return False
        found = size_and_time_at(self.settings.inbox, recipe)
        return found is not None and found.written_since(known.size_and_time)

    def _sidecars(self, path: str, known: KnownRecipe) -> dict[str, str] | None:
        """The files that belong to a dropped picture alone, with the sha256 of each.

        None if one has come or changed since the picture was accepted.
        """
        if not is_picture_name(path):
            return {}
        inbox, found = self.settings.inbox, size_and_time_at(self.settings.inbox, path)
        if found is None or found.sidecars not in (0, known.size_and_time.sidecars):
            return None
        digests = {}
        try:
            for sidecar in sidecars_of(inbox, path):
                with complete_file(inbox, sidecar) as (file, _):
                    digests[sidecar] = sha256_of(file, MAX_BYTES)
        except (FileUnreadable, FileChanged, FileNotFoundError):
            return None
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
        """Remove a file with these bytes from the inbox; returns whether it was."""
        try:
            return self._unlink(file, digest)
        except FileNotFoundError:
            return False  # taken out already, perhaps before a crash
        except OSError as error:
            log.warning("%s: done, but it stays in the inbox: %s", file, error.strerror)
            return False

    def _unlink(self, file: str, digest: str) -> bool:
        """Delete a file with these bytes. Raises OSError if that fails, or if it is a link."""
        inbox = self.settings.inbox
        return unlink_below(inbox, file, lambda found: sha256_of(found, MAX_BYTES) == digest)


class Finishing:
    """Draws the consequences of what changed: error file, contact sheets, `when_done`.

    Each step looks at what is there and may be repeated.
    """

    def __init__(self, run: Run, archive: Archive) -> None:
        self.archive, self.observers = archive, run.observers
        self.ledger, self.outbox = run.ledger, run.outbox

    def finish_all(self) -> None:
        """Finish all recipes that have changed, and commit that at once.

        An error that has to be waited for is raised only after each had its turn: one recipe's
        folder may stay unwritable for good.
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

    def list_failures(self) -> None:
        """Add what was refused or failed to failures.jsonl, not twice even after a crash."""
        if unlisted := self.ledger.unlisted_failures():
            recent = self.outbox.failures.recent()
            lines = [line for text in unlisted.values() if (line := json.loads(text)) not in recent]
            if lines:
                self.outbox.failures.append(*lines)
            self.ledger.mark_failures_listed(unlisted)

    def finish(self, recipe: str) -> bool:
        """Draw the consequences; False if the recipe cannot be taken out of the inbox yet.

        An invalid save's error file stays: the next valid one tries the failed images again anyway.
        """
        known = self.ledger.known_recipe(recipe)
        if known is None or known.outcome != "accepted":
            make_due_sheets(recipe, self.ledger, self.outbox)
            return True
        self._report_failures(recipe, known)
        # Asked first: images that end meanwhile bring the recipe another turn, with its sheet.
        are_all_done = self.ledger.recipe_counts(recipe).are_all_done
        make_due_sheets(recipe, self.ledger, self.outbox)
        return not are_all_done or self.archive.take_away(recipe, known)

    def _report_failures(self, recipe: str, known: KnownRecipe) -> None:
        if failures := self.ledger.failures(recipe):
            # Noted before the file is written and until it is removed, for a crash in between.
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
