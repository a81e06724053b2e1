"""What is still to be done, and what is done for good."""

from collections.abc import Iterable

from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rows import QueuedImage

KEPT_SECONDS = 31 * 24 * 3600.0  # for saves, and for recipes that were archived
LINES_AT_ONCE = 500  # so few that after a crash all of them are found at the file's end


def unlisted_failures(ledger: Ledger) -> dict[int, str]:
    """Return the first lines that failures.jsonl lacks, by id."""
    rows = ledger.select("SELECT id, line FROM failures ORDER BY id LIMIT ?", (LINES_AT_ONCE,))
    return {row["id"]: row["line"] for row in rows}


def mark_failures_listed(ledger: Ledger, failures: Iterable[int]) -> None:
    ledger.change_each("DELETE FROM failures WHERE id = ?", ((one,) for one in failures))


def unlisted(ledger: Ledger) -> list[QueuedImage]:
    """Return pictures that are published but not listed yet."""
    rows = ledger.select("SELECT * FROM images WHERE state = 'done' AND listed = 0 ORDER BY id")
    return [QueuedImage.of(row) for row in rows]


def mark_listed(ledger: Ledger, image: int) -> None:
    """Record that the picture is in images.jsonl and the gallery."""
    ledger.change("UPDATE images SET listed = 1 WHERE id = ?", (image,))


def todo(ledger: Ledger) -> list[tuple[str, int]]:
    """Return recipes with unfinished consequences, each with their count."""
    rows = ledger.select("SELECT path, todo FROM recipes WHERE todo > 0 ORDER BY save")
    return [(row["path"], row["todo"]) for row in rows]


def done_with(ledger: Ledger, todo: Iterable[tuple[str, int]]) -> None:
    """Record that the consequences were drawn, unless more has changed since."""
    ledger.change_each("UPDATE recipes SET todo = 0 WHERE path = ? AND todo = ?", todo)


def note_problem(ledger: Ledger, recipe: str, problem: str | None) -> bool:
    """Record what is wrong with the recipe, in a line; None if nothing is. False if known."""
    query = "UPDATE recipes SET problem = ? WHERE path = ? AND problem IS NOT ?"
    return bool(ledger.change(query, (problem, recipe, problem)))


def look_again(ledger: Ledger, recipe: str) -> None:
    """Have what is wrong with the recipe, if anything is, looked at again."""
    ledger.change(
        "UPDATE recipes SET todo = todo + 1 WHERE path = ? AND problem IS NOT NULL", (recipe,)
    )


def archive(ledger: Ledger, recipe: str) -> None:
    """Record that the recipe is done and was taken out of the inbox."""
    ledger.change(
        "UPDATE recipes SET outcome = 'archived', problem = NULL, todo = 0 WHERE path = ?",
        (recipe,),
    )


def leave_to_make(ledger: Ledger, recipe: str) -> None:
    """Record that `make --rm` removes the recipe: an equal file is not a renaming of it."""
    ledger.change(
        "UPDATE recipes SET digest = '', problem = NULL, todo = 0 WHERE path = ?", (recipe,)
    )


def prune(ledger: Ledger, now: float) -> None:
    """Delete what nobody asks for any more: old saves, and recipes archived long ago."""
    with ledger.transaction() as sql:
        old = now - KEPT_SECONDS
        archived = """SELECT recipes.path FROM recipes JOIN saves ON saves.id = recipes.save
                      WHERE recipes.outcome = 'archived' AND saved_at < ?"""
        sql.execute(f"DELETE FROM entries WHERE recipe IN ({archived})", (old,))
        sql.execute(f"DELETE FROM recipes WHERE path IN ({archived})", (old,))
        sql.execute(
            "DELETE FROM saves WHERE saved_at < ? AND id NOT IN (SELECT save FROM recipes)",
            (old,),
        )
        sql.execute("DELETE FROM commands WHERE since < ?", (old,))
        sql.execute("DELETE FROM sheets WHERE recipe NOT IN (SELECT path FROM recipes)")
