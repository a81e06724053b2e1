"""Restores the pictures that already exist into a new ledger.

Pictures contain their requests. What else the ledger knew (what was queued or failed)
is requested again by the inbox: the first time that such a recipe is accepted, its entries keep
the seeds that were drawn before, if one of their pictures records them.
"""

import json
import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from picowatch.ledger.database import Database
from picowatch.ledger.rows import RequestedEntry, folded, request_text
from picowatch.recipe.fields import SEEDS
from picowatch.recipe.recipe import variation_seed_of
from picowatch.recipe.request import ImageRequest
from picowatch.save import Save, Stamp

NUMBER = re.compile(r"\d{1,18}")  # in front of a sheet's name, within SQLite's integers
DUE = "restore"  # the fact that a new ledger begins with
_RESTORED = "restored: "  # facts, each with a recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class ExistingPicture:
    """A picture that an earlier ledger knew, with the number in its name.

    `listed`: it is in images.jsonl.
    """

    file: str
    number: int
    recipe: str
    request: ImageRequest
    save_digest: str
    entry_index: int
    image_index: int
    written_at: float
    listed: bool


@dataclass(frozen=True, slots=True)
class ExistingSheet:
    """A contact sheet that an earlier ledger knew, with the pictures on it."""

    file: str
    recipe: str
    pictures: tuple[str, ...]


@dataclass
class RestoredFacts:
    """What an earlier ledger knew of a recipe that was not accepted since.

    `sheets` are its contact sheets with their pictures. `cancelled` is the stamp, as text, of the
    save whose queued images were cancelled.
    """

    has_pictures: bool = False
    sheets: dict[str, Sequence[str]] = field(default_factory=dict)
    cancelled: str | None = None

    def cancelled_all_of(self, save: Save) -> bool:
        """Whether this very save's images were cancelled before the earlier ledger was lost."""
        if self.cancelled is None:
            return False
        try:
            return not save.stamp.written_since(Stamp.from_text(self.cancelled))
        except (TypeError, ValueError):  # the memos were edited by hand
            return False


class Restoring(Database):
    """A new ledger, built from the pictures."""

    def wants_restoring(self) -> bool:
        """Whether it is new, and the existing pictures are not restored into it yet."""
        return self.fact(DUE) is not None

    def has_started(self, file: str, digest: str) -> bool:
        """Whether a picture is done or in progress: by its file, or by a copy's request."""
        query = """SELECT 1 FROM images WHERE (file = ? OR digest = ?)
                   AND state IN ('running', 'done') LIMIT 1"""
        return bool(self.select(query, (file, digest)))

    def has_request(self, digest: str) -> bool:
        """Whether the request with this digest is known, whatever became of it."""
        return bool(self.select("SELECT 1 FROM images WHERE digest = ? LIMIT 1", (digest,)))

    def restore(
        self, existing: Iterable[ExistingPicture | ExistingSheet], cancelled: Mapping[str, str]
    ) -> int:
        """Write pictures into a new ledger as done; returns how many.

        `cancelled` are the recipes whose queued images were cancelled, with the stamps of their
        files.
        """
        saves: dict[tuple[str, str], int] = {}
        numbers: Counter[str] = Counter()
        facts: defaultdict[str, RestoredFacts] = defaultdict(RestoredFacts)
        restored = 0
        with self.transaction() as sql:
            for one in existing:
                _note_number(one, numbers)
                if isinstance(one, ExistingSheet):
                    facts[one.recipe].sheets[one.file] = one.pictures
                    continue
                facts[one.recipe].has_pictures = True
                key = one.recipe, one.save_digest
                if key not in saves:
                    saves[key] = _save(sql, one)
                restored += _image(sql, one, saves[key])
            for recipe, stamp in cancelled.items():
                facts[recipe].cancelled = stamp
            sql.executemany(
                "INSERT INTO facts VALUES (?, ?)",
                ((_RESTORED + recipe, json.dumps(asdict(one))) for recipe, one in facts.items()),
            )
            sql.executemany("INSERT INTO numbers (folder, last) VALUES (?, ?)", numbers.items())
            sql.execute("DELETE FROM facts WHERE name = ?", (DUE,))
        return restored


def _note_number(one: ExistingPicture | ExistingSheet, numbers: Counter[str]) -> None:
    """Folders that differ only in case share numbers; those of deleted pictures stay used."""
    folder, _, name = one.file.rpartition("/")
    if isinstance(one, ExistingPicture):
        number = one.number
    else:
        digits = NUMBER.match(name)
        number = int(digits[0]) if digits else 0
    if number:
        numbers[folded(folder)] = max(numbers[folded(folder)], number)


def _save(sql: sqlite3.Connection, picture: ExistingPicture) -> int:
    save = sql.execute(
        "INSERT INTO saves (recipe, digest, saved_at, outcome) VALUES (?, ?, ?, 'accepted')",
        (picture.recipe, picture.save_digest, picture.written_at),
    ).lastrowid
    assert save is not None
    return save


def _image(sql: sqlite3.Connection, picture: ExistingPicture, save: int) -> int:
    """Of several copies of one picture, the first is used."""
    return sql.execute(
        """INSERT OR IGNORE INTO images
           (recipe, digest, request, batch_key, state, priority, save, entry_index, image_index,
            file, listed)
           VALUES (?, ?, ?, ?, 'done', 0, ?, ?, ?, ?, ?)""",
        (
            picture.recipe,
            picture.request.digest,
            request_text(picture.request),
            picture.request.batch_key,
            save,
            picture.entry_index,
            picture.image_index,
            picture.file,
            int(picture.listed),
        ),
    ).rowcount


class EarlierDraws:
    """The seeds that a restored recipe's entries drew before, each given once, newest first."""

    def __init__(self, sql: sqlite3.Connection, recipe: str) -> None:
        self._draws = sql.execute(
            """SELECT digest, json_extract(request, '$.seed') AS seed,
                      json_extract(request, '$.variation_seed') AS variation_seed,
                      entry_index, image_index
               FROM images WHERE recipe = ? ORDER BY id DESC""",
            (recipe,),
        ).fetchall()

    def requests(self, entry: RequestedEntry, entry_index: int) -> Sequence[ImageRequest] | None:
        """The entry's images as they were drawn, if one of them was rendered; else None.

        Image i has seed+i, but a sweep's images all have the first seed, so both are tried. If a
        variation seed was drawn, either of the two is it.
        """

        # Where only the variation seed was drawn, pictures without one say nothing about it.
        def least_likely(draw: sqlite3.Row) -> tuple[bool, bool]:
            return draw["entry_index"] != entry_index, draw["variation_seed"] is None

        for draw in sorted(self._draws, key=least_likely):
            drawn = [draw["seed"]]
            if draw["variation_seed"] is not None:
                drawn.append(variation_seed_of(draw["variation_seed"]))
            firsts = [(seed - draw["image_index"]) % SEEDS for seed in drawn]
            for seed in dict.fromkeys((*firsts, *drawn)):
                requests = entry.requests(seed)
                # At its own place: with another first seed a sweep has some of the same images.
                same = requests[draw["image_index"] : draw["image_index"] + 1]
                if [request.digest for request in same] == [draw["digest"]]:
                    digests = {request.digest for request in requests}
                    self._draws = [one for one in self._draws if one["digest"] not in digests]
                    return requests
        return None


def restored_facts(sql: sqlite3.Connection, recipe: str) -> RestoredFacts | None:
    """What an earlier ledger knew of the recipe; None if nothing, or it was accepted since."""
    row = sql.execute("SELECT value FROM facts WHERE name = ?", (_RESTORED + recipe,)).fetchone()
    return RestoredFacts(**json.loads(row["value"])) if row else None


def forget_restored(sql: sqlite3.Connection, recipe: str) -> None:
    """The recipe was accepted, or is gone."""
    sql.execute("DELETE FROM facts WHERE name = ?", (_RESTORED + recipe,))


def keep_sheets(sql: sqlite3.Connection, recipe: str, sheets: Mapping[str, Sequence[str]]) -> None:
    """Mark a restored recipe's contact sheets as done if they show what its entries request."""
    if not sheets:
        return
    by_pictures = {frozenset(pictures): sheet for sheet, pictures in sheets.items()}
    entries = sql.execute(
        "SELECT id FROM entries WHERE recipe = ? AND sheet IS NOT NULL", (recipe,)
    ).fetchall()
    for entry in entries:
        files = sql.execute(
            """SELECT file FROM images JOIN entry_images ON entry_images.image = images.id
               WHERE entry_images.entry = ?""",
            (entry["id"],),
        )
        if sheet := by_pictures.get(frozenset(row["file"] for row in files)):
            sql.execute(
                "UPDATE entries SET sheet_file = ?, sheet_done = 1 WHERE id = ?",
                (sheet, entry["id"]),
            )
