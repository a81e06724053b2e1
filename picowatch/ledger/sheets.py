"""Which contact sheets can be made: those of entries whose images have all ended."""

import sqlite3
from collections.abc import Sequence

from picowatch.ledger.database import Database
from picowatch.ledger.queue import next_file
from picowatch.ledger.rows import DueSheet, FileNames, request_of


class ContactSheets(Database):
    """The sheets that entries request, made or due."""

    def recipes_with_sheets_due(self) -> list[str]:
        """Recipes with a contact sheet that a crash may have prevented."""
        with self.transaction() as sql:
            rows = sql.execute(
                "SELECT DISTINCT recipe FROM entries WHERE sheet IS NOT NULL AND sheet_made = 0"
            )
            return [row["recipe"] for row in rows]

    def sheets_due(self, recipe: str) -> list[DueSheet]:
        """Entries that request a sheet and whose images have all ended, at least one done."""
        with self.transaction() as sql:
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

    def reserve_sheet(self, sheet: DueSheet, recipe: str, names: FileNames) -> str:
        """The path of a contact sheet; the same one again after a crash."""
        if sheet.file is not None:
            return sheet.file
        with self.transaction() as sql:
            file = next_file(sql, names, recipe, lambda number: names.sheet(recipe, number))
            sql.execute("UPDATE entries SET sheet_file = ? WHERE id = ?", (file, sheet.entry))
            return file

    def mark_sheet_made(self, sheet: DueSheet) -> None:
        """The contact sheet is written."""
        with self.transaction() as sql:
            sql.execute("UPDATE entries SET sheet_made = 1 WHERE id = ?", (sheet.entry,))


def _due_sheet(entry: sqlite3.Row, images: Sequence[sqlite3.Row]) -> DueSheet:
    cells = tuple(
        (
            request_of(image),
            image["file"] if image["state"] == "done" else None,
        )
        for image in images
    )
    return DueSheet(entry["id"], entry["sheet"], cells, entry["sheet_file"])
