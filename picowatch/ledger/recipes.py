"""The state of each recipe, and what users request besides saves: cancel and retry."""

from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path

from picowatch.ledger.accept import cancel_waiting
from picowatch.ledger.database import Database
from picowatch.ledger.queue import SELECT_IMAGE
from picowatch.ledger.rows import Counts, Outcome, QueuedImage, Waiting

FAILED = """state = 'failed' AND EXISTS (SELECT 1 FROM asks WHERE asks.image = images.id)"""


class Recipes(Database):
    """What is requested, recipe by recipe."""

    def __init__(self, path: Path, *, check: bool = False) -> None:
        """See `Database`."""
        super().__init__(path, check=check)
        self._counts: tuple[int, Counts] | None = None  # with the version of the ledger

    def retry(self, recipes: Iterable[str]) -> dict[str, int]:
        """Queue again the failed images that are still requested; returns counts by recipe."""
        with self.transaction() as sql:
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

    def recipes_with_failures(self) -> list[str]:
        """Recipes whose last valid save requests images that failed."""
        with self.transaction() as sql:
            rows = sql.execute(f"SELECT DISTINCT recipe FROM images WHERE {FAILED} ORDER BY recipe")
            return [row["recipe"] for row in rows]

    def cancel(self, recipes: Iterable[str]) -> int:
        """Cancel the recipes' queued images; returns how many."""
        with self.transaction() as sql:
            return cancel_waiting(sql, recipes)

    def waiting(self) -> Waiting:
        """The recipes with queued images in the order of their first ones, and how many.

        Priorities and saves decide that order, not the order within a file. The index
        of the queue holds all but the recipe, which is read from one image a save: images done
        long ago are not read.
        """
        with self.transaction() as sql:
            rows = sql.execute(
                """WITH queued AS (
                       SELECT save, count(*) AS waiting, max(priority) AS highest, min(id) AS first
                       FROM images INDEXED BY images_queue WHERE state = 'queued' GROUP BY save
                   )
                   SELECT recipe, sum(waiting) AS waiting
                   FROM queued JOIN images ON images.id = first
                   GROUP BY recipe ORDER BY max(highest) DESC, min(queued.save)"""
            )
            return tuple((row["recipe"], row["waiting"]) for row in rows)

    def recipes_in_work(self) -> Collection[str]:
        """The recipes of running images."""
        with self.transaction() as sql:
            rows = sql.execute(
                """SELECT DISTINCT recipe FROM images INDEXED BY images_running
                   WHERE state = 'running'"""
            )
            return {row["recipe"] for row in rows}

    def outcome(self, recipe: str, digest: str) -> Outcome | None:
        """The outcome of the save with these bytes; None if there was no such save.

        That is what it requests, or what was rendered for it if the recipe was retired since.
        """
        with self.transaction() as sql:
            saved = sql.execute(
                """SELECT id, outcome FROM saves WHERE recipe = ? AND digest = ?
                   ORDER BY id DESC LIMIT 1""",
                (recipe, digest),
            ).fetchone()
            if saved is None:
                return None
            rows = sql.execute(
                """SELECT DISTINCT images.id, state, file FROM images
                   LEFT JOIN asks ON asks.image = images.id
                   LEFT JOIN entries ON entries.id = asks.entry
                   WHERE images.recipe = :recipe
                   AND (entries.recipe = :recipe OR images.save = :save)
                   ORDER BY entry_index, image_index""",
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

    def counts(self) -> Counts:
        """Counts of all images by state; read again only after a change."""
        version = self.version
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
        """Counts by state of the images that the recipe's last valid save requests."""
        with self.transaction() as sql:
            rows = sql.execute(
                """SELECT state, count(DISTINCT images.id) AS images FROM images
                   JOIN asks ON asks.image = images.id JOIN entries ON entries.id = asks.entry
                   WHERE entries.recipe = ? GROUP BY state""",
                (recipe,),
            )
            return Counts(**{row["state"]: row["images"] for row in rows})

    def failures(self, recipe: str) -> list[tuple[QueuedImage, str]]:
        """The failed images that the recipe's last valid save requests, with their reasons."""
        with self.transaction() as sql:
            rows = sql.execute(
                f"""{SELECT_IMAGE} WHERE images.recipe = ? AND {FAILED}
                    ORDER BY entry_index, image_index""",
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
        """Whether the recipe's last save was valid."""
        with self.transaction() as sql:
            found = sql.execute(
                """SELECT 1 FROM recipes JOIN saves ON saves.id = recipes.save
                   WHERE path = ? AND outcome = 'accepted'""",
                (recipe,),
            )
            return found.fetchone() is not None

    def accepted_recipes(self) -> list[str]:
        """The recipes whose last save was valid."""
        return self._recipes_by_outcome("accepted")

    def rejected_recipes(self) -> list[str]:
        """The recipes whose last save was invalid."""
        return self._recipes_by_outcome("invalid")

    def _recipes_by_outcome(self, outcome: str) -> list[str]:
        with self.transaction() as sql:
            rows = sql.execute(
                """SELECT path FROM recipes JOIN saves ON saves.id = recipes.save
                   WHERE outcome = ?""",
                (outcome,),
            )
            return [row["path"] for row in rows]
