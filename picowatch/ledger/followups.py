"""Follow-up work, and pruning."""

import json
import time
from collections.abc import Iterable

from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rows import QueuedImage, note_history

KEPT_SECONDS = 31 * 24 * 3600.0  # for saves, and for recipes that were archived
# Of a recipe all of whose images are done, and of which there are some.
_LIST_AS_DONE = """
    UPDATE recipes SET listed = 1 WHERE path = ? AND outcome = 'accepted' AND listed = 0 AND (
        SELECT min(state = 'done') FROM entries JOIN entry_images ON entry = entries.id
        JOIN images ON images.id = image WHERE entries.recipe = path
    ) RETURNING digest"""
_TO_LIST = """
    SELECT recipe FROM images WHERE state = 'running'
    UNION SELECT recipe FROM images WHERE state = 'done' AND listed = 0"""
LINES_AT_ONCE = 500  # so few that after a crash all of them are found at the file's end


def unlisted_lines(ledger: Ledger, table: str) -> dict[int, str]:
    """Return the first lines that failures.jsonl or ("history") images.jsonl lacks, by id."""
    rows = ledger.select(f"SELECT id, line FROM {table} ORDER BY id LIMIT ?", (LINES_AT_ONCE,))
    lines = {row["id"]: row["line"] for row in rows}
    # A renaming is listed after the pictures whose rendering began under the former name.
    if table == "history" and '"renamed"' in "".join(lines.values()):
        busy = {row["recipe"] for row in ledger.select(_TO_LIST)}
        for number, text in reversed([*lines.items()]):
            line = json.loads(text)
            if line["recipe"] in busy and "renamed" in line:
                busy.add(line["renamed"])
                lines = {other: lines[other] for other in lines if other < number}
    return lines


def mark_lines_listed(ledger: Ledger, table: str, lines: Iterable[int]) -> None:
    ledger.change_each(f"DELETE FROM {table} WHERE id = ?", ((line,) for line in lines))


def unlisted(ledger: Ledger) -> list[QueuedImage]:
    """Return pictures that are published but not listed yet."""
    rows = ledger.select("SELECT * FROM images WHERE state = 'done' AND listed = 0 ORDER BY id")
    return [QueuedImage.of(row) for row in rows]


def mark_listed(ledger: Ledger, image: int) -> None:
    ledger.change("UPDATE images SET listed = 1 WHERE id = ?", (image,))


def todo(ledger: Ledger) -> list[tuple[str, int]]:
    """Return recipes with follow-up work, each with the number of changes that led to it."""
    rows = ledger.select("SELECT path, todo FROM recipes WHERE todo > 0 ORDER BY save")
    return [(row["path"], row["todo"]) for row in rows]


def done_with(ledger: Ledger, todo: Iterable[tuple[str, int]]) -> None:
    """Record what was followed up on, unless it changed since, and have what is done listed."""
    with ledger.transaction() as sql:
        for recipe, count in todo:
            sql.execute("UPDATE recipes SET todo = 0 WHERE path = ? AND todo = ?", (recipe, count))
            if row := sql.execute(_LIST_AS_DONE, (recipe,)).fetchone():
                note_history(sql, recipe, done=row["digest"])


def note_problem(ledger: Ledger, recipe: str, problem: str | None) -> bool:
    """Record a recipe's problem in a line, or None; False if it was known and is not newer."""
    failed_at = "(SELECT max(ended) FROM images WHERE recipe = path AND state = 'failed')"
    query = f"""UPDATE recipes SET problem = ?, problem_at = ?, told = 0
                WHERE path = ? AND (problem IS NOT ? OR problem_at < {failed_at})"""
    return bool(ledger.change(query, (problem, time.time(), recipe, problem)))


def look_again(ledger: Ledger, recipe: str) -> None:
    """Have a recipe with a problem followed up on again."""
    change = "UPDATE recipes SET todo = todo + 1 WHERE path = ? AND problem IS NOT NULL"
    ledger.change(change, (recipe,))


def archive(ledger: Ledger, recipe: str) -> None:
    """Record that the recipe is done and was taken out of the inbox."""
    with ledger.transaction() as sql:
        change = "outcome = 'archived', problem = NULL, listed = 0, todo = 0"
        sql.execute(f"UPDATE recipes SET {change} WHERE path = ?", (recipe,))
        note_history(sql, recipe, gone=True)


def leave_to_make(ledger: Ledger, recipe: str) -> None:
    """Record that `make --rm` removes the recipe: an equal file is not a renaming of it."""
    change = "UPDATE recipes SET digest = '', problem = NULL, todo = 0 WHERE path = ?"
    ledger.change(change, (recipe,))


def prune(ledger: Ledger, now: float) -> None:
    """Delete what nobody asks for any more: old saves, and recipes archived long ago."""
    with ledger.transaction() as sql:
        old = now - KEPT_SECONDS
        archived = """SELECT recipes.path FROM recipes JOIN saves ON saves.id = recipes.save
                      WHERE recipes.outcome = 'archived' AND saved_at < ?"""
        sql.execute(f"DELETE FROM entries WHERE recipe IN ({archived})", (old,))
        sql.execute(f"DELETE FROM recipes WHERE path IN ({archived})", (old,))
        sql.execute(
            "DELETE FROM saves WHERE saved_at < ? AND id NOT IN (SELECT save FROM recipes)", (old,)
        )
        sql.execute("DELETE FROM commands WHERE since < ?", (old,))
