"""What a save means for entries and images.

1. An entry that was already in the last valid save keeps its seeds, pictures and files. Its images
   that failed or were cancelled are tried again; with fixed seeds, pictures that the user deleted
      are rendered again, and a deleted contact sheet is drawn again.
2. A new entry's images are queued, except those that this recipe already has. A contact sheet of
   the same pictures is not drawn again either. An entry with fixed seeds is new, too, if its
   wildcard files say something else now.
3. If nothing changed at all, entries with a random seed are drawn again; a new draw replaces
   cancelled images. The same entries in another order are a change.
4. Queued images that no entry requests any more are cancelled.
"""

import sqlite3
from collections.abc import Callable, Sequence

from picowatch.files.names import is_picture_name, with_mask
from picowatch.ledger.contact_sheets import forget_deleted_sheets
from picowatch.ledger.entries import Key, SaveWriter, images_of, keys_of
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.outstanding import note_problem
from picowatch.ledger.rows import (
    Acceptance,
    RequestedEntry,
    Save,
    SizeAndTime,
    columns_of,
    failure_line,
    request_of,
)

# An image that may still be cancelled, unlike one whose picture is being written.
UNFINISHED = "(state = 'queued' OR (state = 'running' AND drawn = 0))"


def accept(
    ledger: Ledger,
    save: Save,
    entries: Sequence[RequestedEntry],
    *,
    draw_seed: Callable[[], int],
    picture_exists: Callable[[str], bool],
    is_again: bool = False,
) -> Acceptance:
    """Accept a valid save with all its images, or not at all.

    `is_again`: a save that requests the same as before asks only for what failed or was
    cancelled, not for more.
    """
    requested = dict(zip(keys_of(entry.digest for entry in entries), entries, strict=True))
    with ledger.transaction() as sql:
        row = sql.execute("SELECT outcome FROM recipes WHERE path = ?", (save.path,)).fetchone()
        outcome = row and row["outcome"]
        before: dict[Key, tuple[int, int]] = {}
        if outcome:  # an unknown recipe has no entries
            forget_archived(sql, save.path)
            before = entries_before(sql, save.path)
        for key in before.keys() & requested.keys():
            if _draws_otherwise(sql, before[key][0], requested[key]):
                sql.execute("DELETE FROM entries WHERE id = ?", (before.pop(key)[0],))
        unchanged = [(key, entry.priority) for key, entry in requested.items()] == [
            (key, priority) for key, (_, priority) in before.items()
        ]
        for key in before.keys() - requested.keys():
            sql.execute("DELETE FROM entries WHERE id = ?", (before[key][0],))
        save_id = record_save(sql, save, "accepted")
        writer = SaveWriter(sql, save, save_id, draw_seed, picture_exists)
        if unchanged and is_again:
            writer.picture_exists = lambda file: True
        if outcome == "restored":  # pictures that the user deleted stay deleted
            writer.picture_exists = lambda file: True
            writer.is_restored = True
        for entry_index, (key, entry) in enumerate(requested.items()):
            if key in before:
                redraw = unchanged and entry.random and not is_again
                writer.keep(before[key][0], key, entry_index, entry, redraw=redraw)
            else:
                writer.add(key, entry_index, entry)
        forget_deleted_sheets(sql, save.path, writer.picture_exists)
        if outcome or len(requested) > 1:  # else there are no earlier images
            prioritise_images(sql, save.path)
            writer.result.cancelled = cancel_unrequested(sql, save.path)
        return writer.result


def refuse(
    ledger: Ledger, save: Save, problem: str | None, *, waits_for: str | None = None
) -> None:
    """Record a save from which nothing is rendered, so that it is read only once.

    `problem` says why in a line, or is None if that is the problem of a picture's template. What
    earlier saves requested is still rendered. The recipe is read again when `waits_for` changes.
    """
    with ledger.transaction() as sql:
        forget_archived(sql, save.path)
        if problem is not None and not _is_refused(sql, save, problem):
            _list_failure(sql, save.path, save.digest, problem)
        record_save(sql, save, "refused", problem, waits_for)


def refuse_for_template(
    ledger: Ledger, picture: Save, template: str, problem: str, waits_for: str
) -> bool:
    """Record a picture without a prompt from its template; return whether that is news."""
    with ledger.transaction() as sql:
        refuse(ledger, picture, None, waits_for=waits_for)
        is_news = note_problem(ledger, template, problem)
        if is_news:
            _list_failure(sql, template, picture.template, problem)
        return is_news


def forget(ledger: Ledger, recipe: str) -> int:
    """Forget a recipe that is gone, and cancel its images; return how many."""
    with ledger.transaction() as sql:
        return forget_recipe(sql, recipe)


def rename(
    ledger: Ledger,
    old: str,
    new: str,
    size_and_time: SizeAndTime,
    folder: str = "",
) -> None:
    """Move a recipe with its queue, pictures and history; nothing is rendered again.

    If another recipe had the new name, its file is gone: its images are cancelled.
    """
    with ledger.transaction() as sql:
        forget_recipe(sql, new)
        sql.execute(
            """UPDATE recipes SET path = ?, size_and_time = ?, folder = ?, todo = todo + 1
               WHERE path = ?""",
            (new, size_and_time.as_text(), folder, old),
        )
        sql.execute("UPDATE entries SET recipe = ? WHERE recipe = ?", (new, old))
        sql.execute("UPDATE saves SET recipe = ? WHERE recipe = ?", (new, old))
        sql.execute("UPDATE OR REPLACE sheets SET recipe = ? WHERE recipe = ?", (new, old))
        if is_picture_name(old):
            _rename_dropped(sql, old, new)
        # Remove equal images of the earlier recipe of that name, except running ones.
        sql.execute(
            """DELETE FROM images WHERE recipe = ? AND state != 'running'
               AND digest IN (SELECT digest FROM images WHERE recipe = ?)""",
            (new, old),
        )
        sql.execute("UPDATE OR IGNORE images SET recipe = ? WHERE recipe = ?", (new, old))


def prioritise(ledger: Ledger, recipe: str, priorities: Sequence[int]) -> None:
    """Give a recipe's entries, in their order, these priorities of its new folder."""
    with ledger.transaction() as sql:
        sql.executemany(
            "UPDATE entries SET priority = ? WHERE recipe = ? AND place = ?",
            [(priority, recipe, place) for place, priority in enumerate(priorities)],
        )
        prioritise_images(sql, recipe)


def _is_refused(sql: sqlite3.Connection, save: Save, problem: str) -> bool:
    """Whether this very version was refused for this reason, as a template is with each picture."""
    row = sql.execute(
        """SELECT 1 FROM recipes WHERE path = ? AND digest = ? AND size_and_time = ? AND problem = ?
           AND outcome = 'refused' AND again = ''""",
        (save.path, save.digest, save.size_and_time.as_text(), problem),
    )
    return row.fetchone() is not None


def _list_failure(sql: sqlite3.Connection, recipe: str, digest: str, problem: str) -> None:
    line = failure_line(recipe, digest, problem.removeprefix(f"{recipe}: "))
    sql.execute("INSERT INTO failures (line) VALUES (?)", (line,))


def forget_archived(sql: sqlite3.Connection, recipe: str) -> None:
    """Forget what an archived recipe requested, because another file has its name now."""
    sql.execute(
        """DELETE FROM entries WHERE recipe IN
           (SELECT path FROM recipes WHERE path = ? AND outcome = 'archived')""",
        (recipe,),
    )


def record_save(
    sql: sqlite3.Connection,
    save: Save,
    outcome: str,
    problem: str | None = None,
    waits_for: str | None = None,
) -> int:
    """Record what became of this version of a recipe; return the save's id.

    Consequences are to be drawn only if something is wrong or an image has ended.
    """
    save_id = sql.execute(
        "INSERT INTO saves (recipe, digest, saved_at, outcome) VALUES (?, ?, ?, ?)",
        (save.path, save.digest, save.saved_at, outcome),
    ).lastrowid
    assert save_id is not None
    sql.execute(
        """INSERT INTO recipes (path, size_and_time, digest, outcome, save, folder, template,
                                waits_for, problem, todo)
           VALUES (:path, :size_and_time, :digest, :outcome, :save, :folder, :template, :waits_for,
                   :problem, :problem IS NOT NULL OR EXISTS (
                       SELECT 1 FROM images WHERE recipe = :path
                       AND state IN ('done', 'failed', 'cancelled')))
           ON CONFLICT (path) DO UPDATE SET size_and_time = excluded.size_and_time,
               digest = excluded.digest, outcome = excluded.outcome, save = excluded.save,
               folder = excluded.folder, template = excluded.template,
               waits_for = excluded.waits_for, problem = excluded.problem, again = '',
               todo = todo + 1""",
        {
            "path": save.path,
            "size_and_time": save.size_and_time.as_text(),
            "digest": save.digest,
            "outcome": outcome,
            "save": save_id,
            "folder": save.folder,
            "template": save.template,
            "waits_for": waits_for,
            "problem": problem,
        },
    )
    return save_id


def forget_recipe(sql: sqlite3.Connection, recipe: str) -> int:
    """Forget a recipe's entries and cancel its unfinished images; return how many."""
    sql.execute("DELETE FROM entries WHERE recipe = ?", (recipe,))
    sql.execute("DELETE FROM recipes WHERE path = ?", (recipe,))
    return cancel_unrequested(sql, recipe)


def cancel_unrequested(sql: sqlite3.Connection, recipe: str) -> int:
    """Cancel the recipe's images that no entry requests any more; return how many.

    Running ones stop at their next step, unless their pictures are being written.
    """
    return sql.execute(
        f"""UPDATE images SET state = 'cancelled' WHERE recipe = ? AND {UNFINISHED}
            AND NOT EXISTS (SELECT 1 FROM entry_images WHERE entry_images.image = images.id)""",
        (recipe,),
    ).rowcount


def prioritise_images(sql: sqlite3.Connection, recipe: str) -> None:
    """Give unfinished images the highest priority of the entries that request them.

    Running images count, too: they are queued again if their engine dies.
    """
    sql.execute(
        """UPDATE images SET priority = requested.priority FROM (
               SELECT image, max(priority) AS priority FROM entries
               JOIN entry_images ON entry_images.entry = entries.id
               WHERE recipe = ? GROUP BY image
           ) AS requested
           WHERE images.id = requested.image AND images.state IN ('queued', 'running')
           AND images.priority != requested.priority""",
        (recipe,),
    )


def entries_before(sql: sqlite3.Connection, recipe: str) -> dict[Key, tuple[int, int]]:
    """Return the ids and priorities of the entries of the recipe's last valid save, in order."""
    rows = sql.execute(
        """SELECT id, digest, occurrence, priority FROM entries WHERE recipe = ?
           ORDER BY place""",
        (recipe,),
    )
    return {(row["digest"], row["occurrence"]): (row["id"], row["priority"]) for row in rows}


def _draws_otherwise(sql: sqlite3.Connection, entry_id: int, entry: RequestedEntry) -> bool:
    """Whether an entry with fixed seeds requests other images than at its last save."""
    if entry.random or not entry.may_differ:
        return False
    drawn = [image["digest"] for image in images_of(sql, entry_id)]
    return drawn != [one.digest for one in entry.requests(None)]


def _rename_dropped(sql: sqlite3.Connection, old: str, new: str) -> None:
    """Rename a dropped picture in its requests; running ones are published as they are."""
    names = dict(zip(with_mask(old), with_mask(new), strict=True))
    rows = sql.execute(
        "SELECT id, request FROM images WHERE recipe = ? AND state != 'running'", (old,)
    ).fetchall()
    for row in rows:
        request = request_of(row).with_names(names)
        sql.execute(
            """UPDATE OR IGNORE images SET digest = :digest, request = :request,
               batch_key = :batch_key WHERE id = :id""",
            columns_of(request) | {"id": row["id"]},
        )
