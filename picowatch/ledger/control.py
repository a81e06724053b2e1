"""What commands ask for: pause, cancel, retry, and those that wait for their answer."""

import json
import time
from collections.abc import Collection

from picowatch.ledger.accept import UNFINISHED
from picowatch.ledger.entries import FAILED, QUEUED_ANEW
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rows import SizeAndTime, WaitingCommand

_OF_THESE = "recipe IN (SELECT value FROM json_each(:recipes))"


def retry(ledger: Ledger, recipes: Collection[str]) -> int:
    """Queue failed images that are still requested again; return how many."""
    change = f"UPDATE images SET {QUEUED_ANEW} WHERE {FAILED} AND {_OF_THESE}"
    return ledger.change(change, {"recipes": json.dumps([*recipes])})


def want_again(ledger: Ledger, recipes: Collection[str], *, as_saved: bool) -> None:
    """Have recipes read again; `as_saved`: as if saved, unless they have unfinished images."""
    ledger.change(
        """UPDATE recipes SET reread = CASE WHEN :as_saved AND NOT EXISTS (
               SELECT 1 FROM images WHERE recipe = path AND state IN ('queued', 'running')
           ) THEN 'saved' ELSE max(reread, 'read') END
           WHERE outcome != 'archived' AND path IN (SELECT value FROM json_each(:recipes))""",
        {"as_saved": as_saved, "recipes": json.dumps([*recipes])},
    )


def recipes_with_failures(ledger: Ledger) -> list[str]:
    """Return the recipes whose last valid save requests images that failed."""
    rows = ledger.select(f"SELECT DISTINCT recipe FROM images WHERE {FAILED} ORDER BY recipe")
    return [row["recipe"] for row in rows]


def cancel(ledger: Ledger, recipes: Collection[str]) -> tuple[int, int]:
    """Cancel images, but no entries; return how many, and how many of these were running."""
    these = {"recipes": json.dumps([*recipes])}
    with ledger.transaction() as sql:
        ((running,),) = sql.execute(
            f"""SELECT count(*) FROM images INDEXED BY images_running
                WHERE state = 'running' AND being_written = 0 AND {_OF_THESE}""",
            these,
        )
        change = f"UPDATE images SET state = 'cancelled' WHERE {_OF_THESE} AND {UNFINISHED}"
        return sql.execute(change, these).rowcount, running


def unfinished_recipes(ledger: Ledger, name: str = "") -> dict[str, SizeAndTime | None]:
    """Return the recipes with images that can be cancelled, and their versions as they were read.

    With `name`, those of this name or stem, and those in the folder of this name.
    """
    # "/" and "0" follow "." in ASCII.
    which = "(recipe = :name OR (recipe > :name || '.' AND recipe < :name || '0')) AND" * bool(name)
    rows = ledger.select(
        f"""SELECT recipe, size_and_time FROM (
                SELECT DISTINCT recipe FROM images WHERE {which} {UNFINISHED}
            ) LEFT JOIN recipes ON path = recipe ORDER BY recipe""",
        {"name": name},
    )
    return {recipe: version and SizeAndTime.from_text(version) for recipe, version in rows}


def pause(ledger: Ledger) -> None:
    """Start no rendering until `resume`."""
    change = "INSERT INTO paused SELECT ? WHERE NOT EXISTS (SELECT 1 FROM paused)"
    ledger.change(change, (time.time(),))


def resume(ledger: Ledger) -> None:
    ledger.change("DELETE FROM paused")


def is_paused(ledger: Ledger) -> bool:
    return bool(ledger.select("SELECT 1 FROM paused"))


def waiting_command(ledger: Ledger, file: str) -> WaitingCommand | None:
    """Return what is known of a command that was seen before and has no answer yet."""
    rows = ledger.select("SELECT * FROM commands WHERE name = ?", (file,))
    return WaitingCommand(*tuple(rows[0])[1:]) if rows else None


def note_command(ledger: Ledger, file: str, waiting: WaitingCommand) -> None:
    """Record what is known of a command that has no answer yet."""
    ledger.change("INSERT OR REPLACE INTO commands VALUES (?, ?, ?, ?, ?)", (file, *waiting))
