"""Which contact sheets can be made: those of entries whose images have all ended.

Each runs inside the caller's transaction.
"""

import sqlite3
from collections.abc import Sequence

from picowatch.ledger.rows import DueSheet, request_of


def recipes_with_sheets_due(sql: sqlite3.Connection) -> list[str]:
    """Recipes of which a crash may have left a contact sheet unmade."""
    rows = sql.execute(
        "SELECT DISTINCT recipe FROM entries WHERE sheet IS NOT NULL AND sheet_made = 0"
    )
    return [row["recipe"] for row in rows]


def sheets_due(sql: sqlite3.Connection, recipe: str) -> list[DueSheet]:
    """The recipe's entries whose images have all ended, some well, and that want a sheet."""
    entries = sql.execute(
        """SELECT * FROM entries WHERE recipe = ? AND sheet IS NOT NULL
           AND sheet_made = 0 ORDER BY id""",
        (recipe,),
    ).fetchall()
    due = []
    for entry in entries:
        images = sql.execute(
            """SELECT request, state, file FROM images
               JOIN asks ON asks.image = images.id
               WHERE asks.entry = ? ORDER BY asks.position""",
            (entry["id"],),
        ).fetchall()
        states = {image["state"] for image in images}
        if "done" in states and not states & {"queued", "running"}:
            due.append(_due_sheet(entry, images))
    return due


def _due_sheet(entry: sqlite3.Row, images: Sequence[sqlite3.Row]) -> DueSheet:
    cells = tuple(
        (
            request_of(image),
            image["file"] if image["state"] == "done" else None,
        )
        for image in images
    )
    return DueSheet(entry["id"], entry["sheet"], cells, entry["sheet_file"])
