"""Contact sheets of sweeps and grids: made once all images of an entry have ended."""

import json
import logging
from collections.abc import Sequence
from typing import Any

from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rows import DueSheet
from picowatch.outbox.outbox import Outbox
from picowatch.outbox.sheets import Cell, SheetTooLarge
from picowatch.recipe import Recipe
from picowatch.recipe.recipe_fields import Axis

log = logging.getLogger("picowatch")

LARGEST_PICTURE = 512  # pixels; full-size pictures stand beside the sheet


def sheet_of(recipe: Recipe) -> str | None:
    """What the entry's contact sheet shows, as JSON for the ledger; None if it wants none."""
    if not recipe.wants_sheet:
        return None
    axes = [{"label": axis.label, "values": list(axis.values)} for axis in recipe.axes]
    return json.dumps({"prompt": recipe.prompt, "axes": axes})


def make_due_sheets(recipe: str, ledger: Ledger, outbox: Outbox) -> None:
    """Make the contact sheets of a recipe's entries whose images have all ended."""
    for due in ledger.sheets_due(recipe):
        file = ledger.reserve_sheet(due, recipe, outbox.names)
        try:
            _publish(recipe, due, file, outbox)
        except SheetTooLarge as error:
            log.warning("%s: no contact sheet: %s are too many for one page", recipe, error)
        else:
            log.info("%s: contact sheet %s", recipe, file)
        ledger.mark_sheet_made(due)


def _publish(recipe: str, due: DueSheet, file: str, outbox: Outbox) -> None:
    shown: dict[str, Any] = json.loads(due.sheet)
    axes = [Axis(axis["label"], tuple(axis["values"])) for axis in shown["axes"]]
    files = [picture for _, picture in due.images]
    text = json.dumps({"recipe": recipe, **shown, "files": files}, ensure_ascii=False)
    side = max(max(request.width, request.height) for request, _ in due.images)
    cells = _cells(due, axes, outbox)
    outbox.publish_sheet(file, cells, axes, min(side, LARGEST_PICTURE), text)


def _cells(due: DueSheet, axes: Sequence[Axis], outbox: Outbox) -> list[Cell]:
    """The pictures; without axes each says its seed."""
    return [
        Cell(
            outbox.root / picture if picture else None,
            "" if axes else f"seed {request.seed}",
        )
        for request, picture in due.images
    ]
