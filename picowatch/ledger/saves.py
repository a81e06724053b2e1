"""Saves as they are answered, and the recipes that the ledger knows."""

import sqlite3
from collections.abc import Callable, Sequence

from picowatch.errors import LedgerCorrupt
from picowatch.ledger.accept import (
    AWAITED,
    accept_save,
    cancel_unasked,
    forget_awaited,
    record_save,
)
from picowatch.ledger.database import Database
from picowatch.ledger.rename import prioritise, rename
from picowatch.ledger.restore import forget_restored
from picowatch.ledger.rows import Acceptance, AskedEntry
from picowatch.recipe.request import ImageRequest
from picowatch.save import KnownRecipe, Save, Stamp


class Saves(Database):
    """The last saves; `accept.py` and `rename.py` define what they mean."""

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
        """Accept a valid save with all its images, or not at all; see `accept_save`."""
        with self.transaction() as sql:
            return accept_save(sql, save, entries, batch_key, draw_seed, picture_exists, go_on)

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
        with self.transaction() as sql:
            rows = sql.execute("SELECT name, value FROM facts WHERE name GLOB ?", (f"{AWAITED}*",))
            return {row["name"].removeprefix(AWAITED): row["value"] for row in rows}

    def known_recipes(self) -> dict[str, KnownRecipe]:
        """Each recipe whose last save was answered."""
        with self.transaction() as sql:
            rows = sql.execute("SELECT path, stamp, digest FROM recipes")
            return {row["path"]: _known(row) for row in rows}

    def known_recipe(self, recipe: str) -> KnownRecipe | None:
        """The recipe as its last save was answered, or None."""
        with self.transaction() as sql:
            row = sql.execute("SELECT * FROM recipes WHERE path = ?", (recipe,)).fetchone()
            return _known(row) if row else None

    def forget(self, recipe: str) -> int:
        """The recipe is gone: cancel its queued images and forget its entries; returns how many."""
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
        """The digests of the saves that requested the recipe's images."""
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


def _known(row: sqlite3.Row) -> KnownRecipe:
    try:
        return KnownRecipe(Stamp.from_text(row["stamp"]), row["digest"])
    except (TypeError, ValueError) as error:
        raise LedgerCorrupt(
            f"The ledger is damaged: a recipe's stamp is not valid: {error}."
        ) from error
