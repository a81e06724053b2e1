"""The recipes that the ledger knows: their answers, their states, cancel and retry."""

import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable

from picowatch.errors import LedgerCorrupt
from picowatch.ledger.accept import AWAITED, cancel_queued, forget_recipe, record_save
from picowatch.ledger.database import Database
from picowatch.ledger.queue import SELECT_IMAGE, forget_missing
from picowatch.ledger.rows import Counts, Outcome, QueuedImage, QueuedRecipes, request_of
from picowatch.recipe.request import ImageRequest
from picowatch.save import KnownRecipe, Save, Stamp

RETIRED = "retired: "  # facts, each with a recipe
FAILED = """state = 'failed'
            AND EXISTS (SELECT 1 FROM entry_images WHERE entry_images.image = images.id)"""


class Recipes(Database):
    """Answers and states of recipes; `accept.py` defines saves, `rename.py` renames."""

    def reject(self, save: Save) -> None:
        """Record an invalid save, so that the same version is answered only once."""
        with self.transaction() as sql:
            record_save(sql, save, "invalid")

    def await_pictures(self, recipe: str, pictures: str) -> None:
        """Remember what pictures a refused recipe is waiting for, until its next answer."""
        if pictures:
            self.remember(AWAITED + recipe, pictures)

    def awaited(self) -> dict[str, str]:
        """The refused recipes that are waiting for pictures, and for which."""
        rows = self.select("SELECT name, value FROM facts WHERE name GLOB ?", (f"{AWAITED}*",))
        return {row["name"].removeprefix(AWAITED): row["value"] for row in rows}

    def known_recipes(self) -> dict[str, KnownRecipe]:
        """Each recipe whose last save was answered."""
        with self.transaction() as sql:
            rows = sql.execute("SELECT path, stamp, digest FROM recipes")
            return {row["path"]: _known(row) for row in rows}

    def known_recipe(self, recipe: str) -> KnownRecipe | None:
        """The recipe as its last save was answered, or None."""
        rows = self.select("SELECT stamp, digest FROM recipes WHERE path = ?", (recipe,))
        return _known(rows[0]) if rows else None

    def forget(self, recipe: str) -> int:
        """The recipe is gone: cancel its queued images and forget its entries; returns how many."""
        with self.transaction() as sql:
            return forget_recipe(sql, recipe)

    def retire(self, recipe: str) -> None:
        """All that it requests has ended, and its file was taken out of the inbox: forget it.

        `outcome` still needs to know its contact sheets, and which pictures of earlier saves its
        last save requested.
        """
        with self.transaction():
            last = self.select("SELECT save FROM recipes WHERE path = ?", (recipe,))
            rows = self.select(
                """SELECT DISTINCT images.id AS image FROM recipes
                   JOIN entries ON entries.recipe = recipes.path
                   JOIN entry_images ON entry_images.entry = entries.id
                   JOIN images ON images.id = entry_images.image
                   WHERE recipes.path = ? AND images.save != recipes.save""",
                (recipe,),
            )
            sheets = self._sheets(recipe)
            if last and (rows or sheets):
                kept = [last[0]["save"], [row["image"] for row in rows], *sheets]
                self.remember(RETIRED + recipe, json.dumps(kept))
            self.forget(recipe)

    def _kept_by(self, recipe: str, save: int) -> tuple[str, list[str]]:
        """What the recipe's save kept until it retired: images of earlier saves, contact sheets.

        The images as JSON of their ids.
        """
        last, images, *sheets = json.loads(self.fact(RETIRED + recipe) or "[0, []]")
        return (json.dumps(images), sheets) if last == save else ("[]", [])

    def _sheets(self, recipe: str) -> list[str]:
        """The contact sheets of the recipe's entries, drawn or given up."""
        rows = self.select(
            """SELECT sheet_file FROM entries
               WHERE recipe = ? AND sheet_done AND sheet_file IS NOT NULL ORDER BY id""",
            (recipe,),
        )
        return [row["sheet_file"] for row in rows]

    def saves_of_images(self, recipe: str) -> list[str]:
        """The digests of the saves that requested the recipe's images."""
        rows = self.select(
            """SELECT DISTINCT saves.digest FROM images JOIN saves ON saves.id = images.save
               WHERE images.recipe = ? ORDER BY saves.id""",
            (recipe,),
        )
        return [row["digest"] for row in rows]

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
                    """UPDATE entries SET sheet_file = NULL, sheet_done = 0 WHERE sheet IS NOT NULL
                       AND id IN (SELECT entry FROM entry_images WHERE image = ?)""",
                    [(row["id"],) for row in rows],
                )
                retried[recipe] += len(rows)
            return dict(+retried)

    def recipes_with_failures(self) -> list[str]:
        """Recipes whose last valid save requests images that failed."""
        rows = self.select(f"SELECT DISTINCT recipe FROM images WHERE {FAILED} ORDER BY recipe")
        return [row["recipe"] for row in rows]

    def cancel(self, recipes: Collection[str]) -> int:
        """Cancel the recipes' queued images, and those that wait for pictures; returns how many."""
        with self.transaction() as sql:
            return cancel_queued(sql, recipes) + forget_missing(sql, recipes)

    def queued_recipes(self) -> QueuedRecipes:
        """The recipes with queued images in the order of their first ones, and how many.

        Priorities and saves decide that order, not the order within a file. The index
        of the queue holds all but the recipe, which is read from one image a save: images done
        long ago are not read.
        """
        rows = self.select(
            """WITH queued AS (
                   SELECT save, count(*) AS images, max(priority) AS highest, min(id) AS first
                   FROM images INDEXED BY images_queue WHERE state = 'queued' GROUP BY save
               )
               SELECT recipe, sum(queued.images) AS images
               FROM queued JOIN images ON images.id = first
               GROUP BY recipe ORDER BY max(highest) DESC, min(queued.save)"""
        )
        return tuple((row["recipe"], row["images"]) for row in rows)

    def recipes_in_progress(self) -> list[str]:
        """The recipes of running images."""
        rows = self.select(
            "SELECT DISTINCT recipe FROM images INDEXED BY images_running WHERE state = 'running'"
        )
        return [row["recipe"] for row in rows]

    def outcome(self, recipe: str, digest: str) -> Outcome | None:
        """The outcome of the save with these bytes; None if there was no such save.

        That is what it requests, or what was rendered for it if the recipe was retired since.
        """
        with self.transaction():
            saves = self.select(
                """SELECT id, outcome FROM saves WHERE recipe = ? AND digest = ?
                   ORDER BY id DESC LIMIT 1""",
                (recipe, digest),
            )
            if not saves:
                return None
            kept, sheets = self._kept_by(recipe, saves[0]["id"])
            images = self.select(
                """SELECT DISTINCT images.id, state, file FROM images
                   LEFT JOIN entry_images ON entry_images.image = images.id
                   LEFT JOIN entries ON entries.id = entry_images.entry
                   WHERE images.recipe = :recipe
                   AND (entries.recipe = :recipe OR images.save = :save
                        OR images.id IN (SELECT value FROM json_each(:kept)))
                   ORDER BY entry_index, image_index""",
                {"recipe": recipe, "save": saves[0]["id"], "kept": kept},
            )
            sheets = self._sheets(recipe) or sheets
        states = Counter(image["state"] for image in images)
        return Outcome(
            valid=saves[0]["outcome"] == "accepted",
            pictures=tuple(image["file"] for image in images if image["state"] == "done"),
            unfinished=states["queued"] + states["running"],
            failed=states["failed"],
            cancelled=states["cancelled"],
            sheets=tuple(sheets),
        )

    def counts(self) -> Counts:
        """Counts of all images by state."""
        rows = self.select("SELECT state, images FROM tallies")
        return Counts(**{row["state"]: row["images"] for row in rows})

    def queued_kinds(self, recipe: str | None = None) -> list[tuple[ImageRequest, int]]:
        """How many images are queued that can be rendered together, with one request of each kind.

        Of a recipe, or of the whole queue.
        """
        kinds = """SELECT batch_key, count(*) AS images, min(id) AS first
                   FROM images INDEXED BY images_alike WHERE state = 'queued' GROUP BY batch_key"""
        if recipe is not None:
            kinds = """SELECT batch_key, count(DISTINCT images.id) AS images,
                              min(images.id) AS first
                       FROM entries JOIN entry_images ON entry_images.entry = entries.id
                       JOIN images ON images.id = entry_images.image
                       WHERE entries.recipe = :recipe AND state = 'queued' GROUP BY batch_key"""
        rows = self.select(
            f"""SELECT images.request, kinds.images FROM ({kinds}) AS kinds
                JOIN images ON images.id = kinds.first""",
            {"recipe": recipe},
        )
        return [(request_of(row), row["images"]) for row in rows]

    def recipe_counts(self, recipe: str) -> Counts:
        """Counts by state of the images that the recipe's last valid save requests."""
        rows = self.select(
            """SELECT state, count(DISTINCT images.id) AS images FROM images
               JOIN entry_images ON entry_images.image = images.id
               JOIN entries ON entries.id = entry_images.entry
               WHERE entries.recipe = ? GROUP BY state""",
            (recipe,),
        )
        return Counts(**{row["state"]: row["images"] for row in rows})

    def failures(self, recipe: str) -> list[tuple[QueuedImage, str]]:
        """The failed images that the recipe's last valid save requests, with their reasons."""
        rows = self.select(
            f"""{SELECT_IMAGE} WHERE images.recipe = ? AND {FAILED}
                ORDER BY entry_index, image_index""",
            (recipe,),
        )
        return [(QueuedImage.of(row), row["reason"]) for row in rows]

    def succeeded(self, recipe: str) -> str | None:
        """The digest of the accepted bytes, if the recipe's images are all done; else None."""
        counts = self.recipe_counts(recipe)
        unfinished = counts.queued + counts.running + counts.failed + counts.cancelled
        return self._accepted(recipe) if counts.done and not unfinished else None

    def is_valid(self, recipe: str) -> bool:
        """Whether the recipe's last save was valid."""
        return self._accepted(recipe) is not None

    def _accepted(self, recipe: str) -> str | None:
        """The digest of the recipe's last save, if it was valid."""
        rows = self.select(
            """SELECT recipes.digest FROM recipes JOIN saves ON saves.id = recipes.save
               WHERE path = ? AND outcome = 'accepted'""",
            (recipe,),
        )
        return rows[0]["digest"] if rows else None

    def accepted_recipes(self) -> list[str]:
        """The recipes whose last save was valid."""
        return self._recipes_by_outcome("accepted")

    def rejected_recipes(self) -> list[str]:
        """The recipes whose last save was invalid."""
        return self._recipes_by_outcome("invalid")

    def _recipes_by_outcome(self, outcome: str) -> list[str]:
        rows = self.select(
            "SELECT path FROM recipes JOIN saves ON saves.id = recipes.save WHERE outcome = ?",
            (outcome,),
        )
        return [row["path"] for row in rows]


def _known(row: sqlite3.Row) -> KnownRecipe:
    try:
        return KnownRecipe(Stamp.from_text(row["stamp"]), row["digest"])
    except (TypeError, ValueError) as error:
        raise LedgerCorrupt(
            f"The ledger is damaged: a recipe's stamp is not valid: {error}."
        ) from error
