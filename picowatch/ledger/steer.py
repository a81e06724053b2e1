"""What people ask of the queue besides saves: cancel, try again, and what became of a recipe.

Each runs inside the caller's transaction.
"""

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable

from picowatch.ledger.rows import Outcome, Waiting

FAILED = """state = 'failed' AND EXISTS (SELECT 1 FROM asks WHERE asks.image = images.id)"""


def retry(sql: sqlite3.Connection, recipes: Iterable[str]) -> dict[str, int]:
    """Queue the recipes' failed images that are still asked for again; how many of which."""
    retried: Counter[str] = Counter()
    for recipe in recipes:
        rows = sql.execute(
            f"""UPDATE images SET state = 'queued', file = NULL, attempts = 0, deaths = 0,
                alone = 0, reason = NULL WHERE {FAILED} AND recipe = ? RETURNING id""",
            (recipe,),
        ).fetchall()
        sql.executemany(
            """UPDATE entries SET sheet_file = NULL, sheet_made = 0 WHERE sheet IS NOT NULL
               AND id IN (SELECT entry FROM asks WHERE image = ?)""",
            [(row["id"],) for row in rows],
        )
        retried[recipe] += len(rows)
    return dict(+retried)


def recipes_with_failures(sql: sqlite3.Connection) -> list[str]:
    """Recipes whose last good save asks for images that failed."""
    rows = sql.execute(f"SELECT DISTINCT recipe FROM images WHERE {FAILED} ORDER BY recipe")
    return [row["recipe"] for row in rows]


def cancel(sql: sqlite3.Connection, recipes: Iterable[str]) -> int:
    """Cancel what waits of the recipes, and give how many images.

    They are still asked for: the recipe's next save queues them again (accept.py).
    """
    return sum(
        sql.execute(
            "UPDATE images SET state = 'cancelled' WHERE recipe = ? AND state = 'queued'", (recipe,)
        ).rowcount
        for recipe in recipes
    )


def waiting(sql: sqlite3.Connection) -> Waiting:
    """The recipes with waiting images in the order of their first ones, with how many they have.

    Priorities and saves decide that order; places in one file do not matter here. The index of
    the queue holds all but the recipe, which one image of each save tells: what was made long ago
    is not looked at.
    """
    rows = sql.execute(
        """WITH queued AS (
               SELECT save, count(*) AS waiting, max(priority) AS highest, min(id) AS first
               FROM images INDEXED BY images_queue WHERE state = 'queued' GROUP BY save
           )
           SELECT recipe, sum(waiting) AS waiting FROM queued JOIN images ON images.id = first
           GROUP BY recipe ORDER BY max(highest) DESC, min(queued.save)"""
    )
    return tuple((row["recipe"], row["waiting"]) for row in rows)


def recipes_in_work(sql: sqlite3.Connection) -> Collection[str]:
    """The recipes of running images."""
    rows = sql.execute(
        "SELECT DISTINCT recipe FROM images INDEXED BY images_running WHERE state = 'running'"
    )
    return {row["recipe"] for row in rows}


def outcome(sql: sqlite3.Connection, recipe: str, digest: str) -> Outcome | None:
    """What became of the save with these bytes; None if there was none.

    That is what it asks for, or what was made for it if the recipe was retired since.
    """
    saved = sql.execute(
        "SELECT id, outcome FROM saves WHERE recipe = ? AND digest = ? ORDER BY id DESC LIMIT 1",
        (recipe, digest),
    ).fetchone()
    if saved is None:
        return None
    rows = sql.execute(
        """SELECT DISTINCT images.id, state, file FROM images
           LEFT JOIN asks ON asks.image = images.id LEFT JOIN entries ON entries.id = asks.entry
           WHERE images.recipe = :recipe AND (entries.recipe = :recipe OR images.save = :save)
           ORDER BY place, images.position""",
        {"recipe": recipe, "save": saved["id"]},
    ).fetchall()
    states = Counter(row["state"] for row in rows)
    return Outcome(
        valid=saved["outcome"] == "accepted",
        pictures=tuple(row["file"] for row in rows if row["state"] == "done"),
        unfinished=states["queued"] + states["running"],
        failed=states["failed"],
        cancelled=states["cancelled"],
    )
