"""What a save means for entries and images.

1. An entry that was already in the last valid save keeps its seeds, pictures and files. Its images
   that failed or were cancelled are tried again; with fixed seeds, pictures that the user deleted
   are rendered again, and a deleted contact sheet is drawn again.
2. A new entry's images are queued, except those that this recipe already has. A contact sheet of
   the same pictures is not drawn again either. An entry with fixed seeds is new, too, if its
   wildcard files say something else now. A random seed is drawn, unless the entry takes the place
   of one whose seed gives it images that this recipe already has: then it has that seed. So a
   sweep with another value, or a higher `count`, keeps its pictures.
3. If nothing changed at all, entries with a random seed are drawn again; a new draw replaces
   cancelled images. The same entries in another order are a change. So are other priorities that
   the recipe itself gives; a file of the same bytes was saved again, whatever its folder gives.
4. Queued images that no entry requests any more are cancelled.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from sqlite3 import Connection

from picowatch.errors import PicowatchError
from picowatch.files.names import first_folder, is_picture_name
from picowatch.ledger.contact_sheets import forget_deleted_sheets
from picowatch.ledger.entries import REQUESTED, SaveWriter, images_of, move_images, placed
from picowatch.ledger.followups import note_problem
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.queries import known_recipe
from picowatch.ledger.rebuild import take_save
from picowatch.ledger.rows import Acceptance, RequestedEntry, Save, note_failure, note_history


class QueueFull(PicowatchError):
    """A save asks for more images than its folder may have queued; `alone`: on an empty queue."""

    def __init__(self, folder: str, asked: int, most: int) -> None:
        where = f"The folder {folder}" if folder else "The inbox itself"
        self.alone = asked > most
        words = f"{where} may have {most:,} images waiting (max_queued)"
        remedy = "Ask for fewer." if self.alone else "It is read again when fewer wait."
        super().__init__(f"{words}, and this save asks for {asked:,} more.", remedy)


# An image that may still be cancelled, unlike an image whose picture is being written.
UNFINISHED = "(state = 'queued' OR (state = 'running' AND being_written = 0))"


def accept(
    ledger: Ledger,
    save: Save,
    entries: Sequence[RequestedEntry],
    *,
    draw_seed: Callable[[], int],
    picture_exists: Callable[[str], bool],
    formers: Mapping[str, str | None],
    repeats_last_save: bool = False,
    max_queued: int | None = None,
) -> Acceptance:
    """Accept a valid save with all its images, or not at all.

    `repeats_last_save`: if it requests the same as before, it asks only for what failed or was
    cancelled; so does one that changes priorities alone. `formers` has the sha256 of what is at
    the save's `rebuild.former_paths`. Raises QueueFull beyond `max_queued` images of its folder.
    """
    requested = placed(entries)
    with ledger.transaction() as sql:
        row = sql.execute("SELECT digest FROM recipes WHERE path = ?", (save.path,)).fetchone()
        if row:  # an unknown recipe has no entries
            forget_archived(sql, save.path)
        in_order = "SELECT * FROM entries WHERE recipe = ? ORDER BY place"
        entries_before = sql.execute(in_order, (save.path,)) if row else ()
        before = {(entry["digest"], entry["occurrence"]): entry for entry in entries_before}
        kept = {
            key: entry
            for key, entry in before.items()
            if key in requested and not _draws_otherwise(sql, entry["id"], requested[key])
        }
        unchanged = [*requested] == [*before] == [*kept]
        if unchanged and row and row["digest"] != save.digest:
            priorities = [entry.priority for entry in requested.values()]
            repeats_last_save |= priorities != [kept[key]["priority"] for key in requested]
        save_id = record_save(sql, save, "accepted")
        writer = SaveWriter(sql, save, save_id, draw_seed, picture_exists, before, requested)
        asks_anew = bool(requested) and not before  # a template asks for nothing
        writer.restored = take_save(sql, save.path, save.digest, formers) if asks_anew else None
        if writer.restored is not None or (unchanged and repeats_last_save):
            writer.picture_exists = lambda file: True  # what the user deleted stays deleted
        writer.write(kept, redraws=unchanged and not repeats_last_save)
        forget_deleted_sheets(sql, save.path, writer.picture_exists)
        if row and writer.result.queued:
            sql.execute("UPDATE recipes SET listed = 0 WHERE path = ?", (save.path,))
        if row or len(requested) > 1:  # else there are no earlier images
            prioritise_images(sql, save.path)
            writer.result.cancelled = cancel_unrequested(sql, save.path)
        if max_queued is not None and writer.result.queued:
            _check_room(sql, save.path, writer.result.queued, max_queued)
        return writer.result


def _check_room(sql: Connection, recipe: str, asked: int, most: int) -> None:
    """Raise QueueFull if a recipe's folder has too many images queued."""
    folder = first_folder(recipe)
    query = "SELECT count(*) FROM images WHERE state = 'queued' AND folder = ?"
    ((queued,),) = sql.execute(query, (folder,))
    if queued > most:
        raise QueueFull(folder, asked, most)


def refuse(ledger: Ledger, save: Save, problem: str | None, *, waits: bool = False) -> None:
    """Record a save from which nothing is rendered, so that it is read only once.

    `problem` says why in a line, or is None if that is the problem of a picture's template. What
    earlier saves requested is still rendered. `waits`: it is read again with each scan.
    """
    with ledger.transaction() as sql:
        forget_archived(sql, save.path)
        known = known_recipe(ledger, save.path)
        if problem is not None and not (known and known.is_refusal_of(save, problem)):
            note_failure(sql, save.path, save.digest, problem)
        record_save(sql, save, "refused", problem, waits=waits)


def refuse_for_template(ledger: Ledger, picture: Save, template: str, problem: str) -> bool:
    """Record a picture without a prompt from its template; return whether that is news."""
    with ledger.transaction() as sql:
        refuse(ledger, picture, None)
        if is_news := note_problem(ledger, template, problem):
            note_failure(sql, template, picture.template, problem)
        return is_news


def forget(ledger: Ledger, recipe: str) -> int:
    """Forget a recipe that is gone, and cancel its images; return how many."""
    with ledger.transaction() as sql:
        note_history(sql, recipe, gone=True)
        return forget_recipe(sql, recipe)


def rename(ledger: Ledger, old: str, new: str, *, exchanges: bool = False) -> None:
    """Move a recipe with its queue, pictures and history.

    One that had the new name gets the old one, as two recipes may have equal images. Unless the two
    `exchange` names, it is gone then, and its pictures are of its former name, as after an edit.
    """
    with ledger.transaction() as sql:
        is_in_use = known_recipe(ledger, new) is not None
        spare = f".{new}"  # which no recipe has, as hidden files are not searched
        if is_in_use:
            _move(sql, new, spare)
        forget_recipe(sql, new)
        _move(sql, old, new)
        if is_in_use:
            _move(sql, spare, old)
        if is_in_use and not exchanges:
            note_history(sql, old, gone=True)
            forget_recipe(sql, old)
            if not is_picture_name(new):  # its requests name the photo
                for table in ("images", "saves"):
                    of_former = f"UPDATE OR IGNORE {table} SET recipe = ? WHERE recipe = ?"
                    sql.execute(of_former, (new, old))


def _move(sql: Connection, old: str, new: str) -> None:
    sql.execute("UPDATE recipes SET path = ?, todo = todo + 1 WHERE path = ?", (new, old))
    for table in ("entries", "saves", "sheets"):
        sql.execute(f"UPDATE OR REPLACE {table} SET recipe = ? WHERE recipe = ?", (new, old))
    move_images(sql, old, new)
    note_history(sql, new, renamed=old)


def prioritise(ledger: Ledger, recipe: str, priorities: Sequence[int]) -> None:
    """Give a recipe's entries, in their order, these priorities of its new folder."""
    with ledger.transaction() as sql:
        rows = [(priority, recipe, place) for place, priority in enumerate(priorities)]
        sql.executemany("UPDATE entries SET priority = ? WHERE recipe = ? AND place = ?", rows)
        prioritise_images(sql, recipe)


def forget_archived(sql: Connection, recipe: str) -> None:
    """Forget what an archived recipe requested, because another file has its name now."""
    sql.execute(
        """DELETE FROM entries WHERE recipe IN
           (SELECT path FROM recipes WHERE path = ? AND outcome = 'archived')""",
        (recipe,),
    )


def record_save(
    sql: Connection, save: Save, outcome: str, problem: str | None = None, *, waits: bool = False
) -> int:
    """Record what became of this version of a recipe; return the save's id."""
    save_id = sql.execute(
        """INSERT INTO saves (recipe, digest, saved_at, outcome, why, template)
           VALUES (?, ?, ?, ?, ?, ?)""",
        (save.path, save.digest, save.saved_at, outcome, save.why, save.template),
    ).lastrowid
    assert save_id is not None
    saved = {"save": save_id, "path": save.path, "digest": save.digest, "template": save.template}
    seen = {"size_and_time": save.size_and_time.as_text(), "inbox_id": save.inbox_id}
    what = {"outcome": outcome, "waits": waits, "problem": problem, "now": time.time()}
    sql.execute(
        """INSERT INTO recipes (path, size_and_time, digest, outcome, save, inbox_id, template,
                                waits, problem, problem_at, told, todo)
           VALUES (:path, :size_and_time, :digest, :outcome, :save, :inbox_id, :template, :waits,
                   :problem, :now, 0, :problem IS NOT NULL OR EXISTS (
                       SELECT 1 FROM images WHERE recipe = :path
                       AND state IN ('done', 'failed', 'cancelled')))
           ON CONFLICT (path) DO UPDATE SET size_and_time = excluded.size_and_time,
               digest = excluded.digest, outcome = excluded.outcome, save = excluded.save,
               inbox_id = excluded.inbox_id, template = excluded.template,
               accepted = CASE WHEN excluded.outcome = 'accepted' OR reread = 'saved' THEN ''
                   WHEN outcome = 'accepted' THEN digest || ' ' || size_and_time
                   ELSE accepted END,
               waits = excluded.waits, problem = excluded.problem,
               problem_at = excluded.problem_at, reread = '',
               told = iif(problem IS excluded.problem AND outcome = excluded.outcome, told, 0),
               listed = listed AND digest = excluded.digest, todo = todo + 1""",
        saved | seen | what,
    )
    return save_id


def forget_recipe(sql: Connection, recipe: str) -> int:
    """Forget a recipe's entries and cancel its unfinished images; return how many."""
    sql.execute("DELETE FROM entries WHERE recipe = ?", (recipe,))
    sql.execute("DELETE FROM recipes WHERE path = ?", (recipe,))
    return cancel_unrequested(sql, recipe)


def cancel_unrequested(sql: Connection, recipe: str) -> int:
    """Cancel a recipe's images that no entry requests; return how many were unfinished."""
    cancel = f"UPDATE images SET state = 'cancelled' WHERE recipe = ? AND NOT {REQUESTED} AND "
    sql.execute(f"{cancel} state = 'failed'", (recipe,))  # which do not count as failed any more
    return sql.execute(f"{cancel} {UNFINISHED}", (recipe,)).rowcount


def prioritise_images(sql: Connection, recipe: str) -> None:
    """Give unfinished and failed images the highest priority of the entries that request them."""
    sql.execute(
        """UPDATE images SET priority = requested.priority FROM (
               SELECT image, max(priority) AS priority FROM entries
               JOIN entry_images ON entry_images.entry = entries.id
               WHERE recipe = ? GROUP BY image
           ) AS requested
           WHERE images.id = requested.image AND images.state IN ('queued', 'running', 'failed')
           AND images.priority != requested.priority""",
        (recipe,),
    )


def _draws_otherwise(sql: Connection, entry_id: int, entry: RequestedEntry) -> bool:
    """Whether an entry with fixed seeds requests other images than at its last save."""
    if entry.random or not entry.may_differ:
        return False
    drawn = [image["digest"] for image in images_of(sql, entry_id)]
    return drawn != [request.digest for request in entry.requests(None)]
