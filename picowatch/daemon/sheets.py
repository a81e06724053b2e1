"""The contact sheets of recipes: which are due, and what they show."""

import json
import logging
from collections.abc import Sequence
from math import prod
from os.path import commonprefix
from pathlib import Path
from typing import Any

from picowatch.daemon.run import Run
from picowatch.errors import PictureUnreadable
from picowatch.files.atomic import check_in_place
from picowatch.ledger import contact_sheets
from picowatch.ledger.rows import DueSheet
from picowatch.metadata.embedded_text import chunk_of
from picowatch.outbox.outbox import Outbox
from picowatch.outbox.sheets import Cell, SheetTooLarge
from picowatch.recipe.fields import Axis
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.request import ImageRequest

log = logging.getLogger("picowatch")

LARGEST_PICTURE = 512  # pixels; the full-size pictures are beside the sheet


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
        labels = [label + _seconds(file) for label, file in zip(labels, pictures, strict=True)]
    words = _differing_words(requests, size)
    told = [", ".join([*label, *drawn]) for label, drawn in zip(labels, words, strict=True)]
    cells = [_cell(picture, label) for picture, label in zip(pictures, told, strict=True)]
    side = max(max(request.published_size) for request in requests)
    about = {"recipe": recipe, **shown, "files": files, "labels": told}
    outbox.publish_sheet(file, cells, axes, min(side, LARGEST_PICTURE), about)


def _cell(picture: Path | None, label: str) -> Cell:
    return Cell(picture, ", ".join(filter(None, [picture.name if picture else "", label])))


def _seeds(rounds: Sequence[Sequence[ImageRequest]]) -> Axis:
    """Return in what a combination's images differ; each round has an image of each combination."""
    for label, field in (("seed", "seed"), ("variation", "variation_seed")):
        seeds = [{getattr(request, field) for request in requests} for requests in rounds]
        if all(len(same) == 1 for same in seeds) and len(set().union(*seeds)) == len(rounds):
            return Axis(label, tuple(str(*same) for same in seeds))
    return Axis("image", tuple(str(number) for number, _ in enumerate(rounds, start=1)))


def _differing_words(requests: Sequence[ImageRequest], size: int) -> list[list[str]]:
    """Return the words, as of wildcards, in which prompts of a combination differ."""
    words = [request.prompt.split() for request in requests]  # `size` combinations in each round
    return [_middle(prompt, words[at % size :: size]) for at, prompt in enumerate(words)]


def _middle(prompt: list[str], others: list[list[str]]) -> list[str]:
    """Return the prompt without the beginning and end that all share; [] if all are equal."""
    first = len(commonprefix(others))  # noqa: RUF071  (words, not paths)
    last = len(commonprefix([words[first:][::-1] for words in others]))  # noqa: RUF071
    return [text] if (text := " ".join(prompt[first : len(prompt) - last])) else []


def _seconds(picture: Path | None) -> list[str]:
    """Return the seconds that a picture took without loading, from its metadata."""
    if picture is None:
        return []
    try:
        timings = chunk_of(picture).rendered["timings"]
        return [f"{sum(timings.values()) - timings.get('load', 0):.3g} s"]
    except (PictureUnreadable, KeyError):  # deleted meanwhile, or changed by another program
        return []
