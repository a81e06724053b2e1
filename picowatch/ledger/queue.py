"""The queue: which images are next, and how claimed images end.

Each change is guarded by the old state: an engine's result for an image that was cancelled changes
nothing, nor does it if the image was requested again and claimed by another engine: then it has
another file.
"""

import json
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import PurePosixPath

from picowatch.files.names import is_picture_name, stem_of
from picowatch.ledger.entries import FAILED
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rows import (
    PutBack,
    QueuedImage,
    failure_line,
    folded,
)
from picowatch.outbox.names import OutboxNames
from picowatch.recipe.request import ImageRequest

IN_ORDER = "priority DESC, save, entry_index, image_index"
# Each part uses an index: of a hundred thousand images, almost all were done long ago.
_TO_RENDER = f"""(SELECT id FROM images INDEXED BY images_queue WHERE state = 'queued'
                  UNION ALL
                  SELECT id FROM images INDEXED BY images_running WHERE state = 'running'
                  UNION ALL SELECT id FROM images WHERE {FAILED})"""
# The recipe may have been deleted while the picture was being written.
_QUEUED = """state = CASE WHEN EXISTS (SELECT 1 FROM entry_images
             WHERE entry_images.image = images.id) THEN 'queued' ELSE 'cancelled' END"""
# "0" follows "/" in ASCII.
OF_ONLY = """EXISTS (SELECT 1 FROM json_each(:only) WHERE recipe = value
             OR (recipe > value || '/' AND recipe < value || '0'))"""


def claim(
    ledger: Ledger,
    names: OutboxNames,
    batch_size: Callable[[ImageRequest], int],
    held: str = "",
    others: Collection[str] = (),
    patience: int = 0,
    only: Sequence[str] = (),
) -> list[QueuedImage]:
    """Return the next batch, now 'running', each image with a reserved file; [] if none waits.

    Among images of the highest priority, those that need the checkpoint `held` (its hash) come
    first, then those whose checkpoint no other engine holds, then the oldest. An oldest image
    that was passed over `patience` times comes in any case. Later images that can share its
    batch join it. An image runs alone if a batch failed, or the engine or the daemon died, with
    it. With `only`, images of these recipes and folders are claimed, the oldest first.
    """
    with ledger.transaction() as sql:
        if only:
            first = _oldest(sql, f"AND {OF_ONLY}", {"only": json.dumps(only)})
        else:
            first = _first(sql, held, others, patience)
        if first is None:
            return []
        batch = [QueuedImage.of(first)]
        room = batch_size(batch[0].request) - 1
        if room > 0 and not batch[0].alone:
            batch += _others_alike(sql, batch[0].id, first["batch_key"], room, only)
        return [_start(sql, image, names) for image in batch]


def hand_over(ledger: Ledger, images: Sequence[QueuedImage]) -> set[int]:
    """Mark rendered images as being written; return the ids of those still requested.

    From now on they cannot be cancelled.
    """
    with ledger.transaction() as sql:
        return {image.id for image in images if _change(sql, image, "drawn = 1")}


def finish(ledger: Ledger, images: Sequence[QueuedImage], listed: Collection[int]) -> None:
    """Record that pictures are published; those in `listed` are in images.jsonl, too."""
    ledger.change_each(
        """UPDATE images SET state = 'done', drawn = 0, deaths = 0, alone = 0,
           reason = NULL, listed = ? WHERE id = ? AND file = ? AND state = 'running'""",
        ((image.id in listed, image.id, image.file) for image in images),
    )


def fail(ledger: Ledger, image: QueuedImage, reason: str, *, drawn: bool = False) -> bool:
    """Record that the image failed for good. False if it was not running."""
    with ledger.transaction() as sql:
        change = "state = 'failed', drawn = 0, reason = ?"
        if not _change(sql, image, change, reason, drawn=drawn):
            return False
        row = sql.execute(
            """SELECT recipe, save_digest, entry_index, image_index, digest,
               json_extract(request, '$.seed') AS seed FROM images WHERE id = ?""",
            (image.id,),
        ).fetchone()
        line = failure_line(**row, reason=reason)
        sql.execute("INSERT INTO failures (line) VALUES (?)", (line,))
        return True


def put_back(
    ledger: Ledger, image: QueuedImage, why: PutBack = PutBack.NO_FAULT, *, drawn: bool = False
) -> bool:
    """Put a running image back into its place in the queue. False if it was not running."""
    with ledger.transaction() as sql:
        return _change(sql, image, f"{_QUEUED}, drawn = 0, {why.value}", drawn=drawn)


def nothing_is_written(ledger: Ledger) -> None:
    """Record, at the start, that no picture is being written."""
    ledger.change("UPDATE images SET drawn = 0 WHERE state = 'running' AND drawn = 1")


def picture_missing(ledger: Ledger, image: QueuedImage) -> None:
    """Cancel an image whose dropped picture changed or is gone, and have that read again."""
    with ledger.transaction() as sql:
        if _change(sql, image, "state = 'cancelled', file = NULL"):
            sql.execute(
                """UPDATE recipes SET again = max(again, 'read')
                   WHERE path = (SELECT recipe FROM images WHERE id = ?)""",
                (image.id,),
            )


def are_running(ledger: Ledger, images: Sequence[QueuedImage]) -> bool:
    """Whether any of these images is still requested and not being written."""
    places = ", ".join("?" * len(images))
    rows = ledger.select(
        f"""SELECT id, file FROM images WHERE id IN ({places})
            AND state = 'running' AND drawn = 0""",
        [image.id for image in images],
    )
    return any((row["id"], row["file"]) == (one.id, one.file) for row in rows for one in images)


def is_start_image_needed(ledger: Ledger, digest: str) -> bool:
    """Whether any image needs the copy of a picture from its acceptance on."""
    rows = ledger.select(
        f"""SELECT 1 FROM start_images CROSS JOIN images ON images.id = image
            WHERE picture = ? AND (state IN ('queued', 'running') OR {FAILED}) LIMIT 1""",
        (digest,),
    )
    return bool(rows)


def running(ledger: Ledger) -> list[QueuedImage]:
    """Return the running images, or those that were running when the last daemon died."""
    rows = ledger.select(f"SELECT * FROM images WHERE state = 'running' ORDER BY {IN_ORDER}")
    return [QueuedImage.of(row) for row in rows]


def recipe_of(ledger: Ledger, image: QueuedImage) -> str:
    """Return an image's recipe, which may have been renamed since the image was claimed."""
    rows = ledger.select("SELECT recipe FROM images WHERE id = ?", (image.id,))
    return rows[0]["recipe"] if rows else image.recipe


def is_requested(ledger: Ledger, image: int) -> bool:
    """Whether the last valid save of some recipe still requests this image."""
    return bool(ledger.select("SELECT 1 FROM entry_images WHERE image = ? LIMIT 1", (image,)))


def start_images_needed(ledger: Ledger) -> set[str]:
    """Return the hashes of copies that unfinished images need, and failed ones if retried.

    A new save copies the pictures of failed images again; `picowatch retry` does not.
    """
    with ledger.transaction() as sql:
        rows = sql.execute(
            f"SELECT DISTINCT picture FROM start_images WHERE image IN {_TO_RENDER}"
        ).fetchall()
        needed = {row["picture"] for row in rows}
        return needed.union(*(one.request.pictures.values() for one in running(ledger)))


def _change(
    sql: sqlite3.Connection, image: QueuedImage, change: str, *values: object, drawn: bool = False
) -> bool:
    """Change a running image; with `drawn`, one whose picture is being written."""
    query = f"""UPDATE images SET {change}
                WHERE id = ? AND file = ? AND state = 'running' AND drawn = ?"""
    return bool(sql.execute(query, (*values, image.id, image.file, int(drawn))).rowcount)


def _first(
    sql: sqlite3.Connection, held: str, others: Collection[str], patience: int
) -> sqlite3.Row | None:
    """Return the image that the next batch has in any case; see `claim`."""
    oldest = _oldest(sql)
    if oldest is None or not (held or others) or oldest["passed"] >= patience:
        return oldest
    these = {"priority": oldest["priority"], "held": held, "others": json.dumps([*others])}
    free = "checkpoint NOT IN (SELECT value FROM json_each(:others))"
    row = (
        _oldest(sql, "AND priority = :priority AND checkpoint = :held", these)
        or _oldest(sql, f"AND priority = :priority AND {free}", these)
        or oldest
    )
    if row["id"] != oldest["id"]:
        sql.execute("UPDATE images SET passed = passed + 1 WHERE id = ?", (oldest["id"],))
    return row


def _oldest(
    sql: sqlite3.Connection, which: str = "", values: Mapping[str, object] | None = None
) -> sqlite3.Row | None:
    """Return the first queued image, or the first of these."""
    row: sqlite3.Row | None = sql.execute(
        f"SELECT * FROM images WHERE state = 'queued' {which} ORDER BY {IN_ORDER} LIMIT 1",
        values or {},
    ).fetchone()
    return row


def _others_alike(
    sql: sqlite3.Connection, first: int, batch_key: str, room: int, only: Sequence[str]
) -> list[QueuedImage]:
    rows = sql.execute(
        f"""SELECT * FROM images WHERE state = 'queued' AND batch_key = :batch_key AND id != :first
            AND attempts = 0 AND deaths = 0 AND alone = 0 AND (:only = '[]' OR {OF_ONLY})
            ORDER BY {IN_ORDER} LIMIT :room""",
        {"batch_key": batch_key, "first": first, "only": json.dumps(only), "room": room},
    )
    return [QueuedImage.of(row) for row in rows]


def _start(sql: sqlite3.Connection, image: QueuedImage, names: OutboxNames) -> QueuedImage:
    recipe, request = image.recipe, image.request
    if is_picture_name(recipe):
        keeps_ending = _differs_in_its_ending(sql, recipe)
        file_for = partial(names.of_dropped, recipe, request=request, keeps_ending=keeps_ending)
    else:
        file_for = partial(names.file, recipe, request=request)
    row = sql.execute(
        """UPDATE images SET state = 'running', drawn = 0, file = ?
           WHERE id = ? AND state = 'queued' RETURNING *""",
        (next_file(sql, names, recipe, file_for), image.id),
    ).fetchone()
    return QueuedImage.of(row)


def next_file(
    sql: sqlite3.Connection,
    names: OutboxNames,
    recipe: str,
    file_for: Callable[[int], str | None],
) -> str:
    """Return the next free file of a recipe's folder; its number is never used again.

    `file_for` gives the file for a number, or None if its name is taken. A dropped picture's result
    gets the lowest free number; the first is named like the picture.
    """
    if is_picture_name(recipe):
        files = filter(None, map(file_for, count(1)))
        return next(file for file in files if not _is_used(sql, recipe, file))
    folder = names.folder(recipe)
    key = folded(folder)
    row = sql.execute("SELECT last FROM numbers WHERE folder = ?", (key,)).fetchone()
    last = row["last"] if row else names.highest_number(folder)
    # No number comes twice, but `file_name` may have changed: 3-7 was number 3 with seed 7, and may
    # be number 7 with seed 3 now.
    number, file = next(
        (number, file)
        for number in count(last + 1)
        if (file := file_for(number)) and not _is_reserved(sql, file)
    )
    sql.execute("INSERT OR REPLACE INTO numbers (folder, last) VALUES (?, ?)", (key, number))
    return file


def _is_reserved(sql: sqlite3.Connection, file: str) -> bool:
    """Whether a running image has this name, whatever its suffix, case and Unicode form."""
    stem = folded(f"{PurePosixPath(file).with_suffix('')}.")
    running = sql.execute(
        "SELECT file FROM images INDEXED BY images_running WHERE state = 'running'"
    )
    return any(folded(row["file"]).startswith(stem) for row in running)


def _is_used(sql: sqlite3.Connection, recipe: str, file: str) -> bool:
    """Whether a picture or sheet of a dropped picture has this name, or another running image."""
    used = sql.execute(
        """SELECT 1 FROM images WHERE recipe = :recipe AND state = 'done' AND file = :file
           UNION ALL SELECT 1 FROM sheets WHERE recipe = :recipe AND file = :file""",
        {"recipe": recipe, "file": file},
    )
    return used.fetchone() is not None or _is_reserved(sql, file)


def _differs_in_its_ending(sql: sqlite3.Connection, recipe: str) -> bool:
    """Whether several dropped pictures differ only in their suffix, so that results keep it."""
    stem = stem_of(recipe)
    # All paths that begin with the stem and a dot: "/" follows "." in ASCII.
    alike = sql.execute(
        "SELECT path FROM recipes WHERE path > ? AND path < ? AND path != ?",
        (f"{stem}.", f"{stem}/", recipe),
    )
    return any(is_picture_name(row["path"]) and stem_of(row["path"]) == stem for row in alike)
