"""Contact sheets that entries request, drawn or due."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from sqlite3 import Connection, Row

from picowatch.errors import PictureUnreadable
from picowatch.files.names import is_picture_name
from picowatch.ledger.entries import images_of
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.queue import next_file
from picowatch.ledger.rows import DueSheet, request_of
from picowatch.metadata.embedded_text import read_texts
from picowatch.outbox.encoding import SHEET_KEYWORD
from picowatch.outbox.names import OutboxNames
from picowatch.recipe.request import digest_of


def sheets_due(ledger: Ledger, recipe: str) -> list[DueSheet]:
    """Return the sheets to draw: all images ended, one is done. Equal entries have one sheet."""
    due = {}
    with ledger.transaction() as sql:
        for sheet, images, shows, known in _sheets_of(sql, recipe):
            states = {image["state"] for image in images}
            has_ended = "done" in states and not states & {"queued", "running"}
            if has_ended and not (known and known["done"]):
                cells = tuple((request_of(image), _file_of(image)) for image in images)
                file = known["file"] if known else None
                due[shows] = DueSheet(recipe, shows, sheet, cells, file)
    return [*due.values()]


def drawn_sheets(ledger: Ledger, recipe: str) -> list[str]:
    """Return the sheets of the recipe's entries, including those that could not be drawn."""
    with ledger.transaction() as sql:
        found = {shows: known for *_, shows, known in _sheets_of(sql, recipe)}
    return [row["file"] for row in found.values() if row and row["done"] and row["file"]]


def reserve_sheet(ledger: Ledger, due: DueSheet, names: OutboxNames) -> str:
    """Return the path for a contact sheet; after a crash, the same path again."""
    if due.file is not None:
        return due.file
    first = next(file for _, file in due.images if file)
    numbered = not is_picture_name(due.recipe)
    replaces = not numbered and any(request.replace for request, _ in due.images)

    def file_for(number: int) -> str | None:
        file = names.sheet(due.recipe, number, first, replaces=replaces)
        if file and names.exists(file) and not _is_sheet(names.path(file), due.recipe, first):
            return None
        return file

    with ledger.transaction() as sql:
        if replaces:  # former sheets leave their names
            shown = json.dumps([shows for *_, shows, _ in _sheets_of(sql, due.recipe)])
            which = "recipe = ? AND shows NOT IN (SELECT value FROM json_each(?))"
            sql.execute(f"DELETE FROM sheets WHERE {which}", (due.recipe, shown))
        file = next_file(sql, names, due.recipe, file_for, numbered=numbered, replaces=replaces)
        query = "INSERT INTO sheets (recipe, shows, file, done) VALUES (?, ?, ?, 0)"
        sql.execute(query, (due.recipe, due.shows, file))
        return file


def mark_sheet_done(ledger: Ledger, due: DueSheet) -> None:
    """Record that the contact sheet is written, or was given up."""
    change = """INSERT INTO sheets (recipe, shows, done) VALUES (?, ?, 1)
                ON CONFLICT DO UPDATE SET done = 1"""
    ledger.change(change, (due.recipe, due.shows))


def forget_deleted_sheets(
    sql: Connection, recipe: str, picture_exists: Callable[[str], bool]
) -> None:
    """Forget a recipe's sheets that are gone or were given up, so that they are drawn again."""
    query = "SELECT recipe, shows, file FROM sheets WHERE recipe = ? AND done"
    for row in sql.execute(query, (recipe,)).fetchall():
        if not (row["file"] and picture_exists(row["file"])):
            sql.execute("DELETE FROM sheets WHERE recipe = ? AND shows = ?", row[:2])


def follow_moved(ledger: Ledger, images: Collection[Row], moved: Mapping[str, str]) -> None:
    """Record where images and sheets are now: sheets that show them are not drawn again."""
    ids = [(moved[image["file"]], image["id"], image["file"]) for image in images]
    recipes = {image["recipe"] for image in images}
    with ledger.transaction() as sql:
        before = [(recipe, shows) for recipe in recipes for *_, shows, _ in _sheets_of(sql, recipe)]
        # A picture that is being rendered may have replaced one of these.
        change = "UPDATE images SET file = ? WHERE id = ? AND file = ? AND state = 'done'"
        sql.executemany(change, ids)
        files = [pair[::-1] for pair in moved.items()]
        sql.executemany("UPDATE sheets SET file = ? WHERE file = ?", files)
        after = [shows for recipe in recipes for *_, shows, _ in _sheets_of(sql, recipe)]
        changes = [(shows, *pair) for shows, pair in zip(after, before, strict=True)]
        change = "UPDATE OR REPLACE sheets SET shows = ? WHERE recipe = ? AND shows = ?"
        sql.executemany(change, changes)


def _sheets_of(sql: Connection, recipe: str) -> Iterator[tuple[str, list[Row], str, Row | None]]:
    """Yield each sheet that entries request: its JSON, images and key, and its row of `sheets`."""
    query = "SELECT id, sheet FROM entries WHERE recipe = ? AND sheet IS NOT NULL ORDER BY id"
    for entry in sql.execute(query, (recipe,)).fetchall():
        images = images_of(sql, entry["id"])
        shown = {"sheet": entry["sheet"], "files": [_file_of(image) for image in images]}
        # Pictures that were written over earlier pictures have the names of these.
        if is_picture_name(recipe) and any(request_of(image).replace for image in images):
            shown["ended"] = [image["ended"] for image in images if _file_of(image)]
        shows = digest_of(shown)
        row = sql.execute(
            "SELECT file, done FROM sheets WHERE recipe = ? AND shows = ?", (recipe, shows)
        ).fetchone()
        yield entry["sheet"], images, shows, row


def _file_of(image: Row) -> str | None:
    """Return the picture of an image that is done."""
    return image["file"] if image["state"] == "done" else None


def _is_sheet(path: Path, recipe: str, first: str) -> bool:
    """Whether a file is a sheet of a photo, or of its first picture before it was renamed."""
    with suppress(PictureUnreadable, KeyError, TypeError, ValueError, RecursionError):
        told = json.loads(read_texts(path)[SHEET_KEYWORD])
        return bool(told["recipe"] == recipe or first in told["files"])
    return False
