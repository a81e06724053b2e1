"""A new ledger, which is filled from images.jsonl.

One that cannot be used is set aside. The saves that images.jsonl knows are kept in `restored` until
the whole inbox was compared with them: a recipe is rendered again only if it was saved meanwhile.
"""

import logging
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from sqlite3 import Connection, Row
from typing import Any

from picowatch.errors import LedgerCorrupt
from picowatch.files.names import is_picture_name
from picowatch.ledger.entries import ELSEWHERE, detach, move_images
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rows import insert_image
from picowatch.outbox.listing import Listing, request_in
from picowatch.outbox.status import number_of
from picowatch.service import ALIVE, notify

log = logging.getLogger("picowatch")

LINES_ALIVE = 1000  # between two watchdog messages: a million lines take minutes
_ALIKE = "SELECT recipe, finished FROM restored WHERE digest = ? ORDER BY finished DESC"


def open_ledger(path: Path, listing: Listing) -> Ledger:
    """Return the ledger; a new one has `listing`'s pictures. Raises sqlite3's OperationalError."""
    try:
        ledger = Ledger(path)
    except LedgerCorrupt as error:
        set_aside(path, str(error))
        ledger = Ledger(path)
    if ledger.is_new:
        try:
            entered = _rebuild(ledger, listing)
        except BaseException:
            ledger.close()
            raise
        if entered:
            log.warning("the new ledger has %s of images.jsonl", number_of(entered, "picture"))
    return ledger


def set_aside(path: Path, damage: str) -> None:
    """Rename a damaged ledger and its journal, which must not be replayed into a new one."""
    kept = path.with_name(f"{path.name}.damaged-{datetime.now():%Y%m%d-%H%M%S}")
    for part in ("-journal", ""):
        with suppress(FileNotFoundError):
            Path(f"{path}{part}").replace(f"{kept}{part}")
    log.error("%s It is kept as %s; a new one is built from images.jsonl.", damage, kept.name)


def _rebuild(ledger: Ledger, listing: Listing) -> int:
    """Enter the pictures of images.jsonl as done; all else is requested anew. Return how many."""
    number = 0
    with ledger.transaction() as sql:
        for number, line in enumerate(listing.all(), 1):
            if number % LINES_ALIVE == 1:
                notify(*ALIVE)
            with suppress(KeyError, TypeError, ValueError, OverflowError):  # not a line of ours
                _enter(sql, line, number)
        # A deleted picture's name may have gone to a later one.
        newest = "(SELECT max(id) FROM images GROUP BY file)"
        detach(sql, f"id NOT IN {newest}", {"file": None})
        # Later saves get higher numbers than these lines.
        sql.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('saves', ?)", (number,))
        (entered,) = sql.execute("SELECT count(DISTINCT file) FROM images").fetchone()
    return int(entered)


def _enter(sql: Connection, line: dict[str, Any], number: int) -> None:
    """Enter what a line says of a picture, or of its recipe."""
    recipe = str(line["recipe"])
    note_save = "INSERT OR REPLACE INTO restored (recipe, digest, finished) VALUES (?, ?, ?)"
    if "file" in line:
        _enter_picture(sql, line, number)
        if "moved" not in line:  # later, by `picowatch keep`
            sql.execute(note_save, (recipe, str(line["save_digest"]), 0))
    elif "done" in line:
        sql.execute(note_save, (recipe, str(line["done"]), 1))
    elif old := line.get("renamed"):  # perhaps some of its pictures were listed before
        query = "UPDATE OR REPLACE restored SET recipe = ? WHERE recipe = ?"
        sql.execute(query, (recipe, str(old)))
        move_images(sql, str(old), recipe)
    elif "gone" in line:  # another recipe of this name is a new one
        sql.execute("DELETE FROM restored WHERE recipe = ?", (recipe,))


def _enter_picture(sql: Connection, line: dict[str, Any], save: int) -> None:
    """Enter a picture; of several with the same request, the last counts.

    That of a moved picture names its recipe as it was called when the picture was made.
    """
    file = str(line["file"])
    moved = "UPDATE images SET file = ? WHERE id = (SELECT max(id) FROM images WHERE file = ?)"
    if "moved" in line and sql.execute(moved, (file, str(line["moved"]))).rowcount:
        return
    request = request_in(line)
    recipe = str(line["recipe"])
    of_save = {"recipe": recipe, "save": save, "save_digest": str(line["save_digest"])}
    of_entry = {"priority": 0, "entry_digest": str(line.get("entry_digest", ""))}
    place = {"entry_index": int(line["entry_index"]), "image_index": int(line["image_index"])}
    done = {"state": "done", "file": file, "seconds": float(line["seconds"]), "listed": 1}
    ended = datetime.fromisoformat(line["finished"]).timestamp()
    if request.replace and is_picture_name(recipe):  # as when its rendering began
        which = f"""recipe = :recipe AND {ELSEWHERE} AND (save_digest != :save_digest
            OR (entry_index, image_index) = (:entry_index, :image_index))"""
        detach(sql, which, {**of_save, **place, "file": file, "folder": file.rpartition("/")[0]})
        sql.execute("DELETE FROM restored WHERE recipe = ?", (recipe,))  # none of them is done
    sql.execute("DELETE FROM images WHERE recipe = ? AND digest = ?", (recipe, request.digest))
    insert_image(sql, request, **of_save, **of_entry, **place, **done, ended=ended)


# -- until the inbox was compared


def take_save(
    sql: Connection, recipe: str, digest: str, formers: Mapping[str, str | None]
) -> bool | None:
    """Return whether a save was rendered before as a whole, or in part; None if it is new.

    Its own path decides first. If that is new, it is a file that was renamed unnoticed, if a save
    of the same bytes is in the inbox no more: it alone takes over that one's pictures.
    """
    if not sql.execute("SELECT 1 FROM restored LIMIT 1").fetchone():
        return None  # as nearly always
    is_finished, alike = _own_and_others(sql.execute(_ALIKE, (digest,)), recipe)
    others = sql.execute("SELECT 1 FROM restored WHERE recipe = ? LIMIT 1", (recipe,))
    if is_finished is None and others.fetchone():
        return False
    taken = [recipe]
    for other, finished in alike.items():
        if is_finished:
            break
        found = formers.get(other)
        if found != digest:
            move_images(sql, other, recipe, "" if found is None else digest)
            taken.append(other)
            is_finished = finished
    sql.executemany(
        "DELETE FROM restored WHERE recipe = ? AND digest = ?", [(path, digest) for path in taken]
    )
    return is_finished


def former_paths(ledger: Ledger, recipe: str, digest: str) -> Collection[str]:
    """Return the paths of which `take_save` asks what is there now."""
    return _own_and_others(ledger.select(_ALIKE, (digest,)), recipe)[1].keys()


def is_to_be_compared(ledger: Ledger) -> bool:
    """Whether the ledger is new, and has not been compared with the whole inbox."""
    return bool(ledger.select("SELECT 1 FROM restored LIMIT 1"))


def forget_absent(ledger: Ledger) -> None:
    """Forget saves that are in the inbox no more; a file that is refused may be accepted later."""
    ledger.change(
        """DELETE FROM restored WHERE digest NOT IN
           (SELECT digest FROM recipes WHERE outcome = 'refused')"""
    )


def _own_and_others(rows: Iterable[Row], recipe: str) -> tuple[bool | None, dict[str, bool]]:
    """Return whether a recipe's own save is finished, and others that it may take over."""
    saves = {row["recipe"]: bool(row["finished"]) for row in rows}
    own = saves.pop(recipe, None)
    return own, {path: done for path, done in saves.items() if own is None or not (own or done)}
