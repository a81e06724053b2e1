"""The queue: which images come next, and how those that were claimed end."""

import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import count
from pathlib import PurePosixPath

from picowatch.files.picture_names import is_picture_name, stem_of
from picowatch.ledger.database import Database
from picowatch.ledger.rows import FileNames, QueuedImage, folded, request_of
from picowatch.recipe.request import ImageRequest

IN_ORDER = "priority DESC, images.save, entry_index, image_index"
SELECT_IMAGE = """SELECT images.*, saves.digest AS save_digest
                  FROM images JOIN saves ON saves.id = images.save"""
# Exactly as in the index images_checkpoint: SQLite uses the index for this text only.
CHECKPOINT = "json_extract(request, '$.checkpoint_hash')"
# Why an image is cancelled that starts from a dropped picture which is not there any more.
MISSING = "its picture was not there"
_MISSED = """state = 'cancelled' AND reason = ?
             AND EXISTS (SELECT 1 FROM entry_images WHERE entry_images.image = images.id)"""
# Each by its index: of a hundred thousand images, almost all were done long ago.
_TO_RENDER = """(SELECT id, request FROM images INDEXED BY images_queue WHERE state = 'queued'
                 UNION ALL
                 SELECT id, request FROM images INDEXED BY images_running WHERE state = 'running'
                 UNION ALL
                 SELECT id, request FROM images WHERE state = 'failed'
                 AND EXISTS (SELECT 1 FROM entry_images WHERE entry_images.image = images.id))"""
_TOP_PRIORITY = "SELECT max(priority) FROM images WHERE state = 'queued'"


class Queue(Database):
    """Changes of an image's state, from 'queued' to 'done', 'failed' or 'cancelled'."""

    def claim(
        self,
        names: FileNames,
        batch_size: Callable[[ImageRequest], int],
        only: Collection[str] | None = None,
        checkpoint: str | None = None,
    ) -> list[QueuedImage]:
        """The next batch, now 'running', each image with its file reserved; [] if none is queued.

        It always holds the first queued image, or the first of the highest queued priority
        that needs the checkpoint with that hash. Later ones join it if they can share its
        batch. An image runs alone if a batch failed or the engine or the daemon died with it.
        `only` claims images of these recipes alone.
        """
        with self.transaction() as sql:
            first = _first(sql, only, checkpoint)
            if first is None:
                return []
            batch = [QueuedImage.of(first)]
            room = batch_size(batch[0].request) - 1
            if room > 0 and not batch[0].alone:
                batch += _companions(sql, batch[0].id, first["batch_key"], room, only)
            return [_start(sql, image, names) for image in batch]

    def finish(self, image: int) -> bool:
        """The picture is published. False if the image was not running."""
        return self._move(image, "done", "deaths = 0, alone = 0, reason = NULL")

    def finish_all(
        self, images: Sequence[QueuedImage], *, listed: Iterable[QueuedImage]
    ) -> list[str]:
        """These pictures are published; the `listed` ones are in images.jsonl and the gallery.

        Returns their recipes, by their present names.
        """
        with self.transaction():
            for image in images:
                self.finish(image.id)
            for image in listed:
                self.mark_listed(image.id)
            return list(dict.fromkeys(map(self.recipe_of, images)))

    def fail(self, image: int, reason: str) -> bool:
        """The image failed for good. False if it was not running."""
        return self._move(image, "failed", "reason = :reason", reason)

    def put_back(self, image: int) -> bool:
        """Back into the queue, at its old position; not counted as a failure."""
        return self._move(image, "queued", "deaths = 0")

    def retry_alone(self, image: int) -> bool:
        """Back into the queue, to be rendered in a batch of its own: a batch with it failed."""
        return self._move(image, "queued", "alone = 1")

    def retry_after_engine_death(self, image: int) -> bool:
        """Back into the queue; the death of the engine is counted."""
        return self._move(image, "queued", "attempts = attempts + 1")

    def retry_after_daemon_death(self, image: int) -> bool:
        """Back into the queue; the death of the daemon is counted."""
        return self._move(image, "queued", "deaths = deaths + 1")

    def cancel_running(self, image: int) -> bool:
        """The image was stopped while rendering, as requested. False if it was not running."""
        return self._move(image, "cancelled", "file = NULL")

    def _move(self, image: int, state: str, change: str, reason: str = "") -> bool:
        """Change a running image's state, and what else the SQL in `change` says."""
        with self.transaction() as sql:
            changed = sql.execute(
                f"UPDATE images SET state = :state, {change} WHERE id = :id AND state = 'running'",
                {"state": state, "id": image, "reason": reason},
            ).rowcount
            if state == "queued" and not self.is_requested(image):
                # It is not started a second time.
                sql.execute(
                    "UPDATE images SET state = 'cancelled' WHERE id = ? AND state = 'queued'",
                    (image,),
                )
            return bool(changed)

    def miss(self, image: int) -> bool:
        """The dropped picture it starts from is not there as requested: it waits for that."""
        return self._move(image, "cancelled", "file = NULL, reason = :reason", MISSING)

    def misses_picture(self, recipe: str) -> bool:
        """Whether images of a dropped picture wait for it to be there as requested."""
        query = f"SELECT 1 FROM images WHERE recipe = ? AND {_MISSED} LIMIT 1"
        return bool(self.select(query, (recipe, MISSING)))

    def recipes_missing_pictures(self) -> list[str]:
        """The dropped pictures of which `misses_picture` holds."""
        rows = self.select(f"SELECT DISTINCT recipe FROM images WHERE {_MISSED}", (MISSING,))
        return [row["recipe"] for row in rows]

    def is_start_image_needed(self, digest: str, besides: Sequence[int]) -> bool:
        """Whether images need this start image, `besides` these: see `start_images_needed`."""
        places = ", ".join("?" * len(besides))
        return bool(
            self.select(
                f"""SELECT 1 FROM {_TO_RENDER} WHERE id NOT IN ({places})
                    AND instr(request, ?) LIMIT 1""",
                (*besides, digest),
            )
        )

    def running(self) -> list[QueuedImage]:
        """The running images, or those that were running when the last daemon died."""
        rows = self.select(f"{SELECT_IMAGE} WHERE state = 'running' ORDER BY {IN_ORDER}")
        return [QueuedImage.of(row) for row in rows]

    def recipe_of(self, image: QueuedImage) -> str:
        """The recipe of an image: it may have been renamed since the image was claimed."""
        rows = self.select("SELECT recipe FROM images WHERE id = ?", (image.id,))
        return rows[0]["recipe"] if rows else image.recipe

    def is_requested(self, image: int) -> bool:
        """Whether the last valid save of some recipe still requests this image."""
        return bool(self.select("SELECT 1 FROM entry_images WHERE image = ? LIMIT 1", (image,)))

    def unlisted(self) -> list[QueuedImage]:
        """Pictures that are published but not listed yet."""
        rows = self.select(f"{SELECT_IMAGE} WHERE state = 'done' AND listed = 0 ORDER BY images.id")
        return [QueuedImage.of(row) for row in rows]

    def mark_listed(self, image: int) -> None:
        """The picture is in images.jsonl and the gallery."""
        with self.transaction() as sql:
            sql.execute("UPDATE images SET listed = 1 WHERE id = ?", (image,))

    def start_images_needed(self) -> set[str]:
        """The hashes of start images and masks that queued images need, and failed ones at a retry.

        A save that tries these again copies the pictures again; `picowatch retry` does not.
        """
        needed = set()
        with self.transaction() as sql:
            rows = sql.execute(
                f"""SELECT request FROM {_TO_RENDER} WHERE request LIKE '%"image_hash": "%'"""
            )
            for row in rows:
                needed |= set(request_of(row).pictures.values())
        return needed

    # -- several engines

    def oldest_queued(self, only: Collection[str] | None = None) -> QueuedImage | None:
        """The image that comes first."""
        with self.transaction() as sql:
            first = _first(sql, only, None)
            return QueuedImage.of(first) if first else None

    def count_queued(self, checkpoint: str, most: int, only: Collection[str] | None = None) -> int:
        """How many images of the highest queued priority need this checkpoint, up to `most`."""
        of_these, recipes = _of_these(only)
        rows = self.select(
            f"""SELECT count(*) FROM (SELECT 1 FROM images WHERE state = 'queued'{of_these}
                AND {CHECKPOINT} = ? AND priority = ({_TOP_PRIORITY}) LIMIT ?)""",
            (*recipes, checkpoint, most),
        )
        return int(rows[0][0])


def forget_missing(sql: sqlite3.Connection, recipes: Iterable[str]) -> int:
    """Images of these recipes do not wait for their pictures any more; returns how many did."""
    return sum(
        sql.execute(
            f"UPDATE images SET reason = NULL WHERE recipe = ? AND {_MISSED}", (recipe, MISSING)
        ).rowcount
        for recipe in recipes
    )


def _first(
    sql: sqlite3.Connection, only: Collection[str] | None, checkpoint: str | None
) -> sqlite3.Row | None:
    """The first queued image; of the highest queued priority, if a checkpoint is named."""
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
    recipe = image.recipe
    file_for: Callable[[int], str | None]
    if is_picture_name(recipe):
        file_for = _file_for_dropped(sql, names, recipe, image.request)
    else:
        file_for = _file_with_number(sql, names, recipe, image.request)
    file = next_file(sql, names, recipe, file_for)
    row = sql.execute(
        """UPDATE images SET state = 'running', file = ? WHERE id = ? AND state = 'queued'
           RETURNING *, (SELECT digest FROM saves WHERE id = images.save) AS save_digest""",
        (file, image.id),
    ).fetchone()
    return QueuedImage.of(row)


def next_file(
    sql: sqlite3.Connection,
    names: FileNames,
    recipe: str,
    file_for: Callable[[int], str | None],
) -> str:
    """The next free file of a recipe's folder; its number is never used again.

    A dropped picture's has the lowest number that is free: the first is called like the picture.
    """
    if is_picture_name(recipe):
        return next(filter(None, map(file_for, count(1))))
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


def _file_with_number(
    sql: sqlite3.Connection, names: FileNames, recipe: str, request: ImageRequest
) -> Callable[[int], str | None]:
    """Gives the file for a number, unless its name is reserved for another image in progress.

    No number comes twice, but `file_name` may have changed meanwhile: 3-7 was number 3 with seed 7,
    and may be number 7 with seed 3 now. It counts without ending, as what is in the outbox does.
    """

    def file_for(number: int) -> str | None:
        file = names.file(recipe, number, request)
        return file if file and not is_reserved(sql, names, file) else None

    return file_for


def is_reserved(sql: sqlite3.Connection, names: FileNames, file: str) -> bool:
    """Whether an image in progress has this name, whatever its ending."""
    stem = f"{PurePosixPath(file).with_suffix('')}."
    running = "SELECT file FROM images INDEXED BY images_running WHERE state = 'running'"
    if names.ignores_case:
        return any(folded(row["file"]).startswith(folded(stem)) for row in sql.execute(running))
    reserved = sql.execute(f"{running} AND substr(file, 1, length(:stem)) = :stem", {"stem": stem})
    return reserved.fetchone() is not None


def _file_for_dropped(
    sql: sqlite3.Connection, names: FileNames, recipe: str, request: ImageRequest
) -> Callable[[int], str | None]:
    """Gives the file for a dropped picture's result with a number, if it was never another's.

    Where several pictures have one name but for their endings, theirs keep the ending.
    """
    stem = stem_of(recipe)
    # All that begin with the stem and a dot: "/" follows "." in ASCII.
    alike = sql.execute(
        "SELECT path FROM recipes WHERE path > ? AND path < ? AND path != ?",
        (f"{stem}.", f"{stem}/", recipe),
    )
    keeps_ending = any(
        is_picture_name(row["path"]) and stem_of(row["path"]) == stem for row in alike
    )

    def file_for(number: int) -> str | None:
        file = names.of_dropped(recipe, number, request, keeps_ending=keeps_ending)
        if file is None or is_reserved(sql, names, file):
            return None
        used = sql.execute(
            "SELECT 1 FROM images WHERE recipe = ? AND state = 'done' AND file = ?", (recipe, file)
        ).fetchone()
        return None if used else file

    return file_for


def _of_these(only: Collection[str] | None) -> tuple[str, tuple[str, ...]]:
    """A condition for images of some recipes, and its values."""
    if only is None:
        return "", ()
    return f" AND images.recipe IN ({', '.join('?' * len(only))})", tuple(only)
