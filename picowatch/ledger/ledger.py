"""What was asked, what waits, what is made: the daemon's memory across crashes.

Each change of state is guarded by the old state, so that a step that runs twice does nothing
the second time. `accept.py` holds what a save means.
"""

import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from picowatch.errors import LedgerCorrupt
from picowatch.ledger import queue, sheets, steer
from picowatch.ledger.accept import (
    AWAITED,
    accept_save,
    cancel_unasked,
    forget_awaited,
    record_save,
)
from picowatch.ledger.database import Database
from picowatch.ledger.queue import IN_ORDER, SELECT_IMAGE
from picowatch.ledger.rename import prioritise, rename
from picowatch.ledger.restore import DUE, MadeBefore, forget_restored, restore_pictures
from picowatch.ledger.rows import (
    Acceptance,
    AskedEntry,
    Counts,
    DueSheet,
    FileNames,
    Outcome,
    QueuedImage,
    Waiting,
    WaitingCheckpoint,
    request_of,
)
from picowatch.ledger.steer import FAILED
from picowatch.recipe.request import ImageRequest
from picowatch.save import KnownRecipe, Save, Stamp

PAUSED = "paused"  # the fact that nothing is made until `picowatch resume`; "yes" or ""


class Ledger:
    """All SQL that the daemon runs. Safe to use from several threads."""

    def __init__(self, path: Path, *, check: bool = False) -> None:
        """Open or create the ledger file; see `Database` for `check` and what is raised."""
        self._database = Database(path, check=check)
        self._counts: tuple[int, Counts] | None = None  # and the ledger's version that it is of

    def close(self) -> None:
        self._database.close()

    def is_in_place(self) -> bool:
        """See `Database.is_in_place`."""
        return self._database.is_in_place()

    def transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        """Group several calls: all of them happen, or none."""
        return self._database.transaction()

    def read_first_tables(self) -> None:
        """Read what a start needs, whole; raises LedgerCorrupt."""
        self.known_recipes()
        with self.transaction() as sql:
            sql.execute("SELECT * FROM facts").fetchall()

    # -- a new ledger

    def wants_restoring(self) -> bool:
        """Whether it is new, and was not told yet of the pictures that exist."""
        return self.fact(DUE) is not None

    def restore(
        self,
        pictures: Iterable[MadeBefore],
        sheets: Callable[[], dict[str, dict[str, list[str]]]],
        cancelled: dict[str, str],
        batch_key: Callable[[ImageRequest], str],
    ) -> int:
        """See `restore_pictures`."""
        with self.transaction() as sql:
            return restore_pictures(sql, pictures, sheets, cancelled, batch_key)

    # -- saves

    def accept(
        self,
        save: Save,
        entries: Sequence[AskedEntry],
        *,
        batch_key: Callable[[ImageRequest], str],
        draw_seed: Callable[[], int],
        picture_exists: Callable[[str], bool],
        go_on: Callable[[], None] = lambda: None,
    ) -> Acceptance:
        """Take a valid save in, with all its images, or not at all; see `accept_save`."""
        with self.transaction() as sql:
            return accept_save(sql, save, entries, batch_key, draw_seed, picture_exists, go_on)

    def reject(self, save: Save) -> None:
        """Remember an invalid save, so that the same version is answered once only."""
        with self.transaction() as sql:
            record_save(sql, save, "invalid")

    def await_pictures(self, recipe: str, pictures: str) -> None:
        """Remember what pictures a refused recipe is waiting for, until its next answer."""
        if pictures:
            self.remember(AWAITED + recipe, pictures)

    def awaited(self) -> dict[str, str]:
        """The refused recipes that are waiting for pictures, and for which."""
        with self.transaction() as sql:
            rows = sql.execute("SELECT name, value FROM facts WHERE name GLOB ?", (f"{AWAITED}*",))
            return {row["name"].removeprefix(AWAITED): row["value"] for row in rows}

    def known_recipes(self) -> dict[str, KnownRecipe]:
        """Each recipe whose last save was answered."""
        with self.transaction() as sql:
            rows = sql.execute("SELECT path, stamp, digest FROM recipes")
            return {row["path"]: _known(row) for row in rows}

    def known_recipe(self, recipe: str) -> KnownRecipe | None:
        """The recipe as its last save was answered, None if none was."""
        with self.transaction() as sql:
            row = sql.execute("SELECT * FROM recipes WHERE path = ?", (recipe,)).fetchone()
            return _known(row) if row else None

    def forget(self, recipe: str) -> int:
        """The recipe is gone: cancel what waits and forget what it asked; gives how many."""
        with self.transaction() as sql:
            sql.execute("DELETE FROM entries WHERE recipe = ?", (recipe,))
            sql.execute("DELETE FROM recipes WHERE path = ?", (recipe,))
            forget_restored(sql, recipe)
            forget_awaited(sql, recipe)
            return cancel_unasked(sql, recipe)

    def rename(
        self, old: str, new: str, stamp: Stamp, *, picture_exists: Callable[[str], bool]
    ) -> bool:
        """See `rename.rename`."""
        with self.transaction() as sql:
            return rename(sql, old, new, stamp, picture_exists)

    def saves_of_images(self, recipe: str) -> list[str]:
        """The digests of the saves that asked for the recipe's images."""
        with self.transaction() as sql:
            rows = sql.execute(
                """SELECT DISTINCT saves.digest FROM images JOIN saves ON saves.id = images.save
                   WHERE images.recipe = ? ORDER BY saves.id""",
                (recipe,),
            )
            return [row["digest"] for row in rows]

    def prioritise(self, recipe: str, priorities: Sequence[tuple[str, int]]) -> None:
        """See `rename.prioritise`."""
        with self.transaction() as sql:
            prioritise(sql, recipe, priorities)

    # -- images on their way

    def claim(
        self,
        names: FileNames,
        batch_size: Callable[[ImageRequest], int],
        only: Collection[str] | None = None,
        checkpoint: str | None = None,
    ) -> list[QueuedImage]:
        """The next batch, now 'running', each image with its file reserved; [] if none waits.

        The first waiting image is always in it, or of the highest waiting priority the first
        that needs the checkpoint with that hash. Later ones ride along if they can share its
        batch. An image on which a batch failed, an engine or a daemon died runs alone. `only`
        leaves all but these recipes waiting.
        """
        with self.transaction() as sql:
            return queue.claim(sql, names, batch_size, only, checkpoint)

    def oldest_waiting(self, only: Collection[str] | None = None) -> int | None:
        """See `queue.oldest_waiting`."""
        with self.transaction() as sql:
            return queue.oldest_waiting(sql, only)

    def waiting_checkpoints(
        self, most: int, only: Collection[str] | None = None
    ) -> list[WaitingCheckpoint]:
        """See `queue.waiting_checkpoints`."""
        with self.transaction() as sql:
            return queue.waiting_checkpoints(sql, most, only)

    def lower_priority_waits(self) -> bool:
        """See `queue.lower_priority_waits`."""
        with self.transaction() as sql:
            return queue.lower_priority_waits(sql)

    def finish(self, image: int) -> bool:
        """The picture is published. False if the image was not running."""
        return self._move(image, "done", "deaths = 0, alone = 0, reason = NULL")

    def finish_all(
        self, images: Sequence[QueuedImage], *, listed: Iterable[QueuedImage]
    ) -> list[str]:
        """These pictures are published; the `listed` ones stand in images.jsonl and the gallery.

        Gives their recipes, by the names that these have now.
        """
        with self.transaction():
            for image in images:
                self.finish(image.id)
            for image in listed:
                self.mark_listed(image.id)
            return list(dict.fromkeys(map(self.recipe_of, images)))

    def fail(self, image: int, reason: str) -> bool:
        """The image is given up. False if it was not running."""
        return self._move(image, "failed", "reason = :reason", reason)

    def put_back(self, image: int) -> bool:
        """Back into the queue, at its old place, through no fault of its own."""
        return self._move(image, "queued", "deaths = 0")

    def retry_alone(self, image: int) -> bool:
        """Back into the queue, to be made in a batch of its own: a batch with it failed."""
        return self._move(image, "queued", "alone = 1")

    def retry_after_engine_death(self, image: int) -> bool:
        """Back into the queue; the death of the engine is counted."""
        return self._move(image, "queued", "attempts = attempts + 1")

    def retry_after_daemon_death(self, image: int) -> bool:
        """Back into the queue; the death of the daemon is counted."""
        return self._move(image, "queued", "deaths = deaths + 1")

    def _move(self, image: int, state: str, change: str, reason: str = "") -> bool:
        """Change a running image's state, and what else the SQL in `change` says."""
        with self.transaction() as sql:
            changed = sql.execute(
                f"UPDATE images SET state = :state, {change} WHERE id = :id AND state = 'running'",
                {"state": state, "id": image, "reason": reason},
            ).rowcount
            if state == "queued":
                self._cancel_if_unasked(sql, image)
            return bool(changed)

    def _cancel_if_unasked(self, sql: sqlite3.Connection, image: int) -> None:
        """What nobody asks for any more is not started a second time."""
        sql.execute(
            """UPDATE images SET state = 'cancelled' WHERE id = ? AND state = 'queued'
               AND NOT EXISTS (SELECT 1 FROM asks WHERE asks.image = images.id)""",
            (image,),
        )

    def cancel_running(self, image: int) -> bool:
        """The image was stopped in work, as asked. False if it was not running."""
        return self._move(image, "cancelled", "file = NULL")

    # -- steering

    def retry(self, recipes: Iterable[str]) -> dict[str, int]:
        """See `steer.retry`."""
        with self.transaction() as sql:
            return steer.retry(sql, recipes)

    def recipes_with_failures(self) -> list[str]:
        """See `steer.recipes_with_failures`."""
        with self.transaction() as sql:
            return steer.recipes_with_failures(sql)

    def cancel(self, recipes: Iterable[str]) -> int:
        """See `steer.cancel`."""
        with self.transaction() as sql:
            return steer.cancel(sql, recipes)

    def waiting(self) -> Waiting:
        """See `steer.waiting`."""
        with self.transaction() as sql:
            return steer.waiting(sql)

    def recipes_in_work(self) -> Collection[str]:
        """See `steer.recipes_in_work`."""
        with self.transaction() as sql:
            return steer.recipes_in_work(sql)

    def outcome(self, recipe: str, digest: str) -> Outcome | None:
        """See `steer.outcome`."""
        with self.transaction() as sql:
            return steer.outcome(sql, recipe, digest)

    # -- contact sheets

    def recipes_with_sheets_due(self) -> list[str]:
        """See `sheets.recipes_with_sheets_due`."""
        with self.transaction() as sql:
            return sheets.recipes_with_sheets_due(sql)

    def sheets_due(self, recipe: str) -> list[DueSheet]:
        """See `sheets.sheets_due`."""
        with self.transaction() as sql:
            return sheets.sheets_due(sql, recipe)

    def reserve_sheet(self, sheet: DueSheet, recipe: str, names: FileNames) -> str:
        """The place of a contact sheet; the same again if a crash came between."""
        if sheet.file is not None:
            return sheet.file
        with self.transaction() as sql:
            file = queue.next_file(sql, names, recipe, lambda number: names.sheet(recipe, number))
            sql.execute("UPDATE entries SET sheet_file = ? WHERE id = ?", (file, sheet.entry))
            return file

    def mark_sheet_made(self, sheet: DueSheet) -> None:
        """The contact sheet is in its place."""
        with self.transaction() as sql:
            sql.execute("UPDATE entries SET sheet_made = 1 WHERE id = ?", (sheet.entry,))

    # -- questions

    def running(self) -> list[QueuedImage]:
        """What is in work, or was when the last daemon died."""
        with self.transaction() as sql:
            rows = sql.execute(f"{SELECT_IMAGE} WHERE state = 'running' ORDER BY {IN_ORDER}")
            return [QueuedImage.of(row) for row in rows]

    def recipe_of(self, image: QueuedImage) -> str:
        """The recipe of an image: it may have been renamed since the image was claimed."""
        with self.transaction() as sql:
            row = sql.execute("SELECT recipe FROM images WHERE id = ?", (image.id,)).fetchone()
            return row["recipe"] if row else image.recipe

    def is_asked(self, image: int) -> bool:
        """Whether the last good save of some recipe still asks for this image."""
        with self.transaction() as sql:
            found = sql.execute("SELECT 1 FROM asks WHERE image = ? LIMIT 1", (image,))
            return found.fetchone() is not None

    def counts(self) -> Counts:
        """Images by state, of all time; looked up again only after a change."""
        version = self._database.version
        known = self._counts
        if version is not None and known is not None and known[0] == version:
            return known[1]
        with self.transaction() as sql:
            rows = sql.execute("SELECT state, images FROM tallies")
            counts = Counts(**{row["state"]: row["images"] for row in rows})
        if version is not None:
            self._counts = version, counts
        return counts

    def recipe_counts(self, recipe: str) -> Counts:
        """Images by state that the recipe's last good save asks for."""
        with self.transaction() as sql:
            rows = sql.execute(
                """SELECT state, count(DISTINCT images.id) AS images FROM images
                   JOIN asks ON asks.image = images.id JOIN entries ON entries.id = asks.entry
                   WHERE entries.recipe = ? GROUP BY state""",
                (recipe,),
            )
            return Counts(**{row["state"]: row["images"] for row in rows})

    def newest_picture(self, recipe: str) -> str | None:
        """The file of the last picture that the recipe's last good save asks for, if it is made."""
        with self.transaction() as sql:
            row = sql.execute(
                """SELECT file FROM images WHERE recipe = ? AND state = 'done'
                   AND EXISTS (SELECT 1 FROM asks WHERE asks.image = images.id)
                   ORDER BY save DESC, place DESC, position DESC LIMIT 1""",
                (recipe,),
            ).fetchone()
            return row["file"] if row else None

    def failures(self, recipe: str) -> list[tuple[QueuedImage, str]]:
        """The failed images that the recipe's last good save asks for, with their reasons."""
        with self.transaction() as sql:
            rows = sql.execute(
                f"{SELECT_IMAGE} WHERE images.recipe = ? AND {FAILED} ORDER BY place, position",
                (recipe,),
            )
            return [(QueuedImage.of(row), row["reason"]) for row in rows]

    def succeeded(self, recipe: str) -> str | None:
        """The digest of the accepted bytes, if the recipe's images are all done; else None."""
        with self.transaction() as sql:
            row = sql.execute(
                """SELECT recipes.digest FROM recipes JOIN saves ON saves.id = recipes.save
                   WHERE path = ? AND outcome = 'accepted'""",
                (recipe,),
            ).fetchone()
        counts = self.recipe_counts(recipe)
        waiting = counts.queued + counts.running + counts.failed + counts.cancelled
        return row["digest"] if row and counts.done and not waiting else None

    def is_valid(self, recipe: str) -> bool:
        """Whether the recipe's last save was good."""
        with self.transaction() as sql:
            found = sql.execute(
                """SELECT 1 FROM recipes JOIN saves ON saves.id = recipes.save
                   WHERE path = ? AND outcome = 'accepted'""",
                (recipe,),
            )
            return found.fetchone() is not None

    def accepted_recipes(self) -> list[str]:
        """The recipes whose last save was good."""
        return self._recipes_by_outcome("accepted")

    def rejected_recipes(self) -> list[str]:
        """The recipes whose last save was refused."""
        return self._recipes_by_outcome("invalid")

    def _recipes_by_outcome(self, outcome: str) -> list[str]:
        with self.transaction() as sql:
            rows = sql.execute(
                """SELECT path FROM recipes JOIN saves ON saves.id = recipes.save
                   WHERE outcome = ?""",
                (outcome,),
            )
            return [row["path"] for row in rows]

    def unlisted(self) -> list[QueuedImage]:
        """Pictures that are published but stand in no list yet."""
        with self.transaction() as sql:
            rows = sql.execute(
                f"{SELECT_IMAGE} WHERE state = 'done' AND listed = 0 ORDER BY images.id"
            )
            return [QueuedImage.of(row) for row in rows]

    def mark_listed(self, image: int) -> None:
        """The picture stands in images.jsonl and the gallery."""
        with self.transaction() as sql:
            sql.execute("UPDATE images SET listed = 1 WHERE id = ?", (image,))

    def start_images_needed(self) -> set[str]:
        """The hashes of start images and masks that waiting images need."""
        needed = set()
        with self.transaction() as sql:
            rows = sql.execute(
                """SELECT request FROM images WHERE state IN ('queued', 'running')
                   AND request LIKE '%"start_image": {%'"""
            )
            for row in rows:
                request = request_of(row)
                needed |= {part.hash for part in (request.start_image, request.mask) if part}
        return needed

    # -- single facts

    def fact(self, name: str) -> str | None:
        """A remembered value."""
        with self.transaction() as sql:
            row = sql.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
            return row["value"] if row else None

    def remember(self, name: str, value: str) -> None:
        """Remember a value under a name."""
        with self.transaction() as sql:
            sql.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))


def _known(row: sqlite3.Row) -> KnownRecipe:
    try:
        return KnownRecipe(Stamp.from_text(row["stamp"]), row["digest"])
    except (TypeError, ValueError) as error:
        raise LedgerCorrupt(f"The ledger is damaged: a recipe's stamp is none: {error}.") from error
