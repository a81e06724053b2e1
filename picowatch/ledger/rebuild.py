"""What was requested, what is queued, what is done: the daemon's only memory.

Each change of state is guarded by the old state, so a step that runs twice does nothing the second
time. `accept.py` says what a save means. A ledger that cannot be used is set aside, and a new one
is filled from images.jsonl.
"""

import logging
import sqlite3
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from picowatch.errors import LedgerCorrupt
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rows import NEVER_READ, columns_of, insert_image
from picowatch.outbox.listing import request_in
from picowatch.outbox.outbox import Outbox
from picowatch.recipe.request import ImageRequest
from picowatch.service import ALIVE, notify

log = logging.getLogger("picowatch")

LINES_ALIVE = 1000  # between two watchdog messages: a million lines take minutes


def rebuild(ledger: Ledger, outbox: Outbox) -> int:
    """Enter the pictures of images.jsonl as done; return how many.

    Queued and failed images are requested again, because all recipes are read again.
    """
    digests: dict[str, str] = {}  # the newest of each recipe
    entered = 0
    with ledger.transaction() as sql:
        for save, line in enumerate(outbox.listing.all(), 1):
            if save % LINES_ALIVE == 1:
                notify(*ALIVE)
            with suppress(KeyError, TypeError, ValueError):  # not a line of ours
                recipe = str(line["recipe"])
                _enter(sql, line, request_in(line), save)
                entered += 1
                digests[recipe] = str(line["save_digest"])
        sql.executemany(
            """INSERT INTO recipes (path, size_and_time, digest, outcome, save, folder)
               VALUES (?, ?, ?, 'restored', 0, '')""",
            [(recipe, NEVER_READ.as_text(), digest) for recipe, digest in digests.items()],
        )
        # Later saves get higher numbers than these lines.
        sql.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('saves', ?)", (entered,))
    return entered


def open_ledger(path: Path, outbox: Outbox) -> Ledger:
    """Return the ledger, ready for use.

    Raises sqlite3.OperationalError while it is locked or the disk is full.
    """
    try:
        ledger = Ledger(path)
    except LedgerCorrupt as error:
        set_aside(path, str(error))
        ledger = Ledger(path)
    if ledger.is_new:
        try:
            entered = rebuild(ledger, outbox)
        except BaseException:
            ledger.close()
            raise
        if entered:
            log.warning("%s pictures of images.jsonl are in the new ledger", entered)
    return ledger


def set_aside(path: Path, damage: str) -> None:
    """Rename a damaged ledger and its journal, which must not be replayed into a new one."""
    kept = path.with_name(f"{path.name}.damaged-{datetime.now():%Y%m%d-%H%M%S}")
    for part in ("-journal", ""):
        with suppress(FileNotFoundError):
            Path(f"{path}{part}").replace(f"{kept}{part}")
    log.error("%s It is kept as %s; a new one is built from images.jsonl.", damage, kept.name)


def _enter(sql: sqlite3.Connection, line: dict[str, Any], request: ImageRequest, save: int) -> None:
    """Enter a line's picture; of several lines with the same request, the last counts."""
    columns = columns_of(request) | {
        "recipe": str(line["recipe"]),
        "state": "done",
        "priority": 0,
        "save": save,
        "save_digest": str(line["save_digest"]),
        "entry_index": int(line["entry_index"]),
        "image_index": int(line["image_index"]),
        "entry_digest": str(line.get("entry_digest", "")),
        "file": str(line["file"]),
        "listed": 1,
    }
    sql.execute("DELETE FROM images WHERE recipe = :recipe AND digest = :digest", columns)
    insert_image(sql, columns, request)
