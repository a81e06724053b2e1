"""The queue: which images come next, and taking them out of it.

Each runs inside the caller's transaction.
"""

import sqlite3
from collections.abc import Callable, Collection

from picowatch.ledger.rows import FileNames, QueuedImage, WaitingCheckpoint, folded
from picowatch.recipe.request import ImageRequest

IN_ORDER = "priority DESC, images.save, place, position"
SELECT_IMAGE = """SELECT images.*, saves.digest AS save_digest
                  FROM images JOIN saves ON saves.id = images.save"""
# As the index images_checkpoint has it: SQLite uses it for this very text only.
CHECKPOINT = "json_extract(request, '$.checkpoint_hash')"


def claim(
    sql: sqlite3.Connection,
    names: FileNames,
    batch_size: Callable[[ImageRequest], int],
    only: Collection[str] | None,
    checkpoint: str | None,
) -> list[QueuedImage]:
    """See `Ledger.claim`."""
    first = _first(sql, only, checkpoint)
    if first is None:
        return []
    batch = [QueuedImage.of(first)]
    room = batch_size(batch[0].request) - 1
    if room > 0 and not batch[0].alone:
        batch += _companions(sql, batch[0].id, first["batch_key"], room, only)
    return [_start(sql, image, names) for image in batch]


def _first(
    sql: sqlite3.Connection, only: Collection[str] | None, checkpoint: str | None
) -> sqlite3.Row | None:
    """The first waiting image; of the highest priority that waits, if a checkpoint is named."""
    of_these, recipes = _of_these(only)
    if checkpoint is not None:
        of_these += f" AND {CHECKPOINT} = ? AND priority = ({_TOP_PRIORITY})"
        recipes = (*recipes, checkpoint)
    row: sqlite3.Row | None = sql.execute(
        f"{SELECT_IMAGE} WHERE state = 'queued'{of_these} ORDER BY {IN_ORDER} LIMIT 1", recipes
    ).fetchone()
    return row


def _companions(
    sql: sqlite3.Connection,
    first: int,
    batch_key: str,
    room: int,
    only: Collection[str] | None,
) -> list[QueuedImage]:
    of_these, recipes = _of_these(only)
    rows = sql.execute(
        f"""{SELECT_IMAGE} WHERE state = 'queued'{of_these} AND batch_key = ?
            AND images.id != ? AND attempts = 0 AND deaths = 0 AND alone = 0
            ORDER BY {IN_ORDER} LIMIT ?""",
        (*recipes, batch_key, first, room),
    )
    return [QueuedImage.of(row) for row in rows]


def _start(sql: sqlite3.Connection, image: QueuedImage, names: FileNames) -> QueuedImage:
    file = reserve(sql, image, names)
    row = sql.execute(
        """UPDATE images SET state = 'running', file = ? WHERE id = ? AND state = 'queued'
           RETURNING *, (SELECT digest FROM saves WHERE id = images.save) AS save_digest""",
        (file, image.id),
    ).fetchone()
    return QueuedImage.of(row)


def reserve(sql: sqlite3.Connection, image: QueuedImage, names: FileNames) -> str:
    """The place of the image's picture."""
    return next_file(
        sql,
        names,
        image.recipe,
        lambda number: names.file(image.recipe, number, image.request),
    )


def next_file(
    sql: sqlite3.Connection,
    names: FileNames,
    recipe: str,
    file_for: Callable[[int], str | None],
) -> str:
    """The next free file of a recipe's folder; its number is never given again."""
    folder = names.folder(recipe)
    key = folded(folder)
    row = sql.execute("SELECT last FROM numbers WHERE folder = ?", (key,)).fetchone()
    number = row["last"] if row else names.highest_number(folder)
    file = None
    while file is None:
        number += 1
        file = file_for(number)
    sql.execute("INSERT OR REPLACE INTO numbers (folder, last) VALUES (?, ?)", (key, number))
    return file


# -- several engines

_TOP_PRIORITY = "SELECT max(priority) FROM images WHERE state = 'queued'"
# Each checkpoint once, by jumping from one to the next in the index
# (https://www.sqlite.org/lang_with.html, recursive queries), however many images wait.
_CHECKPOINTS = f"""
    WITH RECURSIVE top (priority) AS ({_TOP_PRIORITY}), found (checkpoint) AS (
        SELECT (SELECT min({CHECKPOINT}) FROM images
                WHERE state = 'queued' AND priority = (SELECT priority FROM top))
        UNION ALL
        SELECT (SELECT min({CHECKPOINT}) FROM images
                WHERE state = 'queued' AND priority = (SELECT priority FROM top)
                AND {CHECKPOINT} > found.checkpoint)
        FROM found WHERE found.checkpoint IS NOT NULL
    )
    SELECT checkpoint FROM found WHERE checkpoint IS NOT NULL"""


def oldest_waiting(sql: sqlite3.Connection, only: Collection[str] | None) -> int | None:
    """The id of the first waiting image."""
    of_these, recipes = _of_these(only)
    row = sql.execute(
        f"SELECT id FROM images WHERE state = 'queued'{of_these} ORDER BY {IN_ORDER} LIMIT 1",
        recipes,
    ).fetchone()
    return row["id"] if row else None


def waiting_checkpoints(
    sql: sqlite3.Connection, most: int, only: Collection[str] | None
) -> list[WaitingCheckpoint]:
    """The checkpoints that images of the highest waiting priority need, oldest image first.

    Of each, no more than `most` images are counted.
    """
    of_these, recipes = _of_these(only)
    found = []
    for row in sql.execute(_CHECKPOINTS).fetchall():
        checkpoint = row["checkpoint"]
        if (first := _first(sql, only, checkpoint)) is None:
            continue
        waiting = sql.execute(
            f"""SELECT count(*) FROM (SELECT 1 FROM images WHERE state = 'queued'{of_these}
                AND {CHECKPOINT} = ? AND priority = ({_TOP_PRIORITY}) LIMIT ?)""",
            (*recipes, checkpoint, most),
        ).fetchone()[0]
        found.append(WaitingCheckpoint(checkpoint, QueuedImage.of(first), waiting))
    return sorted(found, key=lambda one: (one.first.save, one.first.place, one.first.position))


def lower_priority_waits(sql: sqlite3.Connection) -> bool:
    """Whether images wait that have a lower priority than others that wait."""
    found = sql.execute(
        f"""SELECT 1 FROM images WHERE state = 'queued' AND priority < ({_TOP_PRIORITY})
            LIMIT 1"""
    )
    return found.fetchone() is not None


def _of_these(only: Collection[str] | None) -> tuple[str, tuple[str, ...]]:
    """A condition for images of some recipes, and its values."""
    if only is None:
        return "", ()
    return f" AND images.recipe IN ({', '.join('?' * len(only))})", tuple(only)
