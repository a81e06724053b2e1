"""Restores the pictures that already exist into a new ledger.

Pictures contain what they were made from. What else the ledger knew (what was queued or failed)
is requested again by the inbox: the first time that such a recipe is accepted, its entries keep
the seeds that were drawn before, if one of their pictures records them.
"""

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from picowatch.ledger.rows import AskedEntry, folded
from picowatch.recipe.fields import SEEDS
from picowatch.recipe.request import ImageRequest
from picowatch.save import Save, Stamp

NUMBER = re.compile(r"\d{1,18}")  # in front of a picture's name, within SQLite's integers
DUE = "restore"  # the fact that a new ledger begins with
_RECIPE = "restored recipe: "
_SHEETS = "restored sheets: "
_CANCELLED = "restored cancellation: "


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeBefore:
    """A picture that an earlier ledger knew. `listed`: it is in images.jsonl."""

    file: str
    recipe: str
    request: ImageRequest
    save_digest: str
    entry_index: int
    image_index: int
    made_at: float
    listed: bool


def restore_pictures(
    sql: sqlite3.Connection,
    pictures: Iterable[MadeBefore],
    sheets: Callable[[], dict[str, dict[str, list[str]]]],
    cancelled: dict[str, str],
    batch_key: Callable[[ImageRequest], str],
) -> int:
    """Write pictures into a new ledger as done; returns how many.

    `sheets` gives each recipe's contact sheets (file, and the pictures on it), once all pictures
    were read. `cancelled` are the recipes whose queued images were cancelled, with the stamps
    of their files.
    """
    saves: dict[tuple[str, str], int] = {}
    numbers: Counter[str] = Counter()
    restored = 0
    for picture in pictures:
        _note_number(picture.file, numbers)
        key = picture.recipe, picture.save_digest
        if key not in saves:
            saves[key] = _save(sql, picture)
        restored += _image(sql, picture, saves[key], batch_key(picture.request))
    for recipe in {recipe for recipe, _ in saves}:
        sql.execute("INSERT INTO facts VALUES (?, '')", (_RECIPE + recipe,))
    for recipe, found in sheets().items():
        for file in found:
            _note_number(file, numbers)
        sql.execute("INSERT INTO facts VALUES (?, ?)", (_SHEETS + recipe, json.dumps(found)))
    for recipe, stamp in cancelled.items():
        sql.execute("INSERT INTO facts VALUES (?, ?)", (_CANCELLED + recipe, stamp))
    sql.executemany("INSERT INTO numbers (folder, last) VALUES (?, ?)", numbers.items())
    sql.execute("DELETE FROM facts WHERE name = ?", (DUE,))
    return restored


def _note_number(file: str, numbers: Counter[str]) -> None:
    """Folders that differ only in case share numbers; those of deleted pictures stay used."""
    folder, _, name = file.rpartition("/")
    if number := NUMBER.match(name):
        numbers[folded(folder)] = max(numbers[folded(folder)], int(number[0]))


def _save(sql: sqlite3.Connection, picture: MadeBefore) -> int:
    save = sql.execute(
        "INSERT INTO saves (recipe, digest, saved_at, outcome) VALUES (?, ?, ?, 'accepted')",
        (picture.recipe, picture.save_digest, picture.made_at),
    ).lastrowid
    assert save is not None
    return save


def _image(sql: sqlite3.Connection, picture: MadeBefore, save: int, batch_key: str) -> int:
    """Of several copies of one picture, the first is used."""
    return sql.execute(
        """INSERT OR IGNORE INTO images
           (recipe, digest, request, batch_key, state, priority, save, entry_index, image_index,
            file, listed)
           VALUES (?, ?, ?, ?, 'done', 0, ?, ?, ?, ?, ?)""",
        (
            picture.recipe,
            picture.request.digest,
            json.dumps(picture.request.as_dict(), sort_keys=True),
            batch_key,
            save,
            picture.entry_index,
            picture.image_index,
            picture.file,
            int(picture.listed),
        ),
    ).rowcount


@dataclass(frozen=True, slots=True)
class _Draw:
    digest: str
    seed: int
    entry_index: int
    image_index: int


class EarlierDraws:
    """The seeds that a restored recipe's entries drew before, each given once, newest first."""

    def __init__(self, sql: sqlite3.Connection, recipe: str) -> None:
        rows = sql.execute(
            """SELECT digest, request, entry_index, image_index FROM images
               WHERE recipe = ? ORDER BY id DESC""",
            (recipe,),
        )
        self._draws = [
            _Draw(
                row["digest"],
                json.loads(row["request"])["seed"],
                row["entry_index"],
                row["image_index"],
            )
            for row in rows
        ]

    def requests(self, entry: AskedEntry, entry_index: int) -> Sequence[ImageRequest] | None:
        """The entry's images as they were drawn, if one of them was rendered; else None.

        Image i has seed+i, but a sweep's images all have the first seed, so both are tried.
        """
        for draw in sorted(self._draws, key=lambda draw: draw.entry_index != entry_index):
            for seed in dict.fromkeys(((draw.seed - draw.image_index) % SEEDS, draw.seed)):
                requests = entry.requests(seed)
                digests = {request.digest for request in requests}
                if draw.digest in digests:
                    self._draws = [other for other in self._draws if other.digest not in digests]
                    return requests
        return None


def is_remembered(sql: sqlite3.Connection, recipe: str) -> bool:
    """Whether an earlier ledger knew the recipe, and it was not accepted since."""
    found = sql.execute("SELECT 1 FROM facts WHERE name IN (?, ?, ?)", _names(recipe))
    return found.fetchone() is not None


def is_restored(sql: sqlite3.Connection, recipe: str) -> bool:
    """Whether the recipe has pictures from an earlier ledger and was not accepted since."""
    found = sql.execute("SELECT 1 FROM facts WHERE name = ?", (_RECIPE + recipe,))
    return found.fetchone() is not None


def was_cancelled(sql: sqlite3.Connection, save: Save) -> bool:
    """Whether this very save's images were cancelled before the earlier ledger was lost."""
    found = sql.execute("SELECT value FROM facts WHERE name = ?", (_CANCELLED + save.path,))
    row = found.fetchone()
    if row is None:
        return False
    try:
        return not save.stamp.written_since(Stamp.from_text(row["value"]))
    except (TypeError, ValueError):  # the memos were edited by hand
        return False


def forget_restored(sql: sqlite3.Connection, recipe: str) -> None:
    """The recipe was accepted, or is gone."""
    sql.execute("DELETE FROM facts WHERE name IN (?, ?, ?)", _names(recipe))


def keep_sheets(sql: sqlite3.Connection, recipe: str) -> None:
    """Mark a restored recipe's contact sheets as made if they show what its entries request."""
    found = sql.execute("SELECT value FROM facts WHERE name = ?", (_SHEETS + recipe,)).fetchone()
    if found is None:
        return
    sheets = {frozenset(files): sheet for sheet, files in json.loads(found["value"]).items()}
    entries = sql.execute(
        "SELECT id FROM entries WHERE recipe = ? AND sheet IS NOT NULL", (recipe,)
    ).fetchall()
    for entry in entries:
        files = sql.execute(
            "SELECT file FROM images JOIN asks ON asks.image = images.id WHERE asks.entry = ?",
            (entry["id"],),
        )
        if sheet := sheets.get(frozenset(row["file"] for row in files)):
            sql.execute(
                "UPDATE entries SET sheet_file = ?, sheet_made = 1 WHERE id = ?",
                (sheet, entry["id"]),
            )


def _names(recipe: str) -> tuple[str, str, str]:
    return _RECIPE + recipe, _SHEETS + recipe, _CANCELLED + recipe
