"""Which contact sheets can be drawn: those of entries whose images have all ended."""

import sqlite3
from collections.abc import Sequence

from picowatch.ledger.database import Database
from picowatch.ledger.entries import drawn_sheet
from picowatch.ledger.queue import is_reserved, next_file
from picowatch.ledger.rows import DueSheet, request_of
from picowatch.outbox.names import OutboxNames


class ContactSheets(Database):
    """The sheets that entries request, done or due."""

    def sheets_due(self, recipe: str) -> list[DueSheet]:
        """Entries that request a sheet and whose images have all ended, at least one done."""
        due = []
        with self.transaction():
            for entry in self.select(
                """SELECT * FROM entries WHERE recipe = ? AND sheet IS NOT NULL
                   AND sheet_done = 0 ORDER BY id""",
                (recipe,),
            ):
                images = self.select(
                    """SELECT request, state, file FROM images
                       JOIN entry_images ON entry_images.image = images.id
                       WHERE entry_images.entry = ? ORDER BY entry_images.position""",
                    (entry["id"],),
                )
                states = {image["state"] for image in images}
                if "done" in states and not states & {"queued", "running"}:
                    due.append(_due_sheet(entry, images))
        return due

    def reserve_sheet(self, sheet: DueSheet, recipe: str, names: OutboxNames) -> str:
        """The path of a contact sheet; the same one again after a crash."""
        if sheet.file is not None:
            return sheet.file
        with self.transaction() as sql:

            def free_file(number: int) -> str | None:
                file = names.sheet(recipe, number)
                if file is None or is_reserved(sql, names, file):
                    return None
                used = sql.execute(
                    "SELECT 1 FROM entries WHERE recipe = ? AND sheet_file = ?", (recipe, file)
                )
                return None if used.fetchone() else file

            file = next_file(sql, names, recipe, free_file)
            sql.execute("UPDATE entries SET sheet_file = ? WHERE id = ?", (file, sheet.entry))
            return file

    def mark_sheet_done(self, sheet: DueSheet) -> None:
        """The contact sheet is written, or was given up."""
        with self.transaction() as sql:
            row = sql.execute(
                "UPDATE entries SET sheet_done = 1 WHERE id = ? RETURNING recipe, sheet_file",
                (sheet.entry,),
            ).fetchone()
            if row and row["sheet_file"]:
                shows = drawn_sheet(sheet.sheet, [file for _, file in sheet.images])
                sql.execute(
                    "INSERT OR REPLACE INTO sheets (recipe, shows, file) VALUES (?, ?, ?)",
                    (row["recipe"], shows, row["sheet_file"]),
                )


def _due_sheet(entry: sqlite3.Row, images: Sequence[sqlite3.Row]) -> DueSheet:
    cells = tuple(
        (request_of(image), image["file"] if image["state"] == "done" else None) for image in images
    )
    return DueSheet(entry["id"], entry["sheet"], cells, entry["sheet_file"])
