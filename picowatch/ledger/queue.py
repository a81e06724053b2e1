"""The queue: which images are next, and how claimed images end.

Each change is guarded by the old state: an engine's result for an image that was cancelled changes
nothing, nor if it was requested again and claimed by another engine: then its file is another.
"""

import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain, count
from pathlib import PurePosixPath
from sqlite3 import Connection, Row

from picowatch.errors import PictureUnreadable
from picowatch.files.names import is_picture_name, stem_of
from picowatch.ledger.entries import ATTACHED, ELSEWHERE, FAILED, REQUESTED, detach, renamed
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rows import PutBack, QueuedImage, folded, note_failure
from picowatch.ledger.turns import Turns
from picowatch.metadata.embedded_text import chunk_of
from picowatch.outbox.names import OutboxNames, format_of
from picowatch.recipe.photo_names import has_number
from picowatch.recipe.request import ImageRequest

FOLDERS_PATIENCE = 4  # batches of the loaded checkpoint before the next folder's
IN_ORDER = "priority DESC, save, entry_index, image_index"
# Each part uses an index: of a hundred thousand images, almost all were done long ago.
_TO_RENDER = f"""(SELECT id FROM images INDEXED BY images_queue WHERE state = 'queued'
                  UNION ALL
                  SELECT id FROM images INDEXED BY images_running WHERE state = 'running'
                  UNION ALL SELECT id FROM images WHERE {FAILED})"""
# The recipe may have been deleted while the picture was being written.
_QUEUED, _FAILED = (
    f"state = CASE WHEN {REQUESTED} THEN '{state}' ELSE 'cancelled' END"
    for state in ("queued", "failed")
)
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
    copies: bool = False,
    turns: Turns | None = None,
) -> list[QueuedImage]:
    """Return the next batch, now 'running', each image with a reserved file; [] if none waits.

    Among images of the highest priority, the folders at the inbox's first level take `turns`, and
    the oldest image of a folder is its next. But those that need the checkpoint `held` (its hash)
    come first, then those whose checkpoint no other engine holds. The next image comes in any case
    if it was passed over `patience` times. Later images that can share its batch join it, those
    of its folder first. An image runs alone if a batch failed, or the engine or the daemon died,
    with it. With `only`, images of these recipes and folders are claimed, the oldest first. Copies,
    which need no model, are claimed by themselves. A photo's result that replaces the last one
    waits until that is written: no engine claims another image before it meanwhile.
    """
    kind, turns = f"AND is_copy = {copies:d}", turns or Turns()
    with ledger.transaction() as sql:
        if only:
            due = first = _oldest(sql, f"{kind} AND {OF_ONLY}", {"only": json.dumps(only)})
        else:
            due, folders = _due(sql, copies, turns)
            patience = max(patience, FOLDERS_PATIENCE) if folders > 1 else patience
            first = _first(sql, due, held, others, patience, kind)
        if first is None or due is None:
            return []
        batch = [QueuedImage.of(first)]
        room = batch_size(batch[0].request) - 1
        if room > 0 and not batch[0].alone:
            batch += _others_alike(sql, first, room, only, turns)
        batch = [*filter(None, [_start(sql, image, names) for image in batch])]
    if batch:
        turns.take(first["folder"], due["folder"])
    return batch


def hand_over(ledger: Ledger, images: Sequence[QueuedImage]) -> set[int]:
    """Mark images as being written: none is cancelled any more. Return ids of those requested."""
    with ledger.transaction():
        return {image.id for image in images if _change(ledger, image, "being_written = 1")}


def finish(ledger: Ledger, done: Iterable[tuple[QueuedImage, float | None, bool]]) -> None:
    """Record that pictures are published, each with its seconds, and if images.jsonl has it."""
    now = time.time()
    ledger.change_each(
        """UPDATE images SET state = 'done', being_written = 0, deaths = 0, alone = 0,
           reason = NULL, ended = ?, seconds = ?, told = 0, listed = ?
           WHERE id = ? AND file = ? AND state = 'running'""",
        ((now, seconds, is_listed, image.id, image.file) for image, seconds, is_listed in done),
    )


def fail(ledger: Ledger, image: QueuedImage, reason: str) -> bool:
    """Record that the image failed for good. False if it was not running."""
    change = f"{_FAILED}, being_written = 0, reason = ?, ended = ?, told = 0"
    with ledger.transaction() as sql:
        if not _change(ledger, image, change, reason, time.time()):
            return False
        query = """SELECT recipe, save_digest, entry_index, image_index, digest,
                   json_extract(request, '$.seed') AS seed FROM images WHERE id = ?"""
        note_failure(sql, **sql.execute(query, (image.id,)).fetchone(), reason=reason)
        return True


def put_back(ledger: Ledger, image: QueuedImage, why: PutBack = PutBack.NO_FAULT) -> bool:
    """Put a running image back into its place in the queue. False if it was not running."""
    return _change(ledger, image, f"{_QUEUED}, being_written = 0, {why.value}")


def picture_missing(ledger: Ledger, image: QueuedImage) -> None:
    """Cancel an image whose dropped picture changed or is gone, and have that read again."""
    with ledger.transaction() as sql:
        if _change(ledger, image, "state = 'cancelled', file = NULL"):
            sql.execute(
                """UPDATE recipes SET reread = max(reread, 'read')
                   WHERE path = (SELECT recipe FROM images WHERE id = ?)""",
                (image.id,),
            )


def running_recipes(ledger: Ledger, images: Sequence[QueuedImage]) -> dict[int, str]:
    """Return the recipes of those images that are still requested and not being written, by id."""
    files = {image.id: image.file for image in images}
    query = f"""SELECT id, file, recipe FROM images WHERE id IN (SELECT value FROM json_each(?))
                AND state = 'running' AND being_written = 0 ORDER BY {IN_ORDER}"""
    rows = ledger.select(query, (json.dumps([*files]),))
    return {row["id"]: row["recipe"] for row in rows if row["file"] == files[row["id"]]}


def is_start_image_needed(ledger: Ledger, digest: str) -> bool:
    """Whether any image needs the copy of a picture from its acceptance on."""
    query = f"""SELECT 1 FROM start_images CROSS JOIN images ON images.id = image
                WHERE picture = ? AND (state IN ('queued', 'running') OR {FAILED}) LIMIT 1"""
    return bool(ledger.select(query, (digest,)))


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
    """Return the hashes of copies that unfinished images need, and failed ones for `retry`."""
    with ledger.transaction() as sql:
        query = f"SELECT DISTINCT picture FROM start_images WHERE image IN {_TO_RENDER}"
        needed = {row["picture"] for row in sql.execute(query)}
        return needed.union(*(image.request.pictures.values() for image in running(ledger)))


def _change(ledger: Ledger, image: QueuedImage, change: str, *values: object) -> bool:
    """Change a running image: nobody but its worker, and then its publisher, does so."""
    query = f"UPDATE images SET {change} WHERE id = ? AND file = ? AND state = 'running'"
    return bool(ledger.change(query, (*values, image.id, image.file)))


def _due(sql: Connection, copies: bool, turns: Turns) -> tuple[Row | None, int]:
    """Return the oldest image of the folder whose turn it is, and how many folders wait."""
    index, kind = "images_turns", f"is_copy = {copies:d}"
    query = f"SELECT max(priority) FROM images INDEXED BY {index} WHERE state = 'queued' AND {kind}"
    ((top,),) = sql.execute(query)
    which = f"{kind} AND priority = :priority"
    folders = _folders(sql, index, which, {"priority": top})
    soonest = min(map(turns.start, folders), default=0.0)
    next_ones = [folder for folder in folders if turns.start(folder) == soonest]
    row: Row | None = sql.execute(
        f"""SELECT * FROM images WHERE id IN (
                SELECT (SELECT id FROM images INDEXED BY {index} WHERE state = 'queued' AND {which}
                        AND folder = value ORDER BY save, entry_index, image_index LIMIT 1)
                FROM json_each(:folders)
            ) ORDER BY save, entry_index, image_index LIMIT 1""",
        {"priority": top, "folders": json.dumps(next_ones)},
    ).fetchone()
    return row, len(folders)


def _folders(sql: Connection, index: str, which: str, values: Mapping[str, object]) -> list[str]:
    """Return the folders with such images, by an index."""
    found = f"FROM images INDEXED BY {index} WHERE state = 'queued' AND {which}"
    rows = sql.execute(
        f"""WITH RECURSIVE folders (folder) AS (
                SELECT min(folder) {found}
                UNION ALL
                SELECT (SELECT min(folder) {found} AND folder > folders.folder)
                FROM folders WHERE folder IS NOT NULL
            ) SELECT folder FROM folders WHERE folder IS NOT NULL""",
        values,
    )
    return [row["folder"] for row in rows]


def _first(
    sql: Connection, due: Row | None, held: str, others: Collection[str], patience: int, kind: str
) -> Row | None:
    """Return the image of a kind that the next batch has in any case; see `claim`."""
    if due is None or not (held or others) or due["passed"] >= patience:
        return due
    if due["checkpoint"] == held:
        return due
    these = {"priority": due["priority"], "held": held, "others": json.dumps([*others])}
    free = "checkpoint NOT IN (SELECT value FROM json_each(:others))"
    row = _oldest(sql, f"{kind} AND priority = :priority AND checkpoint = :held", these)
    if row is None and due["checkpoint"] in others:
        row = _oldest(sql, f"{kind} AND priority = :priority AND {free}", these)
    if row:
        sql.execute("UPDATE images SET passed = passed + 1 WHERE id = ?", (due["id"],))
    return row or due


def _oldest(sql: Connection, which: str, values: Mapping[str, object]) -> Row | None:
    """Return the first queued image of these."""
    query = f"SELECT * FROM images WHERE state = 'queued' {which} ORDER BY {IN_ORDER} LIMIT 1"
    row: Row | None = sql.execute(query, values).fetchone()
    return row


def _others_alike(
    sql: Connection, first: Row, room: int, only: Sequence[str], turns: Turns
) -> list[QueuedImage]:
    """Return images for the batch of the first one, of its folder and then of the next ones."""
    values = {"batch_key": first["batch_key"], "first": first["id"], "only": json.dumps(only)}
    alike: list[QueuedImage] = []
    for folder in _in_turn(sql, first, turns):
        rows = sql.execute(
            f"""SELECT * FROM images INDEXED BY images_alike WHERE state = 'queued'
                AND batch_key = :batch_key AND folder = :folder AND id != :first
                AND attempts = 0 AND deaths = 0 AND alone = 0 AND (:only = '[]' OR {OF_ONLY})
                ORDER BY {IN_ORDER} LIMIT :room""",
            {**values, "folder": folder, "room": room - len(alike)},
        )
        alike += map(QueuedImage.of, rows)
        if len(alike) == room:
            break
    return alike


def _in_turn(sql: Connection, first: Row, turns: Turns) -> Iterator[str]:
    """Yield the folder of an image, and others with images alike, the next one first."""
    yield first["folder"]
    values = {"batch_key": first["batch_key"]}
    others = {*_folders(sql, "images_alike", "batch_key = :batch_key", values)}
    yield from sorted(others - {first["folder"]}, key=lambda folder: (turns.start(folder), folder))


def _start(sql: Connection, image: QueuedImage, names: OutboxNames) -> QueuedImage | None:
    """Start an image; None if it replaces one that nobody requests, but that is still running."""
    recipe, request = image.recipe, image.request
    is_photo = is_picture_name(recipe)
    replaces = is_photo and request.replace
    query = f"""SELECT 1 FROM images INDEXED BY images_running
                WHERE state = 'running' AND recipe = ? AND NOT {REQUESTED}"""
    if replaces and sql.execute(query, (recipe,)).fetchone():
        return None
    numbered = not is_photo or has_number(request.name)
    file_for: Callable[[int], str | None] = partial(names.file, recipe, request=request)
    if is_photo:
        keeps_ending = _keeps_ending(sql, names, recipe, as_before=replaces and not numbered)
        named = partial(names.of_dropped, recipe, request=request, keeps_ending=keeps_ending)
        own = partial(_unless_foreign, sql, names, recipe)
        file_for = (lambda number: own(named(number))) if replaces else named
    former = _former_results(sql, names, image, file_for) if replaces and not numbered else ()
    file = next_file(
        sql, names, recipe, file_for, numbered=numbered, replaces=replaces, former=former
    )
    change = """UPDATE images SET state = 'running', being_written = 0, file = ?
                WHERE id = ? AND state = 'queued' RETURNING *"""
    return QueuedImage.of(sql.execute(change, (file, image.id)).fetchone())


def _unless_foreign(
    sql: Connection, names: OutboxNames, recipe: str, file: str | None
) -> str | None:
    """Return a file if it is a photo's result, or none yet: users may have put another one there.

    One of before the photo was renamed is, too, unless the photo of that name has one there now.
    """
    if file is None or not names.exists(file):
        return file
    with suppress(PictureUnreadable):
        chunk = chunk_of(names.path(file))
        query = """SELECT recipe, max(substr(digest, 1, 64) IN (?, ?)) FROM images
                   WHERE recipe IN (?, ?) AND file = ? GROUP BY recipe"""
        asked = chunk.request.digest, renamed(chunk.request, chunk.recipe, recipe).digest
        found = dict(sql.execute(query, (*asked, recipe, chunk.recipe, file)).fetchall())
        is_its_own = chunk.recipe == recipe or any(found.values())
        return file if is_its_own and found.keys() == {recipe} else None
    return None


def next_file(
    sql: Connection,
    names: OutboxNames,
    recipe: str,
    file_for: Callable[[int], str | None],
    *,
    numbered: bool,
    replaces: bool = False,
    former: Iterable[str] = (),
) -> str:
    """Return the next free file of a recipe's folder; `numbered`: no number is used again.

    `file_for` gives the file for a number, or None if its name is taken. A dropped picture's result
    without a number gets the lowest free one after its name, unless it is the first. Results that
    were deleted, or are `former` ones, and are not requested any more leave their names to it.
    """
    if not numbered:
        files = chain(former, filter(None, map(file_for, count(1))))
        free = next(file for file in files if not _is_used(sql, recipe, file, replaces))
        which = "file = :file"
        if replaces:  # and results that users keep elsewhere: they are not that of the photo
            which += f" OR ({ELSEWHERE} AND NOT {REQUESTED})"
        values = {"recipe": recipe, "file": free, "folder": names.folder(recipe)}
        detach(sql, f"recipe = :recipe AND ({which})", values)
        return free
    folder = names.folder(recipe)
    key = folded(folder)
    row = sql.execute("SELECT last FROM numbers WHERE folder = ?", (key,)).fetchone()
    if row is None:  # photos' names may begin with dates
        row = {"last": 0 if is_picture_name(recipe) else names.highest_number(folder)}
    # No number comes twice, but `file_name` may have changed: 3-7 was number 3 with seed 7, and may
    # be number 7 with seed 3 now.
    number, file = next(
        (number, file)
        for number in count(row["last"] + 1)
        if (file := file_for(number)) and not _is_reserved(sql, file)
    )
    sql.execute("INSERT OR REPLACE INTO numbers (folder, last) VALUES (?, ?)", (key, number))
    return file


def _former_results(
    sql: Connection, names: OutboxNames, image: QueuedImage, file_for: Callable[[int], str | None]
) -> Iterator[str]:
    """Yield a photo's results that are there, requested no more, and named and encoded alike.

    Each is of the image in its place; the photo may have had another name.
    """
    rows = sql.execute(
        f"""SELECT file, max({ATTACHED}) AS is_attached, entry_index, image_index FROM images
            WHERE recipe = :recipe AND state = 'done' AND NOT {REQUESTED} AND NOT {ELSEWHERE}
            AND coalesce(json_extract(request, '$.name'), '') = :name GROUP BY file
            ORDER BY is_attached DESC, entry_index, image_index, length(file), file""",
        {"recipe": image.recipe, "folder": names.folder(image.recipe), "name": image.request.name},
    ).fetchall()
    kind = format_of(next(filter(None, map(file_for, count(1)))))
    for file, *_ in rows:
        is_alike = names.exists(file) and format_of(file) == kind
        if is_alike and _unless_foreign(sql, names, image.recipe, file):
            yield file


def _is_reserved(sql: Connection, file: str, *, with_suffix: bool = False) -> bool:
    """Whether a running image has this name, whatever its suffix, case and Unicode form."""
    stem = folded(file if with_suffix else f"{PurePosixPath(file).with_suffix('')}.")
    query = "SELECT file FROM images INDEXED BY images_running WHERE state = 'running'"
    return any(folded(row["file"]).startswith(stem) for row in sql.execute(query))


def _is_used(sql: Connection, recipe: str, file: str, replaces: bool) -> bool:
    """Whether a picture or sheet that is requested has this name, or another running image.

    If it `replaces` a result, another format is not in its way.
    """
    query = f"""SELECT 1 FROM images
                WHERE recipe = :recipe AND state = 'done' AND file = :file AND {REQUESTED}
                UNION ALL SELECT 1 FROM sheets WHERE recipe = :recipe AND file = :file"""
    used = sql.execute(query, {"recipe": recipe, "file": file}).fetchone()
    return used is not None or _is_reserved(sql, file, with_suffix=replaces)


def _keeps_ending(sql: Connection, names: OutboxNames, recipe: str, *, as_before: bool) -> bool:
    """Whether results keep the photo's ending: several dropped pictures differ only in that.

    `as_before`: as its newest result does, if there is one: another photo may have come or gone.
    """
    if as_before:
        query = """SELECT file FROM images WHERE recipe = ? AND state IN ('running', 'done')
                   ORDER BY state DESC, ended DESC"""
        files = (row["file"] for row in sql.execute(query, (recipe,)))
        if newest := next(filter(names.exists, files), None):
            return PurePosixPath(recipe).name in stem_of(newest)
    stem = stem_of(recipe)
    # All paths that begin with the stem and a dot: "/" follows "." in ASCII.
    query = "SELECT path FROM recipes WHERE path > ? AND path < ? AND path != ?"
    alike = sql.execute(query, (f"{stem}.", f"{stem}/", recipe))
    return any(is_picture_name(row["path"]) and stem_of(row["path"]) == stem for row in alike)
